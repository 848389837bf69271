"""`clipseg serve`: parse, load, listen."""

from __future__ import annotations

import dataclasses
import os
import socket

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console
from clipseg_cli.config import ServeConfig
from clipseg_cli.errors import ClipsegError, UsageError

EXAMPLES = """
[bold]Examples[/bold]
  clipseg serve --classes cat,dog --images /data/photos
  clipseg serve --like runs/pseudolabel/NAME --images photos/
  clipseg serve --student runs/train/NAME --host 0.0.0.0 --token SECRET --images photos/
"""


@opt.takes(ServeConfig)
def serve(ctx: typer.Context, quiet: opt.QuietOpt = False, verbose: opt.VerboseOpt = False) -> None:
    """Answer annotation tools: Label Studio's ML backend, and POST /segment for everybody else.

    Listens on this machine alone unless --host says otherwise. Images are read below --images or come with the
    request; nothing is fetched.
    """
    given = opt.given_options(ctx)
    opt.check_student(given)
    if "student" not in given and not ctx.params["classes"].strip():
        raise UsageError(
            "Missing option '--classes' / '-c'.", hint="list the words to look for: --classes cat,dog"
        )
    console = Console(quiet=quiet, verbose=verbose)
    config = opt.config_from(ServeConfig, ctx.params)
    config = dataclasses.replace(config, token=config.token or os.environ.get("CLIPSEG_TOKEN", ""))
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise UsageError(
            "serve needs the libraries starlette and uvicorn", hint='pip install "clipseg-cli[serve]"'
        ) from error
    _check_free(config)
    with console.waiting("loading the model"):
        from clipseg_cli.commands.serve import prepare_service  # torch loads here, not for --help
        from clipseg_cli.commands.web import build_app

        service = prepare_service(config)
    console.say(f"{service.model} on {service.device}")
    for note in service.notes:
        console.say(f"Note: {note}")
    console.say(f"Listening at http://{config.host}:{config.port}; Ctrl-C ends it")
    app = build_app(service, lambda text: console.error(ClipsegError(text)))
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_level="info" if verbose else "warning",
        timeout_keep_alive=5,
        limit_concurrency=1000,
    )


def _check_free(config: ServeConfig) -> None:
    """Before the model is loaded.

    Raises:
        UsageError: the address is not ours, or taken.
    """
    try:
        kind = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind[0], kind[1]) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(kind[4])
    except OSError as error:
        raise UsageError(
            f"cannot listen at {config.host}:{config.port}: {error.strerror or error}",
            hint="choose another one with --host and --port",
        ) from error


COMMAND = opt.Command("serve", serve, EXAMPLES, order=75)
