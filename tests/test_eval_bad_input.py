"""`clipseg eval` says in a sentence what is wrong, and scores what can be scored."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
from eval_trees import (  # noqa: F401
    NAMES,
    evaluate_command,
    make_scored_voc,
    scored_voc,
    write_split,
)
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


# Pictures that cannot be scored


def _spoil(voc: Path, how: str) -> Path:
    label = voc / "SegmentationClass" / f"{NAMES[1]}.png"
    image = voc / "JPEGImages" / f"{NAMES[1]}.jpg"
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
        image.write_bytes(image.read_bytes()[:200])
    return image if how == "damaged picture" else label


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("label of another size", "is 40x56, but its label"),
        ("unknown id", "77 is no label of voc21 (1 pixel)"),
        ("RGB label", "is an RGB image, not class ids"),
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


def test_nothing_that_can_be_scored(evaluate, voc, tmp_path):
    """What was found before stays."""
    assert evaluate("--dataset", voc, "--methods", "maskclip").code == 0
    assert evaluate("--dataset", voc).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for name in NAMES:
        (voc / "JPEGImages" / f"{name}.jpg").write_bytes(b"no picture")
    done = evaluate("--dataset", voc, "--corrupt", "spatter", "--severity", "1")
    assert (done.code, done.out) == (1, "")
    assert "Error: 5 of 5 images failed and nothing was written" in done.err and "Traceback" not in done.err
    assert "results in" not in done.err
    done = evaluate("--dataset", voc, "--json")
    assert json.loads(done.out, parse_constant=pytest.fail)["summary"]["mIoU"] is None
    done = evaluate("--dataset", voc, "--methods", "maskclip")
    assert done.code == 1 and "none of 5 images could be scored" in done.err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "args"), [("results.json", ()), ("methods.json", ("--methods", "maskclip"))]
)
def test_results_of_something_else_are_not_written_over(evaluate, voc, tmp_path, name, args):
    stranger = tmp_path / "out" / "mine" / name
    stranger.parent.mkdir(parents=True)
    stranger.write_text('{"mIoU": 0.9}')
    done = evaluate("--dataset", voc, "--name", "mine", *args)
    assert done.code == 1 and f"{stranger} was not made by clipseg" in done.err
    assert stranger.read_text() == '{"mIoU": 0.9}' and list(stranger.parent.iterdir()) == [stranger]


def test_interruption_is_one_line(evaluate, voc, monkeypatch, tmp_path):
    from clipseg_cli.inference.stream import Stream

    def reproducible(self, groups):
        yield self.finish(groups[0][0], next(self.predictor.predict([self.read(groups[0][0])])))
        raise KeyboardInterrupt

    monkeypatch.setattr(Stream, "reproducible", reproducible)
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
        (["--alone"], 2, ("--alone is about a student, and none is scored",)),
        (["--method", "zzz"], 2, ("unknown method 'zzz'", "known: ", "maskclip")),
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


def test_a_place_that_cannot_be_written_is_found_before_the_work(cli, tiny_clip, voc, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "clipseg_cli.inference.load.load_backbone", lambda *args: pytest.fail("loads weights")
    )
    (tmp_path / "taken").write_text("mine")
    for args in ((), ("--predictions", voc / "SegmentationClass")):
        done = cli("eval", "--dataset", voc, *tiny_clip.options, *args, "--out", tmp_path / "taken")
        assert done.code == 1
        assert "taken is a file, not a folder" in done.err
