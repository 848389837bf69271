"""A checkpoint is whole whenever its process is killed: at every file that it touches."""

from __future__ import annotations

import json
import os

import pytest
from small_backbone import SMALL

KILLED = """
import dataclasses, json, os, shutil, sys
from pathlib import Path
import torch
from clipseg_cli.errors import ClipsegError
from clipseg_cli.models.student import backbones as student_backbones
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.models.student.files import StudentCard
from clipseg_cli.training import checkpoints
from clipseg_cli.training.checkpoints import State
from clipseg_cli.types import ClassList

torch.set_num_threads(1)
run = Path(sys.argv[1])
student_backbones.OWN["small"] = json.loads(sys.argv[2])
shape = StudentShape("small", "deeplabv2", 4)
classes = ClassList(("a", "b"), (("a",), ("b",)), None)
student = Student(shape, torch.eye(2, 4), (0, 1), None)
optimiser = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
card = StudentCard(shape, classes, ("{}",), (0.5,) * 3, (0.5,) * 3, 0, 64,
                   {"name": "x", "pretrained": "y", "fingerprint": "z"})
for parameter in student.parameters():
    optimiser.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)

def fill(value):
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(value)

EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "tempfile.mkstemp")

def child(limit):
    seen = 0
    def watch(event, args):
        nonlocal seen
        if event in EVENTS and (str(run) in str(args[0]) or "dir_fd" in event or event == "os.remove"):
            seen += 1
            if seen == limit:
                os._exit(77)  # no finally, no flush: as SIGKILL
    sys.addaudithook(watch)
    fill(4.0)
    checkpoints.save_last(run, student, card, optimiser, State(iteration=4))
    os._exit(0)

found, limit, code = [], 0, 77
while code == 77:
    limit += 1
    if limit == 1 or found[-1] == 4:
        shutil.rmtree(run, ignore_errors=True)
        fill(2.0)
        checkpoints.save_last(run, student, card, optimiser, State(iteration=2))
    pid = os.fork()
    if not pid:
        child(limit)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    fill(0.0)
    state = checkpoints.restore(run, student, optimiser, card)
    value = next(student.parameters()).flatten()[0].item()
    assert value == state.iteration, (value, state)
    found.append(state.iteration)
left = sorted(p.name for p in (run / "checkpoints").iterdir())
print(json.dumps([found, code, left]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_file_it_touches_a_whole_checkpoint_is_there(tmp_path, warm):
    done = warm("-c", KILLED, tmp_path / "run", json.dumps(SMALL))
    out, err = done.communicate(timeout=120)
    assert done.returncode == 0, err.decode()
    found, code, left = json.loads(out.splitlines()[-1])
    assert code == 0 and left == ["last-0000004"]
    assert len(found) > 20 and {*found} == {2, 4}
    assert found[0] == 2 and found[-1] == 4
