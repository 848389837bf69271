"""What can be put on top of any method, through the command: presence, PAMR, saliency, other networks, `auto`."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from clipseg_cli import Segmenter
from clipseg_cli.commands.segment import plan_segmentation
from clipseg_cli.config import BUNDLED_MODEL, InferenceConfig, SegmentConfig, TrainConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.auxiliary import FOUND_HEAD
from clipseg_cli.methods import METHODS
from clipseg_cli.models.weights import hub
from clipseg_cli.training.targets import Teacher
from clipseg_cli.training.task import check_sources
from clipseg_cli.types import DecodedImage, ImageSource

EMOJI = ("--model", BUNDLED_MODEL, "--device", "cpu")
SAMPLE = "samples/cars.png"
WORDS = "car,tree,house,cat,boat,sheep,bottle,bus,bicycle,sofa"
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}


def labels_of(folder: Any, stem: str = "cars") -> np.ndarray:
    with Image.open(folder / f"{stem}.png") as image:
        return np.asarray(image)


def shares_of(done: Any) -> dict[str, float]:
    (image,) = json.loads(done.out)["images"]
    return {row["name"]: row["share"] for row in image["classes"] if row["pixels"]}


@pytest.fixture
def tiny_dino(monkeypatch, tmp_path):
    """A file of weights for DINO, which timm builds small here."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **k: create(name, **{**k, **SMALL}))
    torch.manual_seed(0)
    path = tmp_path / "dino.safetensors"
    save_file(create("vit_small_patch8_224", num_classes=0, **SMALL).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("model", "protocol", "method"),
    [
        ("ViT-B-16", "default", "sc_clip"),
        ("ViT-B/16", "sclip", "sc_clip"),
        ("ViT-L-14-quickgelu", "default", "sc_clip"),
        ("ViT-B-16-SigLIP2", "default", "maskclip"),
        ("RN50", "default", "maskclip"),
        ("convnext_base", "default", "maskclip"),
        ("emoji", "default", "vanilla"),
        ("ViT-B-16", "maskclip", "maskclip"),
        ("emoji", "clip-diy", "clip_diy"),
        ("RN50", "sclip-paper", "sclip"),
    ],
)
def test_auto_is_the_protocol_s_method_or_the_best_for_the_model(model, protocol, method):
    assert InferenceConfig(model=model, protocol=protocol).method_name == method
    assert InferenceConfig(model=model, protocol=protocol, method="gem").method_name == "gem"


def test_results_name_the_method_that_auto_took(cli, tmp_path):
    assert cli("segment", SAMPLE, "-c", "car,tree", *EMOJI, "--out", tmp_path / "auto").code == 0
    made = json.loads((tmp_path / "auto" / "classes.json").read_text("utf-8"))
    assert made["method"] == made["options"]["method"] == "vanilla"
    assert (
        cli(
            "segment", SAMPLE, "-c", "car,tree", *EMOJI, "--method", "vanilla", "--out", tmp_path / "own"
        ).code
        == 0
    )
    assert np.array_equal(labels_of(tmp_path / "auto"), labels_of(tmp_path / "own"))


def test_presence_drops_what_is_not_there_and_keeps_what_is(cli, tmp_path):
    seen = ("cow", "sheep", "horse", "tractor", "tree", "house")
    words = ",".join(
        (*seen, "car", "cat", "boat", "bottle", "bus", "bicycle", "sofa", "chair", "train", "pizza")
    )
    args = ("segment", "samples/farm_large.jpg", "-c", words, *EMOJI, "--json", "--out", tmp_path)
    plain, present = shares_of(cli(*args)), shares_of(cli(*args, "--presence"))
    there = {"background", *seen}
    assert there <= set(present) < set(plain)
    assert sum(present[n] for n in there) > sum(plain[n] for n in there)


