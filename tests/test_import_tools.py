"""What other tools write is taken in by `clipseg import`: which image is meant, and shapes of all their kinds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from annotated import result_of, shapes
from corrected import contents, labelled, maps

from clipseg_cli.data.annotations import ImageNames
from clipseg_cli.errors import AnnotationError

if TYPE_CHECKING:
    from pathlib import Path


# Which image is meant.


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("a/x.jpg", "a/x"),
        ("photos/2020/a/x.jpg", "a/x"),
        ("C:\\photos\\a\\x.jpg", "a/x"),
        ("y.png", "b/y"),
        ("/data/x.v2.jpg", "x.v2"),
        ("x.v2", "x.v2"),
        ("b/z.jpg", "b/z.jpg"),
        ("../../a/x.json", "a/x"),
    ],
)
def test_names_are_found(said, found):
    from pathlib import PurePosixPath

    names = [PurePosixPath(n) for n in ("a/x", "b/x", "b/y", "x.v2", "b/z.jpg")]
    assert str(ImageNames(names).find(said)) == found


@pytest.mark.parametrize(
    ("said", "why"), [("x.jpg", "may be a/x, b/x"), ("c/x.jpg", "is no image"), ("", "is no image")]
)
def test_names_that_are_not_sure_are_refused(said, why):
    from pathlib import PurePosixPath

    with pytest.raises(AnnotationError, match=why):
        ImageNames([PurePosixPath(n) for n in ("a/x", "b/x")]).find(said)


# What other tools write.


def one(tmp_path: Path, labels: np.ndarray | None = None) -> Path:
    """A folder with one label map, of the image one.jpg."""
    return labelled(tmp_path / "one", [result_of(shapes() * 0 if labels is None else labels, "one.jpg")])


def test_x_anylabeling(cli, tmp_path):
    run = one(tmp_path)
    shapes_ = [
        {"label": "cat", "shape_type": "rectangle", "points": [[2, 3], [12, 3], [12, 13], [2, 13]]},
        {"label": "red car", "shape_type": "rotation", "points": [[30, 5], [35, 10], [30, 15], [25, 10]]},
        {"label": "cat", "shape_type": "circle", "points": [[60, 30], [60, 40]]},
        {"label": "red car", "shape_type": "polygon", "points": [[5, 40], [25, 40], [25, 50], [5, 50]]},
        {"label": "cat", "points": [[40, 50], [50, 59.9]], "shape_type": "rectangle"},
    ]
    extra = {"score": None, "difficult": False, "attributes": {}, "kie_linking": [], "group_id": None}
    data = {
        "version": "3.2.1",
        "flags": {},
        "checked": True,
        "shapes": [{**extra, **s} for s in shapes_],
        "imagePath": "one.jpg",
        "imageData": None,
        "imageHeight": 60,
        "imageWidth": 80,
        "description": "",
    }
    path = tmp_path / "one.json"
    path.write_text(json.dumps(data))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    found = maps(run)["one"]
    assert (
        (found[3:13, 2:12] == 1).all()
        and (found[40:50, 5:25] == 2).all()
        and (found[50:60, 40:50] == 1).all()
    )
    assert abs((found[18:42, 48:72] == 1).sum() - np.pi * 100) < 8
    assert abs((found[:20, 20:40] == 2).sum() - 50) <= 5


def task(annotations, predictions=(), image="/data/upload/7/0a1b2c3d-one.jpg"):
    return {"id": 5, "data": {"image": image}, "annotations": annotations, "predictions": list(predictions)}


def region(kind, value, label="cat"):
    return {
        "id": "r",
        "type": kind,
        "from_name": "tag",
        "to_name": "image",
        "original_width": 80,
        "original_height": 60,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
    }


def test_label_studio_exports(cli, tmp_path):
    run = one(tmp_path)
    polygon = region("polygonlabels", {"points": [[0, 0], [25, 0], [25, 50], [0, 50]]})
    box = region("rectanglelabels", {"x": 50, "y": 50, "width": 25, "height": 25, "rotation": 0}, "red car")
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    done_ = {"id": 1, "was_cancelled": False, "result": [polygon, box, choice]}
    cancelled = {"id": 2, "was_cancelled": True, "result": []}
    untouched = task([], [{"result": []}], image="s3://bucket/photos/other.jpg")
    path = tmp_path / "project.json"
    path.write_text(json.dumps([task([done_, cancelled]), untouched]))
    done = cli("import", run, path, "--json")
    assert done.code == 0, done.err
    assert "1 of 2 tasks have no annotation" in done.err
    want = np.zeros((60, 80), np.uint8)
    want[:30, :20], want[30:45, 40:60] = 1, 2
    assert np.array_equal(maps(run)["one"], want)
    # Submitted again without a change: somebody has looked at it.
    document = json.loads(cli("import", run, path, "--json").out)
    assert document["images"][0]["outcome"] == "checked"


def test_label_studio_json_min(cli, tmp_path):
    run = one(tmp_path)
    ellipse = {"x": 50, "y": 50, "radiusX": 12.5, "radiusY": 16.667, "rotation": 0, "ellipselabels": ["cat"]}
    row = {"image": "/data/local-files/?d=in/one.jpg", "id": 1, "tag": [{**ellipse, "original_width": 80,
           "original_height": 60, "image_rotation": 0}]}  # fmt: skip
    path = tmp_path / "min.json"
    path.write_text(json.dumps([row]))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    assert abs((maps(run)["one"] == 1).sum() - np.pi * 100) < 8


def skipped(**more):
    """A task that an annotator has skipped, as Label Studio 1.23 exports it: predictions by their numbers."""
    annotation = {"id": 3, "completed_by": 1, "result": [], "was_cancelled": True, "ground_truth": False}
    found = {"id": 3, "annotations": [annotation], "file_upload": "cc85e605-label_studio.json", "drafts": [],
             "predictions": [3], "data": {"image": "/data/local-files/?d=photos/other.jpg"}, "meta": {}}  # fmt: skip
    return found | more


def test_label_studio_exports_of_a_running_one(cli, tmp_path):
    run = one(tmp_path)
    polygon = region("polygonlabels", {"points": [[0, 0], [25, 0], [25, 50], [0, 50]]})
    done_ = {"id": 1, "completed_by": 1, "result": [polygon], "was_cancelled": False, "lead_time": 3.1}
    looked_at = skipped(id=1, annotations=[done_], data={"image": "/data/local-files/?d=photos/one.jpg"})
    path = tmp_path / "project.json"
    path.write_text(json.dumps([looked_at, skipped(), skipped(id=4, annotations=[])]))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    assert "2 of 3 tasks have no annotation" in done.err
    assert maps(run)["one"][:30, :20].all()


def test_an_export_without_any_annotation_says_nothing(cli, tmp_path):
    run = one(tmp_path)
    before = contents(run)
    path = tmp_path / "project.json"
    path.write_text(json.dumps([skipped(data={"image": "/data/local-files/?d=photos/one.jpg"})]))
    done = cli("import", run, path, "--empty", "--checked")
    assert done.code == 1 and "nobody has annotated" in done.err and "JSON" in done.err
    assert contents(run) == before


def test_a_task_of_json_min_that_nobody_has_annotated_is_left_out(cli, tmp_path):
    run = one(tmp_path)
    before = contents(run)
    none = dict.fromkeys(("annotator", "annotation_id", "created_at", "updated_at", "lead_time"))
    row = {"image": "/data/local-files/?d=photos/one.jpg", "id": 1, **none}
    path = tmp_path / "min.json"
    path.write_text(json.dumps([row]))
    done = cli("import", run, path, "--empty")
    assert done.code == 1 and "nobody has annotated" in done.err
    assert contents(run) == before


def test_coco_as_label_studio_names_images(cli, tmp_path):
    """Of an image in the document root itself it keeps the question of the address."""
    run = one(tmp_path)
    image = {
        "id": 0,
        "file_name": "?d=one.jpg",
        "path": "/data/local-files/?d=one.jpg",
        "width": 80,
        "height": 60,
    }
    annotation = {"id": 0, "image_id": 0, "category_id": 1, "iscrowd": 0, "area": 600, "bbox": [0, 0, 20, 30],
                  "segmentation": [[0, 0, 20, 0, 20, 30, 0, 30]]}  # fmt: skip
    document = {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [annotation]}
    path = tmp_path / "result_coco.json"
    path.write_text(json.dumps(document))
    done = cli("import", run, path)
    assert done.code == 0, done.err
    assert (maps(run)["one"] == 1).sum() == 600


def test_cvat_shapes_lie_on_each_other_by_their_order(cli, tmp_path):
    run = one(tmp_path)
    path = tmp_path / "cvat.xml"
    path.write_text(
        "<annotations><version>1.1</version><meta/><image id='0' name='in/one.jpg' width='80' height='60'>"
        "<polygon label='red car' points='10,10;30,10;30,30;10,30' z_order='2'></polygon>"
        "<box label='cat' xtl='0' ytl='0' xbr='20' ybr='20' z_order='1'></box>"
        "<ellipse label='cat' cx='60' cy='30' rx='10' ry='10' z_order='0'></ellipse>"
        "<tag label='cat'></tag></image></annotations>"
    )
    assert cli("import", run, path).code == 1
    done = cli("import", run, path, "--on-top")
    assert done.code == 0, done.err
    found = maps(run)["one"]
    assert (found[10:30, 10:30] == 2).all() and (found[:10, :20] == 1).all() and found[5, 25] == 0
    assert abs((found[:, 45:] == 1).sum() - np.pi * 100) < 8


def test_a_region_without_a_pixel_is_said(cli, tmp_path):
    run = one(tmp_path)
    path = tmp_path / "one.json"
    data = {"shapes": [
        {"label": "cat", "shape_type": "polygon", "points": [[1.1, 1.1], [1.2, 1.1], [1.2, 1.2]]},
        {"label": "cat", "shape_type": "polygon", "points": [[10, 10], [12, 10], [12, 12]]},
    ], "imagePath": "one.jpg", "imageHeight": 60, "imageWidth": 80}  # fmt: skip
    path.write_text(json.dumps(data))
    done = cli("import", run, path)
    assert done.code == 0 and "shape 1 (cat) covers no centre of a pixel" in " ".join(done.err.split())
