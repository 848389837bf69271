"""Parity with the authors' own code on random weights; one test for each case of the manifests."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import golden_clip
import golden_images
import golden_memory
import golden_papers
import golden_propagation
import golden_regions
import numpy as np
import pytest
import torch
from golden_cases import CASES, CLIP_MEAN, CLIP_STD, cases_of, compare

from clipseg_cli.config import SegmentConfig
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.methods import METHODS, clip_diy
from clipseg_cli.models.clip.backbones import Backbone
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, Reading

CHECKS = {
    **golden_papers.CHECKS,
    **golden_images.CHECKS,
    **golden_clip.CHECKS,
    **golden_regions.CHECKS,
    **golden_propagation.CHECKS,
    **golden_memory.CHECKS,
}


@pytest.mark.parametrize("name", CASES)
def test_reproduces_the_reference(name: str) -> None:
    case = CASES[name]
    assert case.method in CHECKS, f"no implementation of {case.method} is checked yet"
    given, expected = case.load()
    with torch.inference_mode():
        found = CHECKS[case.method](case, given)
    for key, reference in expected.items():
        compare(f"{name}: {key}", found[key], reference, case.tensors[f"out.{key}"])


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("naclip_square", {"gaussian_std": 2.0}),
        ("clipdiy_tiled", {"patch_weights": [3.0, 1.0, 1.0]}),
        ("clipdiy_tiled", {"strides": [1]}),
    ],
)
def test_options_are_those_of_the_manifest(name: str, changed: dict[str, object]) -> None:
    """With another one the reference is not reproduced: nobody has it written down elsewhere."""
    if name not in CASES and "CLIPSEG_GOLDEN_DIR" in os.environ:
        pytest.skip("these are other cases")
    case = CASES[name]
    given, expected = case.load()
    with torch.inference_mode():
        found = CHECKS[case.method](case.with_options(**changed), given)
    with pytest.raises(AssertionError, match="differ"):
        for key, reference in expected.items():
            if found[key].numel() == reference.numel():
                compare(f"{name}: {key}", found[key], reference, case.tensors[f"out.{key}"])


@pytest.mark.parametrize("name", cases_of("maskclip_vit_end_to_end"))
def test_protocol_maskclip_repeats_the_published_code(name: str) -> None:
    """The same case through the loop that every command uses: resize, pad, read, upsample twice, argmax."""
    case = CASES[name]
    given, expected = case.load()
    short, _ = map(int, re.findall(r"side (?:at most )?(\d+)", case.options["resize"]))
    classes = len(given["text"])
    backbone = Backbone(
        model=SimpleNamespace(visual=case.tower()),
        tokenizer=lambda words: pytest.fail("the words are given"),
        name="golden",
        pretrained="random",
        fingerprint="",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        image_size=64,
        short_side=64,
        logit_scale=100.0,
    )
    names = tuple(f"class {i}" for i in range(classes))
    predictor = Predictor(
        backbone,
        METHODS.get("maskclip"),
        ClassList(names, tuple((name,) for name in names)),
        given["text"],
        SegmentConfig(protocol="maskclip", short_side=short),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    image = DecodedImage(ImageSource(None, PurePosixPath("golden")), given["original"].numpy())
    (result,) = predictor.predict([predictor.prepare(image)])
    labels = torch.from_numpy(result.labels)
    compare(f"{name}: through the pipeline", labels, expected["pred"], case.tensors["out.pred"])


@pytest.mark.parametrize("name", cases_of("clip_diy"))
def test_protocol_clip_diy_repeats_the_published_code(name: str, tmp_path: Path) -> None:
    """The same case through the loop that every command uses, with saliency from a folder of maps."""
    case = CASES[name]
    given, expected = case.load()
    o, pixels = case.options, given["image"][0].permute(1, 2, 0).numpy()
    side, classes = pixels.shape[0], len(given["text"])
    np.save(tmp_path / "picture.npy", given["saliency"][0, 0].numpy())
    net = dense_reader(case.tower(), METHODS.get("vanilla"), Reading(o["activation"], o["ln_eps"])).tower
    backbone = Backbone(
        model=SimpleNamespace(visual=net.visual, encode_image=net.visual),
        tokenizer=lambda words: pytest.fail("the words are given"),
        name="golden",
        pretrained="random",
        fingerprint="",
        mean=tuple(CLIP_MEAN.tolist()),
        std=tuple(CLIP_STD.tolist()),
        image_size=case.weights_entry["constructor_kwargs"]["image_size"],
        short_side=64,
        logit_scale=100.0,
    )
    names = tuple(f"class {i}" for i in range(classes))
    (stride,) = set(golden_images.strides_of(o))
    pyramid = replace(
        clip_diy.METHOD.pyramid,
        parts=tuple(p / side for p in o["patch_sizes"]),
        weights=tuple(o["patch_weights"]),
        stride=stride,
        nearest=not o["interpolate_logits"],
    )
    for saliency, key in ((str(tmp_path), "fused_pred"), ("none", "plain_pred")):
        predictor = Predictor(
            backbone,
            replace(clip_diy.METHOD, pyramid=pyramid),
            ClassList(names, tuple((name,) for name in names), 0),
            given["text"],
            SegmentConfig(protocol="clip-diy", short_side=side, saliency=saliency),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        image = DecodedImage(ImageSource(None, PurePosixPath("picture")), pixels)
        (result,) = predictor.predict([predictor.prepare(image)])
        compare(f"{name}: {key}", torch.from_numpy(result.labels), expected[key], case.tensors[f"out.{key}"])


@pytest.mark.skipif("maskclip_vit_square" not in CASES, reason="about that case")
def test_a_wrong_eps_would_be_noticed() -> None:
    """The comparison has teeth: the reference fails with CLIP's own LayerNorm eps."""
    case = CASES["maskclip_vit_square"]
    given, expected = case.load()
    with torch.inference_mode():
        logits = golden_papers.check_maskclip(case.with_options(ln_eps=1e-5), given)["logits"]
    assert (logits - expected["logits"]).abs().max() > 1e-4