@pytest.mark.parametrize("method", [n for n in METHODS.names() if not METHODS.get(n).guided])
def test_every_method_takes_every_refinement(cli, tiny_clip, make_image, tmp_path, method):
    image = make_image(tmp_path / "x.png", 72, 88)
    refined = ["--prompt-denoising", "0.3", "--presence", "--pamr", "2", "--saliency", "clip"]
    if METHODS.get(method).pyramid is None:  # its patches never meet, so that they have no keys
        refined += ["--key-smoothing", "0.9"]
    args = ("segment", image, "-c", "cat,dog", *tiny_clip.options, "--templates", "single", "--quiet")
    done = cli(*args, "--method", method, *refined, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert labels_of(tmp_path / "out", "x").shape == (72, 88)
    settings = json.loads((tmp_path / "out" / "classes.json").read_text("utf-8"))["model"]["settings"]
    steps = {step["name"]: step["value"] for step in settings["refinements"]}
    assert steps["presence"] == "evidence" and steps["pamr"] == 2 and steps["prompt_denoising"] == 0.3


def test_key_smoothing_of_separate_patches_is_refused(cli, make_image, tmp_path):
    image = make_image(tmp_path / "x.png")
    done = cli("segment", image, "-c", "cat", *EMOJI, "--method", "clip-diy", "--key-smoothing", "1")
    assert done.code == 2
    assert "clip-diy has no keys" in done.err and "Hint: leave out --key-smoothing" in done.err


def test_pamr_moves_borders_and_little_else(cli, tmp_path):
    args = ("segment", SAMPLE, "-c", "car,tree,house", *EMOJI, "--quiet")
    assert cli(*args, "--out", tmp_path / "plain").code == 0
    assert cli(*args, "--pamr", "5", "--out", tmp_path / "pamr").code == 0
    moved = (labels_of(tmp_path / "plain") != labels_of(tmp_path / "pamr")).mean()
    assert 0.001 < moved < 0.1


def test_maps_from_anywhere_decide_what_is_background(cli, make_image, tmp_path):
    images = [make_image(tmp_path / "in" / f"{n}.png", 64, 64, seed) for seed, n in enumerate("abc")]
    maps = tmp_path / "maps"
    maps.mkdir()
    left = np.zeros((8, 8), np.float32)
    left[:, :4] = 1
    np.save(maps / "a.npy", left)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(maps / "b.png")
    # Cosines of the bundled model are positive, so that nothing beats what saliency takes to zero.
    done = cli(
        *("segment", *images, "-c", "cat,dog", *EMOJI, "--method", "clip-diy", "--saliency", maps),
        *("--out", tmp_path / "out"),
    )
    assert done.code == 1
    assert "there is no saliency map" in done.err and "c.npy" in done.err
    found = labels_of(tmp_path / "out", "a")
    assert (found[:, :24] > 0).all() and (found[:, 40:] == 0).all()
    assert (labels_of(tmp_path / "out", "b") == 0).all()
    assert not (tmp_path / "out" / "c.png").exists()


@pytest.mark.parametrize("method", ["proxyclip", "dinoiser"])
def test_another_network_says_which_patches_belong_together(
    cli, tiny_clip, make_image, tmp_path, tiny_dino, method
):
    image = make_image(tmp_path / "x.png", 72, 88)
    args = ("segment", image, "-c", "cat,dog", *tiny_clip.options, "--templates", "single", "--quiet")
    done = cli(*args, "--method", method, "--guide", f"dino={tiny_dino}", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    made = json.loads((tmp_path / "out" / "classes.json").read_text("utf-8"))
    assert len(made["model"]["settings"]["auxiliary"]["guide"]) == 16
    refined = ("--presence", "--key-smoothing", "0.9", "--pamr", "1", "--saliency", f"dino={tiny_dino}")
    done = cli(
        *args, "--method", method, "--guide", f"dino={tiny_dino}", *refined, "--out", tmp_path / "refined"
    )
    assert done.code == 0, done.err


def test_found_and_its_masks(cli, make_image, tmp_path, tiny_dino):
    head = tmp_path / "head.safetensors"
    save_file({"decoder.weight": torch.randn(1, 24, 1, 1), "decoder.bias": torch.zeros(1)}, head)
    image = make_image(tmp_path / "x.png", 72, 88)
    args = ("segment", image, "-c", "cat,dog", *EMOJI, "--quiet")
    prints = set()
    for kind in (f"found={head},{tiny_dino}", f"dino={tiny_dino}", "clip"):
        done = cli(*args, "--saliency", kind, "--out", tmp_path / "out")
        assert done.code == 0, done.err
        made = json.loads((tmp_path / "out" / "classes.json").read_text("utf-8"))
        prints.add(made["model"]["settings"]["auxiliary"]["saliency"])
    assert len(prints) == 3


def test_the_paths_of_found_may_hold_commas(cli, make_image, tmp_path, tiny_dino):
    folder = tmp_path / "a,b" / "c"
    folder.mkdir(parents=True)
    head, dino = folder / "head,1.safetensors", tiny_dino.rename(folder / "dino.safetensors")
    save_file({"decoder.weight": torch.randn(1, 24, 1, 1), "decoder.bias": torch.zeros(1)}, head)
    image = make_image(tmp_path / "x.png", 72, 88)
    args = ("segment", image, "-c", "cat", *EMOJI, "--templates", "single", "--out", tmp_path / "out")
    done = cli(*args, "--saliency", f"found={head},{dino}")
    assert done.code == 0, done.err


def test_the_head_of_found_is_asked_for_where_it_lies(cli, make_image, tmp_path, tiny_dino, monkeypatch):
    """Not at the hub; and the hint is about saliency, whatever is given beside."""
    asked = []
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda url: asked.append(url))
    args = ("segment", make_image(tmp_path / "x.png"), "-c", "cat", *EMOJI, "--out", tmp_path / "out")
    done = cli(*args, "--saliency", f"found=,{tiny_dino}")
    assert done.code == 1 and asked == [FOUND_HEAD]
    assert "the head of FOUND is not on this machine, and raw.githubusercontent.com cannot be" in done.err
    assert "Hint: give both files with --saliency found=HEAD,DINO" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--saliency", "fuond"), "unknown saliency 'fuond'"),
        (("--saliency", "found=nothing.pt,nothing.pth"), "nothing.pth: no such weight file"),
        (("--saliency", "clip", "--background", "none"), "decides what is background, and there is none"),
        (("--method", "proxyclip", "--guide", "dnio"), "unknown network 'dnio'"),
        (("--method", "proxyclip", "--guide", "dino=nothing.pth"), "nothing.pth: no such weight file"),
        (("--method", "proxyclip"), "needs another network"),
        (("--method", "clip-diy", "--window", "64"), "this method cuts images in its own way"),
        (("--pamr", "-1"), "-1 is not between 0 and 100"),
    ],
)
def test_mistakes_are_sentences(cli, make_image, tmp_path, options, said):
    done = cli("segment", make_image(tmp_path / "x.png"), "-c", "cat", *EMOJI, *options)
    assert done.code in (1, 2)
    assert said in done.err
    assert "Traceback" not in done.err


