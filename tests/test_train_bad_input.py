"""Bad input of `clipseg train`: exit code and sentence, and nothing written; or a note, and the rest is learnt."""

from __future__ import annotations

import math
import os
import shutil

import numpy as np
import pytest
import timm
import torch
from dataset_trees import make_folder
from safetensors.torch import save_file
from small_backbone import SMALL_WORDS, small  # noqa: F401
from training_trees import (  # noqa: F401
    SIZE,
    TRAIN,
    VAL,
    WORDS,
    copy_run,
    copy_tree,
    edit_manifest,
    free_run,
    session_tree,
    write_truth,
)

from clipseg_cli.inference.dataset import list_hash
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.training.log import read_log, read_validation

SHORT = (*WORDS, *SMALL_WORDS)


@pytest.fixture
def words(label_run, tmp_path):
    """A command that trains for four iterations into `tmp_path/out/run`."""
    return ("train", "--labels", label_run, *SHORT, "--out", tmp_path / "out", "--name", "run")


@pytest.fixture
def own(label_run, tree, tmp_path):
    """A data set of one's own to spoil, and the command over its own labels."""
    data = copy_tree(tree, tmp_path / "voc")
    labels = copy_run(label_run, tmp_path / "labels", data)
    return data, ("train", "--labels", labels, *SHORT, "--out", tmp_path / "out", "--name", "run")


def supervised(data, tmp_path, *more):
    """A command that learns from ground truth."""
    source = ("--dataset", data, "--setting", "supervised", "--model", "emoji")
    return ("train", *source, *SHORT, "--out", tmp_path / "out", "--name", "run", *more)


def refused(done, code, message, hint, tmp_path):
    assert done.code == code, done.err
    lines = done.err.splitlines()
    assert [line for line in lines if line.startswith("Error: ")] == [f"Error: {message}"]
    assert hint in "\n".join(line for line in lines if line.startswith("Hint: "))
    assert "Traceback" not in done.err and done.out == ""
    assert not (tmp_path / "out").exists()


# Options


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("--backbone", "resnet1001"), "unknown backbone 'resnet1001'", "resnet101"),
        (("--backbone", "vit"), "unknown backbone 'vit'", ""),
        (("--preset", "qick"), "unknown --preset 'qick'", "quick"),
        (("--head", "deeplabv3"), "unknown --head 'deeplabv3'", "deeplabv3plus"),
        (("--setting", "zeroshot"), "unknown --setting 'zeroshot'", "zero-shot"),
        (("--targets", "feature"), "unknown --targets 'feature'", "features"),
        (
            ("--init", "imagnet"),
            "--init imagnet: neither a file nor one of auto, emoji, imagenet, none",
            "imagenet",
        ),
        (("--grad-accumulation", "3"), "a batch of 2 cannot be divided into 1 x 3 parts", "--batch-size 3"),
        (("--device", "quantum"), None, ""),
    ],
)
def test_options_that_cannot_be_meant(words, cli, tmp_path, options, message, hint):
    done = cli(*words, *options)
    if message is None:
        message = done.err.splitlines()[0].removeprefix("Error: ")
    refused(done, 2, message, hint, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        ("--crop", "16"),
        ("--crop", "1e3"),
        ("--iterations", "0"),
        ("--batch-size", "0"),
        ("--grad-accumulation", "0"),
        ("--lr", "-1"),
        ("--lr", "nan"),
        ("--distill", "inf"),
        ("--weight-decay", "-0.1"),
        ("--seed", "-1"),
        ("--guided", "-1"),
        ("--validate-every", "-1"),
        ("--checkpoint-every", "0"),
        ("--workers", "0"),
        ("--benchmark", "voc22"),
    ],
)
def test_numbers_out_of_range(words, cli, tmp_path, options):
    done = cli(*words, *options)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err and done.err.strip()
    assert not (tmp_path / "out").exists()


