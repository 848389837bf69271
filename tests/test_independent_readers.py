"""Datumaro and Label Studio's own library read what is written; each where it is installed, for they clash with others.

In an environment of its own: `pip install datumaro pytest typer rich` or `pip install label-studio-sdk pytest`, then
`pytest tests/test_independent_readers.py`.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from urllib.parse import unquote

import numpy as np
import pytest
from annotated import NAMES, name_of, painted, result_of, samples, shapes, write
from PIL import Image

pytestmark = pytest.mark.filterwarnings("ignore")


def images(results, folder) -> None:
    """A black image for each result, under its name."""
    for result in results:
        path = folder / name_of(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", result.labels.shape[::-1]).save(path)


def datumaro_maps(dataset) -> dict[str, np.ndarray]:
    """Id of an image -> its map: 0 where nothing is, else the number of the class by its name."""
    datumaro = pytest.importorskip("datumaro")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    maps = {}
    for item in dataset:
        found = {}
        for one in item.annotations:
            if one.type == datumaro.AnnotationType.mask:
                name = names[one.label].replace("<b>_", "<b>:").replace("'c'_;", "'c'#;")  # in labelmap.txt
                if name in NAMES[1:]:
                    found.setdefault(NAMES.index(name), []).append(np.asarray(one.image).astype(bool))
        size = next((mask.shape for masks in found.values() for mask in masks), None)
        if size is not None:
            maps[item.id] = painted(((n, mask) for n, masks in found.items() for mask in masks), size)
    return maps


def check(maps: dict[str, np.ndarray], results) -> None:
    for result in results:
        name = str(result.image.source.relative)
        if result.labels.any():
            assert np.array_equal(maps[name], result.labels), name
        else:
            assert name not in maps or not maps[name].any()


def test_datumaro_reads_coco(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    results = samples()
    (path,) = write("coco", results, tmp_path / "out")
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    shutil.copy(path, tmp_path / "set" / "annotations" / "instances_default.json")
    images(results, tmp_path / "set" / "images" / "default")
    check(datumaro_maps(datumaro.Dataset.import_from(str(tmp_path / "set"), "coco_instances")), results)


def test_datumaro_reads_panoptic(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    results = samples()
    (path,) = write("coco_panoptic", results, tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "set")
    (tmp_path / "set" / "clipseg.json").unlink()
    images(results, tmp_path / "set" / "images" / "default")
    check(datumaro_maps(datumaro.Dataset.import_from(str(tmp_path / "set"), "coco_panoptic")), results)


def test_datumaro_reads_cvat(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    results = samples()
    (path,) = write("cvat", results, tmp_path / "set")
    images(results, tmp_path / "set" / "images")
    check(datumaro_maps(datumaro.Dataset.import_from(str(path), "cvat")), results)


@pytest.mark.parametrize("count", [4, 300])
def test_datumaro_reads_voc(count, tmp_path):
    datumaro = pytest.importorskip("datumaro")
    results = samples()
    if count == 300:
        names = ["background", *(f"class {i}" for i in range(1, 300))]
        results = [result_of(np.arange(600).reshape(20, 30) % 300, names=names)]
    (path,) = write("voc", results, tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "set")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "set"), "voc_segmentation")
    if count == 4:
        check(datumaro_maps(dataset), results)
        return
    (item,) = dataset
    labels = np.zeros((20, 30), int)
    for one in item.annotations:
        labels[np.asarray(one.image).astype(bool)] = one.label
    assert np.array_equal(labels, results[0].labels)


def test_label_studio_takes_its_predictions(tmp_path):
    pytest.importorskip("label_studio_sdk")
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    results = [*samples(), result_of(np.where(shapes() == 2, 255, shapes()), "void.jpg")]
    path, config = write("label_studio", results, tmp_path)
    interface = LabelInterface(config.read_text("utf-8"))
    tasks = json.loads(path.read_text("utf-8"))
    assert len(tasks) == len(results)
    by_name = {name_of(result): result for result in results}
    for task in tasks:
        result = by_name[unquote(task["data"]["image"].partition("?d=")[2])]
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []
        size = result.labels.shape
        parts = [
            (
                NAMES.index(one["value"]["brushlabels"][0]),
                decode_rle(one["value"]["rle"]).reshape(*size, 4)[..., 3] > 0,
            )
            for one in prediction["result"]
        ]
        assert np.array_equal(painted(parts, size), np.where(result.labels == 255, 0, result.labels))
