"""Finding the newest run, for commands that are given nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import EvalConfig, PseudolabelConfig
from clipseg_cli.errors import RunError
from clipseg_cli.pipelines.manifest import FILE, read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipseg_cli.pipelines.manifest import Manifest

RUNS = Path("runs")
HOW = "make one with clipseg pseudolabel DATASET, or name a data set with --dataset ROOT"


def newest_run(runs: Path = RUNS) -> tuple[Path, str]:
    """The pseudo-label run that was completed last, below a folder of runs, and why it was taken.

    Raises:
        RunError: there is none.
    """
    found: list[tuple[float, Path]] = []
    unfinished, unreadable = [], []
    for path in sorted((runs / PseudolabelConfig.out.name).glob(f"*/{FILE}")):
        try:
            manifest = read_manifest(path.parent)
        except RunError:
            unreadable.append(path.parent)
            continue
        if manifest is None or manifest.identity.get("kind") != "pseudolabel":
            continue
        if manifest.complete:
            found.append((path.stat().st_mtime, path.parent))
        else:
            unfinished.append(path.parent)
    if not found:
        if unfinished:
            raise RunError(
                f"{unfinished[-1]} is not finished, and there is no other run in {runs}",
                hint="the command that started it goes on with it",
            )
        if unreadable:
            raise RunError(f"{unreadable[-1]} cannot be used, and there is no other run in {runs}", hint=HOW)
        raise RunError(f"there is no run in {runs} to evaluate", hint=HOW)
    path = max(found)[1]
    left_out = [f"{len(unfinished)} unfinished"] if unfinished else []
    left_out += [f"{len(unreadable)} unreadable"] if unreadable else []
    others = f", without {' and '.join(left_out)}" if left_out else ""
    if len(found) == 1:
        return path, f"the only complete run in {runs}{others}"
    return path, f"the newest of {len(found)} complete runs in {runs}{others}"


def config_of_run(folder: Path, given: Mapping[str, Any]) -> EvalConfig:
    """An evaluation of the model, method and data set of a pseudo-label run, on the data set's validation split.

    Args:
        folder: of the run.
        given: options that the user wrote; they win.

    Raises:
        RunError: no complete run of this version of clipseg.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise RunError(f"{folder} is not a run: it has no {FILE}", hint=HOW)
    if not manifest.complete:
        raise RunError(f"{folder} is not finished", hint="the command that started it goes on with it")
    fields = {field.name for field in dataclasses.fields(EvalConfig)}
    options = {key: value for key, value in _options(manifest).items() if key in fields}
    return EvalConfig(**{**options, **given})


def config_of_labels(predictions: str, given: Mapping[str, Any]) -> EvalConfig:
    """An evaluation of the labels that a run made, against the ground truth of the split that it labelled.

    Raises:
        RunError: they lie in no run folder, so nothing says what they belong to.
    """
    for folder in (Path(predictions), Path(predictions).parent):
        if (folder / FILE).is_file():
            manifest = read_manifest(folder)
            if manifest is not None:
                return config_of_run(folder, {"split": manifest.identity["dataset"]["split"], **given})
    raise RunError(f"nothing says which data set {predictions} belongs to", hint="add --dataset ROOT")


def _options(manifest: Manifest) -> dict[str, Any]:
    identity = manifest.identity
    data = identity["dataset"]
    options = dict(identity["options"])
    options["unseen"] = ",".join(options.get("unseen", ()))
    if data["benchmark"] is not None:
        options["classes"], options["background"] = "", "auto"
    # Weights that a run was given as a file are found again only where that file still is.
    return {
        **options,
        "dataset": data["root"],
        "benchmark": data["benchmark"],
        "method": identity["method"],
        "split": data["split"] if data["benchmark"] is None else None,
    }
