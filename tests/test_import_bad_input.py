"""Whatever is wrong with a file of corrections is said in a sentence that names it, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from bad_corrections import (  # noqa: F401
    edited,
    made,
    out_fixture,
    png,
    refused,
    result,
    run_fixture,
    set_at,
    without,
)
from corrected import contents
from PIL import Image

from clipseg_cli.data.annotations import FORMATS

COCO = {
    "unknown picture": (set_at("images", 0, "file_name", "strange.jpg"), ("strange.jpg", "no image with")),
    "size": (set_at("images", 0, "width", 81), ("in/two: is 81x60 in the file", "80x60")),
    "unknown class": (set_at("categories", 0, "name", "catt"), ("'catt' is no class", "did you mean 'cat'")),
    "no category": (set_at("annotations", 0, "category_id", 77), "there is no category 77"),
    "no image": (set_at("annotations", 0, "image_id", 77), ("annotation 1", "there is no image 77")),
    "length": (
        set_at("annotations", 0, "segmentation", {"size": [60, 80], "counts": [10, 20]}),
        ("two: annotation 1", "add up to 30 pixels, not 4,800"),
    ),
    "other size": (set_at("annotations", 0, "segmentation", "size", [80, 60]), "are for 60x80"),
    "negative": (
        set_at("annotations", 0, "segmentation", {"size": [60, 80], "counts": [-1, 4801]}),
        "below 0",
    ),
    "huge": (set_at("annotations", 0, "segmentation", "counts", "PPPPPPPPPPPPPPPPP1"), "too large"),
    "half a number": (set_at("annotations", 0, "segmentation", "counts", "P"), "middle of a number"),
    "letters": (set_at("annotations", 0, "segmentation", "counts", "é"), "stands for no number"),
    "no shape": (set_at("annotations", 0, "segmentation", []), "no segmentation"),
    "outside": (
        set_at("annotations", 0, "segmentation", [[0, 0, 90, 0, 90, 10]]),
        "a corner at 90, 0 lies outside",
    ),
    "odd": (set_at("annotations", 0, "segmentation", [[0, 0, 9, 0, 9]]), "no pairs of numbers"),
    "two corners": (set_at("annotations", 0, "segmentation", [[0, 0, 9, 9]]), "2 corners has no inside"),
    "no numbers": (set_at("annotations", 0, "segmentation", [[0, 0, 9, "x", 9, 9]]), "no pairs of numbers"),
    "a list": (set_at("images", [1, 2]), "'images' is not a list of objects"),
    "twice": (lambda data: data["images"].append(data["images"][0]), "two images have the id 1"),
    "no width": (without("images", 0, "width"), "'width' is missing"),
    "width": (set_at("images", 0, "width", 1e300), "'width' is"),
    "panoptic": (set_at("annotations", 0, "segments_info", []), "panoptic"),
}


@pytest.mark.parametrize("case", COCO)
def test_coco(case, cli, run, out):
    edit, said = COCO[case]
    (path,) = made("coco", out)
    refused(cli, run, edited(path, edit), "--format", "coco", said=said)


def test_every_problem_is_named_once(cli, run, out):
    (path,) = made("coco", out)

    def edit(data: Any) -> None:
        data["images"][0]["width"] = 81
        data["images"][1]["file_name"] = "three.jpg"

    refused(cli, run, edited(path, edit), said=("in/two: is 81x60", "three.jpg", "2 problems"))


LABELME = {
    "unknown class": (set_at("shapes", 0, "label", "wolf"), "shape 1: 'wolf' is no class"),
    "size": (set_at("imageHeight", 59), "is 80x59 in the file"),
    "a line": (set_at("shapes", 0, "shape_type", "line"), "a line covers no pixels"),
    "outside": (set_at("shapes", 0, "points", [[0, 0], [100, 0], [9, 9]]), "lies outside the image"),
    "infinite": (set_at("shapes", 0, "points", [[0, 0], [9, 0], [9, None]]), "no pairs of numbers"),
    "a picture": (set_at("imagePath", "../three.jpg"), "three.jpg: is no image with labels here"),
    "no label": (without("shapes", 0, "label"), "'label' is missing"),
}


@pytest.mark.parametrize("case", LABELME)
def test_labelme(case, cli, run, out):
    edit, said = LABELME[case]
    made("labelme", out)
    edited(out / "labelme" / "one.json", edit)
    refused(cli, run, out / "labelme", said=(said, "one.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask": "%%%"}, "its mask is damaged"),
        ({"mask": "aGVsbG8="}, "the mask is damaged"),
        ({"points": [[0, 0], [3, 3]]}, "its box 4x4"),
        ({"points": [[79, 0], [300, 3]]}, "outside the image"),
        ({"points": [[3, 3], [0, 0]]}, "does not fit"),
    ],
)
def test_labelme_masks(change, said, cli, run, out):
    made("labelme", out, polygons=False)
    edited(out / "labelme" / "one.json", lambda data: data["shapes"][0].update(change))
    refused(cli, run, out / "labelme", said=said)


STUDIO = {
    "cut": (lambda v: v.update(rle=v["rle"][: len(v["rle"]) // 2]), "cut short"),
    "short": (lambda v: v.update(rle=[0, 0]), "cut short"),
    "no bytes": (lambda v: v.update(rle=[256, -1]), "no bytes"),
    "for another": (lambda v: v.update(rle=[0, 0, 0, 8, *v["rle"][4:]]), "are for 2 pixels, not 4,800"),
    "no labels": (lambda v: v.update(brushlabels=[]), "0 labels, not one"),
    "unknown": (lambda v: v.update(brushlabels=["wolf"]), "'wolf' is no class"),
}


@pytest.mark.parametrize("case", STUDIO)
def test_label_studio(case, cli, run, out):
    edit, said = STUDIO[case]
    path = made("label_studio", out)[0]
    edited(path, lambda data: edit(data[0]["predictions"][0]["result"][0]["value"]))
    refused(cli, run, path, said=(said, "label_studio.json", "in/two"))


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda row: row.update(original_width=99), "it is for 99x60, the label map 80x60"),
        (lambda row: row.update(image_rotation=90), "was turned in Label Studio"),
        (lambda row: row.update(type="keypointlabels"), "keypointlabels cover no pixels"),
        (lambda row: row.update(value=None), "0 labels"),
    ],
)
def test_label_studio_results(edit, said, cli, run, out):
    path = made("label_studio", out)[0]
    edited(path, lambda data: edit(data[0]["predictions"][0]["result"][0]))
    refused(cli, run, path, said=said)


CVAT = {
    "unknown class": (('label="cat"', 'label="wolf"'), "'wolf' is no class"),
    "size": (('width="80" height="60"', 'width="81" height="60"'), "is 81x60 in the file"),
    "length": ((' rle="', ' rle="7, '), "add up to"),
    "letters": ((' rle="', ' rle="x, '), "no whole numbers"),
    "overflow": ((' rle="', ' rle="99999999999999999999999, '), "no whole numbers"),
    "outside": ((' left="', ' left="9'), "reaches outside the image"),
    "a line": (("<mask ", '<polyline points="1,1;2,2" '), "a polyline covers no pixels"),
    "track": (("<image ", "<track><image "), "export it as CVAT for images"),
    "entities": (
        ("<annotations>", '<!DOCTYPE a [<!ENTITY x "y">]>\n<annotations>'),
        "declares a document type",
    ),
    "half": (("</annotations>", ""), "cut short"),
    "z": (('z_order="0"', 'z_order="nan"'), "'z_order'"),
    "no name": ((' name="', ' title="'), "'name' is missing"),
}


@pytest.mark.parametrize("case", CVAT)
def test_cvat(case, cli, run, out):
    (old, new), said = CVAT[case]
    (path,) = made("cvat", out)
    text = path.read_text("utf-8")
    head, mark, images = text.partition("</meta>")
    changed = text.replace(old, new, 1) if old not in images else head + mark + images.replace(old, new, 1)
    assert changed != text
    path.write_text(changed.replace("</mask>", "</polyline>", 1) if case == "a line" else changed, "utf-8")
    refused(cli, run, path, said=(said, "cvat.xml"))


YOLO = {
    "unknown class": (lambda line: "9" + line[1:], "data.yaml names no class 9"),
    "letters": (lambda line: "x" + line[1:], "not a number of a class"),
    "a box": (lambda line: "0 0.5 0.5 0.1 0.1", "it is a box"),
    "outside": (lambda line: "0 0 0 1.5 0 1 1", "a corner at 120, 0 lies outside"),
    "odd": (lambda line: "0 0 0 1 0 1", "no pairs of numbers"),
    "infinite": (lambda line: "0 0 0 inf 0 1 1", "no pairs of numbers"),
    "half": (lambda line: line[:12], "corners"),
}


@pytest.mark.parametrize("case", YOLO)
def test_yolo(case, cli, run, out):
    edit, said = YOLO[case]
    made("yolo_seg", out)
    path = next((out / "yolo_seg").rglob("one.txt"))
    first, rest = path.read_text().split("\n", 1)
    path.write_text(f"{edit(first)}\n{rest}")
    refused(cli, run, out / "yolo_seg", said=(said, "line 1", "one"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: [a", "is not YAML"),
        ("nc: 3\n", "no 'names'"),
        ("names: 7\n", "no 'names'"),
        ("names: {0: wolf, 1: wolf, 2: wolf}\n", "'wolf' is no class"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_yolo_yaml(text, said, cli, run, out):
    made("yolo_seg", out)
    (out / "yolo_seg" / "data.yaml").write_text(text)
    refused(cli, run, out / "yolo_seg", said=said)


def test_yolo_without_its_yaml(cli, run, out):
    made("yolo_seg", out)
    (out / "yolo_seg" / "data.yaml").unlink()
    path = next((out / "yolo_seg").rglob("one.txt"))
    refused(cli, run, path, said="lies below no data.yaml")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((60, 80), 7, np.uint8), "holds 7 in 4,800 pixels, which is no class"),
        (np.zeros((61, 80), np.uint8), ("80x61", "80x60")),
        (np.zeros((60, 80, 3), np.uint8), "not class ids"),
    ],
)
def test_plain_pngs(pixels, said, cli, run, out):
    out.mkdir()
    (out / "one.png").write_bytes(png(pixels))
    refused(cli, run, out, said=said)


def test_half_a_png(cli, run, out):
    written = made("labels", out)
    written[0].write_bytes(written[0].read_bytes()[:-60])
    refused(cli, run, out, said=("damaged or cut short", written[0].name))


MARKS = {"format": "clipseg-review", "version": 1, "run": "run", "marks": {"one": "good"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "another"}, "about another, not about run"),
        ({"version": 2}, "version 2"),
        ({"marks": {"three": "good"}}, "three: is no image"),
        ({"marks": {"one": "fine"}}, "one is marked 'fine'"),
        ({"marks": ["one"]}, "'marks' is no object"),
        ({"run": None}, "'run' is missing"),
    ],
)
def test_marks(change, said, cli, run, tmp_path):
    path = tmp_path / "marks.json"
    path.write_text(json.dumps({**MARKS, **change}))
    refused(cli, run, path, said=(said, "marks.json"))


def test_overlaps_are_refused_and_may_be_allowed(cli, run, out):
    (path,) = made("coco_polygons", out)

    def overlap(data: Any) -> None:
        data["annotations"] = [
            {"id": i, "image_id": 1, "category_id": i, "segmentation": [[x, 0, x + 9, 0, x + 9, 9, x, 9]]}
            for i, x in ((1, 0), (2, 4))
        ]

    edited(path, overlap)
    refused(cli, run, path, said=("two: annotation 2: 45 pixels are both cat and red car", "--on-top"))
    done = cli("import", run, path, "--on-top")
    assert done.code == 0, done.err
    with Image.open(run / "in" / "two.png") as image:
        found = np.asarray(image)
    assert (found[:9, :4] == 1).all() and (found[:9, 4:13] == 2).all() and not found[9:].any()


HOSTILE = {
    "deep": ("[" * 200_000, ("nested too deeply", "not JSON", "cut short")),
    "deep objects": ('{"a":' * 100_000, ("nested too deeply", "not JSON", "cut short")),
    "twice": ('{"images": [], "images": []}', ("'images' stands twice",)),
    "nan": ('{"images": NaN}', ("NaN is not allowed in JSON",)),
    "half": ('{"images": [{"id": 1', ("cut short",)),
    "no text": (b"\xff\xfe\x00", ("no text in UTF-8",)),
    "empty": ("", ("cut short",)),
    "digits": ('{"images": ' + "9" * 10_000 + "}", ("not JSON", "'images' is not", "shows", "list of")),
    "an object": ("{}", ("'images'", "'shapes'", "no list of tasks", "no marks", "'categories'")),
    "a list": ("[1, 2]", ("'images'", "'shapes'", "no list of tasks", "no marks", "'categories'")),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("name", [n for n in FORMATS.names() if ".json" in FORMATS.get(n).suffixes])
def test_hostile_json(name, case, cli, run, tmp_path):
    text, said = HOSTILE[case]
    path = tmp_path / "bad.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = contents(run)
    done = cli("import", run, path, "--format", name)
    assert done.code == 1 and "Traceback" not in done.err
    assert any(part in done.err for part in said), done.err
    assert contents(run) == before


@pytest.mark.parametrize("name", FORMATS.names())
def test_half_files_and_files_that_are_none(name, cli, run, tmp_path):
    suffix = FORMATS.get(name).suffixes[0]
    for data in (b"", b"\0" * 100, b"PK\x03\x04" + b"x" * 50, b"<annotations><image name='a'"):
        path = tmp_path / "labels" / f"bad{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        before = contents(run)
        done = cli("import", run, path, "--format", name)
        assert done.code == 1 and "bad" in done.err and "Traceback" not in done.err, done.err
        assert contents(run) == before


def test_what_is_too_large_is_not_read(cli, run, out, monkeypatch):
    from clipseg_cli.data.annotations import _files, cvat

    monkeypatch.setattr(_files.read_limited, "__defaults__", (1000,))
    monkeypatch.setattr(cvat, "MOST_BYTES", 1000)
    refused(cli, run, *made("coco", out), "--format", "coco", said="is larger than")
    refused(cli, run, *made("cvat", out / "c"), said="is larger than")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["coco", "label_studio", "cvat", "voc", "coco_panoptic", "labelme", "npz"])
def test_random_damage_is_said_or_does_no_harm(name, seed, cli, run, out):
    """Bytes that were flipped or cut: a sentence and no change, or labels that are sound."""
    rng = np.random.default_rng(seed)
    paths = [p for p in made(name, out) if p.suffix in (".json", ".xml", ".zip", ".npz")]
    good = bytearray(paths[0].read_bytes())
    for _ in range(3):
        data = bytearray(good)
        for at in rng.integers(0, len(data), 4):
            data[at] = int(rng.integers(0, 256))
        paths[0].write_bytes(bytes(data[: int(rng.integers(len(data) // 2, len(data) + 1))]))
        before = contents(run)
        done = cli("import", run, paths[0], "--format", name)
        assert done.code in (0, 1) and "Traceback" not in done.err, done.err
        if done.code:
            assert contents(run) == before
