"""A process that has imported everything, and forks for each command: as a shell starts them, without the wait.

`python warm_server.py ADDRESS` serves; with -m MODULE, a script or -c CODE behind the address it runs one command in a
child of the server, with the caller's folder, environment, standard streams and exit code. From Python, `WarmProcess`
starts one that can be killed and waited for.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from contextlib import suppress
from pathlib import Path

WARM = ("torch.distributed.run", "matplotlib.figure", "matplotlib.backends.backend_agg", "timm")
WARM += ("typer.rich_utils", "rich.markdown")


def warm_up() -> None:
    """Import the whole package, and what its commands import late; read the table of byte pairs."""
    import clipseg_cli

    for module in pkgutil.walk_packages(clipseg_cli.__path__, "clipseg_cli."):
        if not module.name.endswith(".__main__"):
            with suppress(ImportError):  # of what is not installed
                importlib.import_module(module.name)
    for name in WARM:
        importlib.import_module(name)
    from PIL import Image

    from clipseg_cli.models.clip.backbones import _byte_pairs

    Image.init()
    _byte_pairs(77, ())
    os.sync = lambda: None  # as in the tests themselves


def serve(path: str) -> None:
    """Fork for each caller until the process is ended."""
    warm_up()
    gc.collect()
    gc.freeze()  # a child that looked for garbage among all that is imported would copy the pages it lies on
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(16)
    Path(f"{path}.new").rename(path)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    while True:
        caller, _ = listener.accept()
        if os.fork():
            caller.close()
            reap()
            continue
        listener.close()
        answer(caller)


def reap() -> None:
    """Take note of children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def answer(caller: socket.socket) -> None:
    """One command: a child runs it, and this process tells its number, then its exit code."""
    data, ancillary, _, _ = caller.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    asked = json.loads(data)
    pid = os.fork()
    if pid:
        try:
            caller.sendall(f"{pid}\n".encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            caller.sendall(f"{code}\n".encode())
        except OSError:  # nobody waits for it any more
            pass
        os._exit(0)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Those of the server know of the files behind them whether one can go back in them.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.executable = os.environ.get("PYTHON_EXEC", sys.executable)  # what it starts can be warm, too
    run(asked["arguments"])


def run(arguments: list[str]) -> None:
    """As the interpreter would with these arguments; never returns."""
    code = 0
    if arguments[0] == "-u":  # as torchrun has it; nothing here is buffered for long
        arguments = arguments[1:]
    try:
        if arguments[0] == "-m":
            sys.argv, sys.path[0] = arguments[1:], str(Path.cwd())
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(arguments[1], "<string>", "exec"), main.__dict__)
        else:
            sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).parent)
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def ask(
    address: str, arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]
) -> socket.socket:
    """Have the server start a command: the socket on which it tells of it."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    asked = {"folder": folder, "environment": environment, "arguments": arguments}
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
    server.sendmsg([json.dumps(asked).encode()], ancillary)
    return server


class WarmProcess:
    """A command forked from the server, with as much of `subprocess.Popen` as tests use; what it prints is kept.

    Attributes:
        pid: its own number.
        returncode: None until it has ended and somebody asked.
    """

    def __init__(self, address: str, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
        self._files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123
            streams = [nothing.fileno(), *(file.fileno() for file in self._files)]
            self._server = ask(address, arguments, folder, environment, streams)
        self._told, self._said = b"", ()
        self.pid, self.returncode = int(self._line(60)), None

    def send_signal(self, number: int) -> None:
        """As a terminal or another process does."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        try:
            return self.wait(0.001)
        except TimeoutError:
            return None

    def wait(self, timeout: float = 60) -> int:
        """Its exit code, once it has ended.

        Raises:
            TimeoutError: it has not, after so many seconds.
        """
        if self.returncode is None:
            self.returncode = int(self._line(timeout))
            self._server.close()
            for file in self._files:
                file.seek(0)
                self._said += (file.read(),)
                file.close()
        return self.returncode

    def _line(self, timeout: float) -> bytes:
        self._server.settimeout(timeout)
        while b"\n" not in self._told:
            if not (told := self._server.recv(64)):
                raise RuntimeError("the server of warm processes has ended")
            self._told += told
        line, _, self._told = self._told.partition(b"\n")
        return line

    def communicate(self, timeout: float = 60) -> tuple[bytes, bytes]:
        """What it printed on standard output and error, once it has ended."""
        self.wait(timeout)
        return self._said


class WarmServer:
    """The server, as long as it is wanted; it takes some seconds until it answers.

    Args:
        environment: in which it imports what commands need.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm")
        self.address = str(Path(self._folder.name, "socket"))
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.address], env=environment, stdin=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


def warm_script(address: str, arguments: str = "") -> str:
    """A script for a shell that starts commands by the server, as an interpreter with these arguments would."""
    return f'#!/bin/sh\nexec "{sys.executable}" -S -E "{__file__}" "{address}" {arguments} "$@"\n'


def wait_for(address: str) -> None:
    """Until the server answers.

    Raises:
        TimeoutError: it does not.
    """
    until = time.monotonic() + 120
    while not Path(address).exists():
        if time.monotonic() > until:
            raise TimeoutError(address)
        time.sleep(0.05)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    told = ask(sys.argv[1], sys.argv[2:], str(Path.cwd()), dict(os.environ), [0, 1, 2]).makefile("r")
    told.readline()
    sys.exit(int(told.readline() or 1))
