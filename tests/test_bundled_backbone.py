"""`clipseg train` on a fresh machine: first weights and numbers for students of the bundled model, without network."""

from __future__ import annotations

import dataclasses
import json
import socket
from typing import TYPE_CHECKING

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_trees import (  # noqa: F401
    SIZE,
    TRAIN,
    copy_run,
    free_run,
    label,
    session_tree,
    short_config,
    train,
)

from clipseg_cli.config import BUNDLED_BACKBONE, EMOJI_RECIPE, RECIPES, TrainConfig
from clipseg_cli.models.clip.architectures import bundled_file
from clipseg_cli.models.student import backbones as student_backbones
from clipseg_cli.models.student.backbones import BUNDLED_WEIGHTS, SCALE
from clipseg_cli.models.student.heads import DeepLabV2Head
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.utils import device

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = bundled_file(BUNDLED_WEIGHTS)
OUT_OF_REACH = "weights from a file with --init FILE, or random ones with --init none"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    """Whoever calls gets no connection, and nothing is in the cache."""

    def refuse(self, address):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def emoji_run(tmp_path_factory, tree, tiny_clip):
    """A pseudo-label run by the bundled model."""
    out = tmp_path_factory.mktemp("emoji")
    return label(tiny_clip, tree, out, model="emoji", pretrained=None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder in which commands run, with a preset of two short iterations."""
    short = {"iterations": 2, "crop": 32, "batch_size": 2, "validations": 1, "short_side": 48}
    monkeypatch.setitem(RECIPES, "emoji", dataclasses.replace(EMOJI_RECIPE, **short))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fresh(here, emoji_run):
    """The same, with labels by the bundled model."""
    copy_run(emoji_run, here / "runs/pseudolabel/labels")
    return here


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Where the package is said to have its weights; nothing is there."""
    path = tmp_path / "package" / BUNDLED_WEIGHTS
    path.parent.mkdir()
    monkeypatch.setattr(student_backbones, "bundled_file", path.with_name)
    return path


def shipped():
    """The weights in the package, filters widened."""
    return student_backbones.widened(load_file(SHIPPED))


def manifest_of(folder: Path):
    manifest = read_manifest(folder)
    assert manifest is not None and manifest.complete
    return manifest


# What ships


def test_it_is_small_enough_to_ship():
    assert SHIPPED.stat().st_size <= 10_000_000


def test_its_filters_have_eight_bits_and_it_says_of_which_backbone():
    with safe_open(SHIPPED, "pt") as file:
        assert file.metadata()["backbone"] == BUNDLED_BACKBONE
    tensors = load_file(SHIPPED)
    filters = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 4}
    assert {tensor.dtype for tensor in filters.values()} == {torch.int8}
    assert all(tensors[f"{name}{SCALE}"].shape == (len(tensor),) for name, tensor in filters.items())
    assert all(int(tensor.abs().max()) == 127 for tensor in filters.values())


def test_it_fits_the_backbone_that_it_names_and_the_head():
    """All but the classifier, and the batch counters that no inference needs."""
    wanted = timm.create_model(BUNDLED_BACKBONE, num_classes=1).state_dict()
    found = shipped()
    backbone = {k.removeprefix("backbone."): v for k, v in found.items() if k.startswith("backbone.")}
    lacking = wanted.keys() - backbone.keys()
    assert not backbone.keys() - wanted.keys()
    assert all(key.startswith("fc.") or key.endswith("num_batches_tracked") for key in lacking)
    assert all(backbone[key].shape == wanted[key].shape for key in backbone)
    head = DeepLabV2Head(512, found["head.branches.0.1.weight"].shape[0]).state_dict()
    own = {k.removeprefix("head."): v.shape for k, v in found.items() if k.startswith("head.")}
    assert own == {k: v.shape for k, v in head.items() if v.is_floating_point()}


# What is chosen


