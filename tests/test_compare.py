"""`clipseg eval --methods`: one table whose figures are those of `clipseg eval --method`, pictures read once."""

from __future__ import annotations

import csv
import json

import pytest
from eval_trees import evaluate_command, results_below, scored_voc  # noqa: F401
from PIL import Image

from clipseg_cli.evaluation import comparison
from clipseg_cli.methods import METHODS

UNGUIDED = [name for name in METHODS.names() if not METHODS.get(name).guided]


def rows_of(folder):
    (path,) = folder.rglob("methods.json")
    return {row["method"]: row for row in json.loads(path.read_text("utf-8"))["rows"]}


def test_figures_are_those_of_each_method_alone(evaluate, voc, tmp_path):
    done = evaluate("--dataset", voc, "--methods", "maskclip,sclip,naclip:block.kk,clip-diy")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "out")
    assert set(rows) == {"maskclip", "sclip", "naclip:block.kk", "clip-diy"}
    for name, row in rows.items():
        folder = tmp_path / f"alone-{len(name)}"
        assert evaluate("--dataset", voc, "--method", name, "--name", folder.name).code == 0
        alone = results_below(tmp_path / "out" / folder.name)["scores"]
        assert (row["miou"], row["pixel_accuracy"]) == (alone["mIoU"], alone["pixel_accuracy"])
    assert len({row["miou"] for row in rows.values()}) > 2  # or the same labels would have been scored


def test_pictures_are_read_once(evaluate, voc, monkeypatch):
    read, seen = comparison.read_image, []

    def count(source, **options):
        seen.append(str(source))
        return read(source, **options)

    monkeypatch.setattr(comparison, "read_image", count)
    assert evaluate("--dataset", voc, "--methods", "maskclip,vanilla,sclip").code == 0
    assert len(seen) == len(set(seen)) == 5


def test_all_means_all_that_can_and_says_who_cannot(evaluate, voc, tmp_path):
    done = evaluate("--dataset", voc, "--methods", "all")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "out")
    assert sorted(rows) == UNGUIDED
    assert rows["vanilla"]["cost"] == 1
    assert all(row["cost"] > 0 and row["images_per_second"] > 0 for row in rows.values())
    for name in set(METHODS.names()) - set(UNGUIDED):
        assert f"{name} on tiny-vit takes no part" in done.err
    for name in rows:
        assert f"\n  {name} " in done.out  # whole, in a terminal of 80 columns
    assert f"{len(UNGUIDED)} candidates, 5 images each" in done.err


def test_the_table_lies_in_files_beside_its_settings(evaluate, voc, tmp_path):
    assert evaluate("--dataset", voc, "--methods", "vanilla,maskclip", "--presence").code == 0
    (path,) = (tmp_path / "out").rglob("methods.csv")
    assert path.parent.name == "VOC2012-voc21-val-tiny-vit-tiny-vit-several-presence-single"
    listed = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [row["method"] for row in listed] == sorted(
        (row["method"] for row in listed), key=lambda m: -float(rows_of(tmp_path / "out")[m]["miou"])
    )
    assert {row["method"]: row["published"] for row in listed} == {"vanilla": "", "maskclip": "43.4"}
    with Image.open(path.with_name("methods.png")) as sheet:
        assert sheet.width > 4 * 160  # picture, ground truth, two methods
    record = json.loads(path.with_name("methods.json").read_text("utf-8"))
    assert record["images"] == 5
    assert all(
        settings["refinements"] == [{"name": "presence", "value": "evidence"}]
        for settings in record["settings"].values()
    )


def test_pictures_that_wait_are_bounded_by_their_size_from_the_first_on(evaluate, voc, monkeypatch):
    """However many threads there are; two groups of a picture each are in hand, one compared and one read."""
    monkeypatch.setattr(comparison, "CHUNK_BYTES", 1)
    monkeypatch.setattr(comparison, "pool_size", lambda device: 64)
    compete, chunks = comparison.Comparison._compete, []
    monkeypatch.setattr(
        comparison.Comparison,
        "_compete",
        lambda self, one, groups: (chunks.append(len(groups)), compete(self, one, groups)),
    )
    assert evaluate("--dataset", voc, "--methods", "maskclip", "--batch-size", "2").code == 0
    assert chunks == [1] * 5


def test_a_picture_that_cannot_be_read_costs_only_itself(evaluate, voc):
    (voc / "JPEGImages" / "2007_000042.jpg").write_bytes(b"no picture")
    done = evaluate("--dataset", voc, "--methods", "maskclip,vanilla")
    assert done.code == 1
    assert "2007_000042" in done.err
    assert "2 candidates, 4 images each" in done.err


def test_json_holds_the_rows(evaluate, voc):
    done = evaluate("--dataset", voc, "--methods", "maskclip,vanilla", "--json")
    assert {row["method"] for row in json.loads(done.out)["rows"]} == {"maskclip", "vanilla"}


def test_several_models_stand_in_tables_of_their_own(cli, tiny_clip, voc, tmp_path):
    models = f"{tiny_clip.name}={tiny_clip.weights},emoji"
    done = cli(
        *("eval", "--dataset", voc, "--methods", "maskclip,vanilla", "--models", models),
        *("--templates", "single", "--device", "cpu", "--out", tmp_path / "out"),
    )
    assert done.code == 0, done.err
    assert "tiny-vit.safetensors on CPU" in done.out and "emoji / bundled on CPU" in done.out
    assert "4 candidates" in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--methods", "maskclp"), "unknown method 'maskclp'"),
        (("--methods", "naclip:kkk"), "--method naclip has no variant 'kkk'"),
        (("--methods", "maskclip,proxyclip"), "--method proxyclip needs another network"),
        (("--methods", "all", "--method", "maskclip"), "--method does not go with --methods"),
        (("--methods", "all", "--predictions", "folder"), "--methods compares models"),
        (("--methods", ""), "--methods names none"),
        (("--methods", "all", "--corrupt", "spatter"), "--corrupt does not go with --methods"),
    ],
)
def test_mistakes_are_named_before_anything_is_scored(evaluate, voc, tmp_path, args, said):
    done = evaluate("--dataset", voc, *args)
    assert done.code == 2
    assert said in done.err
    assert not list(tmp_path.glob("out/*/methods.*"))


def test_torchrun_is_refused(evaluate, voc, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    done = evaluate("--dataset", voc, "--methods", "maskclip")
    assert done.code == 2
    assert "runs in one process" in done.err
