"""`clipseg eval --predictions`: label pictures of any tool, found by name, scored as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_trees import CITYSCAPES, make_cityscapes, make_folder, save_image, save_label
from eval_trees import (  # noqa: F401
    NAMES,
    SIZES,
    count_ious,
    mean_iou,
    read_ids,
    results_below,
    save_ids,
    scored_voc,
)
from PIL import Image

from clipseg_cli.data.labels import read_values

CLASSES = 21


@pytest.fixture
def maps(voc, tmp_path):
    """Predictions that are right in about two of three blocks, one file for each picture."""
    for seed, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
        rng = np.random.default_rng(100 + seed)
        truth = read_ids(voc / "SegmentationClass" / f"{name}.png")
        noise = np.kron(rng.integers(0, CLASSES, (9, 9)), np.ones((8, 8), int))[: size[0], : size[1]]
        right = np.kron(rng.random((9, 9)) < 0.7, np.ones((8, 8), bool))[: size[0], : size[1]]
        save_ids(tmp_path / "maps" / f"{name}.png", np.where(right & (truth != 255), truth, noise))
    return tmp_path / "maps"


@pytest.fixture
def evaluate(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: cli("eval", "--out", tmp_path / "out", *args)


def pairs(maps, voc, names=NAMES):
    return [(read_ids(maps / f"{n}.png"), read_ids(voc / "SegmentationClass" / f"{n}.png")) for n in names]


def test_scores_equal_a_count_over_sets(evaluate, voc, maps, tmp_path):
    done = evaluate("--dataset", voc, "--predictions", maps, "--json")
    assert done.code == 0, done.err
    ious = count_ious(pairs(maps, voc), CLASSES)
    found = json.loads(done.out)
    assert [row["iou"] for row in found["classes"]] == ious
    assert found["summary"]["mIoU"] == pytest.approx(mean_iou(ious), rel=1e-15)
    record = results_below(tmp_path / "out")
    assert (record["predictions"], record["model"], record["images"]) == (str(maps), None, 5)


def test_seen_and_unseen_equal_their_definitions(evaluate, voc, maps):
    names = ["cow", "sofa", "train"]
    done = evaluate("--dataset", voc, "--predictions", maps, "--unseen", ",".join(names), "--json")
    found = json.loads(done.out)
    ious = {row["name"]: row["iou"] for row in found["classes"]}
    unseen = mean_iou([ious[name] for name in names])
    seen = mean_iou([iou for name, iou in ious.items() if name not in names])
    summary = found["summary"]
    assert summary["mIoU_seen"] == pytest.approx(seen, rel=1e-12)
    assert summary["mIoU_unseen"] == pytest.approx(unseen, rel=1e-12)
    assert summary["hIoU"] == pytest.approx(2 * seen * unseen / (seen + unseen), rel=1e-12)


def test_255_is_wrong_but_belongs_to_no_class(evaluate, voc, maps):
    before = json.loads(evaluate("--dataset", voc, "--predictions", maps, "--json").out)
    for name in NAMES:
        ids = read_ids(maps / f"{name}.png")
        ids[:, ::2] = 255
        save_ids(maps / f"{name}.png", ids)
    after = json.loads(evaluate("--dataset", voc, "--predictions", maps, "--json").out)
    assert [row["iou"] for row in after["classes"]] == count_ious(pairs(maps, voc), CLASSES)
    for old, new in zip(before["classes"], after["classes"], strict=True):
        assert new["labelled_pixels"] == old["labelled_pixels"]
        assert new["predicted_pixels"] <= old["predicted_pixels"]
    assert after["summary"]["pixel_accuracy"] < 0.6 * before["summary"]["pixel_accuracy"]


@pytest.mark.parametrize("table", ["classes.json", "manifest.json"])
def test_ids_are_matched_by_name(evaluate, voc, maps, table):
    """The same labels with the ids turned round, and a table that says so, score the same."""
    plain = json.loads(evaluate("--dataset", voc, "--predictions", maps, "--json").out)
    names = [row["name"] for row in plain["classes"]]
    entries = [{"id": CLASSES - i, "name": name.upper()} for i, name in enumerate(names)]
    (maps / table).write_text(json.dumps({"classes": [*entries, {"id": 0, "name": "unicorn"}]}))
    for name in NAMES:
        save_ids(maps / f"{name}.png", CLASSES - read_ids(maps / f"{name}.png"))
    done = evaluate("--dataset", voc, "--predictions", maps, "--json")
    assert json.loads(done.out)["classes"] == plain["classes"]
    assert f"labels are matched by the names in {maps / table}" in done.err
    assert "pixels with unicorn count as wrong" in done.err


def test_other_classes_altogether_are_refused(evaluate, voc, maps):
    (maps / "classes.json").write_text(json.dumps({"classes": [{"id": 0, "name": "unicorn"}]}))
    done = evaluate("--dataset", voc, "--predictions", maps)
    assert done.code == 1
    assert "classes.json names other classes than this data set: unicorn" in done.err


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"classes": 3}', '{"classes": [{"id": 1e9, "name": "cat"}]}', "[" * 200_000],
    ids=["cut short", "a list", "a number", "no id", "deep"],
)
def test_a_table_of_another_tool_is_left_alone(evaluate, voc, maps, content):
    (maps / "classes.json").write_text(content)
    done = evaluate("--dataset", voc, "--predictions", maps)
    assert (done.code, "matched by" in done.err) == (0, False)


# Which file is whose


@pytest.mark.parametrize("style", ["nested", "flat", "picture", "truth"])
def test_predictions_are_found_however_they_lie(evaluate, tmp_path, style):
    root, maps = make_cityscapes(tmp_path / "cityscapes"), tmp_path / "maps"
    for name in CITYSCAPES["val"]:
        city, stem = name.split("/")
        path = {
            "nested": f"{name}.png",
            "flat": f"{stem}.png",
            "picture": f"{city}/{stem}_leftImg8bit.png",
            "truth": f"{stem}_gtFine_labelTrainIds.png",
        }[style]
        save_label(maps / path, (0, 18, 3))
    done = evaluate("--dataset", root, "--predictions", maps, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["images"] == 2
    assert json.loads(done.out)["summary"]["mIoU"] > 0.5
    assert "ignored" not in done.err


def test_a_file_that_may_belong_to_two_pictures_is_refused(evaluate, tmp_path):
    root = make_folder(tmp_path / "mine", names=("a/x", "b/x"))
    save_label(tmp_path / "maps" / "x.png", (0, 1, 2))
    done = evaluate("--dataset", root, "--predictions", tmp_path / "maps")
    assert done.code == 1
    assert "x.png may belong to a/x or to b/x" in done.err


def test_a_picture_may_be_called_like_an_overlay(evaluate, tmp_path):
    root = make_folder(tmp_path / "mine", names=("cat_overlay", "dog"))
    for name in ("cat_overlay", "dog", "dog_overlay"):
        save_label(tmp_path / "maps" / f"{name}.png", (0, 1, 2, 255))
    done = evaluate("--dataset", root, "--predictions", tmp_path / "maps")
    assert (done.code, "Note" in done.err) == (0, False), done.err


def test_missing_predictions_are_counted_and_named(evaluate, voc, maps):
    for name in NAMES[1:3]:
        (maps / f"{name}.png").unlink()
    done = evaluate("--dataset", voc, "--predictions", maps)
    assert (done.code, done.out) == (1, "")
    assert f"{maps} lacks 2 of 5 predictions: {NAMES[1]}, {NAMES[2]}" in done.err
    assert "--partial" in done.err
    done = evaluate("--dataset", voc, "--predictions", maps, "--partial", "--json")
    assert done.code == 0
    rest = count_ious(pairs(maps, voc, (NAMES[0], *NAMES[3:])), CLASSES)
    assert [row["iou"] for row in json.loads(done.out)["classes"]] == rest
    assert json.loads(done.out)["images"] == 3 and "lacks 2 of 5" in done.err


def test_no_prediction_at_all_says_where_it_looked(evaluate, voc, tmp_path):
    (tmp_path / "maps").mkdir()
    done = evaluate("--dataset", voc, "--predictions", "maps", "--partial")
    assert done.code == 1
    assert f"looked for maps/{NAMES[0]}.png" in done.err


def test_extra_files_are_said_and_ignored(evaluate, voc, maps):
    save_label(maps / "other" / "stranger.png", (0, 1))
    save_image(maps / f"{NAMES[0]}_overlay.png")
    done = evaluate("--dataset", voc, "--predictions", maps, "--json")
    assert done.code == 0
    assert f"Note: ignored 1 file in {maps}, of no image of this split: other/stranger.png" in done.err
    assert json.loads(done.out)["images"] == 5


# Predictions that cannot be scored


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("size", "is 30x20, but its ground truth"),
        ("id", "holds 99 in 1 pixels, which is no class: ids go from 0 to 20, 255 is none"),
        ("RGB", "is an RGB image, not class ids"),
    ],
)
def test_a_bad_prediction_is_named_and_not_in_the_scores(evaluate, voc, maps, how, said):
    path = maps / f"{NAMES[0]}.png"
    if how == "size":
        save_ids(path, np.zeros((20, 30)))
    elif how == "id":
        ids = read_ids(path)
        ids[0, 0] = 99
        save_ids(path, ids)
    else:
        Image.open(path).convert("RGB").save(path)
    done = evaluate("--dataset", voc, "--predictions", maps, "--json")
    assert done.code == 1
    (line,) = (line for line in done.err.splitlines() if line.startswith(f"Error: {path}"))
    assert said in line
    assert "Error: 1 of 5 images failed and are not in the scores" in done.err
    rest = count_ious(pairs(maps, voc, NAMES[1:]), CLASSES)
    assert [row["iou"] for row in json.loads(done.out)["classes"]] == rest


def test_a_run_brings_its_data_set_and_split(cli, tiny_clip, evaluate, voc, tmp_path):
    options = (*tiny_clip.options, "--templates", "single", "--out", tmp_path, "--name", "run", "--quiet")
    assert cli("pseudolabel", voc, "--split", "train", *options).code == 0
    for given in (tmp_path / "run", tmp_path / "run" / "labels"):
        done = evaluate("--predictions", given, "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["images"] == 2  # those of the split that was labelled
    ious = count_ious(pairs(tmp_path / "run" / "labels", voc, NAMES[:2]), CLASSES)
    assert [row["iou"] for row in json.loads(done.out)["classes"]] == ious


def test_labels_of_nobody_need_a_data_set(evaluate, maps):
    done = evaluate("--predictions", maps)
    assert done.code == 1
    assert done.err == f"Error: nothing says which data set {maps} belongs to\nHint: add --dataset ROOT\n"


def test_a_map_that_is_far_too_large_is_not_decoded(evaluate, voc, maps, monkeypatch):
    """A few hundred kilobytes may claim gigabytes of pixels."""
    path = maps / f"{NAMES[0]}.png"
    Image.new("P", (2_000, 2_000)).save(path)
    decoded = []
    monkeypatch.setattr(
        "clipseg_cli.evaluation.predictions.read_values",
        lambda path: decoded.append(path) or read_values(path),
    )
    done = evaluate("--dataset", voc, "--predictions", maps)
    assert done.code == 1 and f"{path} is 2000x2000, but its ground truth" in done.err
    assert decoded and path not in decoded
