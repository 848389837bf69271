"""What clipseg writes it reads again: not a pixel differs wherever the format can hold the map."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from annotated import NAMES, result_of, samples, shapes, write
from corrected import by_name, contents, corrections, labelled, maps

from clipseg_cli.data.annotations import FORMATS as READ
from clipseg_cli.data.annotations import choose, shown_name
from clipseg_cli.outputs import FORMATS as WRITTEN

WITHOUT_SHAPES = {"confidence", "csv", "heatmaps", "overlay", "probabilities", "shares", "video"}
"""Formats that are written and hold no label map."""

HOLD_IGNORED = {"labels", "npz", "voc"}

FORMATS = sorted(set(WRITTEN.names()) - WITHOUT_SHAPES)


def files_of(name, written, out):
    """What somebody would name of the files of a format."""
    folders = {"yolo_seg": out / "yolo_seg", "labelme": out / "labelme", "labels": out, "npz": out}
    return [folders.get(name) or next(p for p in written if p.suffix in (".json", ".xml", ".zip"))]


def test_every_format_with_regions_is_read():
    assert set(FORMATS) <= set(READ.names())
    assert set(READ.names()) - set(FORMATS) == {"review"}


@pytest.mark.parametrize("background", [0, 2, None])
@pytest.mark.parametrize("name", FORMATS)
def test_no_pixel_differs(name, background, cli, tmp_path):
    def own(results):
        return [
            result_of(r.labels, r.image.source.path.relative_to("/images").as_posix(), background=background)
            for r in results
        ]

    run = labelled(tmp_path / "run", own(samples()))
    wanted = own(corrections())
    files = files_of(name, write(name, wanted, tmp_path / "out"), tmp_path / "out")
    done = cli("import", run, *files, "--by", "anna", "--json", "--empty")
    assert done.code == 0, done.err
    now = maps(run)
    for image, labels in by_name(wanted).items():
        assert (now[image] != labels).sum() == 0, image
    document = json.loads(done.out)
    assert document["imported"] == len(wanted) and document["by"] == "anna"
    assert {row["format"] for row in document["images"]} <= {shown_name(name), "coco"}


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_not_changed_is_not_marked(name, cli, tmp_path):
    run = labelled(tmp_path / "run")
    files = files_of(name, write(name, samples(), tmp_path / "out"), tmp_path / "out")
    before = contents(run)
    done = cli("import", run, *files)
    assert done.code == 0, done.err
    assert "5 unchanged" in done.err and "--checked" in done.err
    assert contents(run) == before


@pytest.mark.parametrize("name", FORMATS)
def test_ignored_pixels_stay_ignored_where_a_format_cannot_tell_them(name, cli, tmp_path):
    labels = shapes()
    labels[:10, :20] = 255
    run = labelled(tmp_path / "run", [result_of(labels, "one.jpg")])
    wanted = labels.copy()
    wanted[30:40, 60:70] = 2
    written = write(name, [result_of(wanted, "one.jpg")], tmp_path / "out")
    done = cli("import", run, *files_of(name, written, tmp_path / "out"))
    assert done.code == 0, done.err
    assert (maps(run)["one"] != wanted).sum() == 0


@pytest.mark.parametrize("name", sorted(HOLD_IGNORED))
def test_these_formats_hold_ignored_pixels(name, cli, tmp_path):
    labels = shapes()
    run = labelled(tmp_path / "run", [result_of(labels, "one.jpg")])
    wanted = labels.copy()
    wanted[20:45, 5:50] = 255
    written = write(name, [result_of(wanted, "one.jpg")], tmp_path / "out")
    assert cli("import", run, *files_of(name, written, tmp_path / "out")).code == 0
    assert (maps(run)["one"] != wanted).sum() == 0


@pytest.mark.parametrize("name", sorted({"labels", "npz", "coco", "voc", "coco_panoptic"}))
def test_three_hundred_classes(name, cli, tmp_path):
    names = [f"class {i}" for i in range(300)]
    rng = np.random.default_rng(0)
    before, after = (result_of(rng.integers(0, 300, (24, 40)), "a/b.jpg", names=names) for _ in range(2))
    run = labelled(tmp_path / "run", [before])
    written = write(name, [after], tmp_path / "out")
    done = cli("import", run, *files_of(name, written, tmp_path / "out"))
    assert done.code == 0, done.err
    assert (maps(run)["a/b"] != after.labels).sum() == 0


@pytest.mark.parametrize(
    ("name", "inside"), [("cvat", "annotations.xml"), ("coco", "annotations/instances_default.json")]
)
def test_archives_as_cvat_exports_them(name, inside, cli, tmp_path):
    run = labelled(tmp_path / "run")
    (path,) = write(name, corrections(), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr(inside, path.read_bytes())
        archive.writestr("images/one.jpg", b"")
    done = cli("import", run, tmp_path / "task.zip", "--json")
    assert done.code == 0, done.err
    assert {row["format"] for row in json.loads(done.out)["images"]} == {name}
    assert all(np.array_equal(maps(run)[n], labels) for n, labels in by_name(corrections()).items())


def test_the_format_is_seen(tmp_path):
    for name in FORMATS:
        out = tmp_path / name
        (path,) = files_of(name, write(name, samples(), out), out)
        found = {one.name for one in choose([str(path)])}
        assert found == {"coco" if name == "coco_polygons" else name}


def test_a_label_png_of_another_order_of_classes_is_read_by_names(cli, tmp_path):
    run = labelled(tmp_path / "run", [result_of(shapes(), "one.jpg")])
    other = (3 - shapes()).astype(np.uint8)
    write("labels", [result_of(other, "one.jpg", names=NAMES[::-1], background=3)], tmp_path / "out")
    done = cli("import", run, tmp_path / "out", "--checked", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["images"][0]["outcome"] == "checked"
