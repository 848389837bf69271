"""Locks: held by one process at a time, gone with it however it ends, and named in the refusal."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from clipseg_cli.errors import DiskFullError, OutputError
from clipseg_cli.utils import locks
from clipseg_cli.utils.locks import Holder, LockedError, file_lock, holder_of, remove_stale_locks

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no flock")

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from clipseg_cli.utils.locks import file_lock\n"
    "with file_lock(Path(sys.argv[1]), shared=sys.argv[2] == 'shared'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path, process_env):
    """Start a process that holds a lock file of this name; it is killed at the end."""
    with ExitStack() as stack:

        def start(name="lock", kind="alone"):
            process = subprocess.Popen(
                [sys.executable, "-c", HOLD, tmp_path / name, kind], env=process_env, stdout=subprocess.PIPE
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            return process

        yield start


def test_the_file_says_who_holds_it_and_is_gone_afterwards(tmp_path):
    path = tmp_path / "lock"
    with file_lock(path) as left_by:
        assert left_by is None
        assert json.loads(path.read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
        assert holder_of(path) == Holder(os.getpid(), socket.gethostname())
    assert list(tmp_path.iterdir()) == []
    assert holder_of(path) is None


def test_the_file_is_gone_after_an_error_too(tmp_path):
    with pytest.raises(ZeroDivisionError), file_lock(tmp_path / "lock"):
        _ = 1 // 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shared", [False, True])
def test_a_living_process_is_named(tmp_path, holder, shared):
    process = holder()
    with pytest.raises(LockedError) as refused, file_lock(tmp_path / "lock", shared=shared):
        pass
    assert refused.value.holder == Holder(process.pid, socket.gethostname())
    assert str(refused.value.holder) == f"process {process.pid}"


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_killed_process_left_is_taken_over(tmp_path, holder, shared):
    process = holder()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "lock").exists()
    with file_lock(tmp_path / "lock", shared=shared) as left_by:
        assert left_by == Holder(process.pid, socket.gethostname())
        # Nobody is told of the dead one any more.
        assert holder_of(tmp_path / "lock") != left_by
    assert list(tmp_path.iterdir()) == []


def test_many_share_but_none_beside_one_that_does_not(tmp_path, holder):
    path = tmp_path / "lock"
    holder(kind="shared")
    with file_lock(path, shared=True), file_lock(path, shared=True):
        with pytest.raises(LockedError) as refused, file_lock(path):
            pass
        assert refused.value.holder is None
    assert path.exists()  # the process still shares it


def test_the_last_who_shares_removes_the_file(tmp_path):
    path = tmp_path / "lock"
    first, second = file_lock(path, shared=True), file_lock(path, shared=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert path.exists()
    second.__exit__(None, None, None)
    assert not path.exists()


def test_a_lock_held_for_a_moment_refuses_nobody(tmp_path):
    path = tmp_path / "lock"
    first = file_lock(path)
    first.__enter__()
    threading.Timer(0.1, first.__exit__, (None, None, None)).start()
    with file_lock(path, patience=30):
        pass


def test_racing_threads_never_both_hold(tmp_path):
    path, inside, worst, turns = tmp_path / "lock", [], [], []

    def work():
        for _ in range(40):
            with file_lock(path, wait=True):
                inside.append(1)
                worst.append(len(inside))
                time.sleep(0)
                inside.pop()
                turns.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) == 1
    assert len(turns) == 160
    assert not path.exists()


def test_racing_processes_never_both_hold(tmp_path, process_env):
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from clipseg_cli.utils.locks import file_lock\n"
        "folder = Path(sys.argv[1])\n"
        "for _ in range(200):\n"
        "    with file_lock(folder / 'lock', wait=True):\n"
        "        os.close(os.open(folder / 'inside', os.O_CREAT | os.O_EXCL))\n"  # fails if it is there
        "        (folder / 'inside').unlink()\n"
    )
    command = [sys.executable, "-c", code, tmp_path]
    racing = [subprocess.Popen(command, env=process_env, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(p.communicate()[1], p.returncode) for p in racing] == [(b"", 0)] * 3
    assert list(tmp_path.iterdir()) == []


def test_sweep_removes_only_what_nobody_holds(tmp_path, holder):
    living, dead = holder("living"), holder("dead")
    dead.kill()
    dead.wait()
    paths = [tmp_path / "living", tmp_path / "dead", tmp_path / "none"]
    assert remove_stale_locks(paths) == [Holder(dead.pid, socket.gethostname())]
    assert [p.exists() for p in paths] == [True, False, False]
    assert holder_of(tmp_path / "living") == Holder(living.pid, socket.gethostname())


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b'{"pid": "x", "host": 1}', b"\xff\xfe", b"7"])
def test_rubbish_in_the_file_is_no_holder(tmp_path, rubbish):
    (tmp_path / "lock").write_bytes(rubbish)
    with file_lock(tmp_path / "lock") as left_by:
        assert left_by is None


def test_another_machine_is_named():
    assert str(Holder(7, "elsewhere")) == "process 7 on elsewhere"


def test_somebody_elses_file_is_not_removed(tmp_path):
    path = tmp_path / "lock"
    with file_lock(path):
        path.unlink()  # by hand; then another process takes the name
        path.write_text("theirs")
    assert path.read_text() == "theirs"


def test_a_file_system_without_locks_does_not_stop_the_work(tmp_path, monkeypatch):
    def flock(*args):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with file_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def write(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(DiskFullError, match="no space left"), file_lock(tmp_path / "lock"):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    treasure, lock = tmp_path / "thesis.txt", tmp_path / ".lock"
    treasure.write_text("years of work")
    lock.symlink_to(treasure)
    with pytest.raises(OutputError, match=r"cannot write .*\.lock"), file_lock(lock):
        pass
    assert treasure.read_text() == "years of work" and holder_of(lock) is None
