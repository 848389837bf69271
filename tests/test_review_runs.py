"""A run of pseudolabel is looked through with what it noted, kept and knows the truth of."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from review_runs import Page
from run_folders import (  # noqa: F401  (fixtures)
    contents,
    labels_in,
    lasting_voc,
    make_photos,
    run_command,
    run_folder,
    stopped_after,
    voc_data,
)

from clipseg_cli.data.labels import read_values


def listed(folder):
    return json.loads((folder / "review.json").read_text("utf-8"))


def kept(folder, name):
    return read_values(folder / "labels" / f"{name}_confidence.png") / 65535


def test_images_are_ordered_by_what_the_run_noted(cli, run, voc, folder):
    assert run(voc).code == 0
    done = cli("review", folder)
    assert done.code == 0, done.err
    assert "--formats confidence" in done.err
    noted = {}
    for line in (folder / "images.jsonl").read_text().splitlines():
        record = json.loads(line)
        sums = [(record["confidence"][i], record["scored"][i]) for i in record["scored"] if i != "0"]
        sums = sums or [(record["confidence"]["0"], record["scored"]["0"])]
        noted[record["image"]] = sum(s for s, _ in sums) / sum(n for _, n in sums)
    images = listed(folder)["images"]
    assert [image["image"] for image in images] == sorted(noted, key=lambda name: noted[name])
    assert all(image["trust"] == pytest.approx(noted[image["image"]], abs=1e-4) for image in images)
    assert all(region["trust"] is None for image in images for region in image["regions"])
    assert not Page((folder / "review.html").read_text("utf-8")).data["regions_ordered"]


def test_confidence_is_kept_beside_the_labels(cli, run, voc, folder):
    assert run(voc).code == 0
    before = contents(folder)
    done = run(voc, "--formats", "confidence")
    assert done.code == 0, done.err
    after = contents(folder)
    added = {name for name in after if name not in before}
    assert added == {f"labels/{name}_confidence.png" for name in labels_in_names(folder)}
    assert {name: after[name] for name in before} == before  # the same labels, and the same record of them
    assert "nothing was left to do" in run(voc, "--formats", "confidence").err
    assert cli("review", folder / "labels").code == 0
    for image in listed(folder)["images"]:
        labels, sure = labels_in(folder)[image["image"]], kept(folder, image["image"])
        chosen = labels > 0 if (labels > 0).any() else labels >= 0
        assert image["trust"] == pytest.approx(sure[chosen].mean(), abs=2e-4)
        for region in image["regions"]:
            assert region["trust"] == region["confidence"] is not None


def labels_in_names(folder):
    return [path.stem for path in (folder / "labels").glob("*.png") if not path.stem.endswith("_confidence")]


def test_ground_truth_is_shown_where_the_data_set_has_some(cli, run, voc, folder):
    assert run(voc).code == 0
    assert cli("review", folder).code == 0
    page = Page((folder / "review.html").read_text("utf-8"))
    assert page.data["has_beside"]
    for image, drawn in zip(page.data["images"], page.payloads, strict=True):
        true = read_values(voc / "SegmentationClass" / f"{image['name']}.png")
        right = labels_in(folder)[image["name"]] == true
        assert drawn["truth"] and image["accuracy"] == pytest.approx(right[true != 255].mean(), abs=1e-4)


def test_a_plain_folder_has_no_truth(cli, run, folder, tmp_path):
    photos = make_photos(tmp_path / "photos", 3)
    assert run(photos, "--classes", "cat,dog").code == 0
    assert cli("review", folder).code == 0
    page = Page((folder / "review.html").read_text("utf-8"))
    assert not page.data["has_beside"] and all(image["accuracy"] is None for image in page.data["images"])
    assert {image["name"] for image in page.data["images"]} == {"00", "01", "trip/02"}
    words = shlex.split(page.texts["command"])
    assert words[:3] == ["clipseg", "pseudolabel", str(photos)]
    assert words[words.index("--classes") + 1] == "cat,dog" and "--device" not in words


def test_corrected_labels_are_not_judged_by_what_was_said_of_others(cli, run, voc, folder):
    assert run(voc, "--formats", "confidence").code == 0
    name = labels_in_names(folder)[0]
    path = folder / "labels" / f"{name}.png"
    with Image.open(path) as image:
        Image.fromarray(np.zeros((image.height, image.width), np.uint8)).save(path)
    assert cli("review", folder).code == 0
    last = listed(folder)["images"][-1]
    assert last["image"] == name and last["corrected"] and last["trust"] is None
    assert not any(image["corrected"] for image in listed(folder)["images"][:-1])
    assert run(voc, "--formats", "confidence").code == 0  # and it stays
    assert not read_values(path).any()


def test_a_run_that_is_not_finished_is_refused(cli, run, voc, folder, monkeypatch):
    with stopped_after(monkeypatch, 3):
        assert run(voc).code == 130
    done = cli("review", folder)
    assert done.code == 1 and "is not finished" in done.err and "goes on with it" in done.err
    assert not list(folder.glob("review*"))


def test_ground_truth_that_is_kept_is_sure(run, voc, folder):
    args = ("--keep-labels", "seen", "--unseen", "sheep", "--formats", "confidence")
    done = run(voc, *args, "--split", "train")
    assert done.code == 0, done.err
    for name in labels_in_names(folder):
        true = read_values(voc / "SegmentationClass" / f"{name}.png")
        assert (kept(folder, name)[true != 17] == 1).all()
