"""A process that has imported everything, and forks for each command: as a shell starts them, without the wait.

`python warm_server.py SOCKET` serves; `python warm_server.py SOCKET -m MODULE ARGS` (or a script) runs one command in a
child of the server, with the caller's folder, environment, standard streams and exit code.
"""

from __future__ import annotations

import array
import json
import os
import runpy
import signal
import socket
import sys
from pathlib import Path

WARM = ("clipseg_cli.cli.main", "clipseg_cli.commands.segment", "clipseg_cli.commands.evaluate")
WARM += ("clipseg_cli.commands.pseudolabel", "clipseg_cli.commands.train", "clipseg_cli.commands.compare")


def serve(path: str) -> None:
    """Fork for each caller until the process is ended."""
    for name in WARM:
        __import__(name)
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
    """One command: a child runs it, and this process tells its exit code."""
    data, ancillary, _, _ = caller.recvmsg(1 << 20, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i")
    streams.frombytes(ancillary[0][2])
    asked = json.loads(data)
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        caller.sendall(str(code).encode())
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
    run(asked["arguments"])


def run(arguments: list[str]) -> None:
    """As the interpreter would with these arguments; never returns."""
    code = 0
    try:
        if arguments[0] == "-m":
            sys.argv, sys.path[0] = arguments[1:], str(Path.cwd())
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
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


def call(path: str, arguments: list[str]) -> int:
    """Have the server run a command: its exit code."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    asked = {"folder": str(Path.cwd()), "environment": dict(os.environ), "arguments": arguments}
    streams = array.array("i", [0, 1, 2])
    server.sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    return int(server.recv(16) or b"1")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    sys.exit(call(sys.argv[1], sys.argv[2:]))
