"""The files of a review are whole or not there, and the page shows a run whatever things are called."""

from __future__ import annotations

import errno
import tracemalloc

import numpy as np
import pytest
from review_runs import (  # noqa: F401
    FILES,
    MAPS,
    blocks,
    class_list,
    listed,
    make_run,
    page_of,
    rows,
    run_of_maps,
    unpacked,
)

from clipseg_cli.outputs._raster import levels_text, nearest, runs_text, shrunk
from clipseg_cli.outputs._review import Entry, ReviewFiles
from clipseg_cli.outputs._spool import SortedSpool
from clipseg_cli.runs.trust import Trust


def test_the_page_holds_everything_and_asks_for_nothing(cli, run):
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    page = page_of(folder)
    addresses = [
        value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "action")
    ]
    assert addresses == []
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "http:" not in page.blocks["script"].replace("http://www.w3.org/2000/svg", "")
    assert page.texts["command"].startswith(f"clipseg segment {photos} --classes cat,dog,tree --model emoji")
    for image, drawn in zip(page.data["images"], page.payloads, strict=True):
        labels = MAPS[image["name"]]
        assert np.array_equal(unpacked(drawn["labels"], labels.shape), labels)
        outlined = unpacked(drawn["outlines"], labels.shape)
        assert set(np.unique(outlined)) - {0} == set(range(1, len(image["regions"]) + 1))
        for number, region in enumerate(image["regions"], start=1):
            assert (outlined == number).sum() == region["area"]
        assert len(drawn["levels"]) == drawn["cells"][0] * drawn["cells"][1]


HOSTILE = (
    "</script><script>alert(1)<!--",
    "quotes \"'& ünd 猫",
    "two\nlines",
    "__proto__",
    "=1+1",
    "{{data}}",
)


def test_hostile_names_stay_names(cli, tmp_path):
    classes = class_list(("background", *HOSTILE[:2], "<img src=x onerror=alert(1)>"))
    files = [name.replace("/", "") for name in HOSTILE]
    folder, photos = make_run(
        tmp_path,
        {name: blocks(seed) for seed, name in enumerate(files)},
        classes=classes,
        options={"classes": "</code>"},
    )
    done = cli("review", folder, "--images", photos)
    assert done.code == 0, done.err
    page = page_of(folder)
    assert sorted(image["name"] for image in page.data["images"]) == sorted(files)
    assert [c["name"] for c in page.data["classes"]] == list(classes.names)
    assert sum(tag == "script" for tag, _ in page.tags) == 2 + len(files)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "</code>" in page.texts["command"]
    assert sorted(row["image"] for row in rows(folder / "review.csv")) == sorted(files)
    assert sorted(image["image"] for image in listed(folder)["images"]) == sorted(files)


def test_a_page_holds_the_least_trusted_if_there_are_many(cli, run):
    folder, photos = run
    done = cli("review", folder, "--images", photos, "--show", 2, "--side", 64)
    assert done.code == 0 and "2 least trusted of 4" in done.err
    order = [row["image"] for row in rows(folder / "review.csv")]
    page = page_of(folder)
    assert len(order) == 4 and [image["name"] for image in page.data["images"]] == order[:2]
    assert page.data["images_in_all"] == 4


def test_all_files_or_none(cli, run, monkeypatch):
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    before = {name: (folder / name).read_bytes() for name in FILES}

    def full(*args):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("clipseg_cli.outputs._review.write_page", full)
        done = cli("review", folder, "--images", photos, "--show", 1)
    assert done.code == 1 and "no space left" in done.err
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    assert not list(folder.glob(".*"))
    assert cli("review", folder, "--images", photos).code == 0
    assert {
        name: (folder / name).read_bytes() for name in FILES
    } == before  # the same bytes whenever it is made


@pytest.mark.parametrize("name", FILES)
def test_a_stranger_is_not_written_over(name, cli, run):
    folder, photos = run
    (folder / name).write_text("mine")
    done = cli("review", folder, "--images", photos)
    assert done.code == 1 and "not made by clipseg" in done.err
    assert (folder / name).read_text() == "mine" and sum((folder / n).exists() for n in FILES) == 1


@pytest.mark.parametrize("most", [2, 200, 70_000])
def test_runs_are_read_back(most):
    values = np.random.default_rng(most).integers(0, most, (13, 29)) // 2 * 2
    assert np.array_equal(unpacked(runs_text(values), values.shape), values)
    long = np.full((300, 400), most - 1)
    assert np.array_equal(unpacked(runs_text(long), long.shape), long)


def test_levels_and_sizes():
    text = levels_text(np.array([[0, 0.5, 1]], np.float32), (1, 3))
    assert [text[0], text[2]] == ["A", "/"] and len(text) == 3
    assert (
        shrunk(480, 640, 320) == (240, 320)
        and shrunk(10, 5, 320) == (10, 5)
        and shrunk(1, 5000, 100) == (1, 100)
    )
    values = np.arange(12).reshape(3, 4)
    assert np.array_equal(nearest(values, (3, 4)), values)
    assert np.array_equal(nearest(np.kron(values, np.ones((3, 3), int)), (3, 4)), values)


def test_pieces_come_in_the_order_of_their_keys(tmp_path):
    spool = SortedSpool(tmp_path / "x")
    for data, key, weight in (
        (b"unknown", float("nan"), 9),
        (b"second", 0.5, 1),
        (b"", 0.7, 0),
        (b"first", 0.5, 2),
        (b"third", 0.5, 1),
        (b"negative", -1, 0),
    ):
        spool.add(data, key, weight)
    assert list(spool) == [b"negative", b"first", b"second", b"third", b"", b"unknown"]
    assert list(spool)[:2] == [b"negative", b"first"]  # again from the beginning
    spool.close()
    assert not list(tmp_path.iterdir())


def test_after_ctrl_c_nothing_is_there(cli, run, monkeypatch):
    folder, photos = run
    entry, calls = Trust.entry, []

    def stopped(self, name):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return entry(self, name)

    monkeypatch.setattr(Trust, "entry", stopped)
    done = cli("review", folder, "--images", photos)
    assert done.code == 130 and "interrupted" in done.err
    assert not list(folder.glob("review*")) and not list(folder.glob(".*"))


def test_memory_holds_no_images(tmp_path):
    head = dict.fromkeys(("title", "run", "command", "made_by", "order", "against"), "x")
    files = ReviewFiles(tmp_path, head, class_list(), most=400)
    tracemalloc.start()
    try:
        files.begin()
        for i in range(400):
            payload = b'"%s"' % (b"%05d" % i * 10_000)
            region = (0.5, 1, b"x,1\n")
            files.add(Entry(0.5, b"x,1\n", b'{"image":"x"}', b'{"name":"x"}', payload, (region,)))
        files.end({})
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "review.html").stat().st_size > 400 * 50_000


def test_more_classes_than_a_byte_holds(cli, tmp_path):
    names = [f"class {i}" for i in range(300)]
    labels = np.arange(48 * 64).reshape(48, 64) // 11
    folder, photos = make_run(tmp_path, {"x": labels.astype(np.uint16)}, classes=class_list(names, None))
    assert cli("review", folder, "--images", photos).code == 0
    page = page_of(folder)
    assert np.array_equal(unpacked(page.payloads[0]["labels"], labels.shape), labels)
    assert len(page.data["classes"]) == 300 and page.data["background"] is None
