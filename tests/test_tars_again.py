"""Of a tar that failed in part or has changed, only the batches that it concerns are done again."""

from __future__ import annotations

import json
import os

from run_folders import contents, run_command, run_folder  # noqa: F401
from shard_sources import WORDS, labels_in_tar, source_photos, write_tar  # noqa: F401


def records_of(folder):
    """The line of the only tar."""
    return json.loads((folder / "shards.jsonl").read_text())


def test_in_a_tar_with_an_image_that_failed_only_its_batch_is_done_again(run, photos, tmp_path, folder):
    names = ["00.png", "01.png", "03.png", "04.png"]  # groups of two
    files = {name: (photos / name).read_bytes() for name in names}
    damaged, source = dict(files, **{"03.png": b"x" * len(files["03.png"])}), tmp_path / "four.tar"
    assert run(write_tar(tmp_path / "whole" / "four.tar", files), *WORDS, "--name", "whole").code == 0
    write_tar(source, damaged)
    size = source.stat().st_size
    said = f"Error: {source}: 03.png: not an image that can be read"
    first = run(source, *WORDS)
    assert first.code == 1 and said in first.err
    before = contents(folder)
    label = (folder / "four.tar").stat().st_mtime_ns

    again = run(source, *WORDS, "--verbose")
    assert again.code == 1 and said in again.err and "four.tar: 1 image by process" in again.err
    assert contents(folder) == before and (folder / "four.tar").stat().st_mtime_ns == label

    write_tar(source, files)
    assert source.stat().st_size == size  # nothing but a look at it tells that it was mended
    mended = run(source, *WORDS, "--verbose")
    assert mended.code == 0, mended.err
    assert "four.tar: 2 images by process" in mended.err
    assert labels_in_tar(folder / "four.tar") == labels_in_tar(folder.with_name("whole") / "four.tar")
    assert (folder / "four.tar").read_bytes() == (folder.with_name("whole") / "four.tar").read_bytes()
    here, there = (records_of(one) for one in (folder, folder.with_name("whole")))
    assert here.pop("version") != there.pop("version"), "the files are two, as their times tell"
    assert json.dumps(here) == json.dumps(there).replace(str(tmp_path / "whole"), str(tmp_path))
    assert "nothing was left to do" in run(source, *WORDS).err


def test_records_of_a_tar_stand_in_its_order_whatever_is_done_again(run, photos, tmp_path, folder):
    names = ["00.png", "01.png", "03.png", "04.png"]
    files = {name: (photos / name).read_bytes() for name in names}
    damaged = {"03.png": b"none", "04.png": b"none"}  # a whole batch, behind the one that is done again
    source = write_tar(tmp_path / "four.tar", files | damaged)
    assert run(source, *WORDS).code == 1
    changed = {"00.png": (photos / "trip" / "02.png").read_bytes()}
    write_tar(source, files | damaged | changed)
    assert "four.tar: 4 images by process" in run(source, *WORDS, "--verbose").err
    assert run(source, *WORDS, "--name", "whole").code == 1
    assert contents(folder) == contents(folder.with_name("whole"))


def test_of_a_tar_that_changed_only_batches_with_other_images_are_done_again(run, photos, tmp_path, folder):
    names = ["00.png", "01.png", "03.png", "04.png"]
    files = {name: (photos / name).read_bytes() for name in names}
    source = write_tar(tmp_path / "four.tar", files)
    assert run(source, *WORDS, "--formats", "confidence").code == 0
    files["04.png"] = (photos / "trip" / "02.png").read_bytes() + bytes(20000)
    write_tar(source, files)
    done = run(source, *WORDS, "--formats", "confidence", "--verbose")
    assert done.code == 0 and "four.tar: 2 images by process" in done.err
    assert run(source, *WORDS, "--formats", "confidence", "--name", "whole").code == 0
    assert (folder / "four.tar").read_bytes() == (folder.with_name("whole") / "four.tar").read_bytes()
    del files["01.png"]  # other batches: all of it is done again
    files["00.png"] += bytes(20000)
    write_tar(source, files)
    assert "four.tar: 3 images by process" in run(source, *WORDS, "--verbose").err
    assert list(labels_in_tar(folder / "four.tar")) == ["00.png", "03.png", "04.png"]
    assert "four.tar: 3 images" in run(source, *WORDS, "--formats", "confidence", "--verbose").err
    assert "04_confidence.png" in labels_in_tar(folder / "four.tar")


def test_a_tar_that_changed_and_kept_its_size_is_noticed(run, photos, tmp_path, folder):
    """Its time tells; where all its images are the same, a look at them is all that is done."""
    files = {name: (photos / name).read_bytes() for name in ("00.png", "01.png")}
    source = write_tar(tmp_path / "two.tar", files)
    assert run(source, *WORDS).code == 0
    before, size = contents(folder), source.stat().st_size
    assert "nothing was left to do" in run(source, *WORDS).err
    os.utime(source, (1, 1))
    assert run(source, *WORDS).code == 0
    touched = contents(folder)
    assert before.pop("shards.jsonl") != touched.pop("shards.jsonl") and before == touched
    other = (photos / "trip" / "02.png").read_bytes()
    write_tar(source, files | {"01.png": other})
    assert source.stat().st_size == size, "a tar is a multiple of 10 KiB"
    assert "two.tar: 2 images by process" in run(source, *WORDS, "--verbose").err


def test_a_record_without_a_version_holds_while_the_size_does(run, photos, tmp_path, folder):
    source = write_tar(tmp_path / "one.tar", {"00.png": (photos / "00.png").read_bytes()})
    assert run(source, *WORDS).code == 0
    record = records_of(folder)
    assert len(record.pop("version")) == 16
    (folder / "shards.jsonl").write_text(json.dumps(record) + "\n")
    assert "nothing was left to do" in run(source, *WORDS).err
