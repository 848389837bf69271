"""HTTP around a `Service`: Label Studio's ML backend (/setup, /predict, /health, /webhook), and plain POST /segment.

What a request may cost is limited: bytes, seconds, images, and how many wait for the model.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from clipseg_cli.commands.label_config import read_label_config
from clipseg_cli.commands.serve import sentence
from clipseg_cli.errors import ClipsegError, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from clipseg_cli.commands.serve import Service

    Endpoint = Callable[[Request], Awaitable[Response]]

MOST_WAITING = 64
"""Requests with images at a time; more are turned away, to come again."""

MOST_TASKS = 64
"""In one request; Label Studio waits 100 seconds for an answer."""


def build_app(service: Service, say: Callable[[str], None] = lambda _: None) -> Starlette:
    """The application.

    Args:
        service: what answers.
        say: told of every image that could not be labelled.
    """
    return _App(service, say).starlette()


class _App:
    def __init__(self, service: Service, say: Callable[[str], None]) -> None:
        self.service, self.config, self.say = service, service.config, say
        self.waiting = 0

    def starlette(self) -> Starlette:
        async def refused(_: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

        routes = [
            Route("/", self.health, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/setup", self.guarded(self.setup), methods=["POST"]),
            Route("/predict", self.guarded(self.predict), methods=["POST"]),
            Route("/webhook", self.guarded(self.webhook), methods=["POST"]),
            Route("/segment", self.guarded(self.segment), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: refused})

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Let in who brings the token, for a limited time, while not too many wait."""

        async def answer(request: Request) -> Response:
            if self.config.token and not _brings(request.headers.get("authorization", ""), self.config.token):
                raise HTTPException(401, "a token is needed", {"WWW-Authenticate": 'Basic realm="clipseg"'})
            if self.waiting >= MOST_WAITING:
                raise HTTPException(503, "too many requests are waiting", {"Retry-After": "5"})
            self.waiting += 1
            try:
                return await asyncio.wait_for(endpoint(request), self.config.timeout)
            except (asyncio.TimeoutError, TimeoutError):
                raise HTTPException(503, f"not answered within {self.config.timeout:g} seconds") from None
            except ClipsegError as error:
                raise HTTPException(400, sentence(error)) from error
            finally:
                self.waiting -= 1

        return answer

    async def health(self, _: Request) -> Response:
        """As Label Studio asks before it trusts an address."""
        return JSONResponse({"status": "UP", "model_class": "clipseg"})

    async def setup(self, request: Request) -> Response:
        """Label Studio says what a project is about; a configuration that can hold no brush is refused."""
        body = await self._json(request)
        schema = body.get("schema") or body.get("label_config")
        if schema:
            config = read_label_config(schema)
            names = [
                name
                for name, c in zip(
                    config.names_of(self.service.classes), self.service.classes.names, strict=True
                )
                if not name and c != self._background
            ]
            if len(names) >= len(self.service.classes) - (self._background is not None):
                known = ", ".join(self.service.classes.names)
                raise HTTPException(400, f"no label of the configuration is among the classes: {known}")
        return JSONResponse({"model_version": self.service.version})

    @property
    def _background(self) -> str | None:
        classes = self.service.classes
        return None if classes.background is None else classes.names[classes.background]

    async def predict(self, request: Request) -> Response:
        """A prediction for each task; for one whose image cannot be had, an empty one that says why."""
        body = await self._json(request)
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise HTTPException(400, "there are no tasks in the request")
        if len(tasks) > MOST_TASKS:
            raise HTTPException(413, f"{len(tasks)} tasks in one request, at most {MOST_TASKS}")
        results = [await self._work(self._one, task, body.get("label_config")) for task in tasks]
        return JSONResponse({"results": results, "model_version": self.service.version})

    def _one(self, task: Any, label_config: str | None) -> dict[str, Any]:
        try:
            return self.service.predict(task, label_config)
        except ClipsegError as error:
            self.say(sentence(error))
            return {"model_version": self.service.version, "result": [], "error": sentence(error)}

    async def segment(self, request: Request) -> Response:
        """The bytes of an image -> its label PNG."""
        png = await self._work(self.service.png, await self._body(request))
        return Response(png, media_type="image/png")

    async def webhook(self, request: Request) -> Response:
        """Label Studio tells what became of annotations; corrections come in by `clipseg import`."""
        await self._json(request)
        return JSONResponse({}, 201)

    async def _work(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that waits for the model, beside the loop that reads requests."""
        try:
            return await run_in_threadpool(function, *args)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise HTTPException(503, "not enough memory for this image") from error

    async def _json(self, request: Request) -> dict[str, Any]:
        try:
            body = json.loads(await self._body(request))
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "the request is no JSON") from error
        if not isinstance(body, dict):
            raise HTTPException(400, "the request is no JSON object")
        return body

    async def _body(self, request: Request) -> bytes:
        most = int(self.config.max_megabytes * 1e6)
        too_large = HTTPException(413, f"the request is larger than {self.config.max_megabytes:g} megabytes")
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > most:
                raise too_large
        return bytes(data)


def _brings(header: str, token: str) -> bool:
    kind, _, value = header.partition(" ")
    if kind.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() not in ("bearer", "token"):
        return False
    return hmac.compare_digest(value.strip().encode(), token.encode())
