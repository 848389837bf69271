"""Files for annotation tools, read by small decoders of their own, give the label maps back."""

from __future__ import annotations

import dataclasses
import gc
import json
import tracemalloc
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from annotated import NAMES, NUMBER, name_of, painted, placed, result_of, samples, shapes, unbrushed, write
from PIL import Image

from clipseg_cli.errors import OutputError
from clipseg_cli.outputs import Outputs
from clipseg_cli.types import ImageSource, RunInfo

if TYPE_CHECKING:
    from pathlib import Path

# --- CVAT ------------------------------------------------------------------------------------------------


def cvat_maps(path: Path) -> dict[str, np.ndarray]:
    """Name of an image -> its map, 0 where there is no mask."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    names = [label.findtext("name") for label in root.iter("label")]
    maps = {}
    for i, image in enumerate(root.iter("image")):
        assert image.get("id") == str(i)
        size = int(image.get("height")), int(image.get("width"))
        parts = []
        for mask in image.iter("mask"):
            counts = [int(n) for n in mask.get("rle").split(",")]
            left, top, width, height = (int(mask.get(key)) for key in ("left", "top", "width", "height"))
            inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
            parts.append((1 + names.index(mask.get("label")), placed(inside, left, top, size)))
        maps[image.get("name")] = painted(parts, size)
    return maps


def test_cvat_holds_the_map(tmp_path):
    results = samples()
    (path,) = write("cvat", results, tmp_path)
    maps = cvat_maps(path)
    assert set(maps) == {name_of(result) for result in results}
    for result in results:
        assert np.array_equal(maps[name_of(result)], result.labels)
    names = [label.findtext("name") for label in ElementTree.parse(path).getroot().iter("label")]
    assert names == list(NAMES[1:])


# --- PASCAL VOC ------------------------------------------------------------------------------------------


def voc_maps(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Names of the labels, and for each image the map of their numbers, -1 where it is void."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("labelmap.txt").decode().splitlines()
        rows = [line.split(":") for line in lines if not line.startswith("#")]
        assert all(len(row) == 4 for row in rows)
        colours = {tuple(map(int, row[1].split(","))): i for i, row in enumerate(rows)}
        assert len(colours) == len(rows) and (224, 224, 192) not in colours
        colours[224, 224, 192] = -1
        maps = {}
        for name in archive.read("ImageSets/Segmentation/default.txt").decode().splitlines():
            with Image.open(archive.open(f"SegmentationClass/{name}.png")) as image:
                pixels = np.asarray(image.convert("RGB"))
            found, where = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
            numbers = np.array([colours[tuple(colour)] for colour in found.tolist()])
            maps[name] = numbers[where].reshape(pixels.shape[:2])
        assert len(archive.namelist()) == 2 + len(maps)
    return [row[0] for row in rows], maps


def test_voc_holds_the_map(tmp_path, caplog):
    results = [*samples(), result_of(np.where(shapes() == 2, 255, shapes()), "void.jpg")]
    (path,) = write("voc", results, tmp_path)
    names, maps = voc_maps(path)
    assert names == ["background", "cat", "red car", "猫, \"A\" & <b>_ 'c'_;"]
    assert "class names" in "".join(caplog.messages)  # a colon ends a name there
    for result in results:
        labels = result.labels.astype(int)
        assert np.array_equal(maps[str(result.image.source.relative)], np.where(labels == 255, -1, labels))


@pytest.mark.parametrize("count", [254, 255, 256, 300, 1000])
def test_voc_of_many_classes(count, tmp_path):
    names = ["background", *(f"class {i}" for i in range(1, count))]
    labels = np.arange(1000).reshape(20, 50) % count
    (path,) = write("voc", [result_of(labels, names=names)], tmp_path)
    found, maps = voc_maps(path)
    assert found == names
    assert np.array_equal(maps["x"], labels)


def test_voc_of_a_closed_set_keeps_black_for_what_is_not_there(tmp_path):
    (path,) = write("voc", [result_of(shapes(), names=("a", "b", "c", "d"), background=None)], tmp_path)
    names, maps = voc_maps(path)
    assert names == ["background", "a", "b", "c", "d"]
    assert np.array_equal(maps["x"], shapes() + 1)


# --- COCO panoptic ---------------------------------------------------------------------------------------


def test_panoptic_holds_the_map(tmp_path):
    results = samples()
    (path,) = write("coco_panoptic", results, tmp_path)
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("annotations/panoptic_default.json"))
        names = {image["id"]: image["file_name"] for image in data["images"]}
        assert [c["id"] for c in data["categories"]] == [1, 2, 3] and all(
            c["isthing"] for c in data["categories"]
        )
        maps = {}
        for annotation in data["annotations"]:
            with Image.open(archive.open("annotations/panoptic_default/" + annotation["file_name"])) as image:
                assert image.mode == "RGB"
                ids = np.asarray(image).astype(int) @ [1, 256, 65536]
            category = {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]} | {
                0: 0
            }
            assert set(np.unique(ids)) | {0} == set(category)
            for segment in annotation["segments_info"]:
                assert segment["area"] == (ids == segment["id"]).sum()
            maps[names[annotation["image_id"]]] = np.vectorize(category.get)(ids)
    assert set(maps) == {name_of(result) for result in results}
    for result in results:
        assert np.array_equal(maps[name_of(result)], result.labels)


# --- Label Studio ----------------------------------------------------------------------------------------


def test_a_task_of_label_studio_is_replaced_wherever_its_image_is_now(tmp_path):
    known = result_of(shapes(), "one.jpg")
    source = ImageSource(None, known.image.source.relative, "one.jpg")
    moved = dataclasses.replace(known, image=dataclasses.replace(known.image, source=source))
    for result, address in ((known, "images/one.jpg"), (moved, "one.jpg")):
        path = write("label_studio", [result], tmp_path)[0]
        (task,) = json.loads(path.read_text("utf-8"))
        assert task["data"]["image"] == "/data/local-files/?d=" + address


def test_label_studio_holds_the_map(tmp_path):
    results = samples()
    path, config = write("label_studio", results, tmp_path)
    view = ElementTree.parse(config).getroot()
    (brush,) = view.iter("BrushLabels")
    (image,) = view.iter("Image")
    assert [label.get("value") for label in brush] == list(NAMES[1:])
    tasks = {task["data"]["image"]: task for task in json.loads(path.read_text("utf-8"))}
    assert len(tasks) == len(results)
    ids = []
    for result in results:
        (prediction,) = tasks["/data/local-files/?d=images/" + quote(name_of(result))]["predictions"]
        size = result.labels.shape
        parts = []
        for one in prediction["result"]:
            assert (one["from_name"], one["to_name"]) == (brush.get("name"), image.get("name"))
            assert (one["original_height"], one["original_width"], one["image_rotation"]) == (*size, 0)
            assert one["type"] == "brushlabels" and one["value"]["format"] == "rle"
            values = unbrushed(one["value"]["rle"]).reshape(*size, 4)
            assert (values == values[..., :1]).all() and set(np.unique(values)) <= {0, 255}
            parts.append((NUMBER[one["value"]["brushlabels"][0]], values[..., 0] == 255))
            ids.append(one["id"])
        assert np.array_equal(painted(parts, size), result.labels)
        things = result.labels > 0
        if things.any():
            assert prediction["score"] == pytest.approx(result.scores[things].mean(), abs=2e-4)
        else:
            assert "score" not in prediction
    assert len(set(ids)) == len(ids)


# --- all files about many images --------------------------------------------------------------------------


TOGETHER = ("coco", "coco_polygons", "coco_panoptic", "csv", "cvat", "label_studio", "voc")


@pytest.mark.parametrize("format_", TOGETHER)
def test_later_runs_keep_what_earlier_ones_wrote(format_, tmp_path):
    results = samples()
    once = write(format_, results[::-1], tmp_path / "once")
    for part in (results[3:], results[:2], results[1:3]):  # one of them twice
        parts = write(format_, part, tmp_path / "parts")
    assert [path.read_bytes() for path in parts] == [path.read_bytes() for path in once]


@pytest.mark.parametrize("format_", TOGETHER)
def test_half_a_file_is_kept_and_said(format_, tmp_path):
    path = write(format_, samples(), tmp_path)[0]
    data = path.read_bytes()
    path.write_bytes(data[: 3 * len(data) // 4])
    with pytest.raises(OutputError, match=r"edited or damaged|was not made by clipseg"):
        write(format_, samples(), tmp_path)
    assert path.read_bytes() == data[: 3 * len(data) // 4]


@pytest.mark.parametrize("format_", [*TOGETHER, "labelme", "yolo_seg", "npz"])
def test_names_that_no_file_can_hold_as_they_are(format_, tmp_path):
    names = ("background", "a\0b\n", "\ud800", "-->", "]]>", "=1+1", "a\0b\r", "x" * 500)
    labels = np.arange(8).reshape(2, 4)
    for path in write(format_, [result_of(labels, names=names)], tmp_path):
        if path.suffix == ".xml":
            text = ElementTree.parse(path)
            found = [
                label.findtext("name") or label.get("value")
                for label in text.iter()
                if label.tag in ("label", "Label")
            ]
            assert len(set(found)) == 7
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".yaml":
            assert len(set(yaml.safe_load(path.read_text("utf-8"))["names"].values())) == 7
    write(format_, [result_of(labels, names=names)], tmp_path)  # and read again


@pytest.mark.parametrize("format_", TOGETHER)
def test_many_images_take_no_memory(format_, tmp_path):
    """What is held grows by names and places alone: 4 kB of labels are a few hundred bytes of memory."""
    result = result_of(np.kron(np.random.default_rng(0).integers(0, 4, (8, 8)), np.ones((8, 8))))
    run = RunInfo(result.classes, {}, {}, {"clipseg": "0"})
    outputs = Outputs((format_,), run, tmp_path, {})
    outputs.begin()
    outputs.write(result, tmp_path / "first")
    tracemalloc.start()
    for i in range(40):
        outputs.write(result, tmp_path / f"{i}")
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    outputs.end()
    assert held < 40 * 1000


def test_where_one_file_fails_at_the_end_the_others_are_written(tmp_path):
    result = samples()[0]
    outputs = Outputs(("coco", "csv"), RunInfo(result.classes, {}, {}, {"clipseg": "0"}), tmp_path, {})
    outputs.begin()
    outputs.write(result, tmp_path / "one")
    (tmp_path / "coco.json").mkdir()  # meanwhile
    with pytest.raises(OutputError, match=r"coco\.json"):
        outputs.end()
    assert (tmp_path / "regions.csv").stat().st_size
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
