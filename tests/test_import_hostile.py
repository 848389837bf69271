"""Corrections that mean harm, are cut off, too large or damaged: said in a sentence, nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
from bad_corrections import made, out_fixture, refused, run_fixture  # noqa: F401
from corrected import contents

from clipseg_cli.data.annotations import FORMATS

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
