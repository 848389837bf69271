"""Arguments of the Python API, checked as the command line checks its options: numbers, text, class lists."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import InferenceConfig, check_options, options_of
from clipseg_cli.data.classes import benchmark_names, is_list_file, load_classes
from clipseg_cli.errors import ClassListError
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.types import ClassList

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias, TypeVar

    Function = TypeVar("Function", bound=Callable[..., Any])
    Words: TypeAlias = str | os.PathLike[str] | Sequence[str] | ClassList


PER_CALL = ("classes", "background")
"""Options that the Python API takes with each image."""

ELSEWHERE = ("student", "workers")
"""Options that it takes by another name, or not at all."""

PLACE = "**options: their help."
"""Line of a docstring where `takes_options` puts what the fields say."""


def takes_options(*panels: str) -> Callable[[Function], Function]:
    """Give a function whose last parameter is `**options` the options of `InferenceConfig` as keyword arguments.

    Signature and docstring then name each with its default and its help, and another one is a TypeError.

    Args:
        panels: those under which `--help` shows them; none for all.
    """

    def decorate(function: Function) -> Function:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        taken = {*PER_CALL, *ELSEWHERE, *(p.name for p in own)}
        fields = {field.name: field for field in dataclasses.fields(InferenceConfig)}
        options = {
            name: one
            for name, one in options_of(InferenceConfig).items()
            if name not in taken and (one.panel in panels or not panels)
        }
        named = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=fields[name].default,
                annotation=fields[name].type,
            )
            for name in options
        ]
        signature = inspect.signature(function).replace(parameters=[*own, *named])

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            return function(*bound.args, **bound.kwargs)

        call.__signature__ = signature  # type: ignore[attr-defined]
        lines = [f"{name}: {one.help}" for name, one in options.items()]
        call.__doc__ = (function.__doc__ or "").replace(PLACE, "\n            ".join(lines))
        return call  # type: ignore[return-value]

    return decorate


def checked_config(**options: Any) -> InferenceConfig:
    """Fields of `InferenceConfig`, each in its range; paths become texts.

    Raises:
        UsageError: a value out of its range, or unknown.
        TypeError: a number or a text of another type.
    """
    defaults = {field.name: field for field in dataclasses.fields(InferenceConfig)}
    known = options_of(InferenceConfig)
    for name, value in options.items():
        if isinstance(value, bool) and name in known and known[name].bare:
            options[name] = known[name].bare if value else ""
            continue
        kind = str(defaults[name].type)
        if name == "device":  # may be torch's own
            value = str(value)
        if kind.startswith("str") and not (value is None and "None" in kind):
            options[name] = checked_text(value, name)
        elif kind == "bool":
            options[name] = bool(value)
    config = InferenceConfig(**options)
    check_options(config)
    return config


def checked_settings(values: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Hyper-parameters as `--set` takes them, from what a Python program has: {"pamr.dilations": (8, 16)}.

    Raises:
        TypeError: not a mapping from text.
    """
    if values is None:
        return ()
    if not hasattr(values, "items"):
        raise TypeError(f"hyperparameters is a mapping, not {type(values).__name__}")

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)

    return tuple(f"{checked_text(name, 'a hyper-parameter')}={text(v)}" for name, v in values.items())


def checked_text(value: object, name: str) -> str:
    """A name, or that of a file.

    Raises:
        TypeError: neither text nor a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is text, not {type(value).__name__}")
    return os.fsdecode(value)


def read_words(words: Words, background: str | None, protocol: str) -> tuple[ClassList, str | None]:
    """A class list from what a Python program has.

    Args:
        words: text or a file as for `load_classes`; a list of names, each with synonyms by bar, which is never
            taken for a file or a benchmark; or a ClassList, taken as it is.
        background: as for `load_classes`; None for a closed set.
        protocol: which words stand for the classes of a benchmark.

    Returns:
        The classes, and the name of the benchmark whose they are, or None.

    Raises:
        ClassListError: malformed.
        TypeError: of another type.
    """
    if isinstance(words, ClassList):
        return _sound(words), None
    spec = _spec(words).strip()
    extra = "none" if background is None else checked_text(background, "background")
    classes = load_classes(spec, background=extra, words=find_protocol(protocol, spec).words)
    return classes, spec if spec in benchmark_names() else None


def _spec(words: Any) -> str:
    if isinstance(words, os.PathLike):
        path = os.fsdecode(words)
        if not is_list_file(path):
            raise ClassListError(f"no such file: {path}")
        return path
    if isinstance(words, str):
        return words
    if not isinstance(words, (list, tuple)):
        raise TypeError(f"classes are text, a list of names, or a ClassList, not {type(words).__name__}")
    for i, name in enumerate(words, start=1):
        if not isinstance(name, str):
            raise TypeError(f"class list, item {i}: a name is text, not {type(name).__name__}")
        if "," in name:
            raise ClassListError(
                f"class list, item {i}: '{name}' has a comma", hint="join synonyms with a bar: couch|sofa"
            )
    spec = ",".join(words).strip()
    if is_list_file(spec) or spec in benchmark_names():
        # A list may come from anywhere and must not make anybody read a file.
        raise ClassListError(
            f"class list: '{spec}' is also a file or a benchmark",
            hint="give it as plain text if that is meant",
        )
    return spec


def _sound(classes: ClassList) -> ClassList:
    """A class list that somebody may have made by hand."""
    fits = len(classes.names) == len(classes.aliases) > 0 and all(classes.aliases)
    if not fits or classes.background not in (None, *range(len(classes))):
        raise ClassListError("a ClassList needs words for every class, and a background among its classes")
    return classes
