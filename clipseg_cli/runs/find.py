"""Which run to build on, for commands that are given nothing, and what an evaluation is called."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipseg_cli.config import EvalConfig, options_of
from clipseg_cli.data.corruptions import CORRUPTIONS, SEVERITIES, parse_corruptions
from clipseg_cli.errors import RunError
from clipseg_cli.outputs import safe_name
from clipseg_cli.runs.manifest import FILE, read_manifest
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clipseg_cli.runs.manifest import Manifest
    from clipseg_cli.types import Dataset

RUNS = Path("runs")
HOW = "make one with clipseg pseudolabel DATASET, or name a data set with --dataset ROOT"
GOES_ON = "the command that started it goes on with it"
LISTED = 3

Kind = Literal["pseudolabel", "train"]
"""A command that makes runs; also the name of their folder."""

_OF_A_PROTOCOL = ("short_side", "window", "stride", "templates", "background_threshold")
_OF_A_MODEL = ("pretrained",)
_SHORT = {
    "prompt_denoising": "pd",
    "key_smoothing": "ks",
    "guide": "",
    "saliency": "",
    "regions": "",
    "region_vote": "vote",
}
"""What stands before the value of an option in a name."""


def newest_run(
    runs: Path = RUNS, kind: Kind = "pseudolabel", purpose: str = "to evaluate"
) -> tuple[Path, str]:
    """The run of a command that was completed last, below a folder of runs, and why it was taken.

    Args:
        runs: folder of all runs.
        kind: of which command.
        purpose: for the message, "to evaluate".

    Raises:
        RunError: there is none.
    """
    found: list[tuple[float, Path]] = []
    unfinished, left_out = 0, []
    for path in sorted((runs / kind).glob(f"*/{FILE}")):
        try:
            manifest = read_manifest(path.parent)
        except RunError:
            left_out.append(f"{path.parent} (damaged, edited or of another version)")
            continue
        if manifest is None or manifest.identity.get("kind") != kind:
            continue
        if manifest.complete:
            found.append((path.stat().st_mtime, path.parent))
        else:
            unfinished += 1
            left_out.append(f"{path.parent} (not finished)")
    others = listed(left_out, LISTED)
    if not found:
        if left_out:
            raise RunError(
                f"there is no complete run in {runs / kind} {purpose}: {others}",
                hint=GOES_ON if unfinished else HOW,
            )
        raise RunError(f"there is no run in {runs / kind} {purpose}", hint=HOW)
    path = max(found)[1]
    others = f", without {others}" if left_out else ""
    if len(found) == 1:
        return path, f"the only complete run in {runs / kind}{others}"
    return path, f"the newest of {len(found)} complete runs in {runs / kind}{others}"


def has_runs(kind: Kind, runs: Path = RUNS) -> bool:
    """Whether a command has made any run, complete or not."""
    return any((runs / kind).glob(f"*/{FILE}"))


def config_of_run(folder: Path, given: Mapping[str, Any]) -> EvalConfig:
    """An evaluation of the model, method and data set of a pseudo-label run, on the data set's validation split.

    Args:
        folder: of the run.
        given: options that the user wrote; they win.

    Raises:
        RunError: no complete run of this version of clipseg, or its data set is gone.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise RunError(f"{folder} is not a run: it has no {FILE}", hint=HOW)
    if not manifest.complete:
        raise RunError(f"{folder} is not finished", hint=GOES_ON)
    fields = {field.name for field in dataclasses.fields(EvalConfig)}
    options = {key: value for key, value in options_of_run(manifest).items() if key in fields}
    if not Path(options["dataset"]).is_dir():
        raise RunError(
            f"the data set of {folder} is no longer at {options['dataset']}",
            hint="put it back, or name it with --dataset ROOT, with --model and --method as well",
        )
    # What the run set for its own model or protocol has no meaning for another.
    for chosen, own in (("model", _OF_A_MODEL), ("protocol", _OF_A_PROTOCOL)):
        if chosen in given:
            options = {key: value for key, value in options.items() if key not in own}
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


def options_of_run(manifest: Manifest) -> dict[str, Any]:
    """The options with which a pseudo-label run was made, as the fields of `PseudolabelConfig`.

    Its split is only among them where the data set has none of its own to score on.
    """
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
        "split": (data["split"] or None) if data["benchmark"] is None else None,
    }


def evaluation_name(dataset: Dataset, config: EvalConfig, predictions: Path | None = None) -> str:
    """Folder of an evaluation, as in "VOC2012-voc21-val-ViT-B-16-maskclip-sclip"; another one gets another name.

    Args:
        dataset: what is scored.
        config: of the evaluation.
        predictions: their folder, where they are scored and not a model.
    """
    parts = [dataset.root.resolve().name, dataset.benchmark, Path(dataset.split).stem]
    if config.student:
        student = Path(config.student).resolve()
        run = student.parent.name if student.name in ("best", "last") else ""
        # A run of ours is called after the data set already.
        parts = [] if (run or student.name).startswith(parts[0] or "") else parts
        parts += [run, student.name, *_corrupted(config)]
    elif predictions is None:
        parts += [config.model, Path(config.pretrained or "").stem, config.method_name]
        parts += [*_differing(config, dataset.classes.background is not None), *_corrupted(config)]
    else:
        folder = predictions.resolve()
        own = folder.parent.name if folder.name == "labels" else folder.name
        # A run of ours is called after data set and split already.
        parts = [own] if own.startswith(parts[0] or own) else [*parts, own]
    return "-".join(safe_name(part) for part in parts if part)


def _differing(config: EvalConfig, background: bool) -> Iterator[str]:
    """The options that make other labels, where they are not the defaults, as in "pd0.5"."""
    if config.protocol != EvalConfig.protocol:
        yield config.protocol
    if config.quality:
        yield config.quality
    for name, value in config.refinements(background).items():
        text = Path(value).stem.replace("+", "-plus") if isinstance(value, str) else f"{value:g}"
        alone = value is True or value == options_of(EvalConfig)[name].bare
        yield _SHORT.get(name, name) + ("" if alone else text)
    for name, number in (
        ("short", config.short_side),
        ("window", config.window),
        ("stride", config.stride),
        ("bg", config.background_threshold),
    ):
        if number is not None:
            yield f"{name}{number:g}"
    if config.templates is not None:
        yield Path(config.templates).stem


def _corrupted(config: EvalConfig) -> Iterator[str]:
    names = parse_corruptions(config.corrupt)
    if names:
        yield "corrupted" if len(names) == len(CORRUPTIONS) else "-".join(names)
        if config.severity != SEVERITIES:
            yield "severity" + "".join(map(str, config.severity))
        if config.seed:
            yield f"seed{config.seed}"
