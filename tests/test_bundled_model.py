"""The model in the package: small, a plain open_clip model, and good for what its card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clipseg_cli.data.classes import load_benchmark
from clipseg_cli.models.clip.backbones import load_backbone

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "clipseg_cli" / "models" / "bundled" / "emoji"
WORDS = (FOLDER / "words.txt").read_text(encoding="utf-8").split("\n")


def test_it_is_small_enough_to_ship() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 16_000_000


def test_it_knows_hundreds_of_words() -> None:
    assert len(set(filter(None, WORDS))) >= 300
    things = set(load_benchmark("voc20")["labels"])
    spelt = {"pottedplant": "potted plant", "diningtable": "dining table"}
    assert not [name for name in things if spelt.get(name, name) not in WORDS]
    assert {"sky", "grass", "water", "building", "ground", "tree", "background"} <= set(WORDS)


@torch.inference_mode()
def test_it_is_a_plain_open_clip_model(tmp_path: Path) -> None:
    """Config and weights work without this tool, and give what this tool loads."""
    config = json.loads((FOLDER / "config.json").read_text())["model_cfg"]
    plain = open_clip.CLIP(**config).eval()
    plain.load_state_dict(load_file(FOLDER / "model.safetensors"), strict=True)
    backbone = load_backbone("emoji", None, torch.device("cpu"))
    image = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(plain.encode_image(image), backbone.model.encode_image(image))
    tokens = backbone.tokenizer(["a red car"])
    torch.testing.assert_close(plain.encode_text(tokens), backbone.model.encode_text(tokens))


@pytest.mark.parametrize(
    ("image", "classes", "places"),
    [
        # (x, y) as shares of the picture: the doors of the cars, the chests of the figures, the card.
        ("cars.png", "red car,blue car", {"red car": (0.27, 0.79), "blue car": (0.72, 0.79)}),
        (
            "night_heroes.png",
            "superhero,supervillain,joker",
            {"superhero": (0.28, 0.37), "supervillain": (0.77, 0.62), "joker": (0.50, 0.85)},
        ),
    ],
)
def test_it_finds_the_words_in_the_samples(cli, tmp_path, image, classes, places) -> None:
    done = cli("segment", ROOT / "samples" / image, "-c", classes, "--model", "emoji", "--out", tmp_path)
    assert done.code == 0, done.err
    labels = np.asarray(Image.open(tmp_path / image))
    names = [row["name"] for row in json.loads((tmp_path / "classes.json").read_text())["classes"]]
    height, width = labels.shape
    for name, (x, y) in places.items():
        around = labels[int(y * height) - 4 : int(y * height) + 5, int(x * width) - 4 : int(x * width) + 5]
        assert names[np.bincount(around.ravel()).argmax()] == name


@pytest.mark.parametrize("spoil", ["width", "missing", "cut", "nan"])
def test_damaged_weights_in_the_package_are_a_sentence(cli, tmp_path, monkeypatch, spoil) -> None:
    own = tmp_path / "bundled" / "emoji"
    shutil.copytree(FOLDER, own)
    weights = own / "model.safetensors"
    if spoil == "width":
        config = json.loads((own / "config.json").read_text())
        config["model_cfg"]["vision_cfg"]["width"] = 128
        (own / "config.json").write_text(json.dumps(config))
    elif spoil == "missing":
        weights.unlink()
    elif spoil == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    else:
        state = load_file(weights)
        state["visual.proj"][0, 0] = float("nan")
        save_file(state, weights)
    monkeypatch.setattr("clipseg_cli.models.clip.architectures.BUNDLED", tmp_path / "bundled")
    done = cli(
        "segment", ROOT / "samples/cars.png", "-c", "red car", "--model", "emoji", "--out", tmp_path / "out"
    )
    assert done.code == 1 and done.err.count("Error: ") == 1 and "Traceback" not in done.err
    assert "Hint: " in done.err and not (tmp_path / "out").exists()