def test_train_without_arguments_needs_no_network(fresh, cli):
    done = cli("train")
    assert done.code == 0, done.err
    for said in (
        "Learning from runs/pseudolabel/labels, the only complete run",
        "Note: chosen for labels by emoji: --preset emoji, --init emoji",
        "Note: resnet10t with the weights in the package",
        "DeepLabv2 on resnet10t, 2 iterations of 2 crops of 32 pixels",
    ):
        assert said in done.err
    (folder,) = (fresh / "runs/train").iterdir()
    identity = manifest_of(folder).identity
    assert (identity["numbers"]["preset"], identity["numbers"]["init"]) == ("emoji", "emoji")
    card = json.loads((folder / "checkpoints/last-0000002/student.json").read_text())
    assert card["training"]["init"] == "emoji"

    scored = cli("eval")
    assert scored.code == 0, scored.err
    assert f"{folder.relative_to(fresh)}, the only complete run" in scored.err
    assert "The student beside its teacher, IoU in %" in scored.out
    assert "mIoU" in scored.out


def test_the_backbone_begins_with_the_weights_in_the_package(emoji_run, tmp_path):
    first = shipped()
    options = {"init": "auto", "preset": None, "iterations": 1, "lr": 0.0, "weight_decay": 0.0}
    done = train(short_config(**options, labels=str(emoji_run), out=tmp_path, name="run"))
    state = done.run.student.state_dict()
    compared = [name for name in first if "running" not in name]
    assert {name.split(".")[0] for name in compared} == {"backbone", "head"}
    for name in compared:
        assert state[name].equal(first[name].float()), name


def test_labels_of_another_model_ask_for_imagenet(here, label_run, cli):
    copy_run(label_run, here / "runs/pseudolabel/labels")
    done = cli("train", "--preset", "quick")
    assert done.code == 1
    assert "Error: the file with the ImageNet weights of resnet10t is not on this machine" in done.err
    assert OUT_OF_REACH in done.err
    assert not (here / "runs/train").exists()


@pytest.mark.parametrize(
    ("options", "preset", "init"),
    [
        ({"model": "emoji"}, "emoji", "emoji"),
        ({"model": "emoji", "teacher": True}, "emoji", "emoji"),
        ({"model": "emoji", "preset": "quick"}, "quick", "emoji"),
        ({"model": "emoji", "preset": "voc"}, "voc", "imagenet"),  # of another backbone
        ({"model": "emoji", "backbone": "resnet18"}, "emoji", "imagenet"),
        ({"model": "emoji", "init": "imagenet"}, "emoji", "imagenet"),
        ({"model": "emoji", "init": "none"}, "emoji", "none"),
        ({"model": "emoji", "init": "my.pth"}, "emoji", "my.pth"),
        ({}, "voc", "imagenet"),
        ({"preset": "quick"}, "quick", "imagenet"),
        ({"preset": "quick", "init": "emoji"}, "quick", "emoji"),
        ({"preset": "emoji"}, "emoji", "imagenet"),
        ({"model": "RN50"}, "voc", "imagenet"),
    ],
)
def test_preset_and_first_weights_follow_who_labels_and_options_win(options, preset, init):
    numbers = resolve_hyperparameters(TrainConfig(**options), "voc21")
    assert (numbers.preset, numbers.init) == (preset, init)


def test_what_the_user_names_is_not_called_a_choice(fresh, cli):
    done = cli("train", "--preset", "emoji", "--init", "emoji")
    assert done.code == 0, done.err
    assert "chosen" not in done.err


def test_imagenet_still_means_imagenet(fresh, cli):
    done = cli("train", "--init", "imagenet")
    assert done.code == 1
    assert "Error: the file with the ImageNet weights of resnet10t is not on this machine" in done.err


def test_the_choice_stands_when_a_run_is_gone_on_with(fresh, cli):
    assert cli("train").code == 0
    done = cli("train", "--resume")
    assert done.code == 0, done.err
    assert "is finished" in done.err


