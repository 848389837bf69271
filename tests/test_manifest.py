"""The manifest of a run: complete, true, and trusted only as it was written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
from run_folders import (  # noqa: F401
    contents,
    labels_in,
    make_photos,
    make_small_voc,
    run_command,
    run_folder,
    runner,
    times,
)

from clipseg_cli import __version__
from clipseg_cli.config import PseudolabelConfig
from clipseg_cli.errors import RunError
from clipseg_cli.runs.manifest import FORMAT, Manifest, differences, read_manifest, write_manifest

LEFT_OUT = {
    "compile",
    "workers",
    "out",
    "name",
    "shard",
    "formats",
    "keep_features",
    "engine",
    "shard_size",
    "actors",
}
"""What changes no label: the same run may go on with other threads, in other parts, or after it was moved. And what is
recorded only where it is on."""


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return make_small_voc(tmp_path_factory.mktemp("data") / "voc", 3)


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def finished(cli, tiny_clip, voc, _made, folder):
    """A copy of a run that is complete."""
    if not (_made / "run").exists():
        assert runner(cli, tiny_clip, _made)(voc).code == 0
    shutil.copytree(_made / "run", folder)
    return folder


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


# What it says


def test_it_says_with_what_the_labels_were_made(run, voc, folder, tiny_clip):
    assert run(voc, "--min-confidence", "0.1", "--method", "vanilla").code == 0
    found = manifest_of(folder)
    assert (found["format"], found["clipseg"], found["complete"]) == (FORMAT, __version__, True)
    names = [r["image"] for r in map(json.loads, (folder / "images.jsonl").read_text().splitlines())]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    data = found["dataset"]
    assert (data["root"], data["split"], data["benchmark"]) == (str(voc), "train", "voc21")
    assert (data["images"], data["images_sha256"]) == (3, digest)
    assert found["method"] == "vanilla"
    assert (found["options"]["min_confidence"], found["options"]["batch_size"]) == (0.1, 4)
    assert found["model"]["name"] == tiny_clip.name
    assert (found["model"]["device"], found["model"]["precision"]) == ("cpu", "float32")
    assert len(found["model"]["fingerprint"]) >= 16
    assert found["classes"][17]["name"] == "sheep" and found["classes"][17]["words"]
    assert (found["background"], found["ignore"]) == (0, 255)
    assert set(found["versions"]) >= {"clipseg", "torch", "open_clip_torch"}


def test_every_option_is_recorded(run, voc, folder):
    run(voc)
    found = manifest_of(folder)
    elsewhere = {
        "dataset": found["dataset"]["root"],
        "benchmark": found["dataset"]["benchmark"],
        "split": found["dataset"]["split"],
        "method": found["method"],
        "device": found["model"]["device"],
        "precision": found["model"]["precision"],
    }
    options = {field.name for field in dataclasses.fields(PseudolabelConfig)}
    assert options == set(found["options"]) | set(elsewhere) | LEFT_OUT
    assert all(elsewhere.values())


@pytest.mark.parametrize(
    "args", [(), ("--min-confidence", "0.14"), ("--keep-labels", "seen", "--unseen", "tvmonitor,bird")]
)
def test_its_counts_are_those_of_the_label_files(run, voc, folder, args):
    done = run(voc, *args)
    assert done.code == 0, done.err
    result = manifest_of(folder)["result"]
    maps = labels_in(folder)
    counts = sum(np.bincount(labels.ravel(), minlength=256) for labels in maps.values())
    assert result["pixels"] == counts.sum()
    assert [c["pixels"] for c in result["classes"]] == counts[:21].tolist()
    assert [c["id"] for c in result["classes"]] == list(range(21))
    assert [c["images"] for c in result["classes"]] == [
        sum((labels == i).any() for labels in maps.values()) for i in range(21)
    ]
    assert result["ignored"] == counts[255] / counts.sum()
    assert sum(c["share"] for c in result["classes"]) + result["ignored"] == pytest.approx(1)
    assert (result["images"], result["failed"]) == (3, {})
    for line in (folder / "images.jsonl").read_text().splitlines():
        record = json.loads(line)
        own = np.bincount(maps[record["image"]].ravel(), minlength=256)
        assert (record["height"], record["width"]) == maps[record["image"]].shape
        assert {int(i): n for i, n in record["pixels"].items()} == {i: n for i, n in enumerate(own[:21]) if n}
        assert record["ignored"] == own[255]
        assert sum(record["scored"].values()) + record["kept"] + record["ignored"] == own.sum()


# A finished run


def test_a_finished_run_is_left_as_it_is(run, voc, folder):
    first = run(voc)
    before = times(folder)
    again = run(voc)
    assert (again.code, again.out) == (0, first.out)
    assert "nothing was left to do" in again.err
    assert times(folder) == before


@pytest.mark.parametrize("name", ["labels/2012_000002.png", "summary.png", "images.jsonl"])
def test_what_was_removed_from_a_finished_run_comes_back(run, voc, finished, name):
    before = contents(finished)
    (finished / name).unlink()
    assert run(voc).code == 0
    assert contents(finished) == before


def test_an_empty_label_file_is_none(run, voc, finished):
    before = contents(finished)
    (finished / "labels" / "2012_000001.png").write_bytes(b"")
    assert run(voc).code == 0
    assert contents(finished) == before


def test_a_damaged_label_file_is_made_again(run, voc, finished):
    label = finished / "labels" / "2012_000001.png"
    whole = label.read_bytes()
    label.write_bytes(whole[:60])
    (finished / "summary.png").unlink()
    assert run(voc).code == 0
    assert label.read_bytes() == whole and (finished / "summary.png").is_file()


def test_a_run_without_its_manifest_is_not_gone_on_with(run, voc, finished):
    (finished / "manifest.json").unlink()
    done = run(voc)
    assert done.code == 1
    assert f"Error: {finished} holds labels but no manifest.json" in done.err


# Other options in the same folder


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--min-confidence", "0.2"], "--min-confidence: 0.0, now 0.2"),
        (["--prompt-denoising", "0.5"], "--prompt-denoising: 0.0, now 0.5"),
        (["--batch-size", "6"], "--batch-size: 4, now 6"),
        (["--method", "vanilla"], "--method: maskclip, now vanilla"),
        (["--split", "val"], "dataset.split: train, now val"),
        (["--benchmark", "voc20"], "dataset.benchmark: voc21, now voc20"),
        (["--short-side", "48"], "--short-side: not given, now 48"),
        (["--keep-labels", "seen", "--unseen", "bird,cow"], "--unseen: not given, now bird, cow"),
        (["--precision", "bf16"], "model.precision: float32, now bfloat16"),
    ],
)
def test_a_changed_option_is_named(run, voc, finished, args, said):
    before = times(finished)
    done = run(voc, *args)
    assert done.code == 1
    assert f"Error: {finished} was made with other options: " in done.err and said in done.err
    assert "Hint: use the same options to go on, or another --name to start anew" in done.err
    assert times(finished) == before


def test_changed_classes_are_named(run, tmp_path):
    photos = make_photos(tmp_path / "photos", 2)
    run(photos, "--classes", "cat,dog")
    assert (
        "--classes: cat,dog, now cat,cow; classes[2].name: dog, now cow" in run(photos, "-c", "cat,cow").err
    )
    assert "classes: 3, now 4" in run(photos, "-c", "cat,cow,dog").err


def test_another_list_of_pictures_is_named_where_an_option_differs_too(run, tmp_path):
    run(make_photos(tmp_path / "photos", 2), "--classes", "cat,dog")
    done = run(make_photos(tmp_path / "photos", 3), "--classes", "cat,dog", "--min-confidence", "0.2")
    assert done.code == 1
    assert "--min-confidence: 0.0, now 0.2; dataset.images: 2, now 3" in done.err


def test_other_words_for_a_class_are_named():
    before = {"classes": [{"name": "couch", "words": ["couch"]}]}
    now = {"classes": [{"name": "couch", "words": ["couch", "sofa"]}]}
    assert differences(before, now) == ["classes[0].words: couch, now couch, sofa"]


def test_workers_change_nothing(run, voc, finished):
    before = times(finished)
    assert run(voc, "--workers", "1").code == 0
    assert times(finished) == before


# Edited, damaged, of another version


def edit_by_hand(data):
    data["options"]["min_confidence"] = 0.5


def edit_result(data):
    data["result"]["classes"][0]["pixels"] += 1


def without_checksum(data):
    del data["checksum"]


@pytest.mark.parametrize("change", [edit_by_hand, edit_result, without_checksum])
def test_an_edited_manifest_is_refused(run, voc, finished, change):
    data = manifest_of(finished)
    change(data)
    (finished / "manifest.json").write_text(json.dumps(data))
    done = run(voc)
    assert done.code == 1
    assert f"{finished / 'manifest.json'} does not agree with its own checksum" in done.err
    assert "Hint: restore it, or start anew with another --name" in done.err
    assert manifest_of(finished) == data


def test_a_manifest_of_another_format_names_both_versions(run, voc, finished):
    data = manifest_of(finished) | {"format": 99, "clipseg": "9.7"}
    (finished / "manifest.json").write_text(json.dumps(data))
    done = run(voc)
    assert done.code == 1
    assert (
        f"has format 99, made by clipseg 9.7; this is clipseg {__version__}, which reads format 1" in done.err
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "is not a manifest of clipseg"),
        (b"{}", "is not a manifest of clipseg"),
        (b'{"format": 1}', "does not agree with its own checksum"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, data, said):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(RunError, match=said):
        read_manifest(tmp_path)


def test_what_is_written_is_read(tmp_path):
    manifest = Manifest({"kind": "x", "names": ["猫", "\udcff"], "share": 1 / 3, "none": None}, {"images": 1})
    write_manifest(manifest, tmp_path)
    found = read_manifest(tmp_path)
    assert found is not None and found.complete
    assert differences(found.identity, manifest.identity) == []
    assert found.result == manifest.result
    assert not Manifest({}).complete
