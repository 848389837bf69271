"""`--set`: hyper-parameters of methods, refinements, sources of regions and formats, checked against their functions.

`--set naclip.std=3` sets one, `--set pamr.dilations=8,16` several numbers, and `--set pamr=10` turns a refinement on.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import UsageError, did_you_mean
from clipseg_cli.methods import METHODS, find_method
from clipseg_cli.outputs import FORMATS
from clipseg_cli.refinements import REFINEMENTS
from clipseg_cli.regions import REGIONS
from clipseg_cli.types import Format, Method, Refinement, RegionSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clipseg_cli.utils.registry import Registry

Entry = Method | Refinement | RegionSource | Format

AUTO = "auto"
"""Text for a hyper-parameter that is found from the data unless it is given."""


@dataclass(frozen=True)
class Hyperparameter:
    """A number, a switch, several numbers, or one of some words, that a function takes.

    Attributes:
        default: its value unless it is set; None for one that is found from the data.
        low, high: between which each number lies.
        choices: all that a word may be.
    """

    name: str
    default: Any
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            ValueError: the text is none; the message says what would be.
        """
        if self.default is None and text == AUTO:
            return None
        if self.choices:
            if text not in self.choices:
                raise ValueError(self.wanted())
            return text
        if isinstance(self.default, tuple):
            return tuple(self._number(part, type(self.default[0])) for part in text.split(","))
        return self._number(text, float if self.default is None else type(self.default))

    def _number(self, text: str, kind: type) -> Any:
        if kind is bool:
            if text.lower() not in ("true", "false"):
                raise ValueError("true or false")
            return text.lower() == "true"
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:
            raise ValueError(self.wanted())
        return value

    def wanted(self) -> str:
        """What it takes, as in "a whole number from 1 to 16"."""
        if self.choices:
            return " or ".join(self.choices)
        one = self.default[0] if isinstance(self.default, tuple) else self.default
        if isinstance(one, bool):
            return "true or false"
        what = "whole number" if isinstance(one, int) else "number"
        span = f"from {self.low:g} to {self.high:g}"
        if isinstance(self.default, tuple):
            return f"{what}s {span}, by comma"
        return f"a {what} {span}" + (f", or {AUTO}" if self.default is None else "")


