"""`clipseg import` cut off anywhere: what it changes is old or new, and whoever reads next brings it to its end."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from annotated import samples
from corrected import by_name, contents, corrections, good_corrections, labelled_run, maps  # noqa: F401

from clipseg_cli.runs import human_changes
from clipseg_cli.runs.human import human_labels
from clipseg_cli.runs.human_changes import complete_changes

# Cut off in the middle.


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("at", [0, 2, 4, 7, 11, 12, 13, 15, 17, 18])
def test_cut_off_anywhere_it_is_old_or_new(at, undo, run, good, cli, monkeypatch):
    """Every write, move and removal of an import fails in turn, as if the process had ended there."""
    if undo:
        assert cli("import", run, good, "--by", "a").code == 0
    before = contents(run)
    calls = []

    def counted(function):
        def wrapped(*args, **options):
            if len(calls) == at:
                raise Cut
            calls.append(args)
            return function(*args, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(human_changes, "write_bytes", counted(human_changes.write_bytes))
        patch.setattr(human_changes.Change, "discard", lambda self: None)  # a killed process tidies nothing
        args = ["--undo"] if undo else [str(good), "--by", "a"]
        try:
            done = cli("import", run, *args)
        except Cut:
            done = None
    complete_changes(run)
    after = contents(run)
    labels = {name: data for name, data in after.items() if not name.startswith(".human")}
    was = {name: data for name, data in before.items() if not name.startswith(".human")}
    if labels != was:  # then all of it holds
        want = by_name(samples() if undo else corrections())
        assert all(np.array_equal(maps(run)[name], own) for name, own in want.items())
        assert bool(human_labels(run)) is not undo
    else:
        assert done is None, "it said that it was done"
    # And whatever it is, the next import goes well.
    assert cli("import", run, good, "--by", "b", "--checked").code == 0
    assert all(np.array_equal(maps(run)[name], own) for name, own in by_name(corrections()).items())
    assert not list(run.rglob("*.part"))


def test_whoever_reads_next_brings_it_to_its_end(run, good, cli, monkeypatch, tmp_path):
    moved = []

    def dying(path, data):
        if ".human" not in str(path):
            moved.append(path)
        if len(moved) == 3:
            raise Cut
        return write_bytes(path, data)

    write_bytes = human_changes.write_bytes
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(human_changes, "write_bytes", dying)
        cli("import", run, good)
    assert cli("convert", run, "-f", "npz", "-o", tmp_path / "npz").code == 0
    for name, labels in by_name(corrections()).items():
        with np.load(tmp_path / "npz" / f"{name}.npz") as data:
            assert np.array_equal(data["labels"], labels), name


def test_killed_it_is_old_or_new(run, good, process_env):
    """A real process, killed at the first label that it moves."""
    code = (
        "import os, signal, sys\n"
        "from clipseg_cli.runs import human_changes as h\n"
        "write = h.write_bytes\n"
        "def dying(path, data):\n"
        "    if '.human' not in str(path): os.kill(os.getpid(), signal.SIGKILL) if moved else moved.append(1)\n"
        "    return write(path, data)\n"
        "moved = []\n"
        "h.write_bytes = dying\n"
        "from clipseg_cli.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "import", str(run), str(good)], env=process_env, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    half = maps(run)
    same = [np.array_equal(half[name], labels) for name, labels in by_name(corrections()).items()]
    assert any(same) and not all(same)  # so that there is something to bring to its end
    complete_changes(run)
    assert all(np.array_equal(maps(run)[name], labels) for name, labels in by_name(corrections()).items())
    assert len(human_labels(run)) == 5


def test_interrupted_while_reading_nothing_is_left(run, good, cli, monkeypatch):
    before = contents(run)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(human_changes.Change, "replace", stop)
    done = cli("import", run, good)
    assert done.code == 130 and contents(run) == before
