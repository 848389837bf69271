"""`clipseg eval --corrupt`: every cell of the table is an evaluation of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from eval_trees import (  # noqa: F401
    scored_voc,
)
from PIL import Image

from clipseg_cli.data.corruptions import CORRUPTIONS, corrupt
from clipseg_cli.outputs import thumbnail


@pytest.fixture
def evaluate(cli, tiny_clip, voc, tmp_path, monkeypatch):
    """Run `clipseg eval` on the small tree and return what it printed and its `results.json`."""
    monkeypatch.chdir(tmp_path)
    fixed = ("--dataset", voc, *tiny_clip.options, "--templates", "single", "--out", tmp_path / "out")

    def run(*args):
        done = cli("eval", *args, *fixed, "--name", "x")
        assert done.code == 0, done.err
        return done, json.loads((tmp_path / "out" / "x" / "results.json").read_text())

    return run


def test_the_table_equals_separate_runs(evaluate):
    _, together = evaluate("--corrupt", "all", "--severity", "2,5")
    _, clean = evaluate()
    found = together["corruptions"]
    assert together["scores"] == clean["scores"] and together["confusion"] == clean["confusion"]
    assert clean["corruptions"] is None
    assert list(found["table"]) == list(CORRUPTIONS) and found["severities"] == [2, 5]
    for name, severity in (("shot_noise", 5), ("jpeg_compression", 2), ("spatter", 5)):
        _, alone = evaluate("--corrupt", name, "--severity", severity)
        assert alone["corruptions"]["table"] == {name: [found["table"][name][[2, 5].index(severity)]]}
        assert alone["scores"] == clean["scores"]
    values = [value for row in found["table"].values() for value in row]
    assert len(values) == 16 and found["mean"] == pytest.approx(np.mean(values), rel=1e-15)


def test_the_native_picture_is_corrupted_and_then_labelled(evaluate, voc):
    """A data set whose pictures were corrupted beforehand scores as --corrupt does."""
    _, asked = evaluate("--corrupt", "impulse_noise", "--severity", "4", "--seed", "3")
    for path in (voc / "JPEGImages").iterdir():
        pixels = corrupt(np.asarray(Image.open(path)), "impulse_noise", 4, seed=3, key=path.stem)
        Image.fromarray(pixels).save(path, format="PNG")  # lossless, under the name that VOC wants
    _, made = evaluate()
    assert made["scores"]["mIoU"] == asked["corruptions"]["table"]["impulse_noise"][0]


def test_the_seed_changes_the_noise_and_is_recorded(evaluate):
    args = ("--corrupt", "gaussian_noise,gaussian_blur", "--severity", "5")
    first, again, other = (evaluate(*args, "--seed", seed)[1]["corruptions"] for seed in (0, 0, 1))
    assert first == again
    assert other["seed"] == 1
    assert other["table"]["gaussian_noise"] != first["table"]["gaussian_noise"]
    assert other["table"]["gaussian_blur"] == first["table"]["gaussian_blur"]


@pytest.mark.parametrize(
    ("text", "severities"), [("1..5", [1, 2, 3, 4, 5]), ("3", [3]), ("1,5", [1, 5]), ("5,1,5", [5, 1])]
)
def test_only_the_severities_asked_for(evaluate, text, severities):
    done, record = evaluate("--corrupt", "spatter", "--severity", text)
    assert record["corruptions"]["severities"] == severities
    assert len(record["corruptions"]["table"]["spatter"]) == len(severities)
    table = done.out.partition("Published")[0]
    shown = [int(word) for word in table.split() if word.isdigit() and len(word) == 1]
    assert shown == severities
    assert "mean of corrupted ones" in done.out and "clean images" in done.out


def test_the_sheet_shows_the_very_pictures(evaluate, voc, tmp_path):
    evaluate("--corrupt", "gaussian_blur", "--severity", "5")
    with Image.open(tmp_path / "out" / "x" / "corruptions.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    first = next(iter(sorted((voc / "JPEGImages").iterdir())))
    clean = np.asarray(Image.open(first))
    for pixels in (clean, corrupt(clean, "gaussian_blur", 5, seed=0, key=first.stem)):
        small = thumbnail(pixels)
        assert _holds(sheet, small)


def _holds(sheet: np.ndarray, image: np.ndarray) -> bool:
    height, width = image.shape[:2]
    starts = np.argwhere((sheet[:-height, :-width] == image[0, 0]).all(axis=2))
    return any(np.array_equal(sheet[y : y + height, x : x + width], image) for y, x in starts)


def test_json_holds_the_table(evaluate):
    done, record = evaluate("--corrupt", "jpeg_compression", "--severity", "1", "--json")
    document = json.loads(done.out, parse_constant=pytest.fail)
    assert document["corruptions"]["table"] == record["corruptions"]["table"]
    assert document["corruptions"]["sheet"].endswith("corruptions.png")


def test_published_figures_on_corrupted_pictures(evaluate):
    done, _ = evaluate("--corrupt", "speckle_noise", "--severity", "1", "--benchmark", "voc20")
    assert "Published: maskclip RN50, speckle_noise 1: 30.9, clean 41.5 (MaskCLIP README)" in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--corrupt", "gausian_noise"],
            ("unknown corruption 'gausian_noise'", "did you mean 'gaussian_noise'"),
        ),
        (["--corrupt", "spatter", "--severity", "7"], ("severity 7: there are 1 to 5",)),
        (["--corrupt", "spatter", "--severity", "0..2"], ("severity 0: there are 1 to 5",)),
        (["--corrupt", "spatter", "--severity", "5..1"], ("--severity names none", "upwards")),
        (["--corrupt", "spatter", "--severity", "strong"], ("--severity strong is no severity",)),
        (["--corrupt", ""], ("--corrupt is empty",)),
        (["--severity", "3"], ("--severity does nothing without --corrupt",)),
        (["--seed", "3"], ("--seed does nothing without --corrupt",)),
    ],
)
def test_mistakes_are_said_before_anything_is_loaded(cli, voc, args, said):
    done = cli("eval", "--dataset", voc, *args)
    assert (done.code, done.out) == (2, "")
    for part in said:
        assert part in done.err
