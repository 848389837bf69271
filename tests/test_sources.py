"""What `clipseg pseudolabel` takes beside a folder: lists of images, addresses, tars."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import contents, labels_in, run_command, run_folder  # noqa: F401
from shard_sources import WORDS, labels_in_tar, source_photos, write_tar  # noqa: F401

from clipseg_cli.data.tars import expand_braces, find_tars, unpack_images
from clipseg_cli.errors import DatasetError
from clipseg_cli.inference.predictor import Predictor


@pytest.fixture
def memory(photos):
    """The photos at memory://photos."""
    system = fsspec.filesystem("memory")
    for path in photos.rglob("*.png"):
        system.pipe(f"/photos/{path.relative_to(photos).as_posix()}", path.read_bytes())
    yield "memory://photos"
    system.store.clear()


# Lists and addresses


def test_the_labels_do_not_depend_on_how_the_images_are_named(run, photos, memory, tmp_path, folder):
    archive, listed = tmp_path / "photos.zip", tmp_path / "list.txt"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(photos.rglob("*.png")):
            file.write(path, f"inside/{path.relative_to(photos).as_posix()}")
    shutil.copytree(photos, tmp_path / "copy")
    names = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    listed.write_text("# images\n\n" + "\n".join(names) + "\n")
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    assert run(photos, *WORDS).code == 0
    plain = {name: text for name, text in contents(folder).items() if name.startswith("labels/")}
    assert len(plain) == 5
    sources = {
        "file": f"file://{photos}",
        "memory": memory,
        "zip": f"zip://inside::{archive}",
        "list": listed,
    }
    for name, source in sources.items():
        done = run(source, *WORDS, "--name", name)
        assert done.code == 0, done.err
        made = contents(folder.with_name(name))
        assert {key: text for key, text in made.items() if key.startswith("labels/")} == plain, name
        assert run(source, *WORDS, "--name", name).err.count("nothing was left to do") == 1
    assert contents(folder.with_name("file")) == contents(folder)


def test_a_run_of_a_list_finds_its_images_again(run, cli, photos, tmp_path, folder):
    listed = photos.parent / "three.txt"
    listed.write_text("photos/00.png\nphotos/01.png\nphotos/trip/02.png\n")
    assert run(listed, *WORDS).code == 0
    done = cli("convert", folder, "--formats", "labelme", "--out", tmp_path / "converted")
    assert done.code == 0, done.err
    assert "were not found" not in done.err
    assert len(list((tmp_path / "converted").rglob("*.json"))) >= 3


@pytest.mark.parametrize(
    ("source", "args", "said"),
    [
        ("none.txt", WORDS, "none.txt: no such file or folder"),
        ("twice.txt", WORDS, "twice.txt:2: 'a.jpg' would have the same name as line 1: a"),
        ("empty.txt", WORDS, "empty.txt: no images in this list"),
        ("one.txt", (), "one.txt: nothing names the classes of these images"),
        ("one.txt", (*WORDS, "--split", "train"), "--split needs a data set on the disk"),
        ("memory://nowhere", WORDS, "memory://nowhere"),
        (
            "nosuch://bucket/photos",
            WORDS,
            "nosuch://bucket/photos cannot be reached: Protocol not known: nosuch",
        ),
        ("tos://bucket/photos", WORDS, "Hint: pip install tosfs"),
        ("nothing-*.tar", WORDS, "nothing-*.tar: nothing is there"),
        ("none.tar", WORDS, "none.tar: no such file or folder"),
        ("none.tar", (*WORDS, "--shard", "1/2"), "tars are not shared out"),
        ("one.tar", (*WORDS, "--keep-features"), "--keep-features keeps what one process read"),
        ("one.tar", (), "nothing names the classes"),
        ("one.tar", (*WORDS, "--keep-labels", "seen"), "--keep-labels needs a data set on the disk"),
    ],
)
def test_a_source_that_cannot_be_used_is_one_sentence(run, tmp_path, monkeypatch, source, args, said):
    monkeypatch.chdir(tmp_path)
    Path("twice.txt").write_text("a.png\na.jpg\n")
    Path("empty.txt").write_text("# nothing\n")
    Path("one.txt").write_text("a.png\n")
    write_tar(Path("one.tar"), {"a.png": b""})
    done = run(source, *args)
    assert done.code in (1, 2) and said in done.err, done.err
    assert done.err.count("Error: ") == 1 and "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_an_image_that_cannot_be_fetched_is_named_and_the_others_are_labelled(run, memory, folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{memory}/00.png\n{memory}/gone.png\n")
    done = run(listed, *WORDS)
    assert done.code == 1
    assert f"Error: {memory}/gone.png: no such file" in done.err
    assert set(labels_in(folder)) == {"photos/00"}


# Tars


