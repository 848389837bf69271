"""What the terminal sees: data on stdout, talk on stderr. Nothing else in the package prints."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from clipseg_cli.errors import OutputError
from clipseg_cli.utils.text import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from clipseg_cli.errors import ClipsegError
    from clipseg_cli.types import Dataset

PLAIN_WIDTH = 160  # of a table in a pipe or a file, where nothing tells the width


class Console:
    """One command's voice.

    Args:
        as_json: stdout carries one JSON document, so tables are not printed.
        quiet: only errors, and the JSON document if asked for.
        verbose: details as well.
        data_to_stderr: stdout carries bytes (an image), so tables go to stderr.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        data_to_stderr: bool = False,
    ) -> None:
        self.as_json, self.quiet, self.verbose = as_json, quiet, verbose and not quiet
        self._talk = _rich(stderr=True)
        self._data = self._talk if data_to_stderr else _rich(stderr=False)
        # What the core tells its logger: warnings as notes, the rest with --verbose.
        logger = logging.getLogger("clipseg_cli")
        logger.handlers = [_Log(self)]
        logger.setLevel(logging.INFO if self.verbose else logging.WARNING)

    def say(self, text: str) -> None:
        """One line on stderr, unless quiet."""
        if not self.quiet:
            _line(self._talk, Text(printable(text)))

    def detail(self, text: str) -> None:
        """One line on stderr, with --verbose."""
        if self.verbose:
            _line(self._talk, Text(printable(text), style="dim"))

    def error(self, error: ClipsegError) -> None:
        """`Error: ...` and, where there is one, `Hint: ...` on stderr, quiet or not."""
        _line(self._talk, _labelled("Error", "bold red", error.message))
        if error.hint:
            _line(self._talk, _labelled("Hint", "bold cyan", error.hint))

    def document(self, data: Any) -> None:
        """`data` as indented JSON on stdout."""
        # Emoji and Chinese stay readable where the stream can carry them.
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._json(data, indent=2, ensure_ascii=not utf8)

    def line(self, data: Any) -> None:
        """`data` as one line of JSON on stdout, at once."""
        self._json(data, indent=None, ensure_ascii=True)

    def _json(self, data: Any, *, indent: int | None, ensure_ascii: bool) -> None:
        finite = json.loads(
            json.dumps(data), parse_constant=lambda _: None
        )  # JSON has no NaN and no infinity
        with data_errors():
            sys.stdout.write(json.dumps(finite, indent=indent, ensure_ascii=ensure_ascii) + "\n")
            sys.stdout.flush()

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        left: Sequence[int] = (0,),
        wrap: Sequence[int] = (0,),
    ) -> None:
        """A table on stdout, the columns `left` to the left, the rest to the right; not with --json or --quiet.

        Where the terminal is too narrow, the columns `wrap` are broken into lines.
        """
        if self.as_json or self.quiet:
            return
        # Not the table's own title, which is wrapped at the width of the table.
        if title:
            with data_errors():
                _line(self._data, Text(printable(title), style="bold"))
        table = Table(box=None, header_style="dim", padding=(0, 2), show_header=any(columns))
        for i, column in enumerate(columns):
            table.add_column(
                column, justify="left" if i in left else "right", overflow="fold", no_wrap=i not in wrap
            )
        for row in rows:
            # Text, not str: a class may be named "[red]".
            table.add_row(*(Text(printable(cell)) for cell in row))
        with data_errors():
            self._data.print(table)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner on stderr while something takes seconds; nothing where stderr is not a terminal."""
        if self.quiet or self.as_json or not self._talk.is_terminal:
            yield
            return
        with self._talk.status(Text(text)):
            yield

    @contextmanager
    def progress(self, text: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
        """A bar with images/s and the time left on stderr; call what it yields after each image.

        It starts at `done`.
        Nothing is drawn with a total of 0, with --quiet or --json, or where stderr is not a terminal.
        Meanwhile lines may be said, but tables must wait: they would be drawn over.
        """
        if not total or not self.draws:
            yield lambda: None
            return
        bar = self._bar(_RateColumn())
        with bar:
            task = bar.add_task(text, total=total, completed=done, begun=done)
            yield lambda: bar.advance(task)

    @contextmanager
    def countdown(self, text: str, total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
        """A bar over steps with the time left on stderr; call what it yields with the steps done and a text.

        It starts at `done`; nothing is drawn where `draws` is False.
        """
        if not self.draws:
            yield lambda *_: None
            return
        bar = self._bar(TextColumn("{task.fields[text]}", markup=False), _LeftColumn())
        with bar:
            task = bar.add_task(text, total=total, completed=done, begun=done, text="")
            yield lambda step, text: bar.update(task, completed=step, text=text)

    @property
    def draws(self) -> bool:
        """Whether bars are drawn: on a terminal, unless quiet or with --json."""
        return not self.quiet and not self.as_json and self._talk.is_terminal

    def _bar(self, *columns: ProgressColumn) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            *columns,
            console=self._talk,
            transient=True,
            # stdout is data and never goes through the bar's console, which is stderr.
            redirect_stdout=False,
            redirect_stderr=False,
        )


class _Log(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._console.say(f"Note: {record.getMessage()}")
        else:
            self._console.detail(record.getMessage())


class _RateColumn(ProgressColumn):
    """As in "3.2 images/s, 12 s left"."""

    def render(self, task: Task) -> Text:
        # Since the start, for batches end all at once: from one image to the next is a microsecond or a minute.
        done = task.completed - task.fields["begun"]
        if not done or not task.elapsed:
            return Text("- images/s")
        speed = done / task.elapsed
        until = f", {format_seconds(task.remaining / speed)} left" if task.remaining else ""
        return Text(f"{speed:.3g} images/s{until}")


class _LeftColumn(ProgressColumn):
    """As in "1:20 min left"."""

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields["begun"]
        if not done or not task.elapsed or not task.remaining:
            return Text("")
        return Text(f"{format_seconds(task.remaining * task.elapsed / done)} left")


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._start


def count(n: int, noun: str) -> str:
    """As in "1 image" or "2 images"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{'' if n == 1 else plural}"