def test_the_python_api_gives_the_labels_of_the_command(cli, tmp_path):
    options = {"presence": True, "pamr": 2, "saliency": "clip", "method": "sclip"}
    flags = ("--presence", "--pamr", "2", "--saliency", "clip", "--method", "sclip")
    assert cli("segment", SAMPLE, "-c", WORDS, *EMOJI, *flags, "--quiet", "--out", tmp_path).code == 0
    segmenter = Segmenter.from_pretrained("emoji", device="cpu", **options)
    assert np.array_equal(segmenter.segment(SAMPLE, WORDS).labels, labels_of(tmp_path))


def test_the_area_rule_drops_small_classes(cli, make_image, tmp_path):
    """`--protocol sclip-paper` on voc21: what covers a tenth of the things or less is none."""
    args = (
        "segment",
        SAMPLE,
        "-c",
        "voc21",
        *EMOJI,
        "--json",
        "--method",
        "sclip",
        "--background-threshold",
        "0",
    )
    base = shares_of(cli(*args, "--protocol", "sclip", "--out", tmp_path / "a"))
    ruled = shares_of(cli(*args, "--protocol", "sclip-paper", "--out", tmp_path / "b"))
    things = sum(share for name, share in ruled.items() if name != "background")
    assert len(ruled) < len(base)
    assert all(share > 0.08 * things for name, share in ruled.items() if name != "background")


def test_a_teacher_refines_crops_as_segment_refines_pictures(tiny_clip):
    config = SegmentConfig(
        classes="cat,dog",
        model=tiny_clip.name,
        pretrained=str(tiny_clip.weights),
        templates="single",
        device="cpu",
        short_side=0,
        pamr=2,
        saliency="clip",
    )
    plan, classes = plan_segmentation(config)
    _, predictor = plan.load(classes)
    coarse = np.random.default_rng(0).integers(0, 40, (5, 6, 3), dtype=np.uint8)
    pixels = np.array(Image.fromarray(coarse).resize((88, 72), Image.Resampling.BICUBIC))
    pixels[24:48, 32:64] += np.array([200, 160, 0], np.uint8)  # a thing to find
    image = DecodedImage(ImageSource(None, PurePosixPath("crop")), pixels)
    (wanted,) = predictor.predict([predictor.prepare(image)])
    crop = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    unlabelled = torch.full((1, 72, 88), -1, dtype=torch.int32)
    found = Teacher(predictor, [0, 1, 2]).fill(crop, unlabelled)
    assert np.array_equal(found[0].numpy(), wanted.labels)
    assert len(np.unique(wanted.labels)) > 1


def test_maps_of_whole_pictures_cannot_teach_crops(tmp_path):
    config = TrainConfig(teacher=True, dataset="anywhere", saliency=str(tmp_path))
    with pytest.raises(UsageError, match="maps of --saliency are of whole images"):
        check_sources(config)
