"""What an option is, said once: on the field that holds it. Help, range, flag and panel all follow from there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

MAIN, DATA, LABELS, STUDENT, SCHEDULE = "Options", "Data", "What is learnt", "Student", "Schedule"
WORDS, MODEL, METHOD = "Words", "Model", "Method"
CORRUPTION, INFERENCE, SETTINGS, OUTPUT = "Corruption", "Inference", "Settings", "Output"
SERVER = "Server"
PANELS = (
    MAIN,
    SERVER,
    LABELS,
    DATA,
    STUDENT,
    SCHEDULE,
    WORDS,
    MODEL,
    METHOD,
    CORRUPTION,
    INFERENCE,
    SETTINGS,
    OUTPUT,
)
"""In the order in which `--help` shows them."""

KEY = "option"


@dataclass(frozen=True)
class Option:
    """How a field of a config is chosen on the command line, and what it may be.

    Attributes:
        help: one or two sentences.
        panel: of `PANELS`, under which `--help` shows it.
        metavar: what stands for its value there.
        flags: as in ("--classes", "-c"); left out, its name.
        within: least and most, for numbers.
        choices: all values that there are; none for any.
        read: text -> value, where neither text nor number is meant.
        shown: the default as a user would type it; None for the value itself, "" to say nothing of it.
        bare: of `choices`, its value where the flag stands alone.
        kind: what it names, for messages and completion ("protocol", "model").
    """

    help: str
    panel: str = MAIN
    metavar: str = "TEXT"
    flags: tuple[str, ...] = ()
    within: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read: Callable[[str], Any] | None = None
    shown: str | None = None
    bare: str = ""
    kind: str = ""

    def flag(self, name: str) -> str:
        """Its long name on the command line."""
        return self.flags[0].partition("/")[0] if self.flags else f"--{name.replace('_', '-')}"

    def check(self, name: str, value: Any) -> None:
        """Prove that a value is possible; None leaves an option out.

        Args:
            name: what messages call it: its flag, or the argument of a function.
            value: that it is to have.

        Raises:
            UsageError: unknown, or out of range.
        """
        if value is None:
            return
        if self.choices and value and value not in self.choices:
            raise UsageError(f"unknown {self.kind or name} '{value}'", hint=did_you_mean(value, self.choices))
        if self.within is not None and not self.within[0] <= value <= self.within[1]:
            low, high = self.within
            raise UsageError(f"{name}: {value} is not between {low:g} and {high:g}")


def option(default: Any, help: str, **facts: Any) -> Any:  # noqa: A002  (the name of the attribute)
    """A field of a config that is an option; `facts` are the other attributes of `Option`."""
    return dataclasses.field(default=default, metadata={KEY: Option(help, **facts)})


def again(config: type, name: str, default: Any = dataclasses.MISSING, **facts: Any) -> Any:
    """The option of another config, with another default or other facts."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    changed = dataclasses.replace(field.metadata[KEY], **facts)
    default = field.default if default is dataclasses.MISSING else default
    return dataclasses.field(default=default, metadata={KEY: changed})


def out_option(default: Path | None, help: str) -> Any:  # noqa: A002
    """The folder that a command writes into."""
    return option(default, help, metavar="DIR", flags=("--out", "-o"), read=folder)


def formats_option(default: str, help: str, panel: str) -> Any:  # noqa: A002
    """Names of output formats, by comma."""
    return option(default, help, panel=panel, metavar="LIST", flags=("--formats", "-f"), kind="format")


def options_of(config: type) -> dict[str, Option]:
    """Name of a field -> its option, in the order of the fields."""
    fields = dataclasses.fields(config)
    return {field.name: field.metadata[KEY] for field in fields if KEY in field.metadata}


def check_options(config: Any) -> None:
    """Prove that every value of a config is possible.

    Raises:
        UsageError: one is not.
        TypeError: one has another type.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    for name, one in options_of(type(config)).items():
        value, default = getattr(config, name), defaults[name]
        if one.within is not None and not (value is None and default is None):
            whole = all(isinstance(bound, int) for bound in one.within) and not isinstance(default, float)
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"{name} is {kinds[-1].__name__}, not {type(value).__name__}")
        one.check(name, value)


def folder(text: str) -> Path:
    """The folder that an option names.

    Raises:
        UsageError: the text is empty, as `--out "$UNSET"` gives it; Path would make it the current folder.
    """
    if not str(text).strip():
        raise UsageError("--out is empty", hint="name a folder; . is the current one")
    return Path(text)


def run_name(value: str) -> str:
    """The name of a run's own folder.

    Raises:
        UsageError: it would lie elsewhere.
    """
    if not value.strip() or {"/", "\\"} & set(value) or not value.strip("."):
        raise UsageError(
            f"--name '{value}' is not the name of a folder", hint="the place is chosen with --out"
        )
    return value