def dataset_line(dataset: Dataset, *, labels: bool = False) -> str:
    """One line about a data set, and about its label files where they are read.

    As in "voc/VOC2012: PASCAL VOC 2012, val split, 1,449 images, 21 classes (SegmentationClass, 0 to 20)".
    """
    split = f", {dataset.split} split" if dataset.split else ""
    kind = f" ({dataset.labels_are})" if labels and dataset.labels_are else ""
    amount = f"{count(len(dataset.samples), 'image')}, {count(len(dataset.classes), 'class')}"
    return f"{dataset.address or dataset.root}: {dataset.title}{split}, {amount}{kind}"


def printable(text: str) -> str:
    r"""The text with control characters spelt out (`\x1b`): a file name must not steer the terminal."""
    return "".join(c if c.isprintable() or c in " \n\u200d\u3000" else _spelt(c) for c in text)


def _spelt(char: str) -> str:
    # An undecodable byte of a file name arrives as a lone surrogate.
    return char.encode("unicode_escape").decode("ascii")


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn what keeps data from going to stdout into a sentence; a closed pipe stays a closed pipe.

    Raises:
        OutputError: the file or device behind stdout takes no more.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        to_nowhere(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


def to_nowhere(stream: TextIO) -> None:
    """Drop what a stream still holds and all that follows; Python flushes once more at its end, and complains."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Talk:
    """stderr, except that what cannot be written is lost: the results matter more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it is closed
            to_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            to_nowhere(self._stream)


def _labelled(label: str, style: str, text: str) -> Text:
    return Text.assemble((f"{label}:", style), " ", printable(text))


def _line(console: RichConsole, text: Text) -> None:
    # Soft wrapping: a path that is cut in two cannot be copied.
    console.print(text, soft_wrap=True, highlight=False)


def _rich(*, stderr: bool) -> RichConsole:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
    file = cast("TextIO", _Talk(stream)) if stderr else None
    return RichConsole(file=file, highlight=False, markup=False, emoji=False, width=width)
