"""The command line: exit codes, what goes to stdout and what to stderr, and one clear sentence per mistake."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipseg_cli import __version__
from clipseg_cli.cli import console
from clipseg_cli.config import BUNDLED_MODEL
from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import ClipsegError, ImageError
from clipseg_cli.types import DecodedImage, ImageSource, Segmentation

# The frame: help, version, usage


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["--version"], ["segment", "--help"], ["segment"], ["models", "--help"]]
)
def test_help_and_version_do_not_load_torch(args, process_env):
    code = (
        "import sys\n"
        "from clipseg_cli.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'open_clip', 'cv2', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=process_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(cli):
    assert cli("--version").out == f"clipseg {__version__}\n"


def test_module_runs_as_the_command(run_cli):
    done = run_cli("--version")
    assert (done.code, done.out) == (0, f"clipseg {__version__}\n")


def test_no_arguments_show_the_help(cli):
    done = cli()
    assert done.code == 0
    assert "segment" in done.out and "models" in done.out


@pytest.mark.parametrize("columns", [80, 120])
def test_help_has_panels_and_examples(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = cli("segment", "--help")
    for panel in ("Words", "Model", "Method", "Inference", "Output", "Examples"):
        assert panel in done.out
    assert "clipseg segment photo.jpg --classes batman,joker" in done.out
    assert max(map(len, done.out.splitlines())) <= columns


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["segmnt"], "No such command 'segmnt'"),
        (["segment", "x.png"], "Missing option '--classes'"),
        (["segment", "-c", "cat"], "Missing argument 'IMAGES"),
        (["segment", "x.png", "-c", "cat", "--background-threshold", "1.5"], "1.5 is not between 0 and 1"),
        (["segment", "x.png", "-c", "cat", "--background-threshold", "nan"], "nan is not between 0 and 1"),
        (["segment", "x.png", "-c", "cat", "--prompt-denoising", "-1"], "-1.0 is not between 0 and 1"),
        (["segment", "x.png", "-c", "cat", "--batch-size", "0"], "0 is not between 1 and 4096"),
        (["segment", "x.png", "-c", "cat", "--window", "-8"], "-8 is not between 0 and 16384"),
        (["segment", "x.png", "-c", "cat", "--short-side", "big"], "'--short-side'"),
        (["segment", "x.png", "-c", "cat", "--protocol", "maskclp"], "Hint: did you mean 'maskclip'"),
        (["segment", "x.png", "-c", "cat", "--precision", "fp23"], "Hint: did you mean 'fp32'?"),
        (["segment", "-", "-c", "cat", "--json"], "Error: - writes the label PNG to standard output"),
        (["segment", "-", "x.png", "-c", "cat"], "cannot be mixed with others"),
    ],
)
def test_usage_mistakes_exit_with_2(cli, args, said):
    done = cli(*args)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--method", "maskclp", "did you mean 'maskclip'"),
        ("--templates", "imagnet", "did you mean 'imagenet'?"),
        ("--device", "cpuu", "did you mean 'cpu'?"),
        ("--model", "ViT-B-61", "ViT-B-16"),
    ],
)
def test_unknown_names_exit_with_2_and_name_the_nearest(
    cli, make_image, tmp_path, monkeypatch, option, value, hint
):
    monkeypatch.chdir(tmp_path)
    done = cli("segment", make_image(tmp_path / "x.png"), "-c", "cat", option, value)
    assert done.code == 2
    assert f"'{value}'" in done.err
    assert hint in done.err


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


# What only a staged run can show


def _result(name: str, *, notes: tuple[str, ...] = ()) -> dict[str, object]:
    classes = load_classes("[red],dog")
    image = DecodedImage(ImageSource(Path(name), Path(name)), np.zeros((2, 2, 3), np.uint8), notes)
    labels, scores = np.array([[0, 0], [0, 1]], np.uint8), np.full((2, 2), 0.5, np.float32)
    return {
        "name": name,
        "segmentation": Segmentation(labels, scores, classes, image),
        "written": {"labels": (Path("out") / f"{name}.png",)},
    }


@pytest.fixture
def staged(cli, monkeypatch, tmp_path):
    """Run `clipseg segment` over given results, or what a callable raises in their place."""
    from clipseg_cli.commands import segment as pipeline

    def run(*items, options=()):
        class Run:
            total, device, model = len(items), "CPU, 1 thread", "tiny / random"
            classes, notes, skipped = load_classes("[red],dog"), ("be careful",), 0
            out = Path("clipseg-out")

            def __init__(self):
                self.finished = []

            def __iter__(self):
                for item in items:
                    if isinstance(item, BaseException):
                        raise item
                    self.finished.append(item["name"])
                    yield pipeline.ImageResult(**item)

        monkeypatch.setattr(pipeline, "prepare_segmentation", lambda config, found: Run())
        (tmp_path / "x").touch()
        return cli("segment", tmp_path / "x", "-c", "[red],dog", *options)

    return run


def test_markup_in_names_is_inert(staged):
    done = staged(_result("[bold]a[/bold].png", notes=("animation: first of 12 frames",)))
    assert "[bold]a[/bold].png" in done.out
    row = next(line for line in done.out.splitlines() if "[red]" in line)
    assert "75.0%" in row and "0.50" in row
    assert "Note: [bold]a[/bold].png: animation: first of 12 frames" in done.err
    assert "Note: be careful" in done.err


def test_control_characters_in_file_names_do_not_reach_the_terminal(staged):
    done = staged(_result("a\x1b[2Jb\udce9.png"))
    assert r"a\x1b[2Jb\udce9.png" in done.out
    assert "\x1b" not in done.out + done.err


def test_interruption_says_what_is_kept(staged):
    done = staged(_result("a.png"), _result("b.png"), KeyboardInterrupt(), _result("c.png"))
    assert done.code == 130
    assert "interrupted after 2 of 4 images; files already written to clipseg-out are kept" in done.err
    assert "Traceback" not in done.err


def test_interruption_while_loading_is_short(cli, monkeypatch, tmp_path):
    from clipseg_cli.commands import segment as pipeline

    def interrupted(config, found):
        raise KeyboardInterrupt

    (tmp_path / "x").touch()

    monkeypatch.setattr(pipeline, "prepare_segmentation", interrupted)
    done = cli("segment", tmp_path / "x", "-c", "cat")
    assert (done.code, done.err) == (130, "Error: interrupted\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_names_the_batch_size(staged, error):
    done = staged(error)
    assert done.code == 1
    assert "Error: not enough memory" in done.err
    assert "--batch-size" in done.err


def test_a_bug_keeps_its_traceback(staged):
    with pytest.raises(RuntimeError, match="a bug"):
        staged(RuntimeError("a bug"))


def test_an_error_in_the_middle_ends_the_run(staged):
    done = staged(_result("a.png"), ClipsegError("no space left", hint="free some"))
    assert done.code == 1
    assert "Error: no space left\nHint: free some\n" in done.err


def test_json_of_a_failed_image(staged):
    bad = {"name": "b.png", "error": ImageError("b.png: damaged", hint="copy it again")}
    done = staged(_result("a.png"), bad, options=["--json"])
    document = json.loads(done.out)
    assert document["images"][1] == {"image": "b.png", "error": "b.png: damaged", "hint": "copy it again"}
    assert document["notes"] == ["be careful"]
    assert document["failed"] == 1


def test_a_closed_pipe_ends_quietly(process_env):
    command = [sys.executable, "-m", "clipseg_cli", "segment", "--help"]
    process = subprocess.Popen(command, env=process_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert err == b""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (9.97, "10 s"), (42.4, "42 s"), (187, "3:07 min"), (7380, "2:03:00 h")],
)
def test_times_are_short(seconds, text):
    assert console.format_seconds(seconds) == text


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


def test_every_command_shows_an_example(cli):
    for command in ("segment", "models"):
        assert f"clipseg {command} " in cli(command, "--help").out.split("Examples")[1]
