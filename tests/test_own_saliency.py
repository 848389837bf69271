"""The head beside the bundled tower: it fits, CLIP-DIY takes it by itself, and what may be wrong with it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from clipseg_cli.config import BUNDLED_MODEL, NO_SALIENCY, SALIENCY_HEADS, EvalConfig, InferenceConfig
from clipseg_cli.models.auxiliary import saliency
from clipseg_cli.models.auxiliary.clip_vit import ClipViT
from clipseg_cli.models.auxiliary.saliency import OWN_HEAD, Found
from clipseg_cli.models.clip.architectures import BUNDLED
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.checkpoints import read_metadata

EMOJI = ("--model", BUNDLED_MODEL, "--device", "cpu", "--templates", "single")
COARSE = ("--set", "clip_diy.parts=1", "--set", "clip_diy.weights=1")
"""One scale instead of three: two crops of the small image."""

HEROES = "superhero,supervillain,joker"
NIGHT = Path("samples/night_heroes.png")


@pytest.fixture
def small_image(tmp_path) -> Path:
    """A sample at an eighth of its pixels, so that CLIP-DIY is quick."""
    path = tmp_path / "night.png"
    with Image.open(NIGHT) as image:
        image.convert("RGB").resize((image.width // 3, image.height // 3)).save(path)
    return path


def record(folder: Path) -> Any:
    return json.loads((folder / "classes.json").read_text("utf-8"))


def test_the_models_with_a_head_are_those_whose_folder_has_one() -> None:
    assert sorted(SALIENCY_HEADS) == sorted(path.parent.name for path in BUNDLED.glob(f"*/{OWN_HEAD}"))


@pytest.mark.parametrize("name", SALIENCY_HEADS)
@torch.inference_mode()
def test_the_head_in_the_package_fits_the_tower_in_the_package(name: str) -> None:
    backbone = load_backbone(name, None, torch.device("cpu"))
    head = Found.own(backbone)
    vit = ClipViT(backbone.model.visual, backbone.mean, backbone.std)
    assert read_metadata(BUNDLED / name / OWN_HEAD) == {"tower": vit.fingerprint, "reads": head.reads}
    assert head.fingerprint.startswith(vit.fingerprint)
    with Image.open(NIGHT) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB").resize((448, 320)))).permute(2, 0, 1)
    found = head(pixels[None].float() / 255)
    assert found.shape[0] == 1 and 900 < found.shape[2] * found.shape[3] / vit.patch**2 <= 1024
    assert found[0, 0, :24].mean() < 0.5 < found.max()  # the night sky is none


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"method": "clip_diy"}, "found"),
        ({"method": "clip-diy", "pretrained": "bundled"}, "found"),
        ({"method": "clip_diy", "saliency": "none"}, NO_SALIENCY),
        ({"method": "clip_diy", "saliency": "clip"}, "clip"),
        ({"method": "clip_diy", "model": "ViT-B-32"}, NO_SALIENCY),
        ({"method": "clip_diy", "pretrained": "mine.pt"}, NO_SALIENCY),
        ({"method": "clip_diy", "protocol": "clip-diy"}, NO_SALIENCY),
        ({"method": "clip_diy", "student": "runs/train/x"}, NO_SALIENCY),
        ({"protocol": "clip-diy"}, NO_SALIENCY),
        ({}, NO_SALIENCY),
        ({"method": "maskclip"}, NO_SALIENCY),
    ],
)
def test_only_clip_diy_takes_a_head_by_itself(options: dict[str, str], kind: str) -> None:
    config = InferenceConfig(**{"model": BUNDLED_MODEL, **options})
    assert config.saliency_name() == kind
    assert config.saliency_name(background=False) == (kind if "saliency" in options else NO_SALIENCY)
    assert config.refinements() == ({} if kind == NO_SALIENCY else {"saliency": kind})


def test_clip_diy_finds_the_foreground_and_says_with_what(cli, small_image, tmp_path) -> None:
    args = ("segment", small_image, "-c", HEROES, *EMOJI, "--method", "clip-diy", *COARSE)
    done = cli(*args, "--out", tmp_path / "auto")
    assert done.code == 0, done.err
    assert "clip-diy takes --saliency found, the head beside the tower of emoji" in done.err
    made = record(tmp_path / "auto")
    assert made["options"]["saliency"] == "found"
    assert made["model"]["settings"]["auxiliary"]["saliency"]
    with Image.open(tmp_path / "auto" / "night.png") as image:
        labels = np.asarray(image)
    assert 0.02 < (labels > 0).mean() < 0.9

    done = cli(*args, "--saliency", "found", "--out", tmp_path / "found")
    assert done.code == 0 and "takes --saliency" not in done.err
    assert record(tmp_path / "found")["options"] == {**made["options"], "out": str(tmp_path / "found")}
    with Image.open(tmp_path / "found" / "night.png") as image:
        assert np.array_equal(labels, np.asarray(image))


@pytest.mark.parametrize("extra", [("--saliency", "none"), ("--background", "none")])
def test_without_it_clip_diy_does_without(cli, small_image, tmp_path, extra) -> None:
    args = ("segment", small_image, "-c", HEROES, *EMOJI, "--method", "clip_diy", *COARSE)
    done = cli(*args, *extra, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "saliency" not in done.err
    made = record(tmp_path / "out")
    assert made["options"]["saliency"] == "none" and "beside" not in made["model"]["settings"]


def test_an_evaluation_is_called_after_what_it_used() -> None:
    def name(background: int | None, **options: Any) -> str:
        from clipseg_cli.runs.find import evaluation_name
        from clipseg_cli.types import ClassList, Dataset

        classes = ClassList(("a", "b"), (("a",), ("b",)), background)
        data = Dataset("voc", "VOC", Path("data"), "voc21", "val", classes, ())
        return evaluation_name(data, EvalConfig(model=BUNDLED_MODEL, **options))

    assert name(0, method="vanilla") == "data-voc21-val-emoji-vanilla"
    assert name(0, method="vanilla", saliency="none") == "data-voc21-val-emoji-vanilla"
    assert name(0, method="clip_diy") == "data-voc21-val-emoji-clip_diy-found"
    assert name(None, method="clip_diy") == "data-voc21-val-emoji-clip_diy"


# What may be wrong


@pytest.fixture
def own_head(monkeypatch, tmp_path) -> Path:
    """Where the head of the bundled model is looked for: nothing is there."""
    path = tmp_path / "package" / OWN_HEAD
    path.parent.mkdir()
    monkeypatch.setattr(saliency, "bundled_file", lambda name, model: path)
    return path


def facts() -> dict[str, str]:
    return read_metadata(BUNDLED / BUNDLED_MODEL / OWN_HEAD)


def tensors(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    names = {key.replace("decoder_", "decoder."): value for key, value in changed.items()}
    return load_file(BUNDLED / BUNDLED_MODEL / OWN_HEAD) | names


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (None, "the saliency head of emoji is missing in this installation"),
        (b"", "is empty (0 bytes)"),
        (b"not weights at all", "is not a weight file"),
        ({"decoder_weight": torch.full((1, 192, 1, 1), torch.nan)}, "not all of its weights are numbers"),
        ({"decoder_weight": torch.zeros(1, 384, 1, 1)}, "is for 384 channels, and the network has"),
        ({"decoder_weight": torch.zeros(192)}, "is no 1x1 convolution to one map"),
        ({"decoder_bias": torch.zeros(3)}, "is no 1x1 convolution to one map"),
        ({"tower": "0123456789abcdef"}, "was trained for another tower: 0123456789abcdef"),
        ({"reads": "x"}, "does not say which features it reads"),
        ({"reads": ""}, "does not say which features it reads"),
    ],
)
def test_a_head_that_is_missing_damaged_or_of_another_tower_is_said(
    cli, own_head, make_image, tmp_path, damage, said
) -> None:
    if isinstance(damage, bytes):
        own_head.write_bytes(damage)
    elif damage is not None:
        weights = {key: value for key, value in damage.items() if isinstance(value, torch.Tensor)}
        texts = {key: value for key, value in damage.items() if isinstance(value, str)}
        save_file(tensors(**weights), own_head, facts() | texts)
    done = cli("segment", make_image(tmp_path / "x.png"), "-c", "cat", *EMOJI, "--saliency", "found")
    assert done.code == 1
    assert said in done.err and "--saliency none" in done.err
    assert "Traceback" not in done.err


def test_a_missing_head_stops_only_who_asks_for_it(cli, own_head, make_image, tmp_path) -> None:
    args = ("segment", make_image(tmp_path / "x.png"), "-c", "cat", *EMOJI, "--out", tmp_path / "out")
    assert cli(*args, "--method", "clip_diy").code == 1
    assert cli(*args, "--method", "clip_diy", "--saliency", "none", *COARSE).code == 0
    assert cli(*args).code == 0


def test_a_model_without_a_head_asks_for_dino_and_names_those_that_have_one(
    cli, tiny_clip, make_image, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(hub, "reachable", lambda url, seconds=0: False)
    monkeypatch.setattr(hub, "cached_weights", lambda tag: None)
    image = make_image(tmp_path / "x.png")
    args = (
        "segment",
        image,
        "-c",
        "cat",
        *tiny_clip.options,
        "--templates",
        "single",
        "--out",
        tmp_path / "out",
    )
    done = cli(*args, "--saliency", "found")
    assert done.code == 1 and "Traceback" not in done.err
    assert "vit_small_patch8_224.dino is not on this machine" in done.err
    assert "--model emoji" in " ".join(done.err.split())
    assert cli(*args, "--method", "clip_diy").code == 0  # by itself it asks nothing


# Words


def test_words_it_was_never_taught_are_said_once_with_what_is_near(cli, make_image, tmp_path) -> None:
    images = [make_image(tmp_path / "in" / f"{i}.png", seed=i) for i in range(3)]
    done = cli("segment", *images, "-c", "superheroe,flibbertigibbet,dog", *EMOJI, "--out", tmp_path / "out")
    assert done.code == 0
    said = " ".join(done.err.split())
    assert said.count("was never taught") == 1
    assert "never taught 'superheroe', 'flibbertigibbet'" in said
    assert "did you mean 'superhero' for 'superheroe'?" in said
