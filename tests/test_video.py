"""Videos in: frames by number, labels for each, and a film of them."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from PIL import Image

from clipseg_cli.data import video
from clipseg_cli.data.video import Video
from clipseg_cli.errors import ImageError, OutputError
from clipseg_cli.outputs import Outputs
from clipseg_cli.types import ClassList, DecodedImage, RunInfo, Segmentation

WORDS = ("-c", "cat,dog", "--background", "none", "--templates", "single")
FRAMES, HEIGHT, WIDTH = 12, 48, 64


@pytest.fixture
def clip(tmp_path) -> Path:
    """Frame i is grey of brightness 20 i."""
    path = tmp_path / "in" / "clip one.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for i in range(FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 20 * i, np.uint8))
    writer.release()
    return path


def brightness(pixels: np.ndarray) -> int:
    return round(float(pixels.mean()) / 20)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_frames_come_by_number_in_any_order(clip, every, monkeypatch):
    monkeypatch.setattr(video, "MOST_WAITING", 2)
    one = Video(clip, every)
    assert (one.count, one.size, one.fps) == (FRAMES, (HEIGHT, WIDTH), 10)
    sources = one.sources(PurePosixPath("x"))
    numbers = [source.index for source in sources]
    assert numbers == list(range(0, FRAMES, every))
    shuffled = random.Random(every).sample(numbers, len(numbers))
    for order in (numbers, numbers[::-1], shuffled):
        assert [brightness(one.read(i)) for i in order] == order


def test_a_video_that_is_cut_or_none(clip, tmp_path):
    nothing = tmp_path / "nothing.mp4"
    nothing.write_bytes(b"no video at all")
    with pytest.raises(ImageError, match="no video that can be read"):
        Video(nothing)
    one = Video(clip)
    with pytest.raises(ImageError, match="ends before frame 40"):
        one.read(40)
    assert brightness(one.read(3)) == 3  # and is still there


def film(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


def test_labels_of_each_frame_and_a_film(cli, tiny_clip, clip, tmp_path):
    out = tmp_path / "out"
    options = (*WORDS, *tiny_clip.options, "--out", out, "--formats", "labels,video,coco", "--every", 5)
    done = cli("segment", clip, *options, "--json")
    assert done.code == 0, done.err
    assert [one["image"] for one in json.loads(done.out)["images"]] == [
        f"{clip}, frame {i}" for i in (0, 5, 10)
    ]
    names = sorted(p.name for p in (out / "clip one.avi").iterdir())
    assert names == ["000000.png", "000005.png", "000010.png"]
    with Image.open(out / "clip one.avi" / "000005.png") as labels:
        assert labels.size == (WIDTH, HEIGHT)
    images = json.loads((out / "coco.json").read_bytes())["images"]
    assert [one["file_name"] for one in images] == [f"clip one.avi/{i:06d}.jpg" for i in (0, 5, 10)]
    frames, fps = film(out / "clip one.avi_overlay.mp4")
    assert len(frames) == 3 and fps == pytest.approx(2)  # as long as the video
    means = [float(f[: f.shape[0] // 3].mean()) for f in frames]
    assert means == sorted(means) and means[2] - means[0] > 20
    again = cli("segment", clip, *options, "--json")
    assert again.code == 0, again.err  # a film of ours is replaced


def test_a_film_of_somebody_else_stays(cli, tiny_clip, clip, tmp_path):
    theirs = tmp_path / "out" / "clip one.avi_overlay.mp4"
    theirs.parent.mkdir()
    theirs.write_bytes(b"a film")
    options = (*WORDS, *tiny_clip.options, "--out", tmp_path / "out", "--formats", "labels,video")
    done = cli("segment", clip, *options, "--every", 6)
    assert done.code == 1 and "was not made by clipseg" in done.err
    assert theirs.read_bytes() == b"a film"


def test_a_broken_video_costs_no_image(cli, tiny_clip, make_image, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    photo = make_image(tmp_path / "photo.png", 30, 40)
    options = (*WORDS, *tiny_clip.options, "--out", tmp_path / "out", "--formats", "labels,video")
    done = cli("segment", broken, photo, *options)
    assert done.code == 1 and "no video that can be read" in done.err and "Traceback" not in done.err
    assert (tmp_path / "out" / "photo.png").is_file()
    assert "1 image is no frame of a video" in done.err


def test_two_videos_of_one_name_do_not_mix(cli, tiny_clip, clip, tmp_path):
    twin = tmp_path / "other" / clip.name
    twin.parent.mkdir()
    twin.write_bytes(clip.read_bytes())
    options = (*WORDS, *tiny_clip.options, "--out", tmp_path / "out", "--every", 6, "--formats", "labels")
    done = cli("segment", clip, twin, *options)
    assert done.code == 1 and "would be called like those of" in done.err
    assert len(list((tmp_path / "out" / clip.name).iterdir())) == 2


def test_frames_of_too_many_pixels(cli, tiny_clip, clip, tmp_path):
    options = (*WORDS, *tiny_clip.options, "--out", tmp_path / "out", "--every", 100)
    done = cli("segment", clip, *options, "--max-megapixels", 0.001)
    assert done.code == 1 and "frames of 64x48 pixels are more than 0.001 megapixels" in done.err


def test_a_full_disk_leaves_the_film_before(clip, tmp_path, monkeypatch):
    source = Video(clip, 6).sources(PurePosixPath("clip"))[0]
    classes = ClassList(("cat", "dog"), (("cat",), ("dog",)))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    result = Segmentation(labels, labels.astype(np.float32), classes, DecodedImage(source, source.read(0)))

    def make() -> list[Path]:
        outputs = Outputs(("video",), RunInfo(classes, {}, {}), tmp_path / "out", {})
        outputs.begin()
        outputs.write(result, tmp_path / "out" / "clip" / "000000")
        return list(outputs.end()["video"])

    (film,) = make()
    before = film.read_bytes()

    def full(handle, mode):
        os.close(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OutputError, match="no space left"):
        make()
    assert film.read_bytes() == before
    assert {p.name for p in (tmp_path / "out").iterdir()} == {film.name}
