"""Small drawn images with regions, and sources of regions, for tests."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from clipseg_cli.config import InferenceConfig
from clipseg_cli.inference.hyperparameters import Chosen
from clipseg_cli.inference.regions import load_regions
from clipseg_cli.types import DecodedImage, ImageSource

CPU = torch.device("cpu")
EMOJI = ("--model", "emoji", "--device", "cpu", "-c", "car,tree,house")


def image_of(pixels: np.ndarray, name: str = "x") -> DecodedImage:
    return DecodedImage(ImageSource(None, PurePosixPath(name)), pixels)


def drawing(height: int = 60, width: int = 90) -> np.ndarray:
    """A red disc on two grounds, with a little noise."""
    y, x = np.mgrid[:height, :width]
    pixels = np.where((y < height // 2)[..., None], (120, 180, 240), (60, 140, 60))
    pixels[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2] = (220, 30, 30)
    noise = np.random.default_rng(0).integers(-4, 5, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def source(text: str, **hyperparameters: Any) -> Any:
    config = InferenceConfig(regions=text)
    name = text.partition("=")[0]
    found = load_regions(config, Chosen(hyperparameters={name: hyperparameters}), CPU, torch.float32)
    assert found is not None
    return found
