"""Shared fixtures: a tiny CLIP with random weights, pictures, and the command line in and out of process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import clipseg_cli
from clipseg_cli.cli.main import main

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background: Ctrl-C could not be tested
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; before torch asks how many there are
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """The environment of a process that runs this checkout, installed or not, on one thread."""
    root = str(Path(clipseg_cli.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


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
