"""LabelMe, YOLO, arrays and tables: what another reader finds in them is the label map."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from annotated import NAMES, NUMBER, filled, name_of, painted, placed, result_of, samples, shapes, write
from PIL import Image

from clipseg_cli.errors import OutputError

# --- LabelMe ---------------------------------------------------------------------------------------------


def labelme_mask(shape: dict, size) -> np.ndarray:
    if shape["shape_type"] == "polygon":
        return filled([shape["points"]], size)
    (left, top), (right, bottom) = shape["points"]
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
        mask = np.asarray(image) > 0
    assert mask.shape == (bottom - top + 1, right - left + 1)
    return placed(mask, left, top, size)


@pytest.mark.parametrize("polygons", [True, False])
def test_labelme_holds_the_map(polygons, tmp_path, caplog):
    results = samples()
    paths = write("labelme", results, tmp_path, polygons=polygons)
    kinds = set()
    for result, path in zip(results, paths, strict=True):
        data = json.loads(path.read_text("utf-8"))
        size = data["imageHeight"], data["imageWidth"]
        assert size == result.labels.shape
        parts = [(NUMBER[shape["label"]], labelme_mask(shape, size)) for shape in data["shapes"]]
        assert np.array_equal(painted(parts, size), result.labels)
        kinds |= {shape["shape_type"] for shape in data["shapes"]}
        assert (path.parent / data["imagePath"]).resolve() == Path("/images", name_of(result))
        assert data["imageData"] is None and data["version"] and data["flags"] == {}
    assert kinds == ({"polygon", "mask"} if polygons else {"mask"})
    assert [m.startswith("labelme: ") and "holes" in m for m in caplog.messages] == [True] * polygons


def test_labelme_keeps_folders_and_other_peoples_files(tmp_path):
    paths = write("labelme", samples(), tmp_path)
    assert (tmp_path / "labelme" / "sub folder" / "zwei & 猫.json") in paths
    assert (tmp_path / "labelme" / "sub" / "empty.v2.json") in paths
    paths[0].write_text('{"version": "5.5.0", "shapes": []}')  # saved by LabelMe itself
    with pytest.raises(OutputError, match="was not made by clipseg"):
        write("labelme", samples(), tmp_path)


# --- YOLO ------------------------------------------------------------------------------------------------


def yolo_map(path: Path, size) -> np.ndarray:
    """0 where nothing is, else class + 1."""
    parts = []
    for line in path.read_text().splitlines():
        number, *values = line.split()
        corners = np.array(values, float).reshape(-1, 2)
        assert corners.min() >= 0 and corners.max() <= 1
        parts.append((int(number) + 1, filled([corners * size[::-1]], size)))
    return painted(parts, size)


def test_yolo_holds_the_map(tmp_path, caplog):
    results = samples()
    *paths, description = write("yolo_seg", results, tmp_path)
    for result, path in zip(results, paths, strict=True):
        assert path.stem == result.image.source.relative.name
        assert np.array_equal(yolo_map(path, result.labels.shape), result.labels)
    data = yaml.safe_load(description.read_text("utf-8"))
    assert data["names"] == dict(enumerate(NAMES[1:]))
    assert data["train"] == "images/train"
    assert "holes, which are joined" in "".join(caplog.messages)


def test_yolo_parts_follow_from_names_alone(tmp_path):
    results = [result_of(np.ones((2, 2)), f"{i}.jpg") for i in range(60)]
    *paths, description = write("yolo_seg", results, tmp_path / "all")
    parts = {path.stem: path.parent.name for path in paths}
    assert 2 <= list(parts.values()).count("val") <= 15
    *fewer, _ = write("yolo_seg", results[::3], tmp_path / "third")
    assert all(parts[path.stem] == path.parent.name for path in fewer)
    assert yaml.safe_load(description.read_text())["val"] == "images/val"
    *paths, _ = write("yolo_seg", results, tmp_path / "all", val=0.5)  # none is left in both
    assert len([*(tmp_path / "all").rglob("*.txt")]) == 60


def test_yolo_with_too_few_images_says_so(tmp_path, caplog):
    *_, description = write("yolo_seg", samples()[:1], tmp_path, val=0.0)
    assert yaml.safe_load(description.read_text("utf-8"))["val"] == "images/train"
    assert "validation" in "".join(caplog.messages)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # supervision leaves images open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_yolo_copies_images_on_request_and_supervision_reads_them(tmp_path):
    supervision = pytest.importorskip("supervision")
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(photo)
    labels = np.zeros((60, 80))
    labels[10:31, 20:41] = 2
    result = result_of(labels, "photo.png")
    object.__setattr__(result.image.source, "path", photo)
    label, copy, description = write("yolo_seg", [result], tmp_path / "out", images=True, val=0.0)
    assert copy.read_bytes() == photo.read_bytes()
    assert copy.relative_to(tmp_path / "out" / "yolo_seg").as_posix() == "images/train/photo.png"
    data = supervision.DetectionDataset.from_yolo(
        str(copy.parent), str(label.parent), str(description), force_masks=True
    )
    assert data.classes == list(NAMES[1:])
    (found,) = data.annotations.values()
    assert found.class_id.tolist() == [1]
    assert found.xyxy.tolist() == [[20, 10, 41, 31]]


def test_yolo_leaves_the_folder_of_somebody_else(tmp_path):
    (tmp_path / "yolo_seg").mkdir()
    (tmp_path / "yolo_seg" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="was not made by clipseg"):
        write("yolo_seg", samples(), tmp_path)
    (tmp_path / "yolo_seg" / "data.yaml").write_text("names: {}")
    with pytest.raises(OutputError, match="was not made by clipseg"):
        write("yolo_seg", samples(), tmp_path)
    assert len([*tmp_path.rglob("*.txt")]) == 1


# --- arrays and tables -----------------------------------------------------------------------------------


def test_npz_holds_everything(tmp_path):
    results = samples()
    for result, path in zip(results, write("npz", results, tmp_path), strict=True):
        with np.load(path, allow_pickle=False) as data:
            assert (
                np.array_equal(data["labels"], result.labels) and data["labels"].dtype == result.labels.dtype
            )
            assert np.array_equal(data["confidence"], result.scores)
            assert tuple(data["classes"]) == NAMES
            assert (int(data["background"]), int(data["ignore"])) == (0, 255)
    unknown = result_of(shapes(), scores=np.full((60, 80), np.nan))
    with np.load(write("npz", [unknown], tmp_path / "files")[0]) as data:
        assert "confidence" not in data
    before = [path.read_bytes() for path in write("npz", results, tmp_path)]
    assert [path.read_bytes() for path in write("npz", results, tmp_path)] == before


def test_confidence_has_sixteen_bits(tmp_path):
    result = result_of(shapes())
    (path,) = write("confidence", [result], tmp_path)
    with Image.open(path) as image:
        assert image.mode == "I;16"
        grey = np.asarray(image)
    assert np.abs(grey / 65535 - result.scores).max() <= 0.5 / 65535 + 1e-7
    assert len(np.unique(grey)) > 1000


def test_csv_adds_up(tmp_path):
    results = samples()
    (path,) = write("csv", results, tmp_path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for result in results:
        own = [row for row in rows if row["image"] == name_of(result)]
        assert [int(row["region"]) for row in own] == list(range(len(own)))
        counts = np.bincount(result.labels.ravel(), minlength=4)
        for i, name in enumerate(NAMES):
            areas = [int(row["area"]) for row in own if row["class"] == name and int(row["class_id"]) == i]
            assert sum(areas) == counts[i]
        mean = sum(int(row["area"]) * float(row["confidence"]) for row in own) / result.labels.size
        assert mean == pytest.approx(result.scores.mean(), abs=1e-4)
        assert sum(float(row["share"]) for row in own) == pytest.approx(1, abs=1e-4)


def test_csv_leaves_a_table_of_somebody_else(tmp_path):
    (tmp_path / "regions.csv").write_text("image,region\nx,1\n")
    with pytest.raises(OutputError, match="was not made by clipseg"):
        write("csv", samples(), tmp_path)