@pytest.fixture(scope="module")
def tars(photos, tmp_path_factory) -> Path:
    """Two tars with the photos: the first three, and two."""
    place = tmp_path_factory.mktemp("tars")
    paths = sorted(photos.rglob("*.png"))
    for i, part in enumerate((paths[:3], paths[3:])):
        files = {p.relative_to(photos).as_posix(): p.read_bytes() for p in part}
        write_tar(place / f"photos-{i}.tar", {**files, "00.json": b"{}"})
    return place


def test_a_tar_of_labels_for_each_tar_of_images(run, photos, tars, folder):
    done = run(f"{tars}/photos-{{0..1}}.tar", *WORDS, "--verbose")
    assert done.code == 0, done.err
    assert f"{tars}/photos-{{0..1}}.tar: 2 tars, 3 classes" in done.err
    assert "photos-0.tar: 3 images by process" in done.err
    made = {path.name: labels_in_tar(path) for path in folder.glob("*.tar")}
    assert {name: list(labels) for name, labels in made.items()} == {
        "photos-0.tar": ["00.png", "01.png", "03.png"],
        "photos-1.tar": ["04.png", "trip/02.png"],
    }
    assert run(photos, *WORDS, "--name", "plain", "--batch-size", "2").code == 0
    for labels in made.values():
        for name, data in labels.items():
            with Image.open(io.BytesIO(data)) as image, Image.open(photos / name) as photo:
                assert image.size == photo.size
                assert np.isin(np.asarray(image), (0, 1, 2)).all()
    classes = json.loads((folder / "classes.json").read_text())["classes"]
    assert [c["name"] for c in classes] == ["background", "cat", "dog"]


def test_the_labels_in_a_tar_are_those_of_the_plain_command(run, photos, tars, folder):
    """With one image in a group, so that it does not matter where a tar ends."""
    single = ("--batch-size", "2")
    assert run(f"{tars}/photos-*.tar", *WORDS, *single).code == 0
    assert run(photos, *WORDS, *single, "--name", "plain").code == 0
    plain = folder.with_name("plain") / "labels"
    for path in folder.glob("*.tar"):
        for name, data in labels_in_tar(path).items():
            assert data == (plain / name).read_bytes(), name


def test_a_tar_at_an_address_gives_the_same_tar(run, tars, folder):
    system = fsspec.filesystem("memory")
    for path in tars.glob("*.tar"):
        system.pipe(f"/bucket/{path.name}", path.read_bytes())
    assert run(f"{tars}/photos-*.tar", *WORDS).code == 0
    done = run("memory://bucket/photos-*.tar", *WORDS, "--name", "remote")
    system.store.clear()
    assert done.code == 0, done.err
    remote = folder.with_name("remote")
    for name in ("photos-0.tar", "photos-1.tar", "classes.json"):
        assert (remote / name).read_bytes() == (folder / name).read_bytes(), name
    here, there = (
        [json.loads(line) for line in (one / "shards.jsonl").read_text().splitlines()]
        for one in (folder, remote)
    )
    assert all(record.pop("version") for record in here), "a disk knows when a file was written"
    assert not any(record.pop("version") for record in there) and here == there


def test_a_finished_tar_is_not_begun_again_unless_it_or_its_source_changed(run, tars, tmp_path, folder):
    place = shutil.copytree(tars, tmp_path / "tars")
    source = f"{place}/photos-*.tar"
    assert run(source, *WORDS).code == 0
    whole = contents(folder)
    done = run(source, *WORDS)
    assert "2 tars were done before" in done.err and "nothing was left to do" in done.err
    assert contents(folder) == whole
    (folder / "photos-1.tar").write_bytes(b"cut")
    done = run(source, *WORDS, "--verbose")
    assert "1 tar was done before" in done.err and "photos-1.tar: 2 images" in done.err
    assert contents(folder) == whole
    write_tar(place / "photos-0.tar", {"00.png": b"broken" * 5000})
    done = run(source, *WORDS, "--verbose")
    assert done.code == 1 and "photos-0.tar: 00.png: not an image" in done.err
    assert "1 tar was done before" in done.err
    done = run(source, "--classes", "cat,cow")
    assert done.code == 1 and "was made with other options" in done.err


