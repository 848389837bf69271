"""A command that trains shortly, and what its student says of an image.

A test file imports the fixture that it uses; its name is `words`.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from small_backbone import SMALL_WORDS
from training_trees import WORDS


@pytest.fixture(name="words")
def training_words(label_run, tmp_path):
    """A command that trains for four iterations into `tmp_path/run`."""
    return ("train", "--labels", label_run, *WORDS, *SMALL_WORDS, "--out", tmp_path, "--name", "run")


def segment(cli, image, student, out):
    """Label one image, and return its label map."""
    done = cli("segment", image, "--student", student, "--device", "cpu", "--out", out)
    assert done.code == 0, done.err
    (path,) = out.glob("*.png") if len(list(out.glob("*.png"))) == 1 else out.glob("*labels*.png")
    with Image.open(path) as labels:
        return np.asarray(labels)
