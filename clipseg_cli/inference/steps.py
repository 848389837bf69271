"""The steps between what the network says of the parts of an image and its labels, in the order of execution."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import OF_A_CLIP, InferenceConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.banks import memory_kind
from clipseg_cli.inference.complete import complete
from clipseg_cli.inference.hyperparameters import chosen_method, read_settings, require_used, with_brought
from clipseg_cli.inference.regions import check_regions
from clipseg_cli.memory.files import LABELS, REGIONS
from clipseg_cli.methods import find_method
from clipseg_cli.outputs import format_names
from clipseg_cli.refinements import REFINEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from clipseg_cli.config import Protocol
    from clipseg_cli.inference.hyperparameters import Chosen
    from clipseg_cli.types import Context, LogitMaps, Refinement, Scope, WindowBatch, Words

OFF = (None, False, 0, "", "none")
"""Values of an option that leave its refinement out."""

AFTER_MERGING: tuple[Scope, ...] = ("region", "pixel", "image")
"""Scopes that come behind the grid of patches, in this order; "labels" comes behind the decision."""


@dataclass(frozen=True)
class Step:
    """A refinement that is on.

    Attributes:
        name: of its file.
        value: of its option.
        hyperparameters: those that differ from the defaults of its functions.
    """

    name: str
    refinement: Refinement
    value: Any = True
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, maps: LogitMaps, context: Context) -> LogitMaps:
        """Maps of an image, or of one of its windows, refined."""
        assert self.refinement.refine is not None  # of scope "window", which `refine_windows` is called for
        return self.refinement.refine(maps, context, self.value, **self._of(self.refinement.refine))

    def refine_windows(self, windows: WindowBatch, words: Words) -> Tensor:
        """Logits [B, Q, h, w] of windows, right behind the network."""
        assert self.refinement.refine_windows is not None
        return self.refinement.refine_windows(windows, words, **self._of(self.refinement.refine_windows))

    def spread(self, maps: Sequence[LogitMaps], context: Context) -> list[LogitMaps]:
        """Maps of all windows of an image, refined together."""
        assert self.refinement.spread is not None
        return self.refinement.spread(maps, context, self.value, **self._of(self.refinement.spread))

    def relabel(self, labels: Tensor, confidence: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Labels [H, W] of an image and how sure they are, once they are decided."""
        assert self.refinement.relabel is not None
        own = self._of(self.refinement.relabel)
        return self.refinement.relabel(labels, confidence, context, self.value, **own)

    def observe(self, windows: WindowBatch, words: Words) -> Tensor:
        """What is noted of each window: [B, ...]."""
        assert self.refinement.observe is not None
        return self.refinement.observe(windows, words, **self._of(self.refinement.observe))

    def _of(self, function: Any) -> dict[str, Any]:
        known = function.__kwdefaults__ or {}
        return {name: value for name, value in self.hyperparameters.items() if name in known}

    def describe(self) -> dict[str, Any]:
        """For the record beside the results."""
        return {"name": self.name, "value": self.value, **self.hyperparameters}