def test_one_crop_at_a_time_is_too_few_for_the_other_head(words, cli, tmp_path):
    done = cli(*words, "--head", "deeplabv3plus", "--grad-accumulation", "2")
    message = "the head deeplabv3plus cannot learn from one crop at a time"
    refused(done, 2, message, "use --batch-size 4 or more, or a smaller --grad-accumulation", tmp_path)


# First weights


def test_a_weight_file_that_is_not_there(words, cli, tmp_path):
    path = tmp_path / "none.pth"
    refused(
        cli(*words, "--backbone", "resnet10t", "--init", path),
        1,
        f"{path}: no such weight file",
        "--init imagenet",
        tmp_path,
    )


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "text"])
def test_a_file_that_holds_no_weights(words, cli, tmp_path, name):
    path = tmp_path / name
    path.write_text("no weights at all")
    done = cli(*words, "--backbone", "resnet10t", "--init", path)
    assert done.code == 1 and f"{path}" in done.err.splitlines()[0]
    assert "Traceback" not in done.err and not (tmp_path / "out").exists()


def test_the_weights_of_another_resnet(words, cli, tmp_path):
    path = tmp_path / "resnet18.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), path)
    done = cli(*words, "--backbone", "resnet10t", "--init", path)
    assert done.code == 1
    assert f"Error: {path} does not fit resnet10t: " in done.err
    assert "Hint: it looks like resnet18: --backbone resnet18" in done.err
    assert not (tmp_path / "out").exists()


def test_the_weights_of_the_right_resnet(words, cli, tmp_path):
    path = tmp_path / "right.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    done = cli(*words, "--backbone", "resnet10t", "--init", path, "--iterations", "1")
    assert done.code == 0
    assert f"Note: resnet10t with weights of {path}" in done.err


