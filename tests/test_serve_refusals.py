"""`clipseg serve`: what it does not answer, whom, and how long it waits."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

pytest.importorskip("starlette")
import uvicorn
from serving import CONFIG, http_client, messages_said, png, predict, tiny_service  # noqa: F401
from starlette.testclient import TestClient

from clipseg_cli.commands import web
from clipseg_cli.commands.serve import prepare_service
from clipseg_cli.config import ServeConfig
from clipseg_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("/data/local-files/?d=missing.png", "no such image"),
        ("/data/local-files/?d=../secret.png", "no such image"),
        ("/data/local-files/?d=/etc/passwd", "no such image"),
        ("/data/upload/../../secret.png", "no such image"),
        ("%2e%2e/secret.png", "no such image"),
        ("http://169.254.169.254/latest/meta-data", "no such image"),
        ("file:///etc/passwd", "no such image"),
        ("/data/local-files/?d=", "names no file"),
        ("/data/local-files/?d=a%00b", "names no file"),
        ("/data/local-files/?d=text.png", "not an image"),
        ("data:image/png;base64,@@", "is no base64"),
        ("data:image/png;base64,aGVsbG8=", "not an image"),
    ],
)
def test_one_image_that_cannot_be_had_costs_no_other(client, said, address, says):
    bad, good = predict(client, address, "/data/local-files/?d=one%20two.png")
    assert bad["result"] == [] and says in bad["error"], bad
    assert good["result"] and "error" not in good
    assert len(said) == 1 and says in said[0]


def test_a_link_out_of_the_folder_is_not_followed(client, service):
    (service.root / "link.png").symlink_to(service.root.parent / "secret.png")
    (bad,) = predict(client, "/data/local-files/?d=link.png")
    assert "no such image" in bad["error"]


@pytest.mark.parametrize(
    ("path", "content", "code", "says"),
    [
        ("/predict", b"{", 400, "no JSON"),
        ("/predict", b"[1]", 400, "no JSON object"),
        ("/predict", b"[" * 50_000, 400, "no JSON"),
        ("/predict", b"\xff\xfe", 400, "no JSON"),
        ("/predict", b"{}", 400, "no tasks"),
        ("/predict", json.dumps({"tasks": [{}] * 65}).encode(), 413, "at most 64"),
        ("/predict", b" " * 100_001, 413, "larger than 0.1 megabytes"),
        ("/segment", b"", 400, "is empty"),
        ("/segment", b"no image", 400, "not an image"),
        ("/segment", png()[:200], 400, ""),
        ("/setup", json.dumps({"schema": "<View/>"}).encode(), 400, "no BrushLabels"),
        ("/setup", json.dumps({"schema": "<View"}).encode(), 400, "no XML"),
        (
            "/setup",
            json.dumps({"schema": '<!DOCTYPE x [<!ENTITY a "b">]><View/>'}).encode(),
            400,
            "no plain XML",
        ),
        (
            "/setup",
            json.dumps({"schema": CONFIG.replace("cat", "x").replace("dog", "y")}).encode(),
            400,
            "no label",
        ),
        ("/nowhere", b"", 404, ""),
    ],
)
def test_what_is_no_request(client, path, content, code, says):
    answer = client.post(path, content=content)
    assert answer.status_code == code and says in answer.json()["error"], answer.text
    assert client.get("/health").status_code == 200


def test_an_image_of_too_many_pixels(client):
    file = io.BytesIO()
    Image.new("L", (400, 400)).save(file, "PNG")
    answer = client.post("/segment", content=file.getvalue())
    assert answer.status_code == 400 and "megapixels" in answer.json()["error"]


def test_a_token_is_asked_for(service, monkeypatch):
    monkeypatch.setattr(service, "config", dataclasses.replace(service.config, token="let me in"))
    with TestClient(web.build_app(service)) as client:
        assert client.get("/health").status_code == 200
        for header in (
            {},
            {"Authorization": "Bearer no"},
            {"Authorization": "Basic !"},
            {"Authorization": "x"},
        ):
            answer = client.post("/segment", content=png(), headers=header)
            assert answer.status_code == 401 and "token" in answer.json()["error"]
        for header in ({"Authorization": "Bearer let me in"}, {"Authorization": "Token let me in"}):
            assert client.post("/segment", content=png(), headers=header).status_code == 200
        assert client.post("/segment", content=png(), auth=("anybody", "let me in")).status_code == 200


def test_other_machines_need_a_token(tiny_clip):
    with pytest.raises(UsageError, match="lets other machines in"):
        prepare_service(ServeConfig(classes="cat", host="0.0.0.0"))


@pytest.fixture
def impatient(service, monkeypatch) -> None:
    monkeypatch.setattr(service, "config", dataclasses.replace(service.config, timeout=0.5))


@pytest.fixture
def address(service, monkeypatch) -> Iterator[str]:
    """A real server at a real port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(web.build_app(service), host="127.0.0.1", port=port, log_level="error")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_two_hundred_at_once(address):
    """Each is answered with its labels or told to come again, and then the server is as it was."""
    content = png()

    async def all_of_them() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            return await asyncio.gather(
                *(client.post(f"http://{address}/segment", content=content) for _ in range(200))
            )

    answers = asyncio.run(all_of_them())
    codes = [answer.status_code for answer in answers]
    assert set(codes) <= {200, 503} and codes.count(200) >= web.MOST_WAITING
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    assert httpx.post(f"http://{address}/segment", content=content).status_code == 200


def test_whoever_sends_slowly_is_given_up(impatient, address):
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        slow.settimeout(25)
        answer = slow.recv(1000)
        assert b" 503 " in answer.splitlines()[0], answer
    assert httpx.get(f"http://{address}/health").status_code == 200


def test_an_answer_that_takes_too_long_is_not_waited_for(impatient, address, service, monkeypatch):
    """The model cannot be stopped, but whoever asks is told."""
    goes_on = threading.Event()
    real = service.png

    def slow(data: bytes) -> bytes:
        goes_on.wait(30)
        return real(data)

    monkeypatch.setattr(service, "png", slow)
    try:
        answer = httpx.post(f"http://{address}/segment", content=png(), timeout=15)
    finally:
        goes_on.set()
    assert answer.status_code == 503 and "not answered within 0.5 seconds" in answer.json()["error"]
