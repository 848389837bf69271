"""The process `clipseg`, also as `python -m clipseg_cli`: it ends well whenever it is stopped."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn


def main() -> NoReturn:
    """Run the command line of this process and end it.

    Ctrl-C at any moment, and any number of them, is one line and exit code 130; a request to end (SIGTERM, SIGHUP)
    finishes the files that are being written, as Ctrl-C does, and leaves with 128 + its number.

    Raises:
        SystemExit: always.
    """
    with suppress(KeyboardInterrupt):  # of the line that says so
        _run()
    while True:
        with suppress(KeyboardInterrupt):
            _end_at_once(130)


def _run() -> None:
    """The command line; returns when it was interrupted.

    Raises:
        SystemExit: it has ended in any other way.
    """
    if sys.stdout is None:  # closed by whoever started the process
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
                signal.signal(number, _end)
        from clipseg_cli.cli.main import main as run  # takes a second, in which Ctrl-C may come

        run()
    except SystemExit as error:
        if error.code != 130:
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from the interpreter's own end
            raise
    except KeyboardInterrupt:  # before the command line could catch it, or once more while it was ending
        with suppress(AttributeError, OSError):
            sys.stderr.write("Error: interrupted\n")


def _end(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


def _end_at_once(code: int) -> NoReturn:
    """Leave without the interpreter's own end, which takes a second and turns Ctrl-C into a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "clipseg_cli.utils.files" in sys.modules:
        from clipseg_cli.utils.files import discard_unfinished

        discard_unfinished()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