def test_imagenet_weights_out_of_reach(words, cli, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    done = cli(*words, "--backbone", "resnet10t", "--init", "imagenet")
    assert done.code == 1
    assert "the file with the ImageNet weights of resnet10t" in done.err.splitlines()[0]
    assert (
        "Hint: two ways out: weights from a file with --init FILE, or random ones with --init none"
        in done.err
    )
    assert not (tmp_path / "out").exists()


# Where it is written


def test_a_file_where_the_folder_should_be(words, cli, tmp_path):
    (tmp_path / "out").write_text("a file")
    done = cli(*words)
    assert done.code == 1
    assert f"Error: {tmp_path / 'out'} is a file, not a folder" in done.err
    assert (tmp_path / "out").read_text() == "a file"


def test_a_run_among_the_pictures_of_a_folder(tiny_clip, cli, tmp_path):
    data = make_folder(tmp_path / "own")
    before = sorted(data.rglob("*"))
    teacher = ("--teacher", "--dataset", data, *tiny_clip.options, "--templates", "single")
    done = cli("train", *teacher, *SHORT, "--out", data)
    assert done.code == 2
    assert "lies among the images of" in done.err
    assert sorted(data.rglob("*")) == before


# Pictures and labels


def test_crops_larger_than_every_picture_are_padded_and_said(words, cli, tmp_path):
    done = cli(*words, "--crop", "160")
    assert done.code == 0
    assert "Note: 8 crops of 160 pixels were larger than the image, and padded" in done.err
    manifest = read_manifest(tmp_path / "out/run")
    assert manifest is not None and manifest.result["padded_crops"] == 8
    assert all(0 < step.labelled < 0.4 for step in read_log(tmp_path / "out/run")[:2])


def test_one_picture_is_enough(label_run, cli, tmp_path):
    from clipseg_cli.data.datasets import open_dataset

    folder = copy_run(label_run, tmp_path / "labels")
    manifest = read_manifest(folder)
    assert manifest is not None
    split = tmp_path / "one.txt"
    split.write_text(f"{TRAIN[2]}\n")
    samples = open_dataset(manifest.identity["dataset"]["root"], split=str(split)).samples
    edit_manifest(folder, dataset={"split": str(split), "images": 1, "images_sha256": list_hash(samples)})
    done = cli("train", "--labels", folder, *SHORT, "--out", tmp_path / "out", "--name", "run")
    assert done.code == 0
    assert "Note: there is only one image: every batch of 2 repeats some" in done.err
    assert len(read_log(tmp_path / "out/run")) == 4


def test_labels_that_are_all_ignored_teach_nothing_and_break_nothing(tree, cli, tmp_path):
    data = copy_tree(tree, tmp_path / "voc")
    for name in TRAIN:
        write_truth(data, name, np.full(SIZE, 255))
    done = cli(*supervised(data, tmp_path))
    assert done.code == 0
    steps = read_log(tmp_path / "out/run")
    assert [step.loss for step in steps] == [0.0] * 4
    assert [step.labelled for step in steps] == [0.0] * 4
    assert math.isfinite(read_validation(tmp_path / "out/run")[-1].miou)


def test_nothing_to_score_is_no_score(tree, cli, tmp_path):
    data = copy_tree(tree, tmp_path / "voc")
    for name in VAL:
        write_truth(data, name, np.full(SIZE, 255))
    words = supervised(data, tmp_path, "--validate-every", "2", "--json")
    done = cli(*words)
    assert done.code == 0, done.err
    assert "NaN" not in done.out
    assert "NaN" not in (tmp_path / "out/run/checkpoints/last-0000004/state.json").read_text()
    assert cli(*words, "--resume").code == 0


def test_an_unreadable_picture_is_named_and_the_others_are_learnt(own, cli, tmp_path):
    data, command = own
    image = data / "JPEGImages" / f"{TRAIN[3]}.jpg"
    image.write_bytes(image.read_bytes()[:100])
    done = cli(*command, "--json")
    assert done.code == 1
    assert done.err.count(f"Note: {TRAIN[3]} is left out: ") == 1
    assert done.err.count("Error: 1 image could not be used; all others were") == 1
    assert f'"{TRAIN[3]}": ' in done.out
    manifest = read_manifest(tmp_path / "out/run")
    assert manifest is not None and list(manifest.result["failures"]) == [TRAIN[3]]
    assert len(read_log(tmp_path / "out/run")) == 4


def test_no_readable_picture_is_an_error(own, cli, tmp_path):
    data, command = own
    for name in TRAIN:
        (data / "JPEGImages" / f"{name}.jpg").write_bytes(b"")
    done = cli(*command)
    assert done.code == 1
    assert "Error: none of 6 images can be read; " in done.err and "Traceback" not in done.err


def test_a_data_set_that_is_gone(own, cli, tmp_path):
    data, command = own
    shutil.rmtree(data)
    refused(
        cli(*command),
        1,
        f"the data set of {command[2]} is no longer at {data}",
        "put it back, or label it again where it is now",
        tmp_path,
    )


def test_a_picture_of_the_validation_split_that_cannot_be_read(tree, cli, tmp_path):
    data = copy_tree(tree, tmp_path / "voc")
    (data / "JPEGImages" / f"{VAL[0]}.jpg").write_bytes(b"")
    done = cli(*supervised(data, tmp_path))
    assert done.code == 1
    assert VAL[0] in done.err and "is left out: " in done.err
    assert read_validation(tmp_path / "out/run")[-1].images == 1


@pytest.mark.skipif(os.name == "nt", reason="permissions")
def test_nothing_is_left_of_a_run_that_did_not_begin(words, cli, tmp_path, monkeypatch):
    """The CLIP cannot be loaded, long after the folder was taken."""
    monkeypatch.setattr(torch.nn.Module, "state_dict", torch.nn.Module.state_dict)
    monkeypatch.setattr(
        "clipseg_cli.commands.train.embed_for", lambda *args: (_ for _ in ()).throw(MemoryError())
    )
    done = cli(*words)
    assert done.code == 1 and "not enough memory" in done.err
    assert not (tmp_path / "out").exists()
