"""Settings from a file: `--config FILE.toml`, `--like` an earlier run; and `--print-config`, which writes such a file.

What is typed wins over `--config`, and that over `--like`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_cli.config import SETTINGS, TrainConfig, options_of, present_flag, with_present_names
from clipseg_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN = ("config_file", "like", "print_config")
RESULTS = ("manifest.json", "classes.json")
"""What `--like` reads, and looks for in a folder."""

MOST_BYTES = 16 * 2**20
_OF_A_MACHINE = {"out", "name", "device", "precision", "workers", "resume", "shard"}
"""Options that say where a run is made, and not what it is."""

_OF_A_COMMAND = {"resume", "shard", "watch"}
"""Options that only one call is about."""


def settings_options(config: type) -> list[inspect.Parameter]:
    """The three as parameters of a command whose options are those of `config`."""

    def read_config(ctx: typer.Context, value: str | None) -> str | None:
        if value is not None:
            ctx.default_map = {**(ctx.default_map or {}), **config_values(Path(value), ctx, config)}
        return value

    def read_like(ctx: typer.Context, value: str | None) -> str | None:
        if value is not None:
            ctx.default_map = {**like_values(Path(value), ctx, config), **(ctx.default_map or {})}
        return value

    def ask(flag: str, text: str, callback: Any = None, metavar: str | None = None) -> Any:
        return typer.Option(
            flag,
            metavar=metavar,
            help=text,
            show_default=False,
            rich_help_panel=SETTINGS,
            callback=callback,
            is_eager=callback is not None,
        )

    earlier = "The options of an earlier run: its folder, manifest.json or classes.json."
    asked: tuple[tuple[Any, Any], ...] = (
        (None, ask("--config", "Options from a TOML file; what is typed wins.", read_config, "FILE.toml")),
        (None, ask("--like", earlier, read_like, "RUN|FILE.json")),
        (False, ask("--print-config", "Print the settings as TOML, and do nothing else.")),
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(
            name,
            keyword,
            default=default,
            annotation=Annotated[bool if default is False else str | None, one],
        )
        for name, (default, one) in zip(OWN, asked, strict=True)
    ]


def config_values(path: Path, ctx: typer.Context, config: type) -> dict[str, Any]:
    """What a TOML file sets for a command: its own table, `[segment]`, over what stands outside of tables.

    Keys are long options without dashes in front, `short-side` or `short_side`; lists stand for values with commas
    between, or for an option that is given several times.

    Raises:
        UsageError: no such file, no TOML, an option that the command does not have, or a value of another type.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables = tomllib.loads(_text(path, "--config"))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not TOML: {error}", hint='lines are such as short-side = 336 or classes = "cat,dog"'
        ) from error
    command = str(ctx.info_name)
    commands = set(getattr(ctx.parent.command, "commands", ())) if ctx.parent else {command}
    own: dict[str, Any] = {}
    for key, value in tables.items():
        if not isinstance(value, dict):
            own[key] = value
        elif key not in commands:
            raise UsageError(f"{path}: there is no command '{key}'", hint=did_you_mean(key, commands))
    own |= tables.get(command, {})
    options = _options(ctx)
    found = {}
    for key, value in own.items():
        flag = str(key).replace("_", "-")
        parameter = options.get(flag) or options.get(present_flag(f"--{flag}").removeprefix("--"))
        if parameter is None or parameter.name in OWN:
            raise UsageError(
                f"{path}: {command} has no option '{key}'",
                hint=did_you_mean(str(key), sorted(options)) or "clipseg --help lists all of them",
            )
        found[parameter.name] = _value(value, parameter, config, f"{path}: {key}")
    return found


def like_values(path: Path, ctx: typer.Context, config: type) -> dict[str, Any]:
    """What an earlier run was made with, as far as this command has these options and they were not left alone.

    Raises:
        UsageError: no such file, or none that clipseg wrote.
    """
    if path.is_dir():
        file = next((path / name for name in RESULTS if (path / name).is_file()), None)
        if file is None:
            raise UsageError(
                f"{path} holds no {' and no '.join(RESULTS)}", hint="name the folder of a run, or such a file"
            )
        path = file
    try:
        data = json.loads(_text(path, "--like"))
        recorded = _recorded(data)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} does not say with what a run was made",
            hint=f"--like takes {' or '.join(RESULTS)}, as clipseg writes them",
        ) from error
    recorded = _with_words(recorded, data)
    if (data.get("kind") == "train") != issubclass(config, TrainConfig):
        recorded.pop("batch_size", None)  # crops of an iteration there, windows of a forward pass elsewhere
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    names = {p.name for p in ctx.command.params} - set(OWN) - _OF_A_MACHINE
    return {
        name: list(value) if isinstance(value, (list, tuple)) else value
        for name, value in recorded.items()
        if name in names and name in defaults and value is not None and value != _plain(defaults[name])
    }


