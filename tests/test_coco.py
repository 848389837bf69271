"""COCO's own library reads what is written, and gives the label maps back."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from annotated import name_of, painted, result_of, samples, shapes, write

from clipseg_cli.errors import OutputError

coco_library = pytest.importorskip("pycocotools.coco")
from pycocotools.coco import COCO  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of pycocotools


def read(path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def maps_of(coco: COCO) -> dict[str, np.ndarray]:
    """Name of an image -> its map of category ids, 0 where there is no annotation."""
    return {
        image["file_name"]: painted(
            (
                (one["category_id"], coco.annToMask(one).astype(bool))
                for one in coco.loadAnns(coco.getAnnIds(imgIds=image["id"], iscrowd=False))
            ),
            (image["height"], image["width"]),
        )
        for image in coco.dataset["images"]
    }


@pytest.mark.parametrize("format_", ["coco", "coco_polygons"])
def test_no_pixel_differs(format_, tmp_path):
    results = samples()
    (path,) = write(format_, results, tmp_path)
    coco = read(path)
    maps = maps_of(coco)
    assert set(maps) == {name_of(r) for r in results}
    for result in results:
        assert np.array_equal(maps[name_of(result)], result.labels)
    assert [c["name"] for c in coco.dataset["categories"]] == list(results[0].classes.names[1:])
    assert [c["id"] for c in coco.dataset["categories"]] == [1, 2, 3]
    for one in coco.dataset["annotations"]:
        mask = coco.annToMask(one)
        rows, columns = np.nonzero(mask)
        assert one["area"] == mask.sum()
        left, top = columns.min(), rows.min()
        assert one["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert one["iscrowd"] == 0 and 0 <= one["score"] <= 1
    ids = [one["id"] for one in coco.dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


@pytest.mark.parametrize(("background", "offset"), [(None, 1), (0, 0)])
def test_a_class_that_is_no_background_has_a_category_above_zero(background, offset, tmp_path):
    (path,) = write("coco", [result_of(shapes(), background=background)], tmp_path)
    assert np.array_equal(maps_of(read(path))["x.jpg"], shapes() + offset)


def test_categories_count_past_a_background_in_the_middle(tmp_path):
    (path,) = write("coco", [result_of(shapes(), background=2)], tmp_path)
    coco = read(path)
    assert np.array_equal(maps_of(coco)["x.jpg"], np.array([1, 2, 0, 3])[shapes()])
    assert [(c["id"], c["name"][:3]) for c in coco.dataset["categories"]] == [
        (1, "bac"),
        (2, "cat"),
        (3, "猫, "),
    ]


def test_three_hundred_classes(tmp_path):
    names = ["background", *(f"class {i}" for i in range(1, 300))]
    labels = np.arange(20 * 15).reshape(20, 15).repeat(2, 0)
    (path,) = write("coco", [result_of(labels, names=names)], tmp_path)
    assert np.array_equal(maps_of(read(path))["x.jpg"], labels)


def test_polygons_are_polygons_but_for_holes(tmp_path, caplog):
    noise = np.random.default_rng(1).integers(0, 4, (40, 50))
    (path,) = write("coco_polygons", [result_of(shapes()), result_of(noise, "noise.jpg")], tmp_path)
    coco = read(path)
    assert np.array_equal(maps_of(coco)["noise.jpg"], noise)
    kinds = [isinstance(one["segmentation"], list) for one in coco.dataset["annotations"]]
    assert sum(kinds) > 100
    with_holes = kinds.count(False)
    assert caplog.messages == [
        f"coco-polygons: regions with holes, which no polygon holds and compressed run lengths do: {with_holes}"
    ]
    for one in coco.dataset["annotations"]:
        if isinstance(one["segmentation"], list):
            (corners,) = one["segmentation"]
            assert len(corners) >= 8


def test_the_order_of_images_does_not_matter(tmp_path):
    write("coco", samples(), tmp_path / "a")
    write("coco", samples()[::-1], tmp_path / "b")
    assert (tmp_path / "a" / "coco.json").read_bytes() == (tmp_path / "b" / "coco.json").read_bytes()


@pytest.mark.parametrize("harm", ["cut", "pretty", "edited"])
def test_a_damaged_file_is_kept(harm, tmp_path):
    (path,) = write("coco", samples(), tmp_path)
    text = path.read_text("utf-8")
    if harm == "cut":
        path.write_text(text[: len(text) // 2], "utf-8")
    elif harm == "pretty":
        path.write_text(json.dumps(json.loads(text), indent=2), "utf-8")
    else:
        path.write_text(text.replace('"image_id":1,', '"image_id":77,', 1), "utf-8")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="edited or damaged"):
        write("coco", samples(), tmp_path)
    assert path.read_bytes() == before


def test_a_strangers_file_is_kept(tmp_path):
    (tmp_path / "coco.json").write_text('{"images": []}')
    with pytest.raises(OutputError, match="was not made by clipseg"):
        write("coco", samples(), tmp_path)
    assert (tmp_path / "coco.json").read_text() == '{"images": []}'
    assert {path.name for path in tmp_path.iterdir()} == {"coco.json"}


def test_specks_go_to_their_surroundings_on_request(tmp_path):
    (path,) = write("coco", [result_of(shapes())], tmp_path, min_area=5)
    areas = [one["area"] for one in read(path).dataset["annotations"]]
    assert min(areas) >= 5
    (path,) = write("coco", [result_of(shapes())], tmp_path / "all")
    assert min(one["area"] for one in read(path).dataset["annotations"]) == 1


def test_unknown_confidence_is_left_out_and_ignored_pixels_are_counted(tmp_path, caplog):
    labels = shapes()
    labels[:2] = 255
    (path,) = write("coco", [result_of(labels, scores=np.full(labels.shape, np.nan))], tmp_path)
    coco = read(path)
    assert not any("score" in one for one in coco.dataset["annotations"])
    assert np.array_equal(maps_of(coco)["x.jpg"], np.where(labels == 255, 0, labels))
    assert caplog.messages == [
        "coco: ignored pixels, which are in no region of it, like those of the background: 160"
    ]


def test_supervision_reads_the_same_classes_and_boxes(tmp_path):
    supervision = pytest.importorskip("supervision")
    results = samples()
    (path,) = write("coco", results, tmp_path)
    data = supervision.DetectionDataset.from_coco(str(tmp_path), str(path), force_masks=False)
    assert data.classes == list(results[0].classes.names[1:])
    assert sum(len(one) for one in data.annotations.values()) == len(
        json.loads(path.read_text("utf-8"))["annotations"]
    )
