"""How good the machine was, told by labels that humans corrected or checked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from annotated import result_of, write
from corrected import labelled
from human_hands import other, plain

from clipseg_cli.ops.bootstrap import bootstrap_scores

# How good the machine was.


@pytest.fixture
def scored(tmp_path):
    """A folder of four labels, of which a human has mended two and checked one."""
    rng = np.random.default_rng(0)
    truths = {name: rng.integers(0, 3, (20, 30)) for name in "abcd"}
    machine = {name: np.where(rng.random((20, 30)) < 0.2, 0, labels) for name, labels in truths.items()}
    machine["c"] = truths["c"]
    run = labelled(
        tmp_path / "run",
        [result_of(labels, f"{name}.jpg", names=("x", "y", "z")) for name, labels in machine.items()],
    )
    return run, truths, machine


def expected(truths, machine, names):
    """mIoU and pixel accuracy over the images, counted here."""
    truth, said = (np.concatenate([maps_[n].ravel() for n in names]) for maps_ in (truths, machine))
    ious = [((truth == c) & (said == c)).sum() / ((truth == c) | (said == c)).sum() for c in range(3)]
    return np.mean(ious), (truth == said).mean()


def test_eval_scores_the_machine_by_humans(cli, scored, tmp_path):
    run, truths, machine = scored
    done = cli("eval", run)
    assert done.code == 1 and "no label that a human has corrected or checked" in done.err
    files = plain(tmp_path / "mine", a=truths["a"], b=truths["b"], c=truths["c"])
    assert cli("import", run, *files, "--checked", "--hold-out").code == 0
    done = cli("eval", run, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    miou, accuracy = expected(truths, machine, "abc")
    assert document["mIoU"] == pytest.approx(miou) and document["pixel_accuracy"] == pytest.approx(accuracy)
    assert [row["image"] for row in document["images"]] == ["a", "b", "c"]
    assert document["images"][2]["mIoU"] == 1 and document["images"][2]["kind"] == "checked"
    low, high = document["intervals"]["mIoU"]
    assert low <= miou <= high <= 1 and low == pytest.approx(expected(truths, machine, "ab")[0], abs=0.05)
    assert json.loads(cli("eval", run, "--json").out) == document
    done = cli("eval", run)
    assert "95 % interval" in done.out and "3 images" in done.err and "3 of them held out" in done.err
    assert f"{100 * miou:.1f}" in done.out and "3 images are little to go by" in done.err
    # Corrected once more, the machine's are still those that the machine made.
    better = {**truths, "a": other(truths["a"])}
    assert cli("import", run, *plain(tmp_path / "mine", a=better["a"])).code == 0
    found = json.loads(cli("eval", run, "--json").out)
    assert found["mIoU"] == pytest.approx(expected(better, machine, "abc")[0])


def test_eval_scores_another_folder_by_the_same_humans(cli, scored, tmp_path):
    run, truths, _ = scored
    assert cli("import", run, *plain(tmp_path / "mine", a=truths["a"], b=truths["b"])).code == 0
    done = cli("eval", run)
    assert "every one of these images was corrected" in " ".join(done.err.split())
    names = ("x", "y", "z")
    theirs = labelled(tmp_path / "student", [result_of(truths[n], f"{n}.jpg", names=names) for n in "ab"])
    done = cli("eval", run, "--predictions", theirs, "--json")
    assert done.code == 0 and json.loads(done.out)["mIoU"] == 1
    (theirs / "b.png").unlink()
    done = cli("eval", run, "--predictions", theirs)
    assert done.code == 1 and "has no label for b" in done.err
    done = cli("eval", run, "--model", "emoji")
    assert done.code == 2 and "--model does not go with RUN" in done.err


def test_one_image_has_no_interval_and_edited_ones_do_not_count(cli, scored, tmp_path):
    run, truths, _ = scored
    assert cli("import", run, *plain(tmp_path / "mine", a=truths["a"], b=truths["b"])).code == 0
    write("labels", [result_of(truths["c"], "b.jpg", names=("x", "y", "z"))], run)
    done = cli("eval", run, "--json")
    document = json.loads(done.out)
    assert [row["image"] for row in document["images"]] == ["a"] and document["intervals"] == {}
    assert "1 label was changed since the import" in " ".join(document["notes"])


def test_bootstrap_intervals_cover_what_they_should():
    """Of 60 samples of images from a known population about 95 % of the intervals hold its score."""
    rng = np.random.default_rng(0)
    right = rng.integers(0, 50, (4000, 3))
    labelled_, predicted = right + rng.integers(0, 50, right.shape), right + rng.integers(0, 50, right.shape)

    def miou(index):
        r, own, said = (x[index].sum(0) for x in (right, labelled_, predicted))
        return (r / (own + said - r)).mean()

    whole, hits = miou(np.arange(4000)), 0
    for seed in range(60):
        own = rng.choice(4000, 40, replace=False)
        low, high = bootstrap_scores(right[own], labelled_[own], predicted[own], draws=300, seed=seed)["mIoU"]
        assert low <= miou(own) <= high
        hits += low <= whole <= high
    assert 50 <= hits <= 60


def test_bootstrap_is_the_same_for_the_same_seed_and_certain_for_equal_images():
    one = np.array([[3, 5]] * 6)
    found = bootstrap_scores(one, one * 2, one * 2, draws=100)
    assert found["mIoU"] == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found == bootstrap_scores(one, one * 2, one * 2, draws=100)
