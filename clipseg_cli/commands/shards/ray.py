"""Shards on a Ray cluster: Ray Data keeps a pool of workers, hands out shards and repeats those of a lost worker.

Only this file imports Ray. What workers label comes back to this process, which alone writes: the machines need no
common disk for the results, and a shard is there whole or not at all.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.shards.shard import Engine, ShardResult
from clipseg_cli.errors import ClipsegError, ClusterError, UsageError
from clipseg_cli.utils.device import pick_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from clipseg_cli.commands.shards.labeller import ShardLabeller
    from clipseg_cli.commands.shards.shard import Description, Shard, ShardJob

TRIES = 3
"""How often a shard is begun again whose worker was lost: one that ends every worker must not go on for ever."""

PATIENCE = 10.0
"""Seconds in which the address of a cluster has to answer."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ parts write to stderr whatever Python's logging says
}


@contextmanager
def ray_engine(job: ShardJob, actors: int | None) -> Iterator[Engine]:
    """Workers on the cluster that RAY_ADDRESS names or this machine belongs to, else on this machine alone.

    Args:
        job: what all shards have in common.
        actors: most workers, each with a model of its own; None for one on each GPU, or on each machine without.

    Raises:
        UsageError: Ray is not installed.
        ClusterError: the cluster cannot be reached, or its workers cannot begin.
        ClipsegError: what a worker finds wrong with options or model.
    """
    ray = _import_ray()
    began = not ray.is_initialized()
    try:
        if began:
            _connect(ray)
        wants = _resources(ray, job, actors)
        pool = _Pool(ray, job, *wants)
        yield Engine(pool.describe(), pool.label, pool.notes)
    finally:
        if began:
            ray.shutdown()


class _Pool:
    def __init__(self, ray: ModuleType, job: ShardJob, count: int, resources: dict[str, float]) -> None:
        self.ray, self.count, self.resources = ray, count, resources
        self.device = "auto" if job.config.device == "cuda" else job.config.device
        self.work = pickle.dumps((job, str(Path.cwd())))
        self.notes: tuple[str, ...] = ()

    def describe(self) -> Description:
        """What a worker says of itself, with its model loaded; this process says it where it has the same device.

        Raises:
            ClusterError: none could begin.
            ClipsegError: options or model are wrong.
        """
        if ("num_gpus" in self.resources) == (pick_device(self.device).type == "cuda"):
            return _labeller(self.work).describe()
        task = self.ray.remote(max_retries=TRIES, **self.resources)(_describe)
        try:
            found: Description | ClipsegError = pickle.loads(self.ray.get(task.remote(self.work)))
        except self.ray.exceptions.RayError as error:
            raise ClusterError(
                f"a worker of the Ray cluster could not begin: {_reason(error)}",
                hint="clipseg must be installed on each machine, in the same version",
            ) from error
        if isinstance(found, ClipsegError):
            raise found
        return found

    def label(self, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        """Shards as they are finished; one that ended its workers again and again is said to have failed.

        Raises:
            ClusterError: the cluster was lost.
        """
        data = self.ray.data
        rows = data.from_items([pickle.dumps(shard) for shard in shards], override_num_blocks=len(shards))
        with warnings.catch_warnings():  # it is to lose the limit of tries in 2.64, before which it is pinned
            warnings.simplefilter("ignore")
            results = rows.map(
                _Worker,
                fn_constructor_args=(self.work,),
                compute=data.ActorPoolStrategy(min_size=1, max_size=min(self.count, len(shards))),
                max_task_retries=TRIES,
                **self.resources,
            )
        missing = {shard.name for shard in shards}
        try:
            for row in results.iter_rows():
                result: ShardResult = pickle.loads(row["result"])
                missing.discard(result.shard)
                yield result
        except self.ray.exceptions.RayError as error:
            raise ClusterError(
                f"the Ray cluster was lost: {_reason(error)}", hint="the same command goes on with the rest"
            ) from error
        for name in sorted(missing):
            yield ShardResult(
                name,
                error=f"{name}: no worker came to the end of it, {TRIES + 1} times in a row",
                hint="not enough memory? Try a smaller --batch-size or --shard-size",
            )


class _Worker:
    """A `ShardLabeller` in a process of Ray's."""

    def __init__(self, work: bytes) -> None:
        self._labeller = _labeller(work)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard: Shard = pickle.loads(row["item"])
        try:
            result: ShardResult = self._labeller(shard)
        except Exception as error:  # such as too little memory: Ray would drop the shard, and say nothing
            result = ShardResult(shard.name, error=f"{shard.name}: {type(error).__name__}: {_reason(error)}")
        return {"result": pickle.dumps(result)}


def _labeller(work: bytes) -> ShardLabeller:
    from clipseg_cli.commands.shards.labeller import ShardLabeller  # torch loads here, in the worker

    job, folder = pickle.loads(work)
    with suppress(OSError):  # paths in options are those of the command, where this machine has them
        os.chdir(folder)
    return ShardLabeller(job)


def _describe(work: bytes) -> bytes:
    try:
        return pickle.dumps(_labeller(work).describe())
    except ClipsegError as error:
        return pickle.dumps(error)


def _import_ray() -> ModuleType:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(
            f"--engine ray needs the library ray ({error})", hint='pip install "clipseg-cli[ray]"'
        ) from error
    for part in ("ray", "ray.data"):
        logging.getLogger(part).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # the others still get done
    return ray


def _connect(ray: ModuleType) -> None:
    """Join a cluster, or begin one on this machine.

    Raises:
        ClusterError: RAY_ADDRESS leads nowhere, or no cluster can be begun.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(address)
        with _muted():
            ray.init(logging_level=logging.CRITICAL, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"at {address} cannot be reached" if address else "cannot be begun on this machine"
        raise ClusterError(
            f"a Ray cluster {where}: {_reason(error)}",
            hint="is RAY_ADDRESS right, and does 'ray status' answer there?" if address else "",
        ) from error


def _knock(address: str) -> None:
    """Make sure that somebody listens at HOST:PORT, since Ray itself goes on trying for minutes.

    Raises:
        OSError: nobody does, or not within seconds; names like "auto" are left to Ray.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing reaches stderr, not even from C++: it says there that it says nothing. What is wrong is raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _resources(ray: ModuleType, job: ShardJob, actors: int | None) -> tuple[int, dict[str, float]]:
    """Most workers, and what each of them asks of Ray.

    Raises:
        UsageError: a GPU is asked for by number, or there is none.
    """
    device, total = job.config.device, ray.cluster_resources()
    if ":" in device:
        raise UsageError(f"--device {device}: Ray gives each worker a GPU", hint="say --device cuda")
    gpus = int(total.get("GPU", 0)) if device in ("auto", "cuda") else 0
    if device == "cuda" and not gpus:
        raise UsageError("no machine of the Ray cluster has a GPU", hint="leave out --device")
    if gpus:
        return actors or gpus, {"num_cpus": 1, "num_gpus": 1}
    machines = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    count = actors or len([cpus for cpus in machines if cpus])
    # A worker keeps all its cores busy by itself, and holds a model: few large ones need less memory.
    return count, {"num_cpus": max(1, min(int(max(machines)), int(sum(machines)) // count))}


def _reason(error: BaseException) -> str:
    """The last line of what Ray says; above it are tracebacks of other processes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
