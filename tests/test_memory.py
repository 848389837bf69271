"""Memories of labelled images, which label a folder, and what is suggested to be corrected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from memory_banks import COLOURS, draw, drawn_data, evaluate_command, make_bank  # noqa: F401
from PIL import Image
from safetensors.torch import load_file

from clipseg_cli.commands import index
from clipseg_cli.memory.files import image_file

if TYPE_CHECKING:
    from pathlib import Path


def test_few_labels_teach_what_words_do_not_know(make, evaluate, drawn, tmp_path) -> None:
    """The tower and its words are random: only the labels can say which colour is called what."""
    assert make("--labels", drawn).code == 0
    plain = evaluate(drawn, "--split", "val")
    taught = evaluate(drawn, "--split", "val", "--memory", tmp_path / "bank")
    assert taught > 0.8 > 0.5 > plain


def test_a_bank_comes_back_as_it_was(make, drawn, tmp_path) -> None:
    assert make("--labels", drawn).code == 0
    facts = json.loads((tmp_path / "bank" / "bank.json").read_text())
    assert list(facts["pictures"]) == ["p0", "p1", "p2", "p3"]
    assert facts["identity"]["classes"] == list(COLOURS)
    tensors = load_file(image_file(tmp_path / "bank", "p0"))
    assert tensors["shares"].dtype == torch.uint8 and tensors["shares"].sum(dim=1).float().mean() > 250
    assert (
        tensors["levels"].dtype == torch.int8 and len(tensors["levels"]) == 2
    )  # itself and its mirror image
    before = {path: path.read_bytes() for path in (tmp_path / "bank").rglob("*") if path.is_file()}
    again = make("--labels", drawn)
    assert "4 of them before" in again.err
    assert before == {path: path.read_bytes() for path in before}


def test_a_killed_index_goes_on(make, drawn, tmp_path, monkeypatch) -> None:
    write, calls = index.write_image, []

    def stops(*args: Any) -> None:
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(index, "write_image", stops)
        stopped = make("--labels", drawn)
    assert stopped.code == 130 and "2 of 4 images" in stopped.err
    unfinished = make("--labels", drawn, short=("--short-side"), side="32")
    assert unfinished.code != 0
    assert "2 of them before" in make("--labels", drawn).err


def test_an_unfinished_bank_is_not_used(make, evaluate, drawn, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(index, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        make("--labels", drawn)
    found = evaluate(drawn, "--memory", tmp_path / "bank")
    assert found.code == 1 and "is not finished" in found.err


def test_corrected_labels_of_a_run_are_learnt(cli, make, tiny_clip, drawn, tmp_path) -> None:
    model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--short-side", 64)
    assert cli("pseudolabel", drawn, *model, "--out", tmp_path / "runs", "--name", "run").code == 0
    run = tmp_path / "runs" / "run"
    none = make("--labels", run)
    assert none.code == 1 and "no label" in none.err and "was corrected" in none.err
    truth = (drawn / "masks" / "p1.png").read_bytes()
    (run / "labels" / "p1.png").write_bytes(truth)
    done = cli("index", "--labels", run, "--out", tmp_path / "bank", "--short-side", 64)
    assert done.code == 0, done.err
    assert list(json.loads((tmp_path / "bank" / "bank.json").read_text())["pictures"]) == ["p1"]
    segmented = cli(
        *("segment", drawn / "images" / "p1.png", "--classes", "brick,water,grass", "--background", "none"),
        *model[:4],
        *("--memory", tmp_path / "bank", "--out", tmp_path / "out"),
    )
    assert segmented.code == 0, segmented.err
    made = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert "fingerprint" in json.dumps(made["model"]["settings"]["memory"])
    labels = np.asarray(Image.open(tmp_path / "out" / "p1.png"))
    assert (labels == np.asarray(Image.open(drawn / "masks" / "p1.png"))).mean() > 0.8


def test_a_damaged_correction_is_named_and_stays_remembered(cli, make, tiny_clip, drawn, tmp_path) -> None:
    model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--short-side", 64)
    assert cli("pseudolabel", drawn, *model, "--out", tmp_path / "runs", "--name", "run").code == 0
    run = tmp_path / "runs" / "run"
    for name in ("p1.png", "p2.png"):
        (run / "labels" / name).write_bytes((drawn / "masks" / name).read_bytes())
    assert make("--labels", run).code == 0
    before = remembered(tmp_path)
    damaged = run / "labels" / "p1.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    found = make("--labels", run)
    assert found.code == 1 and str(damaged) in found.err and "1 of 2 images failed" in found.err
    assert "2 images in" in found.err and remembered(tmp_path) == before


def test_a_bank_of_other_images_is_not_written_over(make, drawn, tmp_path) -> None:
    assert make("--labels", drawn, "--split", "train").code == 0
    before = remembered(tmp_path)
    other = make("--labels", drawn, "--split", "val")
    assert other.code == 1 and "is a bank of other images: p0 and 3 more" in other.err
    assert "another --out" in other.err and remembered(tmp_path) == before
    assert make("--labels", drawn, "--split", "all").code == 0
    fewer = make("--labels", drawn, "--split", "train")
    assert fewer.code == 0 and "4 images that it knew are no longer among them" in fewer.err


def remembered(folder: Path) -> dict[str, str]:
    return json.loads((folder / "bank" / "bank.json").read_text())["pictures"]


def test_a_folder_of_label_pngs_is_learnt(make, drawn, tmp_path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "p5.png").write_bytes((drawn / "masks" / "p5.png").read_bytes())
    images = drawn / "images"
    nameless = make(images, "--labels", labels)
    assert nameless.code == 2 and "nothing names the classes" in nameless.err
    assert (
        make(images, "--labels", labels, "--classes", "brick,water,grass", "--background", "none").code == 0
    )
    assert list(json.loads((tmp_path / "bank" / "bank.json").read_text())["pictures"]) == ["p5"]


def test_a_damaged_label_fails_alone(make, tmp_path) -> None:
    root = draw(tmp_path / "data", 6)
    Image.fromarray(np.full((64, 64), 77, np.uint8)).save(root / "masks" / "p1.png")
    found = make("--labels", root)
    assert found.code == 1 and "77 is no label" in found.err and "1 of 3 images failed" in found.err
    assert list(json.loads((tmp_path / "bank" / "bank.json").read_text())["pictures"]) == ["p0", "p2"]


def test_another_tower_is_refused_with_both_fingerprints(cli, make, tiny_clip, drawn, tmp_path) -> None:
    assert make("--labels", drawn).code == 0
    facts = json.loads((tmp_path / "bank" / "bank.json").read_text())
    facts["identity"]["weights"] = "0123456789abcdef"
    (tmp_path / "bank" / "bank.json").write_text(json.dumps(facts))
    common = ("segment", drawn / "images" / "p0.png", "-c", "brick", "--memory", tmp_path / "bank")
    model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--out", tmp_path / "out")
    other = cli(*common, *model)
    assert other.code == 1 and "0123456789abcdef" in other.err and "has" in other.err
    named = cli(*common, "--model", "emoji", "--out", tmp_path / "out")
    assert named.code == 2 and f"--model {tiny_clip.name}, not emoji" in named.err


def test_a_bank_of_an_older_version_is_refused(make, evaluate, drawn, tmp_path) -> None:
    assert make("--labels", drawn).code == 0
    facts = json.loads((tmp_path / "bank" / "bank.json").read_text())
    (tmp_path / "bank" / "bank.json").write_text(json.dumps({**facts, "format": 1, "clipseg": "0.1"}))
    found = evaluate(drawn, "--memory", tmp_path / "bank")
    assert found.code == 1 and "was made by clipseg 0.1" in found.err and "make it anew" in found.err


def test_the_bundled_model_remembers_the_stages_of_its_resnet(cli, drawn, tmp_path) -> None:
    one = tmp_path / "one.txt"
    one.write_text("p0\n")
    model = ("--model", "emoji", "--out", tmp_path / "bank", "--split", one, "--short-side", 64)
    assert cli("index", "--labels", drawn, *model).code == 0
    facts = json.loads((tmp_path / "bank" / "bank.json").read_text())
    tower, stages = 5 * 192 + 192 + 128, 64 + 128 + 256 + 512
    levels = load_file(image_file(tmp_path / "bank", "p0"))["levels"]
    assert levels.shape == (2, stages + tower, 8, 8) and facts["identity"]["stages"]
    facts["identity"]["stages"] = "0123456789abcdef"
    (tmp_path / "bank" / "bank.json").write_text(json.dumps(facts))
    image = drawn / "images" / "p0.png"
    options = ("-c", "brick", "--model", "emoji", "--out", tmp_path / "out", "--memory", tmp_path / "bank")
    found = cli("segment", image, *options)
    assert found.code == 1 and "0123456789abcdef" in found.err and "beside the tower" in found.err


def test_images_of_other_sizes_are_labelled(cli, make, tiny_clip, drawn, tmp_path) -> None:
    assert make("--labels", drawn).code == 0
    halves = np.repeat([COLOURS["brick"], COLOURS["grass"]], 60, axis=0)  # 120 columns
    Image.fromarray(np.broadcast_to(halves, (64, 120, 3)).astype(np.uint8)).save(tmp_path / "wide.png")
    words = ("-c", "brick,water,grass", "--background", "none", "--quiet")
    model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--out", tmp_path / "out")
    done = cli("segment", tmp_path / "wide.png", *words, *model, "--memory", tmp_path / "bank")
    assert done.code == 0, done.err
    labels = np.asarray(Image.open(tmp_path / "out" / "wide.png"))
    assert (labels[:, :52] == 0).mean() > 0.9 and (labels[:, 68:] == 2).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--memory", "nowhere"), "is no bank"),
        (("--memory", "BANK", "-c", "sofa,chair", "--background", "none"), "shows none of these classes"),
        (("--memory", "BANK", "--method", "clip-diy"), "looks at whole crops"),
    ],
)
def test_wrong_memories_are_sentences(cli, make, tiny_clip, drawn, tmp_path, options, message) -> None:
    if "BANK" in options:
        assert make("--labels", drawn).code == 0
    options = [tmp_path / "bank" if one == "BANK" else one for one in options]
    words = () if "-c" in options else ("-c", "brick")
    model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--out", tmp_path / "out")
    found = cli("segment", drawn / "images" / "p0.png", *model, *words, *options)
    assert found.code in (1, 2) and message in found.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing says what to remember"),
        (("--labels", "runs", "--regions", "superpixels"), "--regions is about a bank of unlabelled images"),
    ],
)
def test_index_needs_something_to_remember(cli, options, message) -> None:
    found = cli("index", *options, "--model", "emoji")
    assert found.code == 2 and message in found.err


def test_suggestions_leave_out_what_is_known(cli, make, tiny_clip, drawn, tmp_path) -> None:
    assert make("--labels", drawn).code == 0
    model = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--short-side", 64)
    found = cli("index", drawn / "images", "--suggest", 3, *model, "--out", tmp_path / "bank")
    assert found.code == 0, found.err
    names = found.out.split()
    assert len(set(names)) == 3 and set(names) <= {"p4", "p5", "p6", "p7"}


def test_a_memory_from_python(make, tiny_clip, drawn, tmp_path) -> None:
    from clipseg_cli import Segmenter

    assert make("--labels", drawn).code == 0
    segmenter = Segmenter.from_pretrained(tiny_clip.name, tiny_clip.weights, memory=str(tmp_path / "bank"))
    truth = np.asarray(Image.open(drawn / "masks" / "p6.png"))
    result = segmenter.segment(drawn / "images" / "p6.png", list(COLOURS), background=None)
    assert (result.labels == truth).mean() > 0.8
    # A class that nobody has labelled lives in the same list.
    more = segmenter.segment(drawn / "images" / "p6.png", [*COLOURS, "unicorn"], background=None)
    assert (more.labels == truth).mean() > 0.7
