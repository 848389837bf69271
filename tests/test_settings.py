"""`--config`, `--like` and `--print-config`: what is typed wins, and a file that is wrong says where."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest
import tomli_w
from PIL import Image
from training_trees import finished_training, free_run  # noqa: F401

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

WORDS = {"classes": ["cat", "dog|puppy"], "background": "none", "templates": "single"}


@pytest.fixture
def photo(make_image, tmp_path) -> Path:
    return make_image(tmp_path / "photo.jpg", 60, 90)


@pytest.fixture
def of_tiny(tiny_clip, tmp_path) -> Path:
    """Settings that use the tiny CLIP."""
    options = zip(tiny_clip.options[::2], tiny_clip.options[1::2], strict=True)
    path = tmp_path / "tiny.toml"
    table = {flag.removeprefix("--"): value for flag, value in options}
    path.write_text(tomli_w.dumps({**table, "segment": {**WORDS, "short_side": 64}}))
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def printed(outcome) -> dict:
    assert outcome.code == 0, outcome.err
    (table,) = tomllib.loads(outcome.out).values()
    return table


def test_a_file_does_what_the_options_do(cli, of_tiny, tiny_clip, photo, tmp_path):
    typed = ("-c", "cat,dog|puppy", "--background", "none", "--templates", "single", "--short-side", 64)
    one = cli("segment", photo, *typed, *tiny_clip.options, "--out", tmp_path / "one")
    two = cli("segment", photo, "--config", of_tiny, "--out", tmp_path / "two")
    assert (one.code, two.code) == (0, 0), one.err + two.err
    options = [json.loads((tmp_path / n / "classes.json").read_bytes())["options"] for n in ("one", "two")]
    assert {**options[0], "out": ""} == {**options[1], "out": ""}
    first, second = (Image.open(tmp_path / n / "photo.png").tobytes() for n in ("one", "two"))
    assert first == second


def test_what_is_typed_wins_over_the_file_and_the_file_over_the_run(cli, of_tiny, photo, tmp_path):
    made = cli("segment", photo, "--config", of_tiny, "--pamr", 2, "--out", tmp_path / "out")
    assert made.code == 0, made.err
    table = printed(
        cli(
            "segment",
            photo,
            "--like",
            tmp_path / "out",
            "--config",
            of_tiny,
            "-c",
            "cow,sheep",
            "--print-config",
        )
    )
    assert (table["classes"], table["short-side"], table["pamr"]) == ("cow,sheep", 64, 2)
    other = written(tmp_path / "other.toml", "short-side = 96\n[segment]\npamr = 3\n[train]\nseed = 4\n")
    for order in (
        ("--like", tmp_path / "out", "--config", other),
        ("--config", other, "--like", tmp_path / "out"),
    ):
        table = printed(cli("segment", photo, *order, "--print-config"))
        assert (table["short-side"], table["pamr"]) == (96, 3)
        assert table["classes"] == "cat,dog|puppy"


def test_printed_settings_print_themselves(cli, photo, tmp_path):
    typed = (
        "-c",
        "cat",
        "--presence",
        "--set",
        "pamr.dilations=8,16",
        "--pamr",
        2,
        "--formats",
        "labels,coco",
    )
    first = cli("segment", photo, *typed, "--print-config")
    again = cli("segment", photo, "--config", written(tmp_path / "a.toml", first.out), "--print-config")
    assert first.code == 0 and first.out == again.out
    assert printed(first)["set"] == ["pamr.dilations=8,16"]
    assert printed(first)["presence"] == "evidence"
    assert not (tmp_path / "clipseg-out").exists()


def test_a_run_over_a_data_set_is_repeated_from_its_manifest(cli, of_tiny, make_image, tmp_path):
    for i in range(2):
        make_image(tmp_path / "data" / f"{i}.png", 40, 50, seed=i)
    base = ("pseudolabel", tmp_path / "data", "--classes", "cat,dog", "--templates", "single")
    tiny = written(tmp_path / "t.toml", of_tiny.read_text().partition("[segment]")[0])
    made = cli(
        *base, "--config", tiny, "--out", tmp_path / "runs", "--name", "first", "--min-confidence", 0.2
    )
    assert made.code == 0, made.err
    again = cli("pseudolabel", "--like", tmp_path / "runs" / "first", "--device", "cpu", "--precision", "fp32",
                "--out", tmp_path / "runs", "--name", "second")  # fmt: skip
    assert again.code == 0, again.err
    identities = [
        json.loads((tmp_path / "runs" / n / "manifest.json").read_bytes()) for n in ("first", "second")
    ]
    assert identities[0]["options"] == identities[1]["options"]
    for name in ("0.png", "1.png"):
        labels = [(tmp_path / "runs" / n / "labels" / name).read_bytes() for n in ("first", "second")]
        assert labels[0] == labels[1]


def test_a_training_is_repeated_from_its_manifest(cli, taught):
    numbers = taught.run.config
    table = printed(cli("train", "--like", taught.run.folder, "--print-config"))
    assert table["labels"] == str(numbers.labels) and "dataset" not in table and "benchmark" not in table
    assert (table["iterations"], table["backbone"], table["crop"]) == (
        numbers.iterations,
        numbers.backbone,
        numbers.crop,
    )


def test_words_of_a_list_that_is_not_here_come_from_the_table(cli, of_tiny, photo, tmp_path):
    words = written(tmp_path / "words.txt", "cat\ndog|puppy\n")
    made = cli("segment", photo, "--config", of_tiny, "-c", words, "--out", tmp_path / "out")
    assert made.code == 0, made.err
    assert printed(cli("segment", photo, "--like", tmp_path / "out", "--print-config"))["classes"] == str(
        words
    )
    words.unlink()
    table = printed(cli("segment", photo, "--like", tmp_path / "out", "--print-config"))
    assert table["classes"] == "cat,dog|puppy"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clases = 'cat'", "segment has no option 'clases'"),
        ("config = 'other.toml'", "segment has no option 'config'"),
        ("[segmnt]\nclasses = 'cat'", "there is no command 'segmnt'"),
        ("classes = ", "is not TOML"),
        ("heatmaps = 'yes'", "heatmaps is true or false"),
        ("classes = true", "classes needs a value"),
        ("classes = [['cat']]", "classes is neither a text nor a number"),
        ("pamr = 2026-01-01", "pamr is neither a text nor a number"),
        ("pamr = 'many'", "pamr is a number, not 'many'"),
        ("pamr = -3", "--pamr: -3 is not between"),
        ("x = " + "[" * 20_000, "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(cli, photo, tmp_path, text, says):
    done = cli(
        "segment", photo, "-c", "cat", "--config", written(tmp_path / "a.toml", text), "--out", tmp_path / "o"
    )
    assert done.code == 2 and says in " ".join(done.err.replace("│", " ").split()), done.err
    assert "Traceback" not in done.err and not (tmp_path / "o").exists()


def test_files_that_are_none(cli, photo, tmp_path):
    for flag in ("--config", "--like"):
        done = cli("segment", photo, "-c", "cat", flag, tmp_path / "missing")
        assert done.code == 2 and "No such file" in done.err
        done = cli("segment", photo, "-c", "cat", flag, photo)
        assert done.code == 2 and "is not a text in UTF-8" in done.err
    (tmp_path / "empty").mkdir()
    assert "holds no manifest.json" in cli("segment", photo, "--like", tmp_path / "empty").err
    for content in (
        "[]",
        "{}",
        '{"options": 3}',
        '{"kind": "pseudolabel", "options": {}}',
        "{" * 3000,
        "null",
    ):
        path = written(tmp_path / "classes.json", content)
        done = cli("segment", photo, "-c", "cat", "--like", path)
        assert done.code == 2 and "does not say with what a run was made" in done.err, content
