"""From the fields of a config to the options of a command, and back; and the few options that hold no config."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from clipseg_cli.cli.completion import COMPLETIONS
from clipseg_cli.cli.console import data_errors
from clipseg_cli.cli.settings import print_settings, settings_options
from clipseg_cli.config import OF_A_CLIP, OUTPUT, PANELS, InferenceConfig, Option, options_of, present_flag
from clipseg_cli.errors import UsageError


class OptionalValues(TyperCommand):
    """A command some of whose options may stand without a value: `--presence` and `--presence freecp`.

    A value is only taken for one where it is a choice, so that `--presence photo.jpg` names an image.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does, once every such option has its value, and every option the name that it has now."""
        with data_errors():  # --help prints
            known = {flag for parameter in self.params for flag in parameter.opts}
            return super().parse_args(ctx, with_values(with_present_flags(args, known)))


def with_values(args: list[str]) -> list[str]:
    """`--presence freecp` and `--presence` as --presence=freecp and --presence=evidence."""
    bare = {one.flag(name): one for name, one in options_of(InferenceConfig).items() if one.bare}
    found: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg == "--":
            return [*found, arg, *left]
        if arg in bare:
            given = bool(left) and left[0] in bare[arg].choices
            arg = f"{arg}={left.pop(0) if given else bare[arg].bare}"
        found.append(arg)
    return found


def with_present_flags(args: list[str], known: set[str]) -> list[str]:
    """`--lr 0.1` for `--rate 0.1`, where `--lr` is one of the flags that a command has."""
    end = args.index("--") if "--" in args else len(args)
    found = []
    for arg in args[:end]:
        flag, sign, value = arg.partition("=")
        now = present_flag(flag)
        found.append(now + sign + value if now in known else arg)
    return [*found, *args[end:]]


Config = TypeVar("Config")
Run = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Command:
    """One command; a file in `cli/` that declares COMMAND is in the app.

    Attributes:
        name: as it is typed.
        run: what Typer calls; its docstring is the text of `--help`.
        examples: shown below that.
        order: by which `clipseg --help` lists commands.
    """

    name: str
    run: Run
    examples: str
    order: int


def ask(help: str, panel: str, *flags: str, metavar: str | None = None) -> Any:  # noqa: A002  (as Typer calls it)
    """An option of a command that no config holds."""
    return typer.Option(*flags, metavar=metavar, help=help, show_default=False, rich_help_panel=panel)


ImagesArg = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGES",
        help="Files, folders, globs; - reads one image from stdin and writes its label PNG to stdout.",
        show_default=False,
    ),
]
JsonOpt = Annotated[bool, ask("Print one JSON document instead of tables.", OUTPUT, "--json")]
QuietOpt = Annotated[bool, ask("Print only errors, and the JSON if asked.", OUTPUT, "--quiet", "-q")]
VerboseOpt = Annotated[bool, ask("Say more: a line for each image, every file.", OUTPUT, "--verbose", "-v")]


def takes(config: type, *, without: tuple[str, ...] = ()) -> Callable[[Run], Run]:
    """Give a command an option for each field of a config that is one; `ctx.params` then holds their values.

    They may come from a file, too: see `clipseg_cli.cli.settings`.

    Args:
        config: a dataclass of `clipseg_cli.config`.
        without: fields that this command has no option for. Parameters that the command itself names win, too.
    """

    def decorate(command: Run) -> Run:
        own = inspect.signature(command, eval_str=True).parameters
        hints = get_type_hints(config)
        options = {
            name: one for name, one in options_of(config).items() if name not in own and name not in without
        }
        defaults = {field.name: field.default for field in dataclasses.fields(config)}
        parameters = list(own.values())
        for name, one in options.items():
            default = defaults[name]
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=_typed(default, one),
                    annotation=Annotated[_kind(hints[name], one), _typer_option(name, one, default)],
                )
            )

        parameters += settings_options(config)

        @functools.wraps(command)
        def run(**values: Any) -> None:
            if values.get("print_config"):
                print_settings(values, values["ctx"], config)
                return
            command(**{name: value for name, value in values.items() if name in own})

        ordered = sorted(parameters, key=lambda p: _place(p, own=p.name in own))
        kinds = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in ordered]
        run.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in kinds}
        return run

    return decorate


def _place(parameter: inspect.Parameter, *, own: bool) -> tuple[int, bool]:
    """Arguments first, then panel by panel; a command's own options come first, and last under "Output"."""
    marks = getattr(parameter.annotation, "__metadata__", ())
    panel = next((m.rich_help_panel for m in marks if isinstance(m, typer.models.OptionInfo)), None)
    return (PANELS.index(panel), own == (panel == OUTPUT)) if panel in PANELS else (-1, False)


def _typer_option(name: str, one: Option, default: Any) -> Any:
    def check(value: Any) -> Any:
        one.check(one.flag(name), value)
        return value

    silent = default is None or default is False or default == "" or one.shown == ""
    # Typer puts brackets around a default that is not the value itself.
    shown = "" if silent else rf" [dim]\[default: {one.shown or _written(default)}][/dim]"
    parse = None if one.read is None else _reading(one.read, default)
    return typer.Option(
        *(one.flags or (f"--{name.replace('_', '-')}",)),
        metavar=one.metavar if one.metavar != "TEXT" else None,
        help=one.help + shown,
        show_default=False,
        rich_help_panel=one.panel,
        callback=check if one.within or one.choices else None,
        parser=parse,
        autocompletion=COMPLETIONS.get(one.kind) or _among(one.choices),
    )


def _written(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)


def _reading(read: Callable[[str], Any], default: Any) -> Callable[[Any], Any]:
    # Typer reads defaults as well, which are values already.
    def parse(text: Any) -> Any:
        return text if text is None or (text == default and not isinstance(text, str)) else read(str(text))

    return parse


def _among(choices: tuple[str, ...]) -> Callable[[str], list[str]] | None:
    return (lambda incomplete: [c for c in choices if c.startswith(incomplete)]) if choices else None


def _typed(default: Any, one: Option) -> Any:
    """A default as Typer takes it: several texts as a list."""
    return list(default) if isinstance(default, tuple) and one.read is None else default


def _kind(hint: Any, one: Option) -> Any:
    """The type that Typer reads: a literal is a text with choices, several texts are a list."""
    if one.read is not None:
        return Any
    if one.choices:
        return str | None if type(None) in get_args(hint) else str
    return list[str] if get_origin(hint) is tuple else hint


def config_from(kind: type[Config], options: Mapping[str, Any], **others: Any) -> Config:
    """A config whose fields are the options of the same names, as in `ctx.params`."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {name: value for name, value in options.items() if name in fields} | others
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def given_options(ctx: typer.Context) -> dict[str, Any]:
    """The options that the user wrote, there or in a file, and not those that have their defaults."""
    return {name: value for name, value in ctx.params.items() if _is_given(ctx, name)}


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")


def check_student(given: Mapping[str, Any]) -> None:
    """Refuse --student without a value, and beside it what is about a CLIP, even where it says the default.

    Args:
        given: the options that the user wrote.

    Raises:
        UsageError: the message names the option.
    """
    if "student" not in given:
        return
    if not given["student"].strip():  # as `--student "$UNSET"` gives it
        raise UsageError("--student is empty", hint="name a run of clipseg train, such as runs/train/NAME")
    for name in OF_A_CLIP:
        if name in given:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is about a CLIP; a student is used as it was trained",
                hint=f"leave out --student or {option}",
            )
