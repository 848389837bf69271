"""One run by several processes: shards in any order, at once, and two that are in each other's way."""

from __future__ import annotations

import json
import os

import pytest
from run_folders import (  # noqa: F401
    NAMES,
    contents,
    lasting_voc,
    run_command,
    run_folder,
    times,
    voc_data,
    whole_run,
)

from clipseg_cli.commands import pseudolabel
from clipseg_cli.config import PseudolabelConfig
from clipseg_cli.utils.locks import file_lock


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_in_any_order_make_the_same_bytes(run, voc, whole, folder, order):
    for i, shard in enumerate(order):
        done = run(voc, "--shard", f"{shard}/3")
        assert done.code == 0, done.err
        complete = i == 2
        assert json.loads((folder / "manifest.json").read_text())["complete"] == complete
        missing = f"Part {shard}/3 is done; the run is complete when all 3 parts are"
        assert (missing in done.err) != complete
        assert bool(done.out) == complete
    assert contents(folder) == whole


def test_a_shard_alone_says_so_in_json_too(run, voc, folder):
    found = json.loads(run(voc, "--shard", "2/3", "--json").out)
    assert (found["complete"], found["part"], found["images"], found["failures"]) == (False, "2/3", 2, {})


def test_a_shard_with_a_bad_picture_fails_by_itself(run, voc):
    (voc / "JPEGImages" / f"{NAMES[0]}.jpg").write_bytes(b"")
    assert run(voc, "--shard", "2/2").code == 0
    first = run(voc, "--shard", "1/3", "--name", "other")
    assert first.code == 1
    assert "1 of 3 images has no label" in first.err


def test_another_number_of_shards_or_none_goes_on(run, voc, whole, folder):
    run(voc, "--shard", "2/3")
    run(voc, "--shard", "1/2")
    before = times(folder / "labels")
    assert run(voc).code == 0
    assert before.items() <= times(folder / "labels").items()
    assert contents(folder) == whole


def test_more_shards_than_groups(run, voc, whole, folder):
    codes = [run(voc, "--shard", f"{i}/6").code for i in range(1, 7)]
    assert codes == [0] * 6
    assert contents(folder) == whole


def test_a_shard_with_nothing_to_do_leaves_the_others_alone(
    run, voc, whole, folder, tiny_clip, tmp_path, monkeypatch
):
    """While one shard labels a mended picture again, another that is done must not take the run for complete."""
    image = voc / "JPEGImages" / f"{NAMES[3]}.jpg"
    good = image.read_bytes()
    image.write_bytes(b"")
    for shard in ("1/2", "2/2"):
        run(voc, "--shard", shard)
    image.write_bytes(good)
    write, other = pseudolabel.write_bytes, []

    def meanwhile(path, data):
        if not other:
            other.append(None)
            monkeypatch.setattr(pseudolabel, "write_bytes", write)
            config = PseudolabelConfig(
                dataset=str(voc),
                model=tiny_clip.name,
                pretrained=str(tiny_clip.weights),
                templates="single",
                device="cpu",
                precision="fp32",
                batch_size=4,
                out=tmp_path / "out",
                name="run",
                shard=(1, 2),
            )
            with pseudolabel.open_run(config) as opened:
                assert list(opened) == []
                other[0] = opened.finish()
        return write(path, data)

    monkeypatch.setattr(pseudolabel, "write_bytes", meanwhile)
    done = run(voc, "--shard", "2/2")
    assert other == [None]
    assert done.code == 0, done.err
    assert contents(folder) == whole


def test_shards_that_begin_together_find_what_the_first_has_begun(run, voc, whole, folder, monkeypatch):
    """The second looks into the folder before, and begins after the first has written labels."""
    begin, inside = pseudolabel.begin_run, []

    def late(path, manifest):
        if not inside:
            inside.append(1)
            assert run(voc, "--shard", "1/2").code == 0
        begin(path, manifest)

    monkeypatch.setattr(pseudolabel, "begin_run", late)
    assert run(voc, "--shard", "2/2").code == 0
    assert contents(folder) == whole


def test_torchrun_and_shards_together_are_refused(run, voc, monkeypatch, folder):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = run(voc, "--shard", "1/2")
    assert done.code == 2
    assert "Error: torchrun shares out the work already" in done.err and "leave out --shard" in done.err
    assert not folder.exists()


# Two at once


@pytest.mark.parametrize(("own", "other"), [([], ""), (["--shard", "1/2"], ""), ([], "-1-of-2")])
def test_a_folder_in_use_is_refused_with_the_process(run, voc, folder, own, other):
    (folder / "labels").mkdir(parents=True)
    with file_lock(folder / ".lock", shared=bool(other)), file_lock(folder / f".lock{other or '-none'}"):
        done = run(voc, *own)
    assert done.code == 1
    assert f"Error: {folder} is in use by process {os.getpid()}" in done.err
    assert "Hint: wait for it, or choose another folder with --name" in done.err
    assert run(voc).code == 0