def test_the_weights_in_the_package_are_of_one_backbone(fresh, cli):
    done = cli("train", "--init", "emoji", "--backbone", "resnet18")
    assert done.code == 2
    assert "Error: --init emoji: the package has weights of resnet10t, not of resnet18" in done.err
    assert "Hint: --backbone resnet10t, or --init imagenet" in done.err
    assert not (fresh / "runs/train").exists()


# What may be wrong with it


def test_a_package_without_the_weights(fresh, package, cli):
    done = cli("train")
    assert done.code == 1
    assert f"Error: the first weights for students are missing in this installation ({package})" in done.err
    assert f"Hint: install the package again; or {OUT_OF_REACH}" in done.err
    assert "Traceback" not in done.err and not (fresh / "runs/train").exists()
    assert cli("train", "--init", "none").code == 0


@pytest.mark.parametrize("what", ["cut short", "empty", "text", "of another network", "NaN"])
def test_a_package_with_damaged_weights(fresh, package, cli, what):
    whole = SHIPPED.read_bytes()
    if what == "of another network":
        save_file(timm.create_model("resnet18").state_dict(), package)
    elif what == "NaN":
        weights = load_file(SHIPPED)
        name = "backbone.bn1.bias"
        save_file({**weights, name: weights[name] * torch.nan}, package)
    else:
        package.write_bytes({"cut short": whole[: len(whole) // 2], "empty": b"", "text": b"hello"}[what])
    done = cli("train")
    assert done.code == 1
    (error,) = (line for line in done.err.splitlines() if line.startswith("Error: "))
    assert str(package) in error
    assert f"Hint: install the package again; or {OUT_OF_REACH}" in done.err
    assert "Traceback" not in done.err and not (fresh / "runs/train").exists()


# In what precision it is trained


@pytest.mark.parametrize(
    ("asked", "native", "found"),
    [("auto", True, "bfloat16"), ("auto", False, "float32"), ("fp32", True, "float32")],
)
def test_bf16_where_the_cpu_computes_in_it(fresh, cli, monkeypatch, asked, native, found):
    monkeypatch.setattr(device, "_bf16_units", lambda: "AMX" if native else "")
    done = cli("train", "--precision", asked, "--device", "cpu")
    assert done.code == 0, done.err
    (folder,) = (fresh / "runs/train").iterdir()
    assert manifest_of(folder).identity["computes"] == f"cpu torch.{found}"


def test_other_presets_stay_in_fp32_on_a_cpu(emoji_run, tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_bf16_units", lambda: "AMX")
    done = train(short_config(labels=str(emoji_run), iterations=1, out=tmp_path, name="run"))
    assert manifest_of(done.folder).identity["computes"] == "cpu torch.float32"


def test_the_student_segments_pictures(fresh, tree, cli):
    assert cli("train").code == 0
    (folder,) = (fresh / "runs/train").iterdir()
    image = tree / "JPEGImages" / f"{TRAIN[0]}.jpg"
    assert cli("segment", image, "--student", folder, "--out", fresh / "out").code == 0
    with Image.open(fresh / "out" / f"{TRAIN[0]}.png") as found:
        assert np.array(found).shape == SIZE


@pytest.mark.parametrize("learns", [None, True, False])
def test_the_words_of_the_background_stay_unless_it_is_to_be_learnt(emoji_run, tmp_path, learns):
    options = {"preset": "emoji", "iterations": 1, "learn_background": learns}
    done = train(short_config(**options, labels=str(emoji_run), out=tmp_path, name="run"))
    student, card = done.run.student, done.run.card
    words = done.run.task.dataset.classes
    assert words.background == 0 and len(words.aliases[0]) > 1
    if learns:
        assert student.background is not None and student.query_to_class.count(0) == 1
        assert card.classes.aliases[0] == ("background",)
    else:
        assert student.background is None and student.query_to_class == words.query_to_class
        assert card.classes == words
