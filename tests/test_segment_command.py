"""`clipseg segment` with small models: what it writes, what it prints, and what it says of images that fail."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg_cli.config import BUNDLED_MODEL

# The real thing, with a tiny model


@pytest.fixture
def segment(cli, tiny_clip, tmp_path):
    """Run `clipseg segment` with the tiny model, one template and an output folder `out`."""

    def run(*args, stdin=None):
        fixed = (*tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")
        return cli("segment", *args, *fixed, stdin=stdin)

    return run


def test_segment_writes_labels_overlay_and_classes(segment, make_image, tmp_path):
    photo = make_image(tmp_path / "photo.jpg", 48, 64)
    done = segment(photo, "--classes", "cat,dog", "--background", "sky")
    assert done.code == 0
    with Image.open(tmp_path / "out" / "photo.png") as labels:
        assert (labels.mode, labels.size) == ("P", (64, 48))
        assert set(np.unique(np.asarray(labels))) <= {0, 1, 2}
    assert (tmp_path / "out" / "photo_overlay.jpg").exists()
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())["classes"]
    assert [c["name"] for c in classes] == ["background", "cat", "dog"]
    assert "%" in done.out and "confidence" in done.out
    assert "tiny-vit" in done.err and "on CPU" in done.err
    assert done.err.rstrip().endswith(f"results in {tmp_path / 'out'}")


def test_json_is_one_document(segment, make_image, tmp_path):
    photo = make_image(tmp_path / "photo.png", 48, 64)
    done = segment(
        photo, tmp_path / "none.png", "-c", "couch|sofa,猫,[red]", "--background", "none", "--json"
    )
    assert done.code == 1
    document = json.loads(done.out)
    assert (document["failed"], document["out"]) == (1, str(tmp_path / "out"))
    assert [c["name"] for c in document["classes"]] == ["couch", "猫", "[red]"]
    assert document["classes"][0]["words"] == ["couch", "sofa"]
    good = next(i for i in document["images"] if "error" not in i)
    bad = next(i for i in document["images"] if "error" in i)
    assert good["image"] == str(photo)
    assert (good["height"], good["width"]) == (48, 64)
    assert sum(c["pixels"] for c in good["classes"]) == 48 * 64
    assert sum(c["share"] for c in good["classes"]) == pytest.approx(1)
    assert good["labels"] in good["written"] and good["overlay"] in good["written"]
    assert all(Path(path).is_file() for path in good["written"])
    assert "none.png" in bad["image"]
    assert "no such file" in bad["error"]


@pytest.mark.parametrize("formats", ["confidence,labels", "labels,confidence", "confidence,overlay"])
def test_json_names_labels_and_overlay_by_what_they_are(segment, make_image, tmp_path, formats):
    """Whatever other PNGs there are, and in whatever order they are asked for."""
    done = segment(make_image(tmp_path / "photo.png"), "-c", "cat,dog", "--formats", formats, "--json")
    assert done.code == 0, done.err
    (image,) = json.loads(done.out)["images"]
    labels, overlay = tmp_path / "out" / "photo.png", tmp_path / "out" / "photo_overlay.jpg"
    assert image["labels"] == (str(labels) if "labels" in formats else None)
    assert image["overlay"] == (str(overlay) if "overlay" in formats else None)


def test_failed_images_are_named_and_the_others_written(segment, make_image, tmp_path):
    folder = tmp_path / "in"
    make_image(folder / "good.jpg")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "empty.png").write_bytes(b"")
    cut = make_image(folder / "cut.jpg", 200, 300)
    cut.write_bytes(cut.read_bytes()[:900])
    done = segment(folder, tmp_path / "gone.jpg", "-c", "cat,dog")
    assert done.code == 1
    for name in ("text.jpg", "empty.png", "cut.jpg", "gone.jpg"):
        assert any(line.startswith("Error: ") and name in line for line in done.err.splitlines())
    assert "Error: 4 of 5 images failed" in done.err
    assert "Traceback" not in done.err
    assert list((tmp_path / "out").rglob("*.png")) == [tmp_path / "out" / "good.png"]


def test_a_single_missing_file_is_one_error(segment, tmp_path):
    done = segment(tmp_path / "gone.jpg", "-c", "cat")
    assert done.code == 1
    assert done.err.count("Error:") == 1
    assert not (tmp_path / "out").exists()


def test_duplicate_class_names_file_and_line(segment, make_image, tmp_path):
    words = tmp_path / "classes.txt"
    words.write_text("dog\ncat\n# pets\ncat\n")
    done = segment(make_image(tmp_path / "x.png"), "-c", words)
    assert done.code == 1
    assert f"Error: {words}:4: 'cat' appears twice" in done.err
    assert "Hint: join synonyms on one line: cat, kitten" in done.err


def test_output_that_is_a_file_is_refused(cli, tiny_clip, make_image, tmp_path):
    (tmp_path / "taken").write_text("mine")
    photo = make_image(tmp_path / "x.png")
    done = cli("segment", photo, "-c", "cat", *tiny_clip.options, "--out", tmp_path / "taken" / "deep")
    assert done.code == 1
    assert "taken is a file, not a folder" in done.err
    assert (tmp_path / "taken").read_text() == "mine"


def test_strange_class_names_are_printed_as_they_are_and_stay_in_the_folder(segment, make_image, tmp_path):
    photo = make_image(tmp_path / "in" / "x.png")
    names = "[red],../../x,a/b,🦇,蝙蝠,{0.__class__}"
    done = segment(photo, "-c", names, "--background", "none", "--heatmaps", "--json")
    assert done.code == 0
    document = json.loads(done.out)
    assert [c["name"] for c in document["images"][0]["classes"]] == names.split(",")
    files = {p for p in tmp_path.rglob("*") if p.is_file()} - {photo}
    assert all((tmp_path / "out") in p.parents for p in files)
    assert {Path(p) for p in document["images"][0]["written"]} < files


def test_stdin_gives_a_label_png_on_stdout(segment, make_image, tmp_path):
    data = make_image(tmp_path / "x.jpg", 40, 56).read_bytes()
    done = segment("-", "-c", "cat,dog", stdin=data)
    assert done.code == 0
    with Image.open(io.BytesIO(done.stdout)) as labels:
        assert (labels.format, labels.mode, labels.size) == ("PNG", "P", (56, 40))
    assert "confidence" in done.err


def test_rubbish_on_stdin_leaves_stdout_empty(segment):
    done = segment("-", "-c", "cat", stdin=b"no picture")
    assert (done.code, done.stdout) == (1, b"")
    assert "Error: standard input" in done.err


def test_quiet_prints_nothing(segment, make_image, tmp_path):
    done = segment(make_image(tmp_path / "x.png"), "-c", "cat,dog", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_many_images_share_one_table(segment, make_image, tmp_path):
    for i in range(6):
        make_image(tmp_path / "in" / f"{i}.png", seed=i)
    done = segment(tmp_path / "in", "-c", "cat,dog", "--verbose")
    assert done.code == 0
    assert done.out.count("confidence") == 1
    assert "6 images together" in done.out
    for i in range(6):
        assert f"{i}.png: " in done.err
        assert f"wrote {tmp_path / 'out' / f'{i}.png'}" in done.err


# The real entry point with the bundled model


def test_the_command_works_offline_from_nothing(run_cli, make_image, tmp_path):
    make_image(tmp_path / "x.png", 96, 128)
    done = run_cli("segment", "x.png", "-c", "cat,dog", "--model", BUNDLED_MODEL, "--device", "cpu")
    assert done.code == 0, done.err
    assert (tmp_path / "clipseg-out" / "x.png").is_file()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_keeps_the_finished_files(make_image, tmp_path, warm):
    for i in range(150):
        make_image(tmp_path / "in" / f"{i:03}.png", 200, 240, seed=i)
    process = warm("-m", "clipseg_cli", "segment", "in", "-c", "cat", "--model", BUNDLED_MODEL)
    out = tmp_path / "clipseg-out"
    deadline = time.monotonic() + 60
    while not list(out.glob("*.png")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"of 150 images; files already written to clipseg-out are kept" in err
    assert b"Traceback" not in err
    finished = list(out.glob("*.png"))
    assert 0 < len(finished) < 150
    for path in finished:
        with Image.open(path) as image:
            image.load()
    assert not list(out.rglob("*.part"))


def test_a_mistyped_benchmark_is_said(segment, make_image, tmp_path):
    photo = make_image(tmp_path / "x.png")
    assert "the benchmark is called 'voc21'" in segment(photo, "-c", "voc2", "--out", tmp_path / "a").err
    assert "the benchmark is called" not in segment(photo, "-c", "voc20", "--out", tmp_path / "b").err


def test_pictures_that_wait_are_bounded_by_their_size(segment, make_image, tmp_path, monkeypatch):
    from clipseg_cli.inference import stream
    from clipseg_cli.inference.predictor import Predictor

    monkeypatch.setattr(stream, "IMAGES_AHEAD_BYTES", 1)
    chunks = []
    launch = Predictor.launch
    monkeypatch.setattr(
        Predictor, "launch", lambda self, p, **k: chunks.append(len(p)) or launch(self, p, **k)
    )
    for i in range(6):
        make_image(tmp_path / "many" / f"{i}.png")
    assert segment(tmp_path / "many", "-c", "cat", "--batch-size", "64").code == 0
    assert chunks == [1] * 6


@pytest.mark.parametrize(
    ("options", "count"),
    [((), 80), (("--protocol", "maskclip"), 85), (("--protocol", "maskclip", "--templates", "name"), 1)],
)
def test_the_protocol_brings_its_templates(cli, tiny_clip, make_image, tmp_path, monkeypatch, options, count):
    from clipseg_cli.inference import load as pipeline

    seen = []
    build = pipeline.build_prompts
    monkeypatch.setattr(
        pipeline, "build_prompts", lambda words, templates: seen.append(templates) or build(words, templates)
    )
    photo = make_image(tmp_path / "x.png")
    done = cli("segment", photo, "-c", "cat", *tiny_clip.options, *options, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert [len(templates) for templates in seen] == [count]
