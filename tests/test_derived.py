"""What was made of labels and lies beside them follows when they change, or is named as out of date."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from dataset_trees import save_image
from PIL import Image
from run_folders import correct_upper_half, make_photos, run_command, run_folder  # noqa: F401

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("--classes", "cat,dog")
FORMATS = ("--formats", "coco,csv")


@pytest.fixture
def photos(tmp_path):
    return make_photos(tmp_path / "photos", 4)


@pytest.fixture
def labelled(run, photos, folder) -> Path:
    """A finished run with two files about all images."""
    done = run(photos, *WORDS, *FORMATS)
    assert done.code == 0, done.err
    return folder


def other_label(folder: Path, image: str, to: Path) -> Path:
    """A correction of an image: its label with the ids in another order."""
    to.mkdir(parents=True, exist_ok=True)
    with Image.open(folder / "labels" / f"{image}.png") as there:
        labels = np.asarray(there)
    path = to / f"{image}.png"
    Image.fromarray(((labels + 1) % 3).astype(np.uint8)).save(path)
    return path


def rows(folder: Path) -> list[str]:
    return (folder / "regions.csv").read_text().splitlines()


def fresh(cli, folder: Path, to: Path) -> dict[str, bytes]:
    """The same files made of the labels as they are now, in another folder."""
    assert cli("convert", folder, *FORMATS, "--out", to).code == 0
    found = {name: (to / name).read_bytes() for name in ("coco.json", "regions.csv")}
    shutil.rmtree(to)
    return found


def is_fresh(cli, folder: Path, to: Path) -> bool:
    return all((folder / name).read_bytes() == data for name, data in fresh(cli, folder, to).items())


def noted(folder: Path) -> dict[str, dict]:
    return {made["name"]: made for made in json.loads((folder / "derived.json").read_text())["made"]}


def test_files_about_all_images_follow_an_import_and_its_undo(cli, labelled, tmp_path):
    before = {name: (labelled / name).read_bytes() for name in ("coco.json", "regions.csv")}
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"), "--json")
    assert done.code == 0, done.err
    assert {path.rpartition("/")[2] for path in json.loads(done.out)["made_anew"]} == set(before)
    assert json.loads(done.out)["out_of_date"] == []
    assert (labelled / "coco.json").read_bytes() != before["coco.json"]
    assert is_fresh(cli, labelled, tmp_path / "again")
    done = cli("import", labelled, "--undo")
    assert done.code == 0 and f"wrote {labelled / 'coco.json'}" in done.err
    assert all((labelled / name).read_bytes() == data for name, data in before.items())


def test_only_the_images_that_changed_are_read(cli, labelled, tmp_path, monkeypatch):
    from clipseg_cli.runs.labelled import LabelFolder

    correction, read, plain = other_label(labelled, "01", tmp_path / "new"), [], LabelFolder.read
    monkeypatch.setattr(
        LabelFolder, "read", lambda self, name, **k: read.append(str(name)) or plain(self, name, **k)
    )
    assert cli("import", labelled, correction).code == 0
    assert read == ["01"] * 3  # compared with its correction, and for each of two files


def test_images_that_come_and_go_are_in_no_file_that_lags_behind(cli, run, photos, labelled, tmp_path):
    save_image(photos / "09.png", size=(14, 16), seed=9)
    (photos / "00.png").unlink()
    done = run(photos, *WORDS)  # nobody names the formats again
    assert done.code == 0, done.err
    assert {row.split(",")[0] for row in rows(labelled)[1:]} <= {"01.png", "03.png", "09.png", "trip/02.png"}
    names = [image["file_name"] for image in json.loads((labelled / "coco.json").read_text())["images"]]
    assert names == ["01.png", "03.png", "09.png", "trip/02.png"]
    assert is_fresh(cli, labelled, tmp_path / "again")
    assert "nothing was left to do" in (again := run(photos, *WORDS)).err and "wrote" not in again.err


def test_new_words_are_categories_of_files_that_were_there(cli, run, photos, labelled, tmp_path):
    assert run(photos, "--classes", "cat,dog,cow").code == 0
    names = [row["name"] for row in json.loads((labelled / "coco.json").read_text())["categories"]]
    assert names == ["cat", "dog", "cow"]
    assert is_fresh(cli, labelled, tmp_path / "again")


def test_labels_edited_by_hand_are_taken_up_by_the_same_command(cli, run, photos, labelled, tmp_path):
    correct_upper_half(labelled / "labels" / "03.png", 2)
    done = run(photos, *WORDS)
    assert done.code == 0 and f"wrote {labelled / 'coco.json'}" in done.err
    assert is_fresh(cli, labelled, tmp_path / "again")


def test_options_hold_when_a_file_is_made_anew(cli, labelled, tmp_path):
    assert cli("convert", labelled, "--formats", "csv", "--min-area", "20").code == 0
    assert cli("import", labelled, other_label(labelled, "01", tmp_path / "new")).code == 0
    assert noted(labelled)["csv"]["options"] == {"min_area": 20}
    assert min(int(row.split(",")[8]) for row in rows(labelled)[1:]) >= 20


def test_a_file_that_somebody_edited_is_named_and_kept(cli, labelled, tmp_path):
    edited = (labelled / "coco.json").read_text().replace('"licenses": []', '"licenses": ["mine"]')
    (labelled / "coco.json").write_text(edited)
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"))
    assert done.code == 0
    assert (
        f"Note: coco.json is out of date (1 image) and was edited since: clipseg convert {labelled} --formats coco "
        "makes it anew" in done.err
    )
    assert (labelled / "coco.json").read_text() == edited
    assert f"wrote {labelled / 'regions.csv'}" in done.err


def test_files_of_each_image_are_named_and_kept(cli, labelled, tmp_path):
    assert cli("convert", labelled, "--formats", "labelme").code == 0
    before = {path: path.read_bytes() for path in (labelled / "labelme").rglob("*.json")}
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"))
    assert done.code == 0
    assert "Note: what lies there as labelme is out of date (1 image): " in done.err
    assert all(path.read_bytes() == data for path, data in before.items())
    assert cli("convert", labelled, "--formats", "labelme").code == 0
    assert (labelled / "labelme" / "01.json").read_bytes() != before[labelled / "labelme" / "01.json"]
    assert "out of date" not in cli("import", labelled, "--undo", "--quiet").err


def test_a_review_is_named_until_it_is_made_anew(cli, labelled, photos, run, tmp_path):
    assert cli("review", labelled, "--min-area", "4").code == 0
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"))
    assert done.code == 0
    assert (
        f"Note: review.html, with its tables, is out of date (1 image): clipseg review {labelled} --min-area 4 "
        "makes it anew" in done.err
    )
    save_image(photos / "09.png", size=(14, 16), seed=9)
    assert "review.html, with its tables, is out of date (2 images)" in run(photos, *WORDS).err
    assert cli("review", labelled, "--min-area", "4").code == 0
    assert "out of date" not in run(photos, *WORDS).err


def test_a_folder_inside_the_run_follows_too(cli, labelled, tmp_path):
    for name in ("coco.json", "regions.csv", "derived.json"):
        (labelled / name).unlink()
    inside = labelled / "for the team"
    assert cli("convert", labelled, *FORMATS, "--out", inside).code == 0
    before = (inside / "coco.json").read_bytes()
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"))
    assert done.code == 0 and f"wrote {inside / 'coco.json'}" in done.err
    assert (inside / "coco.json").read_bytes() != before
    assert (inside / "coco.json").read_bytes() == fresh(cli, labelled, tmp_path / "again")["coco.json"]


def test_what_was_taken_away_or_handed_over_is_left_alone(cli, labelled, tmp_path):
    assert cli("convert", labelled, "--formats", "cvat", "--out", tmp_path / "copy").code == 0
    copy = (tmp_path / "copy" / "cvat.xml").read_bytes()
    (labelled / "coco.json").unlink()
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"))
    assert done.code == 0
    assert not (labelled / "coco.json").exists() and "coco" not in done.err
    assert (tmp_path / "copy" / "cvat.xml").read_bytes() == copy


def test_a_file_that_could_not_be_made_anew_is_once_it_can(cli, run, photos, labelled, tmp_path):
    correction = other_label(labelled, "01", tmp_path / "new")
    damaged = labelled / "labels" / "03.png"
    good = damaged.read_bytes()
    correct_upper_half(damaged, 9)  # an id that is no class
    done = cli("import", labelled, correction)
    assert done.code == 1 and "03.png holds 9" in done.err and "is out of date (1 image)" in done.err
    assert "1 corrected" in done.err
    damaged.write_bytes(good)
    assert run(photos, *WORDS).code == 0
    assert is_fresh(cli, labelled, tmp_path / "again")


def record_with(**changes: object) -> str:
    made = {"name": "coco", "folder": ".", "options": {}, "classes": ["cat"], **changes}
    return json.dumps({"format": "clipseg-derived", "version": 1, "made": [made]})


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"format": "clipseg-derived", "version": 2, "made": []}'),
        record_with(name=3),
        record_with(classes=7),
        record_with(more=1),
        record_with(images={"01": 5}),
        record_with(options={"workers": 9}),
        record_with(options={"min_area": "a lot"}),
    ],
)
def test_a_damaged_record_stops_an_import_before_anything_changes(cli, labelled, tmp_path, text):
    correction = other_label(labelled, "01", tmp_path / "new")
    (labelled / "derived.json").write_text(text)
    before = (labelled / "labels" / "01.png").read_bytes()
    done = cli("import", labelled, correction)
    assert done.code == 1 and "derived.json is damaged" in done.err and "Traceback" not in done.err
    assert (labelled / "labels" / "01.png").read_bytes() == before
    assert not (labelled / "human.jsonl").exists()


def test_a_record_cannot_lead_out_of_its_folder(cli, labelled, tmp_path):
    data = json.loads((labelled / "derived.json").read_text())
    data["made"][0]["folder"] = "../.."
    (labelled / "derived.json").write_text(json.dumps(data))
    done = cli("import", labelled, other_label(labelled, "01", tmp_path / "new"))
    assert done.code == 1 and "is not inside the folder" in done.err


def test_a_folder_that_is_labelled_again(cli, tiny_clip, photos, tmp_path):
    out = tmp_path / "segmented"
    line = ("segment", photos, *WORDS, *tiny_clip.options, "--templates", "single", "--out", out)
    assert cli(*line, "--formats", "labels").code == 0
    assert cli("convert", out, *FORMATS).code == 0
    other = ("--method", "naclip")
    done = cli(*line, *other, "--formats", "labels,csv")
    assert done.code == 0, done.err
    assert f"wrote {out / 'coco.json'}" in done.err and "regions.csv" not in done.err
    assert (out / "coco.json").read_bytes() == fresh(cli, out, tmp_path / "again")["coco.json"]
    assert noted(out).keys() == {"coco"}  # the other one was written in one go with the labels


def test_what_segment_wrote_beside_its_labels_is_named(cli, tiny_clip, photos, tmp_path):
    out = tmp_path / "segmented"
    line = ("segment", photos, *WORDS, *tiny_clip.options, "--templates", "single", "--out", out)
    assert cli(*line, "--formats", "labels,overlay,confidence,coco").code == 0
    with Image.open(out / "01.png") as there:
        labels = np.asarray(there)
    (tmp_path / "new").mkdir()
    Image.fromarray(((labels + 1) % 3).astype(np.uint8)).save(tmp_path / "new" / "01.png")
    done = cli("import", out, tmp_path / "new", "--json")
    assert done.code == 0, done.err
    said = (
        f"what segment wrote as overlay, coco are of the labels before (1 image): clipseg convert {out} --formats "
        "overlay,coco --images DIR makes them anew"
    )
    assert json.loads(done.out)["out_of_date"] == [said] and f"Note: {said}" in done.err
    assert cli("convert", out, "--formats", "overlay,coco", "--images", photos).code == 0
    done = cli("import", out, "--undo")  # now it is known what they were made of
    assert f"wrote {out / 'coco.json'}" in done.err
    assert "Note: what lies there as overlay is out of date (1 image)" in done.err
    assert done.err.count("out of date") == 1