@dataclass(frozen=True)
class Steps:
    """All steps that are on, sorted into the places where they run.

    Attributes:
        window: right behind the network, batch by batch.
        graph: on the patches of all windows of an image, before these are merged.
        observing: those that note something of each window for later.
        grid: on the patches, of each window or of the merged image.
        full: behind the grid, on regions, pixels and the whole image.
        labels: behind the decision.
    """

    window: tuple[Step, ...] = ()
    graph: tuple[Step, ...] = ()
    observing: tuple[Step, ...] = ()
    grid: tuple[Step, ...] = ()
    full: tuple[Step, ...] = ()
    labels: tuple[Step, ...] = ()

    @classmethod
    def of(cls, steps: list[Step]) -> Steps:
        """Sort steps by scope, and by order within a scope."""

        def scope(name: Scope) -> list[Step]:
            own = [step for step in steps if step.refinement.scope == name]
            return sorted(own, key=lambda step: step.refinement.order)

        graph, grid = scope("graph"), scope("grid")
        return cls(
            tuple(scope("window")),
            tuple(graph),
            tuple(step for step in steps if step.refinement.observe is not None),
            tuple(grid),
            tuple(step for name in AFTER_MERGING for step in scope(name)),
            tuple(scope("labels")),
        )

    def around_merging(self, refines_windows: bool) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
        """The steps of each window by itself, and those of the merged image.

        Args:
            refines_windows: as in the published order; else windows are merged first.
        """
        return (self.grid, self.full) if refines_windows else ((), (*self.grid, *self.full))

    def __iter__(self) -> Iterator[Step]:
        return iter((*self.window, *self.graph, *self.grid, *self.full, *self.labels))

    @property
    def together(self) -> bool:
        """Whether all steps behind the batch of windows take several images of one size at once."""
        own = (*self.graph, *self.grid, *self.full, *self.labels)
        return all(step.refinement.together for step in own)

    def need(self, what: str) -> bool:
        """Whether any step has that in `Refinement.needs`."""
        return any(what in step.refinement.needs for step in self)


def values_of(
    config: InferenceConfig, protocol: Protocol, chosen: Chosen, saliency: str, *, guided: bool
) -> dict[str, Any]:
    """Name of a refinement -> value of its option: what `--set` says, else its own option, else the protocol.

    Args:
        config: the user's options.
        protocol: as it is on the benchmark.
        chosen: what `--set` says.
        saliency: what finds the foreground, once "auto" is resolved.
        guided: whether the method has an auxiliary network, which may know what objects are.
    """
    own, kind = {}, memory_kind(config.memory)
    for name in REFINEMENTS.names():
        option, *values = REFINEMENTS.get(name).chosen_by or (name,)
        value = getattr(config, option, None)
        value = values[0] if values and value is True else value  # as older records have it
        own[name] = value if not values or value in values else None
    return {
        **own,
        "memory": config.memory if kind == LABELS else None,
        "region_memory": config.memory if kind == REGIONS else None,
        "area_threshold": protocol.area_threshold,
        "objectness": guided,
        "saliency": saliency,
        **chosen.values,
    }


def plan_steps(
    values: Mapping[str, Any], hyperparameters: Mapping[str, Mapping[str, Any]], *, background: bool
) -> Steps:
    """The steps that are on.

    Args:
        values: name of a refinement -> value of its option; those that are off are left out.
        hyperparameters: name of a refinement -> its hyper-parameters.
        background: whether one of the classes is the background; steps that need one are left out without it.
    """
    steps = []
    for name in REFINEMENTS.names():
        refinement = REFINEMENTS.get(name)
        possible = background or "background" not in refinement.needs
        if values.get(name) not in OFF and possible:
            steps.append(Step(name, refinement, values[name], hyperparameters.get(name, {})))
    return Steps.of(steps)


