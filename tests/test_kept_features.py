"""`clipseg pseudolabel --keep-features`: more words without the image tower, and the same bytes as with it."""

from __future__ import annotations

import json

import pytest
from dataset_trees import save_image
from run_folders import contents, labels_in, make_photos, run_command, run_folder, stopped_after, times  # noqa: F401

from clipseg_cli.commands import keep_features
from clipseg_cli.inference.predictor import Predictor

WORDS = ("--classes", "cat,dog", "--keep-features")
MORE = ("--classes", "cat,dog,cow", "--keep-features")


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 4)


@pytest.fixture
def asked(monkeypatch):
    """How many windows the image tower is asked for."""
    read, seen = Predictor.read, []

    def count(self, images, regions=None):
        seen.append(len(images))
        return read(self, images, regions)

    monkeypatch.setattr(Predictor, "read", count)
    return seen


def feature(folder, name):
    return folder / f"features/{name}.safetensors"


def results(folder):
    """All that a run says of its images; what it took up, and how long that took, is its own."""
    found = contents(folder)
    manifest = json.loads(found.pop("manifest.json"))
    found.pop("features/cost.json", None)
    return found | {"result": manifest["result"], "classes": manifest["classes"]}


@pytest.mark.parametrize(
    "options",
    [(), ("--key-smoothing", "0.5", "--presence"), ("--propagate", "lposs")],
    ids=["plain", "keys and wholes", "values"],
)
def test_more_words_need_no_image_tower_and_give_the_bytes_of_a_fresh_run(
    run, photos, folder, asked, options
):
    assert run(photos, *WORDS, *options).code == 0
    tower = sum(asked)
    assert tower >= 4
    asked.clear()
    done = run(photos, *MORE, *options)
    assert done.code == 0, done.err
    assert asked == []
    assert "4 images were labelled from kept features, without the image tower: " in done.err
    assert " instead of about " in done.err
    assert run(photos, *MORE, *options, "--name", "fresh").code == 0
    assert sum(asked) == tower
    assert results(folder) == results(folder.with_name("fresh"))


def test_their_size_is_told_before_it_begins_and_is_in_the_manifest(run, photos, folder):
    done = run(photos, *WORDS)
    assert "Note: the features of 4 images take about " in done.err and "float16" in done.err
    kept = json.loads((folder / "manifest.json").read_text())["result"]["features"]
    sizes = [path.stat().st_size for path in (folder / "features").rglob("*.safetensors")]
    assert kept == {"format": "safetensors, float16", "images": 4, "bytes": sum(sizes)}
    assert "take about" not in run(photos, *WORDS).err


def test_too_small_a_disk_is_told_before_it_begins(run, photos, folder, monkeypatch):
    usage = keep_features.shutil.disk_usage(photos)
    monkeypatch.setattr(keep_features.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    done = run(photos, *WORDS)
    assert done.code == 1
    assert "take about" in done.err and "1.0 kB are free" in done.err
    assert labels_in(folder) == {}


@pytest.mark.parametrize("what", ["missing", "half", "a flipped byte", "of another run", "no tensors"])
def test_features_that_cannot_be_used_are_computed_anew(run, photos, folder, asked, what):
    assert run(photos, *WORDS).code == 0
    path = feature(folder, "01")
    data = path.read_bytes()
    if what == "missing":
        path.unlink()
    elif what == "of another run":
        assert run(photos, *WORDS, "--short-side", "40", "--name", "other").code == 0
        path.write_bytes(feature(folder.with_name("other"), "01").read_bytes())
    else:
        flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        path.write_bytes({"half": data[: len(data) // 2], "a flipped byte": flipped, "no tensors": b""}[what])
    asked.clear()
    done = run(photos, *MORE)
    assert done.code == 0, done.err
    assert "the features of 1 image could not be used (01: " in done.err
    assert "computed anew" in done.err and "2 images were labelled from kept features" in done.err
    assert sum(asked) > 0
    assert path.read_bytes() == data
    assert run(photos, *MORE, "--name", "fresh").code == 0
    assert results(folder) == results(folder.with_name("fresh"))


def test_features_of_an_image_that_was_replaced_are_not_used(run, photos, folder):
    assert run(photos, *WORDS).code == 0
    save_image(photos / "01.png", size=(14, 16), seed=77)
    done = run(photos, *MORE)
    assert done.code == 0, done.err
    assert "could not be used (01: of other bytes)" in done.err
    assert run(photos, *MORE, "--name", "fresh").code == 0
    assert results(folder) == results(folder.with_name("fresh"))


def test_stopped_while_it_takes_up_words_it_goes_on(run, photos, folder, monkeypatch, asked):
    assert run(photos, *WORDS).code == 0
    asked.clear()
    with stopped_after(monkeypatch, 1):
        assert run(photos, *MORE).code == 130
    assert not json.loads((folder / "manifest.json").read_text())["complete"]
    assert run(photos, *MORE).code == 0
    assert asked == []
    assert run(photos, *MORE, "--name", "fresh").code == 0
    assert results(folder) == results(folder.with_name("fresh"))


def test_a_run_without_features_does_not_begin_to_keep_them(run, photos, folder):
    assert run(photos, "--classes", "cat,dog").code == 0
    before = times(folder)
    done = run(photos, *WORDS)
    assert done.code == 1 and "--keep-features: not given, now true" in done.err
    assert times(folder) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "resclip"), "--method resclip reads images with the words in sight"),
        (("--presence", "freecp"), "--presence freecp looks at attention between all patches"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(run, photos, folder, options, said):
    done = run(photos, *WORDS, *options)
    assert done.code == 2 and f"Error: --keep-features: {said}" in done.err
    assert not folder.exists()
