"""Archives of corrections that lead out, that are damaged, or that hold other things than they say."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bad_corrections import (  # noqa: F401
    made,
    out_fixture,
    png,
    refused,
    run_fixture,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def rezipped(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same archive with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


MASK = "SegmentationClass/one.png"
ARCHIVES = {
    "leads out": (lambda m: m.update({"../evil.png": b""}), "'../evil.png', which leads out"),
    "absolute": (lambda m: m.update({"/evil.png": b""}), "leads out"),
    "drive": (lambda m: m.update({"C:\\evil.png": b""}), "leads out"),
    "colour": (
        lambda m: m.update({MASK: png(np.full((60, 80, 3), 7, np.uint8))}),
        ("one", "the colour (7, 7, 7), which labelmap.txt does not name"),
    ),
    "size": (lambda m: m.update({MASK: png(np.zeros((9, 9, 3), np.uint8))}), "its mask is 9x9"),
    "grey": (lambda m: m.update({MASK: png(np.zeros((60, 80), np.uint8))}), "mode L"),
    "damaged": (lambda m: m.update({MASK: m[MASK][:90]}), "damaged"),
    "bomb": (lambda m: m.update({MASK: bytes(1 << 24)}), "unpacks to more than"),
    "unknown": (
        lambda m: m.update({"labelmap.txt": m["labelmap.txt"].replace(b"cat:", b"wolf:")}),
        "'wolf' (128, 0, 0), which is no class",
    ),
    "no colour": (lambda m: m.update({"labelmap.txt": b"cat:red::\n"}), "line 1 has no colour"),
    "one colour": (lambda m: m.update({"labelmap.txt": b"cat:1,1,1\ndog:1,1,1"}), "colour of another class"),
    "strange": (lambda m: m.update({"SegmentationClass/three.png": m[MASK]}), "three.png: is no image"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_voc(case, cli, run, out):
    edit, said = ARCHIVES[case]
    (path,) = made("voc", out)
    said = said if isinstance(said, tuple) else (said,)
    known = () if case in ("leads out", "absolute") else ("--format", "voc")
    refused(cli, run, rezipped(path, edit), *known, said=(*said, "voc.zip"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_an_archive(cli, run, out):
    (path,) = made("voc", out)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labelmap.txt", b"cat:1,1,1\n")
    refused(cli, run, path, "--format", "voc", said="holds labelmap.txt twice")


PANOPTIC = "annotations/panoptic_default.json"


def test_an_archive_packed_in_an_unknown_way(cli, run, out):
    (path,) = made("voc", out)
    data = bytearray(path.read_bytes())
    for head, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # before each member, and in the directory
        start = data.find(head)
        while start >= 0:
            data[start + place : start + place + 2] = (97).to_bytes(2, "little")  # WavPack
            start = data.find(head, start + 4)
    path.write_bytes(data)
    refused(cli, run, path, "--format", "voc", said=("packed in a way that Python cannot read", "voc.zip"))


def panoptic(change: Callable[[Any], Any]) -> Callable[[dict[str, bytes]], None]:
    def edit(members: dict[str, bytes]) -> None:
        data = json.loads(members[PANOPTIC])
        change(data)
        members[PANOPTIC] = json.dumps(data).encode()

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (panoptic(lambda d: d["annotations"][0]["segments_info"].pop()), "of which the JSON says nothing"),
        (
            panoptic(lambda d: d["annotations"][0]["segments_info"][0].update(id=9999)),
            "of which the JSON says nothing",
        ),
        (
            panoptic(
                lambda d: d["annotations"][0]["segments_info"].append(
                    {**d["annotations"][0]["segments_info"][0], "id": 9999}
                )
            ),
            "no pixel of the segment 9999",
        ),
        (panoptic(lambda d: d["annotations"].pop()), "has no segments"),
        (panoptic(lambda d: d["annotations"][0].update(image_id=99)), "there is no image 99"),
        (panoptic(lambda d: d["annotations"][0].update(file_name="three.png")), "lacks annotations"),
        (panoptic(lambda d: d["categories"][0].update(name="wolf")), "'wolf' is no class"),
        (lambda m: m.update({PANOPTIC: m[PANOPTIC][:200]}), "cut short"),
    ],
)
def test_coco_panoptic(edit, said, cli, run, out):
    (path,) = made("coco_panoptic", out)
    refused(cli, run, rezipped(path, edit), said=(said, "coco_panoptic.zip"))


def array(labels: np.ndarray, path: Path, **others: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, labels=labels, **others)
    return path


@pytest.mark.parametrize(
    ("labels", "others", "said"),
    [
        (np.full((60, 80), 9), {}, "holds 9 in 4,800 pixels, which is no class"),
        (np.zeros((60, 81), np.uint8), {}, "'labels' is 81x60"),
        (np.zeros((60, 80)), {}, "not [H, W] numbers"),
        (np.zeros(4800, np.uint8), {}, "not [H, W] numbers"),
        (np.zeros((60, 80), np.uint8), {"classes": np.array(["wolf"])}, "'wolf' is no class"),
        (np.array([[{}]], object), {}, "not the array that its header describes"),
    ],
)
def test_npz(labels, others, said, cli, run, out):
    refused(cli, run, array(labels, out / "one.npz", **others), said=(said, "one.npz"))


def test_npz_that_claims_more_than_it_holds(cli, run, out):
    path = array(np.zeros((60, 80), np.uint8), out / "one.npz")

    def claim(members: dict[str, bytes]) -> None:
        members["labels.npy"] = members["labels.npy"].replace(b"(60, 80)", b"(6000000000, 80)", 1)

    refused(cli, run, rezipped(path, claim), said="labels")