@dataclass(frozen=True)
class Chosen:
    """What `--set` says.

    Attributes:
        values: name of a refinement -> value of its option.
        hyperparameters: name of a method, refinement, source of regions or format -> its hyper-parameters.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hyperparameters: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def of(self, name: str) -> Mapping[str, Any]:
        """The hyper-parameters of one of them."""
        return self.hyperparameters.get(name, {})


def hyperparameters_of(entry: Entry) -> dict[str, Hyperparameter]:
    """All that can be set of a method, a refinement, a source of regions or a format, by name."""
    defaults = dict(_defaults(entry))
    found = {}
    for name in sorted(entry.ranges):
        span: Any = entry.ranges[name]
        words = isinstance(defaults[name], str)
        found[name] = Hyperparameter(name, defaults[name], **({"choices": span} if words else _span(span)))
    return found


def _span(span: tuple[float, float]) -> dict[str, Any]:
    return {"low": span[0], "high": span[1]}


def _defaults(entry: Entry) -> Iterator[tuple[str, Any]]:
    functions: Iterable[Any]
    if isinstance(entry, Refinement):
        functions = (entry.refine, entry.refine_windows, entry.spread, entry.observe, entry.relabel)
    elif isinstance(entry, Format | RegionSource):
        functions = (entry.open,)
    else:
        functions = (entry.attention, entry.read, entry.read_twice, entry.read_regions, entry.pool)
        yield "blocks", entry.blocks
        if entry.pyramid is not None:
            yield from dataclasses.asdict(entry.pyramid).items()
    for function in functions:
        yield from _keywords(function).items()


def _keywords(function: Any) -> dict[str, Any]:
    """Keyword arguments of a function with their defaults; those that a variant fixes are gone."""
    if isinstance(function, functools.partial):
        return {k: v for k, v in _keywords(function.func).items() if k not in function.keywords}
    return getattr(function, "__kwdefaults__", None) or {}


def set_hyperparameters(method: Method, values: Mapping[str, Any]) -> Method:
    """The same method with other hyper-parameters.

    Raises:
        UsageError: they do not go together.
    """
    changed: dict[str, Any] = {}
    for part in ("attention", "read", "read_twice", "read_regions", "pool"):
        function = getattr(method, part)
        own = {k: v for k, v in values.items() if k in _keywords(function)}
        if own:
            changed[part] = functools.partial(function, **own)
    if "blocks" in values:
        changed["blocks"] = values["blocks"]
    if method.pyramid is not None:
        fields = {field.name for field in dataclasses.fields(method.pyramid)}
        changed["pyramid"] = dataclasses.replace(
            method.pyramid, **{k: v for k, v in values.items() if k in fields}
        )
        if len(changed["pyramid"].parts) != len(changed["pyramid"].weights):
            raise UsageError(
                "--set: clip_diy.parts and clip_diy.weights have another number of scales",
                hint="set both: --set clip_diy.parts=1,0.5 --set clip_diy.weights=1,1",
            )
    return dataclasses.replace(method, **changed)


def read_settings(texts: Sequence[str], switches: Mapping[str, Any]) -> Chosen:
    """What some texts NAME.HYPERPARAMETER=VALUE, or NAME=VALUE for a refinement, say.

    Args:
        texts: as they were typed.
        switches: name of a refinement with an option of its own -> the default of that; its type is the value's.

    Raises:
        UsageError: no such method, refinement or hyper-parameter, or a value out of range.
    """
    values: dict[str, Any] = {}
    chosen: dict[str, dict[str, Any]] = {}
    for text in texts:
        left, equals, value = (part.strip() for part in text.partition("="))
        owner, dot, name = left.partition(".")
        owner = owner.replace("-", "_")
        if not equals or not value or (dot and not name):
            raise UsageError(
                f"--set {text}: wanted NAME.HYPERPARAMETER=VALUE", hint="as in --set naclip.std=3"
            )
        known = (*METHODS.names(), *REFINEMENTS.names(), *REGIONS.names(), *FORMATS.names())
        if owner not in known:
            raise UsageError(
                f"--set {text}: there is no method, refinement, source of regions or format '{owner}'",
                hint=did_you_mean(owner, known),
            )
        try:
            if dot:
                chosen.setdefault(owner, {})[name.replace("-", "_")] = _find(owner, name).read(value)
            else:
                values[owner] = _switch(owner, switches).read(value)
        except ValueError as error:
            raise UsageError(f"--set {text}: {value} is not {error}") from None
    return Chosen(values, chosen)


def is_about_a_format(text: str) -> bool:
    """Whether a text NAME.OPTION=VALUE is about an output format, so that no label depends on it."""
    return text.partition("=")[0].partition(".")[0].strip().replace("-", "_") in FORMATS.names()


def _find(owner: str, name: str) -> Hyperparameter:
    known = hyperparameters_of(_registry_of(owner).get(owner))
    found = known.get(name.replace("-", "_"))
    if found is None:
        raise UsageError(
            f"--set: {owner} has no hyper-parameter '{name}'",
            hint=did_you_mean(name, known) or "it has none at all",
        )
    return found


def _registry_of(owner: str) -> Registry[Any]:
    registries: tuple[Registry[Any], ...] = (METHODS, REFINEMENTS, REGIONS, FORMATS)
    return next(registry for registry in registries if owner in registry.names())


def _switch(owner: str, switches: Mapping[str, Any]) -> Hyperparameter:
    if owner not in REFINEMENTS.names():
        kind = _registry_of(owner).kind
        raise UsageError(
            f"--set {owner}=...: {owner} is a {kind}", hint=f"choose it with {_turned_on(owner)}"
        )
    if REFINEMENTS.get(owner).chosen_by:
        raise UsageError(f"--set {owner}=...: it has an option of its own", hint=f"use {_turned_on(owner)}")
    default = switches.get(owner, 0.0)
    if isinstance(default, str):
        raise UsageError(f"--set {owner}=...: it has an option of its own", hint=f"use --{owner}")
    return Hyperparameter(owner, default, 0, 1 if isinstance(default, float) else 1000)


def require_used(chosen: Chosen, method: str, steps: Iterable[str]) -> None:
    """Refuse hyper-parameters of what takes no part.

    Args:
        chosen: what `--set` says.
        method: name of the method in use.
        steps: names of the refinements, of the source of regions and of the formats in use.

    Raises:
        UsageError: a hyper-parameter would change nothing.
    """
    used = _used(method, steps)
    for owner, values in chosen.hyperparameters.items():
        if owner not in used:
            name = next(iter(values))
            turn_on = _turned_on(owner)
            raise UsageError(f"--set {owner}.{name} does nothing without {turn_on}", hint=f"add {turn_on}")


def with_brought(chosen: Chosen, brought: Mapping[str, str], method: str, steps: Iterable[str]) -> Chosen:
    """What `--set` says, and what was chosen for the user where it says nothing.

    Args:
        chosen: what `--set` says.
        brought: NAME.HYPERPARAMETER -> text; those of what takes no part are left out.
        method, steps: as for `require_used`.
    """
    used = _used(method, steps)
    texts = [f"{name}={text}" for name, text in brought.items() if name.partition(".")[0] in used]
    own = read_settings(texts, {}).hyperparameters
    names = {*own, *chosen.hyperparameters}
    both = {name: {**own.get(name, {}), **chosen.of(name)} for name in names}
    return dataclasses.replace(chosen, hyperparameters=both)


def _used(method: str, steps: Iterable[str]) -> set[str]:
    return {method.replace("-", "_").partition(":")[0], *steps}


_MEMORIES = {
    "memory": "--memory BANK of labelled images",
    "region_memory": "--memory BANK of unlabelled images",
}


def _turned_on(owner: str) -> str:
    """The option by which a method, refinement, source of regions or format takes part."""
    for registry, option in ((METHODS, "--method"), (REGIONS, "--regions"), (FORMATS, "--formats")):
        if owner in registry.names():
            return f"{option} {owner}"
    if owner in _MEMORIES:
        return _MEMORIES[owner]
    name, *values = REFINEMENTS.get(owner).chosen_by or (owner,)
    return " ".join([f"--{name.replace('_', '-')}", *values[:1]])


def chosen_method(name: str, chosen: Chosen) -> Method:
    """The method of that name, or a variant of one, with the hyper-parameters that were set.

    Raises:
        UsageError: there is none, or the variant leaves out what was to be set.
    """
    method = find_method(name)
    own = chosen.of(name.replace("-", "_").partition(":")[0])
    for hyperparameter in own:
        if hyperparameter not in dict(_defaults(method)):
            raise UsageError(
                f"--set: {name} takes no '{hyperparameter}'",
                hint="it belongs to the method, not to this variant",
            )
    return set_hyperparameters(method, own)
