"""Label maps become files for other tools at any later moment, and what is wrong with one keeps no other from it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotated import NAMES, result_of, samples, shapes
from PIL import Image

from clipseg_cli.errors import UsageError
from clipseg_cli.outputs.labels import encode_labels
from clipseg_cli.types import ClassList, Segmentation

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("-c", "cat,dog,cow,tree,sky,road", "--background", "none", "--templates", "single")


@pytest.fixture
def photos(make_image, tmp_path) -> Path:
    make_image(tmp_path / "photos" / "one.jpg", 60, 90)
    make_image(tmp_path / "photos" / "sub folder" / "zwei 猫.png", 64, 30, seed=1)
    return tmp_path / "photos"


@pytest.fixture
def labelled(cli, tiny_clip, photos, tmp_path) -> Path:
    out = tmp_path / "labelled"
    formats = "labels,confidence,coco,csv"
    done = cli("segment", photos, *WORDS, *tiny_clip.options, "--out", out, "--formats", formats)
    assert done.code == 0, done.err
    return out


def masks(folder: Path, maps: dict[str, np.ndarray]) -> Path:
    """Label PNGs as any tool makes them."""
    for name, labels in maps.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels.astype(np.uint8)).save(path)
    return folder


def read_json(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_converting_gives_what_segmenting_gave(cli, labelled, photos, tmp_path):
    done = cli(
        "convert",
        labelled,
        "--formats",
        "coco,csv,overlay",
        "--out",
        tmp_path / "c",
        "--images",
        photos,
        "--json",
    )
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["images"] == 2 and document["failed"] == 0
    assert {row["format"]: row["files"] for row in document["formats"]} == {"coco": 1, "csv": 1, "overlay": 2}
    assert (tmp_path / "c" / "coco.json").read_bytes() == (labelled / "coco.json").read_bytes()
    # Confidences have come through 16 bits.
    for there, here in zip(
        *((folder / "regions.csv").read_text("utf-8").splitlines() for folder in (labelled, tmp_path / "c")),
        strict=True,
    ):
        assert there.split(",")[:-1] == here.split(",")[:-1]
    names = [image["file_name"] for image in read_json(tmp_path / "c" / "coco.json")["images"]]
    assert names == ["one.jpg", "sub folder/zwei 猫.png"]
    assert (
        read_json(tmp_path / "c" / "classes.json")["classes"]
        == read_json(labelled / "classes.json")["classes"]
    )


def test_names_of_images_are_kept_where_the_images_are_not(cli, labelled, photos, tmp_path):
    done = cli("convert", labelled, "-f", "labelme", "-o", tmp_path / "c")
    assert done.code == 0, done.err
    assert "--images" in done.err
    paths = sorted((tmp_path / "c" / "labelme").rglob("*.json"))
    assert [read_json(path)["imagePath"] for path in paths] == ["one.jpg", "sub folder/zwei 猫.png"]
    done = cli("convert", labelled, "-f", "labelme", "-o", tmp_path / "c", "--images", photos)
    assert done.code == 0 and "--images" not in done.err
    for path in paths:
        image = (path.parent / read_json(path)["imagePath"]).resolve()
        assert image.is_file() and image.is_relative_to(photos)


def test_beside_the_labels_by_default_and_not_in_their_place(cli, labelled):
    before = {path: path.read_bytes() for path in labelled.rglob("*") if path.is_file()}
    assert cli("convert", labelled, "--formats", "npz").code == 0
    assert (labelled / "one.npz").is_file() and (labelled / "sub folder" / "zwei 猫.npz").is_file()
    assert all(path.read_bytes() == data for path, data in before.items())
    done = cli("convert", labelled, "--formats", "labels")
    assert done.code == 2 and "written over themselves" in done.err


def test_specks_are_absorbed_in_every_format_alike(cli, tiny_clip, photos, tmp_path):
    least = 300

    def segment(out, *args):
        args = (*args, "--formats", "labels,npz,csv", "--out", tmp_path / out)
        assert cli("segment", photos, *WORDS, *tiny_clip.options, *args).code == 0
        with Image.open(tmp_path / out / "one.png") as image, np.load(tmp_path / out / "one.npz") as data:
            assert np.array_equal(np.asarray(image), data["labels"])
            return data["labels"], (tmp_path / out / "regions.csv").read_text("utf-8")

    plain, clean = segment("plain"), segment("clean", "--min-area", least)
    assert not np.array_equal(plain[0], clean[0])
    assert len(clean[1].splitlines()) < len(plain[1].splitlines())
    assert min(int(line.split(",")[8]) for line in clean[1].splitlines()[1:]) >= least
    done = cli("convert", tmp_path / "plain", "-f", "npz", "-o", tmp_path / "later", "--min-area", least)
    assert done.code == 0
    with np.load(tmp_path / "later" / "one.npz") as data:
        assert np.array_equal(data["labels"], clean[0])


def test_masks_of_other_tools(cli, tmp_path):
    folder = masks(tmp_path / "masks", {"a": shapes(), "sub/b": np.full((3, 4), 255)})
    done = cli("convert", folder, "--formats", "csv", "--out", tmp_path / "c")
    assert done.code == 1 and "--classes" in done.err and not (tmp_path / "c").exists()
    done = cli("convert", folder, "-f", "csv", "-o", tmp_path / "c", "-c", "background,cat,car,dog")
    assert done.code == 0, done.err
    lines = (tmp_path / "c" / "regions.csv").read_text().splitlines()[1:]
    assert sum(int(line.split(",")[8]) for line in lines) == shapes().size
    assert {tuple(line.split(",")[2:4]) for line in lines} == {
        ("0", "background"),
        ("1", "cat"),
        ("2", "car"),
        ("3", "dog"),
    }
    assert "confidence is left out" in done.err


def test_a_label_png_explains_itself_without_the_folder(cli, tmp_path):
    result = result_of(shapes())
    (tmp_path / "x.png").write_bytes(encode_labels(result.labels, result.classes, file="x.webp"))
    assert cli("convert", tmp_path, "--formats", "coco").code == 0
    coco = read_json(tmp_path / "coco.json")
    assert [c["name"] for c in coco["categories"]] == list(NAMES[1:])
    assert coco["images"][0]["file_name"] == "x.webp"


def test_one_bad_label_map_keeps_no_other_from_it(cli, labelled, photos, tmp_path):
    (labelled / "cut.png").write_bytes((labelled / "one.png").read_bytes()[:-30])
    masks(labelled, {"strange": np.full((5, 5), 77), "colours": np.zeros((5, 5, 3))})
    other = Segmentation(np.zeros((2, 2), np.uint8), None, ClassList(("a", "b"), (("a",), ("b",))), None)
    (labelled / "other.png").write_bytes(encode_labels(other.labels, other.classes))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(labelled / "small.png")
    Image.new("RGB", (10, 9)).save(photos / "small.jpg")
    done = cli("convert", labelled, "-f", "coco", "-o", tmp_path / "c", "--images", photos, "--json")
    assert done.code == 1
    failures = json.loads(done.out)["failures"]
    assert set(failures) == {"cut", "strange", "colours", "other", "small"}
    assert "damaged" in failures["cut"] and "77" in failures["strange"] and "RGB" in failures["colours"]
    assert "other classes" in failures["other"] and "10x9" in failures["small"]
    assert "5 of 7 images failed" in done.err
    assert len(read_json(tmp_path / "c" / "coco.json")["images"]) == 2


def test_a_turned_photo_has_the_size_that_was_labelled(cli, labelled, photos, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photos / "one.jpg") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(photos / "one.jpg", exif=exif)
    done = cli("convert", labelled, "-f", "coco", "-o", tmp_path / "c", "--images", photos)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--formats", "cocoo"), "did you mean 'coco'"),
        (("--formats", ""), "Missing option '--formats'"),
        ((), "Missing option '--formats'"),
        (("--formats", "heatmaps"), "scores of all classes"),
        (("--formats", "overlay"), "needs the images"),
        (("--formats", "coco", "--min-area", -1), "not between"),
        (("--formats", "coco", "--set", "coco.min_area=-1"), "whole number from 0"),
        (("--formats", "coco", "--set", "csv.min_area=2"), "add --formats csv"),
        (("--formats", "coco", "--set", "naclip.std=2"), "naclip"),
        (("--formats", "coco", "--classes", "a,b"), "leave out --classes"),
        (("--formats", "coco", "--images", "nowhere"), "nowhere: no such"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(args, text, cli, labelled, tmp_path):
    done = cli("convert", labelled, *args, "--out", tmp_path / "c")
    assert done.code in (1, 2)
    assert text in done.err and done.err.startswith("Error: ")
    assert not (tmp_path / "c").exists()


def test_folders_that_hold_no_labels(cli, tmp_path):
    assert "no such folder" in cli("convert", tmp_path / "none", "-f", "coco").err
    assert "no label PNG" in cli("convert", tmp_path, "-f", "coco").err
    (tmp_path / "classes.json").write_text("{}")
    masks(tmp_path, {"x": np.zeros((2, 2))})
    done = cli("convert", tmp_path, "-f", "coco")
    assert done.code == 1 and "damaged, or was not made by clipseg" in done.err


def test_confidence_needs_to_be_there(cli, labelled, tmp_path):
    assert cli("convert", labelled, "-f", "confidence", "-o", tmp_path / "c").code == 0
    assert (tmp_path / "c" / "one_confidence.png").read_bytes() == (
        labelled / "one_confidence.png"
    ).read_bytes()
    for path in labelled.rglob("*_confidence.png"):
        path.unlink()
    done = cli("convert", labelled, "-f", "confidence", "-o", tmp_path / "d")
    assert done.code == 2 and "how sure the model was" in done.err


def test_a_folder_of_other_classes_is_not_mixed(cli, labelled, tmp_path):
    write_classes = cli("convert", labelled, "-f", "coco", "-o", tmp_path / "c")
    assert write_classes.code == 0
    folder = masks(tmp_path / "masks", {"a": np.zeros((4, 4))})
    done = cli("convert", folder, "-f", "coco", "-o", tmp_path / "c", "-c", "sky,sea")
    assert done.code == 1 and "other classes" in done.err


def test_pseudolabel_writes_formats_into_its_run(cli, tiny_clip, photos, tmp_path):
    args = ("pseudolabel", photos, *WORDS, *tiny_clip.options, "--out", tmp_path / "runs", "--name", "r")
    done = cli(*args, "--formats", "coco,yolo-seg", "--min-confidence", 0.3)
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "r"
    coco = read_json(run / "coco.json")
    assert [image["file_name"] for image in coco["images"]] == ["one.jpg", "sub folder/zwei 猫.png"]
    assert not any("score" in one for one in coco["annotations"])
    assert "ignored pixels" in done.err and "confidence is left out" in done.err
    manifest = (run / "manifest.json").read_bytes()
    again = cli(*args, "--formats", "csv,coco", "--min-confidence", 0.3, "--set", "coco.min_area=300")
    assert again.code == 0, again.err  # nothing that labels depend on has changed
    assert (run / "regions.csv").is_file()
    assert (run / "manifest.json").read_bytes() == manifest
    assert read_json(run / "coco.json") != coco
    plain = cli("convert", run, "-f", "coco", "-o", tmp_path / "c")
    assert plain.code == 0 and read_json(tmp_path / "c" / "coco.json") == coco
    assert cli("convert", run / "labels", "-f", "coco", "-o", tmp_path / "d").code == 0
    assert read_json(tmp_path / "d" / "coco.json") == coco
    for name, text in (("labels", "made of"), ("heatmaps", "needs more")):
        refused = cli(*args, "--formats", name)
        assert refused.code == 2 and text in refused.err


def test_models_lists_the_formats(cli):
    done = cli("models", "--formats")
    assert done.code == 0
    for name in ("labels*", "coco", "yolo-seg", "min_area=0"):
        assert name in done.out
    rows = json.loads(cli("models", "--formats", "--json").out)
    assert {"coco", "csv", "labelme", "npz", "yolo-seg"} < {row["name"] for row in rows}
    assert all(row["summary"] for row in rows)


def test_save_writes_them_from_python(tmp_path):
    from clipseg_cli.api.segmentation import Segmentation as Result
    from clipseg_cli.types import RunInfo

    result = Result.of(samples()[0], RunInfo(samples()[0].classes, {}, {}, {"clipseg": "0"}))
    written = result.save(tmp_path, formats="coco,yolo-seg")
    assert (tmp_path / "coco.json") in written and (tmp_path / "yolo_seg" / "data.yaml") in written
    result.save(tmp_path, "other/name", formats=["coco"], min_area=9)
    coco = read_json(tmp_path / "coco.json")
    assert [image["file_name"] for image in coco["images"]] == ["one.jpg", "other/name.jpg"]
    regions = result.regions(min_area=9)
    assert regions.areas.sum() == result.labels.size and regions.areas.min() >= 9
    assert len(regions) == 2 + sum(one["image_id"] == 2 for one in coco["annotations"])  # of the background
    with pytest.raises(UsageError):
        result.save(tmp_path, formats="nothing")
