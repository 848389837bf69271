"""The app, and the one place where an error becomes "Error / Hint" and an exit code.

0: all done; 1: an error, or some inputs failed; 2: usage; 130: interrupted.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import clipseg_cli.cli as folder
from clipseg_cli import __version__
from clipseg_cli.cli.console import Console, data_errors, to_nowhere
from clipseg_cli.cli.options import Command, OptionalValues
from clipseg_cli.errors import ClipsegError, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class _Boundary(TyperGroup):
    """Turns what a command raises into a sentence and an exit code; a bug keeps its traceback."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _sentences(), data_errors():  # --help and --version print
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _sentences():
            result = super().invoke(ctx)
            with data_errors():
                sys.stdout.flush()  # a closed pipe must show here, not when the interpreter ends
            return result


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except ClipsegError as error:
        Console().error(error)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        # A command that knows more says it in the exception.
        Console().error(ClipsegError(str(error) or "interrupted"))
        raise typer.Exit(130) from error
    except BrokenPipeError as error:
        to_nowhere(sys.stdout)
        raise typer.Exit(1) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "try a smaller --batch-size, a smaller --short-side, or --device cpu"
        Console().error(ClipsegError("not enough memory", hint=hint))
        raise typer.Exit(1) from error


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"clipseg {__version__}")
        raise typer.Exit


def _paragraphs(docstring: str) -> str:
    # Typer keeps the line ends of the source after the first paragraph; a terminal has its own width.
    return "\n\n".join(" ".join(p.split()) for p in inspect.cleandoc(docstring).split("\n\n"))


def _top(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        with data_errors():
            typer.echo(ctx.get_help())
        return
    try:
        Path.cwd()
    except FileNotFoundError as error:  # torch would end the process when it is imported
        raise ClipsegError(
            "the current folder no longer exists", hint="go to another one first: cd"
        ) from error


def commands() -> list[Command]:
    """What the files of this folder declare as COMMAND, in the order in which `--help` shows it."""
    names = [module.name for module in pkgutil.iter_modules(folder.__path__) if module.name != "main"]
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names]
    found: list[Command] = [module.COMMAND for module in modules if hasattr(module, "COMMAND")]
    return sorted(found, key=lambda command: command.order)


def build(declared: Iterable[Command]) -> typer.Typer:
    """The app with these commands."""
    app = typer.Typer(
        name="clipseg",
        cls=_Boundary,
        help="Label every pixel of any image with the words you choose, by frozen CLIP models.",
        rich_markup_mode="rich",
        # Rich tracebacks print local variables, whole tensors among them.
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=True)(_top)
    for command in declared:
        text = _paragraphs(command.run.__doc__ or "")
        app.command(command.name, cls=OptionalValues, help=text, epilog=command.examples)(command.run)
    return app


@functools.cache
def _ready(declared: tuple[Command, ...]) -> Any:
    """What `build` makes, ready to be called: for that, Typer reads the signatures of all commands."""
    return typer.main.get_command(build(declared))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Args:
        argv: the arguments; those of the process when left out.

    Raises:
        SystemExit: always.
    """
    # A file name may hold bytes that are no text; printing it must not end the run.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _ready(tuple(commands()))(args=None if argv is None else list(argv), prog_name="clipseg")