def read_chosen(
    config: InferenceConfig,
    protocol: Protocol,
    method: str,
    brought: Mapping[str, str] = MappingProxyType({}),
    asking: Sequence[str] = (),
) -> Chosen:
    """What `--set` says, once it is known to fit all other options.

    Args:
        config: the options in force.
        protocol: as it is on the benchmark.
        method: name of the method in use; "" for a student.
        brought: hyper-parameters that were chosen for the user; those of what takes no part do nothing.
        asking: who asks for regions beside the steps.

    Raises:
        UsageError: an unknown name, a value out of range, something said twice, or a hyper-parameter that does nothing;
            or what `check_regions` says.
    """
    switches = {
        name: False if getattr(InferenceConfig, name) is None else getattr(InferenceConfig, name)
        for name in REFINEMENTS.names()
        if hasattr(InferenceConfig, name)
    }
    chosen = read_settings(config.hyperparameters, switches)
    for name in chosen.values:
        if name in switches and getattr(config, name) not in (None, switches[name]):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"--set {name}=... and {option} say the same", hint="leave out one of them")
    for name in chosen.values:
        needs = {"keys", "values", "whole", "attention"} & set(REFINEMENTS.get(name).needs)
        if not method and (needs or name in OF_A_CLIP):
            raise UsageError(
                f"--set {name}=... is about a CLIP; a student is used as it was trained",
                hint="leave it out, or leave out --student",
            )
    saliency = config.saliency_name()
    values = values_of(config, protocol, chosen, saliency, guided=True)
    on = [step.name for step in plan_steps(values, chosen.hyperparameters, background=True)]
    if "key_smoothing" in on and method and find_method(method).pyramid is not None:
        raise UsageError(
            f"--method {method} has no keys for --key-smoothing: each patch is an image of its own",
            hint="leave out --key-smoothing, or choose another --method",
        )
    graph = [name for name in on if REFINEMENTS.get(name).scope == "graph"]
    if graph and method and find_method(method).pyramid is not None:
        raise UsageError(
            f"--method {method} has no patches for --propagate {config.propagate}: it sees crops of several sizes",
            hint="take --propagate pearl, or choose another --method",
        )
    if "freecp" in on and method and (find_method(method).pyramid or find_method(method).guided):
        raise UsageError(
            f"--method {method} has no patches of its own for --presence freecp",
            hint="take --presence alone, or choose another --method",
        )
    if "region_memory" in on and "key_smoothing" in on:
        raise UsageError(
            "--key-smoothing makes probabilities, and --memory of unlabelled images mixes cosines",
            hint="leave out one of them",
        )
    options = [
        REFINEMENTS.get(name).chosen_by or (name,) for name in on if "regions" in REFINEMENTS.get(name).needs
    ]
    users = [*asking, *(f"--{option[0].replace('_', '-')}" for option in options)]
    if method and find_method(method).read_regions is not None:
        users.append(f"--method {method}")
    used = (*on, check_regions(config.regions, users), *format_names(config.format_texts))
    require_used(chosen, method, used)
    return with_brought(chosen, brought, method, used)


def list_steps(config: InferenceConfig, protocol: Protocol, *, background: bool) -> list[dict[str, Any]]:
    """All that happens to an image, in the order of execution: name, scope, what it does.

    Args:
        config: the user's options.
        protocol: as it is on the benchmark.
        background: whether one of the classes is the background.

    Raises:
        ClipsegError: as `complete` and `read_chosen`.
    """
    whole = complete(config, protocol)
    config = whole.config
    chosen = read_chosen(config, protocol, config.method_name, whole.hyperparameters)
    method = chosen_method(config.method_name, chosen)
    saliency = config.saliency_name(background)
    values = values_of(config, protocol, chosen, saliency, guided=bool(config.guide))
    steps = plan_steps(values, chosen.hyperparameters, background=background)
    published = protocol.stitch == "pixel" and method.pyramid is None

    def rows(own: Iterable[Step]) -> list[dict[str, Any]]:
        return [
            {
                "name": step.name,
                "scope": step.refinement.scope,
                "meaning": step.refinement.summary,
                "settings": {"value": step.value, **step.hyperparameters},
            }
            for step in own
        ]

    def fixed(name: str, meaning: str) -> dict[str, Any]:
        return {"name": name, "scope": "", "meaning": meaning, "settings": {}}

    cut = "square crops of several sizes" if method.pyramid else "overlapping windows"
    merge = fixed(
        "merge", "crops of all sizes are put together" if method.pyramid else "windows are averaged"
    )
    before, after = steps.around_merging(published)
    decide = fixed("decide", "upsampling, softmax and argmax, tile by tile")
    method_row = fixed(config.method_name, method.summary)
    method_row["settings"] = dict(chosen.of(config.method_name.replace("-", "_").partition(":")[0]))
    first = [fixed("cut", cut), method_row, *rows((*steps.window, *steps.graph, *before)), merge]
    return [*first, *rows(after), decide, *rows(steps.labels)]
