"""`clipseg eval` of a model: the same labels as elsewhere, exact sums, and a sentence for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from eval_trees import (  # noqa: F401
    NAMES,
    count_ious,
    evaluate_command,
    mean_iou,
    read_ids,
    results_below,
    scored_voc,
)

from clipseg_cli.config import BUNDLED_MODEL

SAMPLES = Path(__file__).parents[1] / "samples" / "emoji-voc"


# One way through


def test_eval_scores_the_very_labels_that_pseudolabel_writes(evaluate, cli, tiny_clip, voc, tmp_path):
    options = (*tiny_clip.options, "--templates", "single")
    assert cli("pseudolabel", voc, "--split", "val", *options, "--name", "r", "--out", tmp_path).code == 0
    assert evaluate("--dataset", voc, "--name", "model").code == 0
    labels = tmp_path / "r" / "labels"
    scored = cli(
        "eval", "--dataset", voc, "--predictions", labels, "--out", tmp_path / "out", "--name", "files"
    )
    assert scored.code == 0
    model, files = (
        json.loads((tmp_path / "out" / n / "results.json").read_text()) for n in ("model", "files")
    )
    assert model["scores"] == files["scores"]
    assert model["confusion"] == files["confusion"]
    ious = count_ious(
        ((read_ids(labels / f"{n}.png"), read_ids(voc / "SegmentationClass" / f"{n}.png")) for n in NAMES), 21
    )
    assert [row["iou"] for row in model["classes"]] == ious
    assert model["scores"]["mIoU"] == pytest.approx(mean_iou(ious), rel=1e-15)
    assert sum(iou is not None and iou > 0 for iou in ious) > 1  # or nothing would have been compared


def test_the_bundled_model_scores_as_its_labels_do(cli, tmp_path):
    """The same on real sizes, in several groups of pictures."""
    names = (SAMPLES / "ImageSets/Segmentation/val.txt").read_text().split()[5:8]
    split = tmp_path / "three.txt"
    split.write_text("\n".join(names))
    options = ("--split", split, "--model", BUNDLED_MODEL, "--device", "cpu", "--batch-size", "4", "--quiet")
    assert cli("pseudolabel", SAMPLES, *options, "--name", "run", "--out", tmp_path).code == 0
    assert cli("eval", "--dataset", SAMPLES, *options, "--out", tmp_path / "model").code == 0
    assert cli("eval", "--predictions", tmp_path / "run", "--quiet", "--out", tmp_path / "files").code == 0
    model, files = (results_below(tmp_path / name) for name in ("model", "files"))
    assert (model["scores"], model["confusion"]) == (files["scores"], files["confusion"])
    assert model["images"] == 3 and model["scores"]["mIoU"] > 0.3


def test_segment_writes_the_labels_that_eval_scores(evaluate, cli, tiny_clip, voc, tmp_path):
    options = ("--classes", "voc21", *tiny_clip.options, "--templates", "single", "--out", tmp_path / "maps")
    assert cli("segment", voc / "JPEGImages", *options).code == 0
    assert evaluate("--dataset", voc, "--name", "model").code == 0
    args = (
        "--dataset",
        voc,
        "--predictions",
        tmp_path / "maps",
        "--out",
        tmp_path / "out",
        "--name",
        "files",
    )
    done = cli("eval", *args)
    assert (done.code, "Note: ignored" in done.err) == (0, False)  # overlays are no strange files
    model, files = (
        json.loads((tmp_path / "out" / n / "results.json").read_text()) for n in ("model", "files")
    )
    different = np.abs(np.array(model["confusion"]) - np.array(files["confusion"])).sum() / 2
    assert different <= 0.002 * np.sum(model["confusion"])  # other batches round differently


def test_two_processes_add_up_to_one(cli, torchrun, tmp_path):
    names = (SAMPLES / "ImageSets/Segmentation/val.txt").read_text().split()[:5]
    split = tmp_path / "five.txt"
    split.write_text("\n".join(names))
    args = ["eval", "--dataset", SAMPLES, "--model", BUNDLED_MODEL, "--split", split, "--batch-size", "2"]
    args = [*map(str, args), "--device", "cpu", "--templates", "single", "--quiet"]
    done = cli(*args, "--out", tmp_path / "alone")
    assert done.code == 0, done.err
    shared = torchrun("-m", "clipseg_cli", *args, "--out", "together")
    _, err = shared.communicate(timeout=120)
    assert shared.returncode == 0, err
    alone, together = (results_below(tmp_path / name) for name in ("alone", "together"))
    for key in ("scores", "confusion", "classes", "images", "fingerprint", "images_sha256"):
        assert alone[key] == together[key]
    assert alone["images"] == 5 and alone["scores"]["mIoU"] > 0.3


# What is written and printed


def test_results_hold_with_what_they_were_made(evaluate, voc, tmp_path):
    done = evaluate("--dataset", voc, "--prompt-denoising", "0.1")
    assert done.code == 0
    found = results_below(tmp_path / "out")
    assert (found["benchmark"], found["split"], found["images"], found["failed"]) == ("voc21", "val", 5, {})
    assert found["method"] == "maskclip" and found["options"]["prompt_denoising"] == 0.1
    assert found["model"]["name"] == "tiny-vit" and len(found["model"]["fingerprint"]) == 16
    assert len(found["fingerprint"]) == 12 and found["fingerprint"] in done.err
    assert found["root"] == str(voc) and found["versions"]["clipseg"]
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == "VOC2012-voc21-val-tiny-vit-tiny-vit-maskclip-pd0_1-single"
    assert {p.name for p in folder.iterdir()} == {"results.json", "results.csv", "confusion.png"}
    assert "maskclip with prompt denoising 0.1" in done.err
    assert "5 images in " in done.err and str(folder) in done.err


def test_every_class_stands_in_the_table(evaluate, voc):
    done = evaluate("--dataset", voc, "--benchmark", "voc20")
    for word in ("aeroplane", "tvmonitor", "mIoU", "pixel accuracy", "mean accuracy", "accuracy"):
        assert word in done.out
    assert "background" not in done.out


@pytest.mark.parametrize("columns", [80, 100])
def test_tables_fit_the_terminal(evaluate, voc, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = evaluate("--dataset", voc)
    assert max(map(len, done.out.splitlines())) <= columns
    for word in ("aeroplane", "maskclip", "sclip", "NACLIP README", "corrclip", "76.0"):
        assert word in done.out


def test_json_is_one_strict_document(evaluate, voc, tmp_path):
    done = evaluate("--dataset", voc, "--unseen", "cow,sofa", "--json")
    document = json.loads(done.out, parse_constant=pytest.fail)
    assert document["images"] == 5 and document["summary"]["hIoU"] is not None
    assert document["summary"] == results_below(tmp_path / "out")["scores"]
    assert [row["name"] for row in document["classes"] if row["zero_shot"] == "unseen"] == ["cow", "sofa"]
    assert all(Path(path).is_file() for path in document["written"])


def test_quiet_prints_nothing(evaluate, voc):
    done = evaluate("--dataset", voc, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_published_figures_have_sources_and_this_run_only_its_equals(evaluate, voc, monkeypatch):
    done = evaluate("--dataset", voc)
    assert "SCLIP README" in done.out and "this run" not in done.out
    assert "published figures are about 1,449 images, this run about 5: they cannot be compared" in done.err
    monkeypatch.setattr("clipseg_cli.evaluation.report.validation_images", lambda benchmark: 5)
    done = evaluate("--dataset", voc)
    assert done.out.count("this run") == 1 and "cannot be compared" not in done.err
    (voc / "JPEGImages" / f"{NAMES[0]}.jpg").write_bytes(b"no picture")
    assert "this run about 4" in evaluate("--dataset", voc).err


def test_the_zero_shot_table_stands_beside_the_published_split(evaluate, voc, monkeypatch):
    monkeypatch.setattr("clipseg_cli.evaluation.report.validation_images", lambda benchmark: 5)
    done = evaluate("--dataset", voc, "--benchmark", "voc20", "--unseen", "preset")
    assert "15 seen / 5 unseen" in done.out and "STRICT" in done.out and "MaskCLIP paper" in done.err
    assert done.out.count("this run") == 2
    done = evaluate("--dataset", voc, "--benchmark", "voc20", "--unseen", "cow")
    assert done.out.count("this run") == 1
    assert "about other unseen classes" in done.err
    assert "zero-shot" not in evaluate("--dataset", voc).out
