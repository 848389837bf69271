"""Labels of humans stay, whoever labels or learns afterwards."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from corrected import contents, maps
from human_hands import other, plain
from PIL import Image
from run_folders import make_photos, run_command, run_folder  # noqa: F401
from small_backbone import small  # noqa: F401
from training_trees import copy_run, free_run, short_training, zero_shot_run  # noqa: F401

from clipseg_cli.commands.train import open_training
from clipseg_cli.config import UNLABELLED, TrainConfig
from clipseg_cli.errors import RunError
from clipseg_cli.ops.losses import segmentation_loss
from clipseg_cli.runs.human import human_labels, machine_file, read_human
from clipseg_cli.training.batches import Batch
from clipseg_cli.training.hyperparameters import resolve_hyperparameters
from clipseg_cli.training.targets import BOTH, Targets
from clipseg_cli.training.task import open_task

WORDS = ("-c", "cat,dog,cow", "--background", "none", "--templates", "single")
WITH_WORDS = ("--classes", "cat,dog,cow", "--background", "none")


# Labelling again.


def test_segment_keeps_them_and_makes_the_other_formats_of_them(cli, tiny_clip, make_image, tmp_path):
    photos = tmp_path / "photos"
    for i, name in enumerate(("one.jpg", "two.jpg")):
        make_image(photos / name, 40, 50, seed=i)
    out = tmp_path / "out"

    def segment(*args):
        return cli("segment", photos, *WORDS, *tiny_clip.options, "-o", out, "-f", "labels,npz,coco", *args)

    assert segment().code == 0
    wanted = other(maps(out)["one"])
    assert cli("import", out, *plain(tmp_path / "mine", one=wanted)).code == 0
    mine = (out / "one.png").read_bytes()
    (out / "two.png").unlink()
    done = segment("--min-area", "5")
    assert done.code == 0, done.err
    assert "1 label was corrected or checked by hand, and kept: one" in done.err
    assert (out / "one.png").read_bytes() == mine and (out / "two.png").is_file()
    with np.load(out / "one.npz") as data:
        assert np.array_equal(data["labels"], wanted) and (data["confidence"] == 1).all()
    assert cli("import", out, out / "coco.json", "--json").code == 0  # as before: coco.json says the same
    assert list(human_labels(out)) == ["one"]
    make_image(photos / "one.jpg", 41, 50, seed=3)
    done = segment()
    assert done.code == 1 and "one" in done.err and (out / "one.png").read_bytes() == mine


def test_pseudolabel_keeps_corrected_and_checked_ones(run, folder, cli, tmp_path):
    photos = make_photos(tmp_path / "photos", 4)
    assert run(photos, *WITH_WORDS).code == 0
    wanted = other(maps(folder / "labels")["00"])
    marks = tmp_path / "marks.json"
    marks.write_text(
        json.dumps(
            {
                "format": "clipseg-review",
                "version": 1,
                "run": "run",
                "marks": {"01": "good", "trip/02": "good"},
            }
        )
    )
    done = cli("import", folder / "labels", *plain(tmp_path / "mine", **{"00": wanted}))
    assert done.code == 0, done.err
    assert cli("import", folder, marks).code == 0
    before = contents(folder / "labels")
    # A relabelling of all: images replaced by others, labels gone.
    for name in ("00.png", "01.png", "trip/02.png"):
        with Image.open(photos / name) as image:
            turned = image.transpose(Image.Transpose.ROTATE_180)
        turned.save(photos / name, compress_level=1)
    (folder / "labels" / "03.png").unlink()
    done = run(photos, *WITH_WORDS)
    assert done.code == 0, done.err
    assert "3 labels (00, ...) were corrected or checked by hand and stay as they are" in done.err
    assert contents(folder / "labels") == before
    assert {r.kind for r in human_labels(folder).values()} == {"corrected", "checked"}
    machine = read_human(folder)["00"]
    assert machine_file(folder, machine).is_file()
    counted = json.loads((folder / "manifest.json").read_text())["result"]
    assert counted["images"] == 4


# Learning from them.


def test_the_student_never_overrules_a_human():
    given = torch.full((2, 4, 4), UNLABELLED, dtype=torch.int32)
    proposed = torch.ones_like(given)
    human = torch.zeros_like(given)
    human[0, :2] = 1
    proposed[0, 0] = 255  # a human may say that a pixel is nothing
    proposed[0, 1] = 2
    logits = torch.zeros(2, 3, 4, 4)
    logits[:, 0] = 9.0
    hparams = resolve_hyperparameters(
        TrainConfig(iterations=4, guided=2, self_training_from=1, preset="quick"), None
    )
    targets = Targets(hparams, (0, 1, 2), None, 255)
    batch = Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), given, proposed, human)
    assert targets.stage(1) == BOTH
    for iteration in range(4):
        for labels in targets(batch, logits, iteration):
            assert (labels[0, 0] == 255).all() and (labels[0, 1] == 2).all()
    (own,) = targets(batch, logits, 3)
    assert (own[0, 2:] == 0).all() and (own[1] == 0).all()


def test_a_weight_counts_a_pixel_so_many_times():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.tensor([[[0, 1], [2, 255]]])
    weights = torch.tensor([[[3.0, 1.0], [1.0, 9.0]]])
    plain_ = [segmentation_loss(logits[..., :1, :1], labels[..., :1, :1], 255)]
    whole = segmentation_loss(logits, labels, 255)
    weighted = segmentation_loss(logits, labels, 255, weights)
    assert weighted.item() == pytest.approx(whole.item() + 2 * plain_[0].item() / 4, rel=1e-5)
    assert segmentation_loss(logits, labels, 255, torch.ones_like(weights)).item() == pytest.approx(
        whole.item()
    )


@pytest.fixture
def corrected_run(label_run, tmp_path, cli):
    """A run with one corrected and one held-out label."""
    run = copy_run(label_run, tmp_path / "labels-run")
    names = sorted(maps(run / "labels"))
    first, second = (other(maps(run / "labels")[name], 21) for name in names[:2])
    assert cli("import", run, *plain(tmp_path / "m", **{names[0]: first})).code == 0
    assert cli("import", run, *plain(tmp_path / "m", **{names[1]: second}), "--hold-out").code == 0
    return run, names


def test_train_weighs_keeps_and_holds_out(corrected_run, teach):
    run, names = corrected_run
    task = open_task(TrainConfig(labels=str(run)))
    learnt = [sample.source.name for sample in task.samples]
    assert names[1] not in learnt and names[0] in learnt and list(task.human) == [names[0]]
    assert any("count 4 times" in note for note in task.notes)
    assert "1 image is held out of training" in task.notes
    heavy = teach(labels=str(run), human_weight=50.0, backbone="small")
    light = teach(labels=str(run), human_weight=1.0, backbone="small")
    assert heavy.losses != light.losses and heavy.losses[0] > 0
    assert heavy.run.identity["labels"]["human"]["weight"] == 50.0
    assert teach(labels=str(run), human_weight=1.0, backbone="small").equals(light)


def test_a_run_without_human_labels_trains_as_before(label_run, teach):
    first = teach(labels=str(label_run), human_weight=1.0, backbone="small")
    assert any("--human-weight 1 does nothing" in note for note in first.run.notes)
    assert "human" not in first.run.identity["labels"]
    assert first.equals(teach(labels=str(label_run), human_weight=50.0, backbone="small"))


def test_going_on_needs_the_same_human_labels(corrected_run, teach, cli):
    run, _ = corrected_run
    done = teach(labels=str(run), backbone="small")
    assert cli("import", run, "--undo").code == 0 and cli("import", run, "--undo").code == 0
    config = TrainConfig(
        **{**vars(done.run.config), "labels": str(run), "resume": True, "dataset": "", "benchmark": None}
    )
    with pytest.raises(RunError, match="have changed since"), open_training(config):
        pass


def test_zero_shot_learns_no_unseen_class_from_humans(seen_run, tmp_path, cli):
    run = copy_run(seen_run, tmp_path / "seen-run")
    name, labels = next(iter(maps(run / "labels").items()))
    files = plain(tmp_path / "m", **{name: other(labels, 21)})
    assert cli("import", run, *files).code == 0
    config = TrainConfig(labels=str(run), setting="zero-shot")
    with pytest.raises(RunError, match="1 are by human hand"):
        open_task(config)
    assert cli("import", run, "--undo").code == 0
    assert cli("import", run, *files, "--hold-out").code == 0
    assert name not in [sample.source.name for sample in open_task(config).samples]


def test_held_out_images_are_what_a_student_is_scored_on(tiny_clip, tmp_path, cli):
    photos = make_photos(tmp_path / "photos", 5)
    assert (
        cli("pseudolabel", photos, *tiny_clip.options, *WITH_WORDS, "--templates", "single",
            "--out", tmp_path / "out", "--name", "run").code == 0
    )  # fmt: skip
    run = tmp_path / "out" / "run"
    assert open_task(TrainConfig(labels=str(run))).validation is None
    name, labels = next(iter(maps(run / "labels").items()))
    assert cli("import", run, *plain(tmp_path / "m", **{name: other(labels)}), "--hold-out").code == 0
    task = open_task(TrainConfig(labels=str(run)))
    assert [s.source.name for s in task.validation.samples] == [name]
    assert task.validation.samples[0].label.is_relative_to(run)
    assert name not in [s.source.name for s in task.samples]


def test_a_memory_is_made_of_them_but_of_none_held_out(corrected_run, tmp_path, cli):
    run, names = corrected_run
    done = cli("index", "--labels", run, "--out", tmp_path / "bank", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    assert names[0] in (tmp_path / "bank" / "bank.json").read_text()
    assert names[1] not in (tmp_path / "bank" / "bank.json").read_text()


def test_a_copy_of_a_run_keeps_what_is_known(corrected_run, tmp_path):
    run, names = corrected_run
    copy = shutil.copytree(run, tmp_path / "copy")
    assert list(human_labels(copy)) == names[:2]