def test_damaged_tars_are_named_and_the_others_are_labelled(run, tars, tmp_path, folder):
    place = shutil.copytree(tars, tmp_path / "tars")
    data = (place / "photos-1.tar").read_bytes()
    (place / "photos-2.tar").write_bytes(data[: len(data) // 3])
    with tarfile.open(place / "photos-1.tar") as file:
        second = file.getmembers()[1]
    (place / "photos-3.tar").write_bytes(data[: second.offset])  # between two members: tarfile sees no harm
    write_tar(place / "photos-4.tar", {"a.png": b"no image", "b.png": next(iter(images_of(data)))})
    done = run(f"{place}/photos-*.tar", *WORDS)
    assert done.code == 1
    for number in (2, 3):
        assert f"Error: {place}/photos-{number}.tar is no whole tar" in done.err
        assert not (folder / f"photos-{number}.tar").exists()
    assert f"Error: {place}/photos-4.tar: a.png: not an image that can be read" in done.err
    assert list(labels_in_tar(folder / "photos-4.tar")) == ["b.png"]
    assert "Traceback" not in done.err
    assert not json.loads((folder / "manifest.json").read_text())["complete"]


def test_tars_beside_the_command_are_found_and_nothing_else_of_that_name(
    run, tars, tmp_path, folder, monkeypatch
):
    """A pattern without a folder; a folder, an empty file, and what is no tar are in its way."""
    shutil.copytree(tars, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    Path("photos-2.tar").mkdir()
    Path("photos-3.tar").write_bytes(b"")
    Path("photos-4.tar").write_bytes(b"<html>404</html>" * 100)
    write_tar(Path("photos-5.tar"), {"00.json": b"{}"})
    done = run("photos-*.tar", *WORDS)
    assert done.code == 1
    assert sorted(path.name for path in folder.glob("*.tar")) == ["photos-0.tar", "photos-1.tar"]
    assert done.err.count("Error: photos-") == 3 and "photos-2" not in done.err
    assert "Error: photos-5.tar: no images in this tar" in done.err
    assert "Error: 3 images or shards have no label" in done.err
    alone = run("photos-2.tar", *WORDS)
    assert alone.code == 1 and "photos-2.tar: is a folder, where a file is wanted" in alone.err


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_tar_for_which_memory_runs_out_is_named_and_the_others_are_labelled(
    run, tars, folder, monkeypatch, error
):
    label = Predictor.launch

    def scarce(self, images, **options):
        if images[0].image.source.name == "00":
            raise error
        return label(self, images, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "launch", scarce)
        done = run(f"{tars}/photos-*.tar", *WORDS)
    assert done.code == 1
    assert "Error: photos-0.tar: not enough memory\nHint: try a smaller --batch-size" in done.err
    assert [path.name for path in folder.glob("*.tar")] == ["photos-1.tar"]
    assert run(f"{tars}/photos-*.tar", *WORDS).code == 0
    assert (folder / "photos-0.tar").is_file()


def images_of(data: bytes) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        return [file.extractfile(m).read() for m in file.getmembers() if m.name.endswith(".png")]


def test_a_key_in_two_tars_is_said(run, tars, tmp_path, folder):
    place = shutil.copytree(tars, tmp_path / "tars")
    shutil.copy(place / "photos-1.tar", place / "photos-2.tar")
    done = run(f"{place}/*.tar", *WORDS)
    assert done.code == 1
    assert "Error: photos-2.tar: its key '04' is in photos-1.tar too" in done.err
    assert (folder / "photos-2.tar").read_bytes() == (folder / "photos-1.tar").read_bytes()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.png": b"1", "a.jpg": b"2"}, "its key 'a' stands for a.png too"),
        ({"../a.png": b"1"}, "leads out of the tar"),
        ({"d/../../a.png": b"1"}, "leads out of the tar"),
    ],
)
def test_keys_that_cannot_be_used(tmp_path, files, said):
    write_tar(tmp_path / "x.tar", files)
    (tar,) = find_tars(str(tmp_path / "x.tar"))
    with pytest.raises(DatasetError, match=said):
        unpack_images(tar, tmp_path)


def test_keys_go_up_to_the_first_dot(tmp_path):
    write_tar(
        tmp_path / "x.tar",
        {"./d.x/a.PNG": b"1", "b.seg.png": b"2", ".c.png": b"3", "e.jpeg": b"4", "f": b"5"},
    )
    (tar,) = find_tars(str(tmp_path / "x.tar"))
    sources, size = unpack_images(tar, tmp_path)
    assert [(s.name, s.file, s.path.read_bytes()) for s in sources] == [
        ("d.x/a", "a.PNG", b"1"),
        ("e", "e.jpeg", b"4"),
    ]
    assert size == (tmp_path / "x.tar").stat().st_size


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("{x,y}/{0..1}.tar", ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]),
        ("s3://b/{3..1}.tar", []),
    ],
)
def test_braces_are_those_of_a_shell(text, names):
    assert expand_braces(text) == names


def test_braces_that_stand_for_nothing_are_a_sentence():
    with pytest.raises(DatasetError, match="stands for no tar"):
        find_tars("t-{5..3}.tar")


def test_braces_have_an_end():
    with pytest.raises(DatasetError, match="more than 1,000,000"):
        expand_braces("{0..99999999}.tar")


def test_tars_of_one_name_in_two_folders_stay_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", {})
    found = find_tars(f"{tmp_path}/{{a,b}}/0.tar")
    assert [str(tar.name) for tar in found] == ["a/0.tar", "b/0.tar"]
