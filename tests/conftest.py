"""Shared fixtures: a tiny CLIP with random weights, pictures, and the command line in and out of process."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from warm_server import WarmProcess, WarmServer, wait_for, warm_script

import clipseg_cli
from clipseg_cli.cli.main import main
from clipseg_cli.outputs._chart import render_png as RENDER_PNG

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background: Ctrl-C could not be tested
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; before torch asks how many there are
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

TINY_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@dataclass(frozen=True)
class TinyClip:
    """A CLIP that knows nothing and takes milliseconds.

    Attributes:
        name: its architecture, registered with open_clip in this process only.
        weights: safetensors file.
        model: the open_clip model, in eval mode.
    """

    name: str
    weights: Path
    model: object

    @property
    def options(self) -> tuple[str, ...]:
        """What makes a command use it."""
        return (
            "--model",
            self.name,
            "--pretrained",
            str(self.weights),
            "--device",
            "cpu",
            "--precision",
            "fp32",
        )


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        return self.stdout.decode()


ROOT = str(Path(clipseg_cli.__file__).parents[1])
ONE_THREAD = {
    "PYTHONPATH": os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH")))),
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "100",
}
"""What a process needs to run this checkout, installed or not."""

SERVER = "CLIPSEG_TESTS_SERVER"

LONG_FILES = (
    *("readme", "ray", "resume", "train_resume", "outputs", "bundled_backbone", "charts", "runs_notice"),
    *("export", "towers", "segment_command", "train_ranks", "models_command", "stopping", "eval", "regions"),
    *("growing_runs", "compile", "memory", "train", "compare", "golden", "cold_start"),
)
"""Test files of more than some five seconds, the longest first."""


def pytest_configure(config):
    """All workers of one run share a server of warm processes, which imports while they begin."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.warm_server = WarmServer({**os.environ, **ONE_THREAD})
        os.environ[SERVER] = config.warm_server.address
        config.option.loadscopereorder = False  # in our order, not by the number of tests


def pytest_collection_modifyitems(items):
    """Files that take long go ahead, so that no worker is left with one at the end."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


def pytest_collection_finish():
    """Whatever is imported by now stays: to look for garbage among it, again and again, takes a while."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config):
    if hasattr(config, "warm_server"):
        config.warm_server.stop()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is read from or left in the user's cache."""
    before = os.environ.get("CLIPSEG_CACHE")
    os.environ["CLIPSEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["CLIPSEG_CACHE"]
    else:
        os.environ["CLIPSEG_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut():
    """What is written need not reach the disk: to have all of this machine brought there takes a while each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: None, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _blank_charts():
    """Charts are blank outside their own tests: matplotlib draws longer than most of the small runs take.

    Figures are made of the numbers all the same; only their pixels are not.
    """
    from clipseg_cli.outputs import _chart

    def blank(figure: Figure, *, tight: bool = False) -> bytes:
        buffer = io.BytesIO()
        Image.new("L", tuple(map(round, figure.get_size_inches() * figure.dpi))).save(buffer, "PNG")
        return buffer.getvalue()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chart, "render_png", blank)
        yield


@pytest.fixture
def drawn_charts(monkeypatch):
    """Charts with all their pixels."""
    from clipseg_cli.outputs import _chart

    monkeypatch.setattr(_chart, "render_png", RENDER_PNG)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> TinyClip:
    """A vision transformer of 3 layers on 8-pixel patches, with random weights that are always the same."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    config = folder / "tiny-vit.json"
    config.write_text(json.dumps(TINY_CONFIG))
    open_clip.add_model_config(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("tiny-vit").eval()
    weights = folder / "tiny-vit.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    return TinyClip("tiny-vit", weights, model)


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """Write a smooth colourful picture of (height, width) to a path; the suffix decides the format."""

    def make(path: Path, height: int = 48, width: int = 64, seed: int = 0) -> Path:
        coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
        return path

    return make


@pytest.fixture
def cli(capsysbinary, monkeypatch) -> Callable[..., Outcome]:
    """Run a command in this process: `cli("segment", path, "--classes", "cat")`."""

    def run(*args: object, stdin: bytes | None = None) -> Outcome:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(arg) for arg in args])
        out, err = capsysbinary.readouterr()
        return Outcome(int(left.value.code or 0), out, err.decode())

    return run


@pytest.fixture(scope="session")
def process_env(_own_cache) -> dict[str, str]:
    """The environment of a process that runs this checkout on one thread."""
    return {**os.environ, **ONE_THREAD}


@pytest.fixture(scope="session")
def warm_server(process_env):
    """The address of a server that forks processes in which everything is imported."""
    own = None if SERVER in os.environ else WarmServer(process_env)
    address = os.environ[SERVER] if own is None else own.address
    wait_for(address)
    yield address
    if own is not None:
        own.stop()


@pytest.fixture(scope="session")
def start_warm(warm_server, process_env) -> Callable[..., WarmProcess]:
    """As `warm`, for fixtures of a module: the folder is named, and who starts one ends it."""

    def start(*args: object, cwd: Path, **environment: str) -> WarmProcess:
        return WarmProcess(warm_server, list(map(str, args)), str(cwd), process_env | environment)

    return start


@pytest.fixture(scope="session")
def warm_python(warm_server, tmp_path_factory) -> Path:
    """A script that stands for the interpreter, and need not import torch."""
    python = tmp_path_factory.mktemp("bin") / "python"
    python.write_text(warm_script(warm_server))
    python.chmod(0o755)
    return python


@pytest.fixture(scope="session")
def start_torchrun(start_warm, warm_python) -> Callable[..., WarmProcess]:
    """As `torchrun`, for fixtures of a module."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    return partial(start_warm, *launcher, PYTHON_EXEC=str(warm_python))


@pytest.fixture
def warm(start_warm, tmp_path) -> Iterator[Callable[..., WarmProcess]]:
    """Start a process that need not import torch: `warm("-m", "clipseg_cli", ...)`, a script, or -c and code.

    It is one like any other, with a number, signals and streams of its own; only how it comes to be differs. How
    `clipseg` starts from nothing is what `run_cli` is for.
    """
    started = []

    def start(*args: object, **environment: str) -> WarmProcess:
        started.append(start_warm(*args, cwd=tmp_path, **environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def torchrun(start_torchrun, tmp_path) -> Callable[..., WarmProcess]:
    """Start a script, or -m and a module, in two ranks; launcher and ranks need not import torch."""
    return partial(start_torchrun, cwd=tmp_path)


@pytest.fixture
def run_cli(tmp_path, process_env) -> Callable[..., Outcome]:
    """Run `python -m clipseg_cli` in a process of its own, in a temporary folder; torch takes seconds there."""

    def run(*args: object, stdin: bytes | None = None, timeout: float = 60) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "clipseg_cli", *map(str, args)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            cwd=tmp_path,
            env=process_env,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    return run
