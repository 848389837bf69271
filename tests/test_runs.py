"""`clipseg eval` without a data set: the newest complete run, and why it was taken."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from eval_trees import (  # noqa: F401
    NAMES,
    results_below,
    scored_voc,
)

from clipseg_cli.errors import RunError
from clipseg_cli.runs.find import config_of_run, newest_run


@pytest.fixture
def label(cli, tiny_clip, voc, tmp_path, monkeypatch):
    """Make a complete pseudo-label run below `runs` that was finished at a given time."""
    monkeypatch.chdir(tmp_path)

    def run(name, *args, at=1000):
        fixed = (*tiny_clip.options, "--templates", "single", "--name", name, "--quiet")
        done = cli("pseudolabel", voc, *fixed, *args)
        assert done.code == 0, done.err
        folder = tmp_path / "runs" / "pseudolabel" / name
        os.utime(folder / "manifest.json", (at, at))
        return folder

    return run


def unfinish(folder):
    """As a run looks that was interrupted: a manifest without a result."""
    from clipseg_cli.runs.manifest import Manifest, read_manifest, write_manifest

    write_manifest(Manifest(read_manifest(folder).identity), folder)
    return folder


def edit(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"maskclip"', '"vanilla"'))
    return folder


def test_nothing_to_evaluate_says_how_to_make_something(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("eval")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "Error: there is no run in runs/pseudolabel to evaluate\n"
        "Hint: make one with clipseg pseudolabel DATASET, or name a data set with --dataset ROOT\n"
    )


def test_the_only_run_is_evaluated_on_the_validation_split(cli, label, voc, tmp_path):
    label("a", "--prompt-denoising", "0.2")
    done = cli("eval", "--device", "cpu")
    assert done.code == 0, done.err
    assert done.err.startswith(
        "Evaluating tiny-vit as in runs/pseudolabel/a, the only complete run in runs/pseudolabel, on "
    )
    found = results_below(tmp_path / "runs" / "eval")
    assert (found["split"], found["images"], found["root"]) == ("val", 5, str(voc))
    assert found["options"]["prompt_denoising"] == 0.2


def test_the_newest_is_the_one_that_was_completed_last(label, tmp_path):
    first = label("z", at=3000)
    for name, at in (("a", 1000), ("m", 2000)):
        shutil.copytree(first, first.parent / name)
        os.utime(first.parent / name / "manifest.json", (at, at))
    assert newest_run() == (first.relative_to(tmp_path), "the newest of 3 complete runs in runs/pseudolabel")
    os.utime(first.parent / "a" / "manifest.json", (4000, 4000))
    assert newest_run()[0].name == "a"


def test_unfinished_and_damaged_runs_are_left_out_and_said(label):
    good = label("good", at=1000)
    for name in ("begun", "edited", "strange"):
        shutil.copytree(good, good.parent / name)
    unfinish(good.parent / "begun")
    edit(good.parent / "edited")
    (good.parent / "strange" / "manifest.json").write_text("{}")
    path, why = newest_run()
    assert path.name == "good" and why.startswith("the only complete run in runs/pseudolabel, without ")
    assert "runs/pseudolabel/begun (not finished)" in why
    for name in ("edited", "strange"):
        assert f"runs/pseudolabel/{name} (damaged, edited or of another version)" in why


def test_one_run_that_cannot_be_used_says_why(cli, label):
    folder = label("a")
    unfinish(folder)
    done = cli("eval")
    assert done.code == 1
    assert (
        "there is no complete run in runs/pseudolabel to evaluate: runs/pseudolabel/a (not finished)"
        in done.err
    )
    assert "Hint: the command that started it goes on with it" in done.err
    assert "a is not finished" in cli("eval", "--run", folder).err
    edit(folder)
    assert "(damaged, edited or of another version)\nHint: make one" in cli("eval").err
    done = cli("eval", "--run", folder)
    assert done.code == 1
    assert "does not agree with its own checksum: it was edited or damaged" in done.err


def test_options_overrule_those_of_the_run(cli, label, tmp_path):
    folder = label("a", "--prompt-denoising", "0.2", "--short-side", "80")
    args = ("--run", folder, "--device", "cpu", "--out", tmp_path / "out")
    assert cli("eval", *args, "--prompt-denoising", "0", "--benchmark", "voc20", "--split", "train").code == 0
    found = results_below(tmp_path / "out")
    assert (found["benchmark"], found["split"], found["images"]) == ("voc20", "train", 2)
    assert found["options"]["prompt_denoising"] == 0
    assert found["settings"]["short_side"] == 80


def test_another_model_or_protocol_leaves_the_options_of_the_old_one_behind(label):
    folder = label("a", "--short-side", "80", "--window", "64")
    same = config_of_run(folder, {})
    assert (same.model, same.short_side, same.templates) == ("tiny-vit", 80, "single")
    assert config_of_run(folder, {"model": "emoji"}).pretrained is None
    other = config_of_run(folder, {"protocol": "sclip"})
    assert (other.short_side, other.window, other.templates) == (None, None, None)
    assert config_of_run(folder, {"protocol": "sclip", "window": 128}).window == 128


def test_unseen_classes_of_the_run_stay_unseen(cli, label, tmp_path):
    label("a", "--keep-labels", "seen", "--unseen", "cow,sofa")
    assert cli("eval", "--device", "cpu", "--json").code == 0
    assert results_below(tmp_path / "runs" / "eval")["unseen"] == ["cow", "sofa"]


def test_a_data_set_that_has_moved_is_a_sentence(cli, label, voc, tmp_path):
    folder = label("a")
    voc.rename(tmp_path / "elsewhere")
    done = cli("eval")
    assert (done.code, done.out) == (1, "")
    assert f"Error: the data set of runs/pseudolabel/a is no longer at {voc}" in done.err
    assert "--dataset ROOT" in done.err
    args = ("--predictions", folder, "--dataset", tmp_path / "elsewhere", "--split", "train")
    assert cli("eval", *args, "--quiet").code == 0


def test_a_run_of_a_folder_of_ones_own(cli, tiny_clip, voc, tmp_path, monkeypatch):
    """Without splits, the pictures that were labelled are the ones that are scored."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine"
    shutil.copytree(voc / "JPEGImages", mine / "images")
    shutil.copytree(voc / "SegmentationClass", mine / "masks")
    (mine / "classes.txt").write_text("\n".join(f"thing {i}" for i in range(21)))
    options = (*tiny_clip.options, "--templates", "single", "--quiet")
    done = cli("pseudolabel", mine, "--name", "mine", *options)
    assert done.code == 0, done.err
    done = cli("eval", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["images"] == len(NAMES)
    assert [row["name"] for row in document["classes"]][:2] == ["thing 0", "thing 1"]


def test_a_folder_that_is_no_run(cli, tmp_path):
    (tmp_path / "x").mkdir()
    done = cli("eval", "--run", tmp_path / "x")
    assert done.code == 1
    assert f"{tmp_path / 'x'} is not a run: it has no manifest.json" in done.err
    with pytest.raises(RunError, match="there is no run"):
        newest_run(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--run", ""], "--run is empty"),
        (["--run", "x", "--dataset", "y"], "--run brings its own data set"),
        (["--run", "x", "--predictions", "y"], "--predictions RUN scores the labels of a run"),
    ],
)
def test_what_excludes_each_other_is_said(cli, args, said):
    done = cli("eval", *args)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