def print_settings(values: Mapping[str, Any], ctx: typer.Context, config: type) -> None:
    """Write what a command would be run with to stdout, as a file that `--config` takes."""
    import tomli_w

    names = options_of(config)
    flags = {p.name: flag for flag, p in _options(ctx).items()}
    table: dict[str, Any] = {}
    for name, value in values.items():
        known = name in names and name not in _OF_A_COMMAND
        if known and name in flags and value not in (None, "", [], ()):
            table[flags[name]] = _writable(value)
    sys.stdout.write(tomli_w.dumps({str(ctx.info_name): table}))


def _writable(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_writable(v) for v in value] if isinstance(value, (list, tuple)) else value


def _text(path: Path, flag: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(f"{flag}: {path} is larger than any file of settings")
        return content.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{flag}: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag}: {path} is not a text in UTF-8") from error


def _options(ctx: typer.Context) -> dict[str, Any]:
    """Long option without dashes -> parameter; arguments by their own name."""
    found: dict[str, Any] = {}
    for parameter in ctx.command.params:
        if parameter.param_type_name == "argument":
            if parameter.nargs == 1:
                found[str(parameter.name)] = parameter
            continue
        for flag in parameter.opts:
            if flag.startswith("--"):
                found[flag.removeprefix("--")] = parameter
    return found


def _value(value: Any, parameter: Any, config: type, place: str) -> Any:
    """A value of TOML as the command line would have it."""
    one = options_of(config).get(parameter.name)
    bare = one.bare if one else ""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise UsageError(f"{place} is true or false, not {value!r}")
        return value
    if isinstance(value, bool):
        if not bare:
            raise UsageError(f"{place} needs a value, not {str(value).lower()}")
        return bare if value else ""
    if one and one.within is not None and isinstance(value, (str, list)):
        raise UsageError(f"{place} is a number, not {value!r}")
    if isinstance(value, list) and all(_is_simple(v) for v in value):
        texts = [str(v) for v in value]
        return texts if getattr(parameter, "multiple", False) else ",".join(texts)
    if not _is_simple(value):
        raise UsageError(f"{place} is neither a text nor a number nor a list of them")
    return [str(value)] if getattr(parameter, "multiple", False) else str(value)


def _is_simple(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _recorded(data: Any) -> dict[str, Any]:
    """Options as a manifest or a `classes.json` holds them; KeyError or TypeError where it is neither."""
    from clipseg_cli.runs.find import options_of_run  # brings numpy, which --help does without
    from clipseg_cli.runs.manifest import Manifest

    options = with_present_names(data["options"])
    if "kind" not in data:
        return options
    source = data["dataset"]
    if data["kind"] == "pseudolabel":
        return {**options_of_run(Manifest(data)), "split": source["split"] or None}
    options["unseen"] = ",".join(data["unseen"])
    if data["labels"]:  # they bring their own data
        for name in ("benchmark", "classes", "background", "split"):
            options.pop(name, None)
        return {**options, "labels": data["labels"]["run"]}
    return {**options, "dataset": source["root"], "split": source["split"] or None}


def _with_words(recorded: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The words themselves instead of a list file that is not here; the colleague may not have sent it."""
    from clipseg_cli.data.classes import is_list_file  # brings numpy, which --help does without

    spec = recorded.get("classes") or ""
    if not is_list_file(spec) or Path(spec).is_file():
        return recorded
    background = data.get("background")
    rows = [row for row in data["classes"] if row["id"] != background]
    words = ",".join("|".join(dict.fromkeys((row["name"], *row["words"]))) for row in rows)
    return {**recorded, "classes": words}


def _plain(default: Any) -> Any:
    """A default as JSON holds it."""
    return list(default) if isinstance(default, tuple) else default
