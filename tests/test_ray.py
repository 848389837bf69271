"""`clipseg pseudolabel --engine ray` on a local cluster of two workers: same bytes, lost workers, bad input."""

from __future__ import annotations

import builtins
import dataclasses
import os
import pickle
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest
from run_folders import contents, labels_in, make_photos, times
from shard_sources import write_tar

from clipseg_cli.commands.pseudolabel_shards import open_sharded_run
from clipseg_cli.commands.shards.ray import _describe
from clipseg_cli.commands.shards.shard import Shard, ShardJob
from clipseg_cli.config import PseudolabelConfig
from clipseg_cli.data.tars import Tar
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.dataset import open_data
from clipseg_cli.types import RemoteSource, Sample

if not all(
    map(find_spec, ("ray", "pyarrow", "fsspec"))
):  # to import them takes every worker of pytest seconds
    pytest.skip("needs the libraries of ray[data], of the extra [ray]", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray reads its own old settings
WORDS = ("--classes", "cat,dog")
OPTIONS = (
    "--model",
    "emoji",
    "--templates",
    "single",
    "--short-side",
    "64",
    "--batch-size",
    "4",
    "--name",
    "run",
)
"""The bundled model, since workers know nothing of what a test registers; groups of two images."""

RAY = ("--engine", "ray", "--shard-size", "2", "--actors", "2")


@pytest.fixture(scope="module")
def cluster():
    """Two cores and nothing else; the command joins it, since this process has joined it."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "RAY_worker_niceness", "0"
        )  # workers of Ray give way to all others, and so to other tests
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twelve photos in six groups; one of them is none."""
    root = make_photos(tmp_path_factory.mktemp("ray") / "photos", 12)
    (root / "05.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def run(cli, tmp_path):
    return lambda source, *args: cli("pseudolabel", source, *WORDS, *OPTIONS, "--out", tmp_path, *args)


def test_a_worker_that_is_killed_costs_its_shard_and_no_byte(run, cluster, photos, tmp_path):
    """The plain command, and Ray with a worker killed after its first shard: the same run folder, byte by byte."""
    plain = run(photos, "--name", "plain")
    assert plain.code == 1 and plain.err.count("Error: ") == 2
    config = PseudolabelConfig(
        dataset=str(photos),
        classes="cat,dog",
        model="emoji",
        templates="single",
        short_side=64,
        batch_size=4,
        engine="ray",
        shard_size=2,
        actors=2,
        out=tmp_path,
        name="run",
    )
    seen: list[str] = []
    killed = set()
    with open_sharded_run(config) as sharded:
        assert len(sharded.output.shards) == 6
        for result, records in sharded:
            assert not result.error
            assert len(records) == 2
            if not seen:
                os.kill(result.pid, signal.SIGKILL)
                killed.add(result.pid)
            seen.append(result.shard)
            last = result.pid
        assert sorted(seen) == [f"shard {i} of 6" for i in range(1, 7)]  # each once
        assert last not in killed
        assert sharded.finish() is not None
        assert list(sharded.failures) == ["05"]
    assert contents(tmp_path / "run") == contents(tmp_path / "plain")


def test_a_run_goes_on_in_either_engine(run, cluster, photos, tmp_path):
    """Begun by the plain command; what stands beside a damaged image stays until that is mended."""
    source, folder = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, source)
    assert run(source).code == 1
    before, written = contents(folder), times(folder / "labels")
    for name in ("00", "07"):
        (folder / "labels" / f"{name}.png").unlink()
    one = (*RAY, "--actors", "1", "--verbose")
    done = run(source, *one)
    assert done.code == 1 and done.err.count(f"Error: {source}/05.png: not an image") == 1
    assert "7 images were done before" in done.err
    for said in (
        "shard 1 of 3: 2 images by process",
        "shard 2 of 3: 1 image by",
        "shard 3 of 3: 2 images by",
    ):
        assert said in done.err
    assert contents(folder) == before
    assert times(folder / "labels")["06.png"] == written["06.png"]  # it goes through the network with 05

    shutil.copy(source / "04.png", source / "05.png")
    assert run(source, "--name", "plain").code == 0
    done = run(source, *one)
    assert done.code == 0, done.err
    assert "11 images were done before" in done.err and "shard 1 of 1: 2 images by process" in done.err
    assert contents(folder) == contents(tmp_path / "plain")
    assert done.out.splitlines()[0] == "12 images, share of all pixels"
    done = run(source, *one, "--min-confidence", "0.5")
    assert done.code == 1 and "was made with other options: --min-confidence" in done.err


def test_tars_come_out_as_in_one_process(run, cluster, photos, tmp_path):
    files = {path.name: path.read_bytes() for path in sorted(photos.glob("*.png"))}
    whole = write_tar(tmp_path / "0.tar", files).read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(whole) // 2])
    for name, engine in (("tars", (*RAY, "--actors", "1")), ("tars-here", ())):
        done = run(f"{tmp_path}/{{0,1}}.tar", *engine, "--name", name)
        assert done.code == 1
        assert f"Error: {tmp_path}/1.tar is no whole tar" in done.err
        assert f"Error: {tmp_path}/0.tar: 05.png: not an image that can be read" in done.err
        assert "Traceback" not in done.err
    assert contents(tmp_path / "tars") == contents(tmp_path / "tars-here")
    assert (tmp_path / "tars" / "0.tar").is_file() and not (tmp_path / "tars" / "1.tar").exists()


def test_ray_itself_says_nothing(warm, photos, tmp_path):
    """In a process of its own, which begins the cluster; parts of Ray write past Python's streams."""
    two = tmp_path / "two"
    two.mkdir()
    for name in ("00.png", "01.png"):
        shutil.copy(photos / name, two)
    done = warm(
        *("-m", "clipseg_cli", "pseudolabel", two, *WORDS, *OPTIONS, *RAY, "--actors", "1", "--quiet"),
        *("--out", tmp_path / "out"),
        RAY_worker_niceness="0",
    )
    out, err = done.communicate(timeout=500)
    assert (done.returncode, out, err) == (0, b"", b"")
    assert set(labels_in(tmp_path / "out" / "run")) == {"00", "01"}


def test_a_worker_says_what_it_labels_with_or_what_is_wrong(photos, tmp_path):
    """What this process asks a worker where that one has a GPU and it has none."""
    config = PseudolabelConfig(dataset=str(photos), classes="cat", model="emoji", templates="single")
    dataset = dataclasses.replace(open_data(config, "label")[0], samples=())
    said = pickle.loads(_describe(pickle.dumps((ShardJob(config, dataset), str(Path.cwd())))))
    assert said.model == "emoji / bundled" and said.identity["classes"][1]["name"] == "cat"
    wrong = dataclasses.replace(config, method="nothing")
    error = pickle.loads(_describe(pickle.dumps((ShardJob(wrong, dataset), str(tmp_path / "gone")))))
    assert isinstance(error, UsageError) and "unknown method 'nothing'" in error.message


def test_what_goes_to_workers_can_be_pickled():
    source = RemoteSource(None, PurePosixPath("a"), "a.png", address="s3://bucket/a.png")
    shard = Shard("one", (Sample(source),), {"a": 3}, Tar("s3://bucket/0.tar", PurePosixPath("0.tar")))
    back = pickle.loads(pickle.dumps(shard))
    assert back == shard and str(back.samples[0].source) == "s3://bucket/a.png"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--device", "cuda:1"], "--device cuda:1: Ray gives each worker a GPU"),
        (["--device", "cuda"], "no machine of the Ray cluster has a GPU"),
        (["--shard", "1/2"], "--engine ray shares out the work itself"),
        (["--actors", "0"], "--actors: 0 is not between 1 and"),
        (["--engine", "rya"], "Hint: did you mean 'ray'"),
        (["--model", "nothing"], "unknown model 'nothing'"),
    ],
)
def test_usage_mistakes_make_no_folder(run, cluster, photos, tmp_path, args, said):
    done = run(photos, *RAY, *args)
    assert done.code == 2, done.err
    assert said in done.err and "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_memory_is_no_place_for_workers(run):
    import fsspec

    fsspec.filesystem("memory").pipe("/ray/a.png", b"x")
    done = run("memory://ray", *RAY)
    fsspec.filesystem("memory").store.clear()
    assert done.code == 2
    assert "memory:// is this process's own, and no worker of Ray can read it" in done.err


def test_without_ray_the_extra_is_named(run, photos, monkeypatch):
    found = builtins.__import__

    def without_ray(name, *args):
        if name.split(".")[0] == "ray":
            raise ImportError("No module named 'ray'")
        return found(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    done = run(photos, *RAY)
    assert done.code == 2
    assert done.err.splitlines() == [
        "Error: --engine ray needs the library ray (No module named 'ray')",
        'Hint: pip install "clipseg-cli[ray]"',
    ]


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:9", "Connection refused"), ("ray://[::1]:9", ""), ("auto", "no cluster here")],
)
def test_a_cluster_that_does_not_answer_is_one_sentence(run, photos, monkeypatch, address, why):
    """Ray, which would go on trying for minutes, is not asked where nobody listens."""
    import ray

    def refuse(**_):
        assert address == "auto"
        raise ConnectionError("no cluster here\n")

    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    done = run(photos, *RAY)
    assert done.code == 1
    first, second = done.err.splitlines()
    assert first.startswith(f"Error: a Ray cluster at {address} cannot be reached: ") and why in first
    assert second == "Hint: is RAY_ADDRESS right, and does 'ray status' answer there?"
