"""`clipseg eval` of a model: the same labels as elsewhere, exact sums, and a sentence for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from eval_trees import NAMES, count_ious, make_scored_voc, mean_iou, read_ids, results_below, write_split
from PIL import Image

from clipseg_cli.config import BUNDLED_MODEL

SAMPLES = Path(__file__).parents[1] / "samples" / "emoji-voc"


@pytest.fixture
def voc(tmp_path):
    return make_scored_voc(tmp_path / "VOC2012")


@pytest.fixture
def evaluate(cli, tiny_clip, tmp_path, monkeypatch):
    """Run `clipseg eval` with the tiny model and one template, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    fixed = (*tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")
    return lambda *args: cli("eval", *args, *fixed)


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


def test_two_processes_add_up_to_one(cli, process_env, tmp_path):
    names = (SAMPLES / "ImageSets/Segmentation/val.txt").read_text().split()[:5]
    split = tmp_path / "five.txt"
    split.write_text("\n".join(names))
    args = ["eval", "--dataset", SAMPLES, "--model", BUNDLED_MODEL, "--split", split, "--batch-size", "2"]
    args = [*map(str, args), "--device", "cpu", "--templates", "single", "--quiet"]
    done = cli(*args, "--out", tmp_path / "alone")
    assert done.code == 0, done.err
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "clipseg_cli"]
    command = [*launch, *args, "--out", "together"]
    shared = subprocess.run(
        command, cwd=tmp_path, env=process_env, capture_output=True, text=True, timeout=120, check=False
    )
    assert shared.returncode == 0, shared.stderr
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
    monkeypatch.setattr("clipseg_cli.pipelines.report.validation_images", lambda benchmark: 5)
    done = evaluate("--dataset", voc)
    assert done.out.count("this run") == 1 and "cannot be compared" not in done.err
    (voc / "JPEGImages" / f"{NAMES[0]}.jpg").write_bytes(b"no picture")
    assert "this run about 4" in evaluate("--dataset", voc).err


def test_the_zero_shot_table_stands_beside_the_published_split(evaluate, voc, monkeypatch):
    monkeypatch.setattr("clipseg_cli.pipelines.report.validation_images", lambda benchmark: 5)
    done = evaluate("--dataset", voc, "--benchmark", "voc20", "--unseen", "preset")
    assert "15 seen / 5 unseen" in done.out and "STRICT" in done.out and "MaskCLIP paper" in done.err
    assert done.out.count("this run") == 2
    done = evaluate("--dataset", voc, "--benchmark", "voc20", "--unseen", "cow")
    assert done.out.count("this run") == 1
    assert "about other unseen classes" in done.err
    assert "zero-shot" not in evaluate("--dataset", voc).out


# Pictures that cannot be scored


def _spoil(voc: Path, how: str) -> Path:
    label = voc / "SegmentationClass" / f"{NAMES[1]}.png"
    picture = voc / "JPEGImages" / f"{NAMES[1]}.jpg"
    if how == "label of another size":
        Image.open(label).resize((7, 5)).save(label)
    elif how == "unknown id":
        ids = np.array(Image.open(label))
        ids[3, 4] = 77
        Image.fromarray(ids).save(label)
    elif how == "RGB label":
        Image.open(label).convert("RGB").save(label)
    elif how == "damaged label":
        label.write_bytes(label.read_bytes()[:60])
    else:
        picture.write_bytes(picture.read_bytes()[:200])
    return picture if how == "damaged picture" else label


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("label of another size", "is 40x56, but its label"),
        ("unknown id", "77 in 1 pixels is no label of voc21"),
        ("RGB label", "is an RGB picture, not class ids"),
        ("damaged label", "damaged"),
        ("damaged picture", "damaged or cut short"),
    ],
)
def test_a_bad_picture_is_named_and_not_in_the_scores(evaluate, voc, tmp_path, how, said):
    others = write_split(voc, "others", (NAMES[0], *NAMES[2:]))
    assert evaluate("--dataset", voc, "--split", others, "--name", "others").code == 0
    bad = _spoil(voc, how)
    done = evaluate("--dataset", voc, "--name", "all", "--corrupt", "spatter", "--severity", "1,2")
    assert done.code == 1
    (line,) = (line for line in done.err.splitlines() if str(bad) in line)  # once, not under each corruption
    assert line.startswith("Error: ") and said in line
    assert "Error: 1 of 5 images failed and are not in the scores" in done.err
    found, without = (
        json.loads((tmp_path / "out" / n / "results.json").read_text()) for n in ("all", "others")
    )
    assert found["scores"] == without["scores"] and found["confusion"] == without["confusion"]
    assert (found["images"], list(found["failed"])) == (4, [NAMES[1]])
    assert (tmp_path / "out" / "all" / "corruptions.png").is_file()


def test_nothing_that_can_be_scored(evaluate, voc):
    for name in NAMES:
        (voc / "JPEGImages" / f"{name}.jpg").write_bytes(b"no picture")
    done = evaluate("--dataset", voc, "--corrupt", "spatter", "--severity", "1")
    assert (done.code, done.out) == (1, "")
    assert "Error: 5 of 5 images failed" in done.err and "Traceback" not in done.err
    done = evaluate("--dataset", voc, "--json")
    assert json.loads(done.out, parse_constant=pytest.fail)["summary"]["mIoU"] is None


def test_interruption_is_one_line(evaluate, voc, monkeypatch, tmp_path):
    from clipseg_cli.pipelines.stream import Stream

    def grouped(self, groups):
        yield self.finish(groups[0][0], next(self.predictor.predict([self.read(groups[0][0])])))
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "grouped", grouped)
    done = evaluate("--dataset", voc)
    assert done.code == 130
    assert done.err.endswith("Error: interrupted after 1 of 5 images\n")
    assert not list(tmp_path.glob("out/*/results.json"))


# Mistakes in options and data sets


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--benchmark", "voc12"], 2, ("unknown benchmark 'voc12'", "did you mean 'voc21'")),
        (["--benchmark", "ade20k"], 2, ("'ade20k' belongs to",)),
        (["--protocol", "sclp"], 2, ("unknown protocol 'sclp'", "did you mean 'sclip'")),
        (["--method", "maskclp"], 2, ("unknown method 'maskclp'", "did you mean 'maskclip'")),
        (["--unseen", "soffa"], 2, ("unseen class 'soffa' is not a class of voc21", "did you mean 'sofa'")),
        (["--split", "vall"], 2, ("vall", "val")),
        (["--run", "runs/x"], 2, ("--run brings its own data set",)),
        (["--partial"], 2, ("--partial does nothing without --predictions",)),
        (["--predictions", "x", "--corrupt", "all"], 2, ("predictions are made already",)),
        (["--predictions", "x"], 1, ("x: no such folder of predictions",)),
        (["--predictions", ""], 2, ("--predictions is empty",)),
        (["--split", "empty.txt"], 1, ("empty.txt",)),
        (["--split", "gone.txt"], 1, ("2007_009999",)),
    ],
)
def test_a_mistake_is_one_sentence(evaluate, voc, tmp_path, args, code, said):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "gone.txt").write_text(f"{NAMES[0]}\n2007_009999\n")
    done = evaluate("--dataset", voc, *args)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("Error: ") and done.err.count("\n") <= 2
    for part in said:
        assert part in done.err
    assert not (tmp_path / "out").exists()


def test_an_empty_variable_is_not_the_current_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(make_scored_voc(tmp_path))
    done = cli("eval", "--dataset", os.environ.get("CLIPSEG_UNSET", ""))
    assert (done.code, done.err.split("\n")[0]) == (2, "Error: --dataset is empty")
