"""`clipseg eval --methods`: a data set, and who is compared on it, checked and made ready."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import ClipsegError, UsageError
from clipseg_cli.evaluation.comparison import Candidate, Comparison
from clipseg_cli.evaluation.scoring import results_folder
from clipseg_cli.inference.auxiliary import asks_guide
from clipseg_cli.inference.dataset import open_data, unseen_ids
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.regions import check_regions
from clipseg_cli.methods import METHODS, find_method
from clipseg_cli.regions import REGIONS
from clipseg_cli.utils.distributed import process_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.config import EvalConfig, Protocol
    from clipseg_cli.types import Dataset

ALL = "all"


def open_comparison(config: EvalConfig, methods: Sequence[str], models: Sequence[str]) -> Comparison:
    """Check every option, find the data set, load every model once.

    Args:
        config: the options that all have in common.
        methods: names, or "all".
        models: names, each with a tag or a file or none, as in "ViT-B-16=openai"; empty for that of the options.

    Raises:
        ClipsegError: anything wrong with options, data set or models; or nobody can take part.
    """
    if process_share().count > 1:
        raise UsageError(
            "--methods compares speeds and runs in one process", hint="start it without torchrun"
        )
    dataset, protocol = open_data(config, "score")
    unseen = unseen_ids(dataset, config.unseen)
    names = METHODS.names() if ALL in methods else list(dict.fromkeys(methods))
    for name in names:
        find_method(name)
    strange = [text for text in config.hyperparameters if _method_of(text) not in (None, *map(_base, names))]
    if strange:
        raise UsageError(
            f"--set {strange[0]} does nothing: {_method_of(strange[0])} is not among --methods",
            hint="leave it out, or add the method",
        )
    notes, candidates = [], list[Candidate]()
    out = results_folder(dataclasses.replace(config, method="several"), dataset)
    for model in models or [config.model]:
        architecture, _, tag = model.partition("=")
        own = dataclasses.replace(config, model=architecture, pretrained=tag or config.pretrained)
        able, unable = _candidates_of(own, names, dataset, protocol, strict=ALL not in methods)
        candidates += able
        notes += [f"{name} on {architecture} takes no part: {why.message}" for name, why in unable.items()]
    if not candidates:
        raise UsageError("no method can read this model", hint=notes[0] if notes else "")
    return Comparison(config, dataset, protocol, candidates, notes=notes, unseen=unseen, out=out)


def _candidates_of(
    config: EvalConfig, names: Sequence[str], dataset: Dataset, protocol: Protocol, *, strict: bool
) -> tuple[list[Candidate], dict[str, ClipsegError]]:
    """The methods that can read one model, which is loaded once, and why the others cannot.

    Raises:
        ClipsegError: the model itself cannot be loaded, or, if strict, a method cannot read it.
    """
    able, unable, plans = [], dict[str, ClipsegError](), []
    voting = config.region_vote or any(_owner(text) == "region_vote" for text in config.hyperparameters)
    if not voting and all(find_method(name).read_regions is None for name in names):
        check_regions(config.regions, ())
    for name in names:
        method = find_method(name)
        settings = _settings_of(name, config.hyperparameters)
        own: dict[str, Any] = {"method": name, "guide": config.guide if asks_guide(config, method) else ""}
        if not voting and method.read_regions is None:  # it has no use for them
            own["regions"] = ""
            settings = tuple(text for text in settings if _owner(text) not in REGIONS.names())
        try:
            changed = dataclasses.replace(config, **own, hyperparameters=settings)
            plans.append(plan_clip(changed, protocol))
        except ClipsegError as error:
            if strict:
                raise
            unable[name] = error
    backbone = plans[0].backbone() if plans else None
    for plan in plans:
        assert backbone is not None
        chosen: Any = plan.config
        try:
            predictor = plan.predictor(backbone, dataset.classes)
        except ClipsegError as error:
            if strict:
                raise
            unable[chosen.method] = error
            continue
        able.append(Candidate(chosen, backbone, predictor, plan.templates))
    return able, unable


def _base(name: str) -> str:
    return name.replace("-", "_").partition(":")[0]


def _owner(text: str) -> str:
    """The method or refinement whose hyper-parameter a text of `--set` sets."""
    return _base(text.partition("=")[0].partition(".")[0].strip())


def _method_of(text: str) -> str | None:
    """The method that a text of `--set` is about; None where it is about something else."""
    owner = _owner(text)
    return owner if owner in METHODS.names() else None


def _settings_of(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """What `--set` says of one method, and of refinements, which all have in common."""
    return tuple(text for text in texts if _method_of(text) in (None, _base(name)))
