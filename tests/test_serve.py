"""`clipseg serve`: Label Studio's requests as it sends them, and everything that should not reach the model."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
import uvicorn
from starlette.testclient import TestClient

from clipseg_cli.commands import web
from clipseg_cli.commands.serve import Service, prepare_service
from clipseg_cli.config import ServeConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.outputs.labels import encode_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """<View><Image name="pic" value="$photo" zoom="true"/>
<BrushLabels name="brush" toName="pic"><Label value="cat"/><Label value="dog"/></BrushLabels></View>"""


def png(height=40, width=56, seed=0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def service(tiny_clip, tmp_path_factory) -> Service:
    root = tmp_path_factory.mktemp("served") / "photos"
    (root / "upload" / "1").mkdir(parents=True)
    (root / "one two.png").write_bytes(png())
    (root / "upload" / "1" / "ab-x.png").write_bytes(png(seed=1))
    (root.parent / "secret.png").write_bytes(png())
    (root / "text.png").write_text("no image")
    config = ServeConfig(
        classes="cat,dog,cow",
        background="none",
        model=tiny_clip.name,
        pretrained=str(tiny_clip.weights),
        templates="single",
        precision="fp32",
        device="cpu",
        images=str(root),
        max_megabytes=0.1,
        max_megapixels=0.1,
        timeout=20,
    )
    return prepare_service(config)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def client(service, said) -> Iterator[TestClient]:
    with TestClient(web.build_app(service, said.append)) as one:
        yield one


def task(address: str, number: int = 1) -> dict:
    return {"id": number, "data": {"photo": address}}


def predict(client, *addresses: str, config: str | None = CONFIG) -> list[dict]:
    tasks = [task(address, i) for i, address in enumerate(addresses)]
    body = {"tasks": tasks, "project": "1.1", "label_config": config, "params": {"context": None}}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def decoded(result: dict) -> np.ndarray:
    """Label Studio's run lengths, read bit by bit as its own decoder does: [H, W] bool."""
    bits = np.unpackbits(np.array(result["value"]["rle"], np.uint8))
    place = 0

    def take(count: int) -> int:
        nonlocal place
        value = int("".join(map(str, bits[place : place + count])), 2)
        place += count
        return value

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        same = take(1)
        count = take(sizes[take(2)]) + 1
        values += [take(word)] * count if same else [take(word) for _ in range(count)]
    alpha = np.array(values, np.uint8).reshape(result["original_height"], result["original_width"], 4)[..., 3]
    return alpha > 0


def test_a_tool_connects_as_label_studio_does(client, service):
    assert client.get("/health").json()["status"] == "UP"
    body = {
        "project": "1",
        "schema": CONFIG,
        "hostname": "http://x",
        "access_token": "t",
        "extra_params": None,
    }
    assert client.post("/setup", json=body).json() == {"model_version": service.version}
    assert service.version.startswith("clipseg ")
    assert client.post("/webhook", json={"action": "ANNOTATION_CREATED"}).status_code == 201


RECORDED_CONFIG = (
    '<!-- clipseg 0.1.0 -->\n<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
    '  <BrushLabels name="tag" toName="image">\n    <Label value="cat" background="#0072b2"/>\n'
    '    <Label value="dog" background="#e69f00"/>\n  </BrushLabels>\n</View>'
)
RECORDED_SETUP = {
    "project": "4.1795740180",
    "schema": RECORDED_CONFIG,
    "hostname": "http://localhost:8081",
    "access_token": "tok0123456789",
    "extra_params": None,
}
RECORDED_PREDICT = {
    "tasks": [
        {"id": 10, "data": {"image": "/data/local-files/?d=photos/one%20two.png"}, "meta": {},
         "created_at": "2026-11-27T00:43:00.449607Z", "updated_at": "2026-11-27T00:43:00.449656Z", "is_labeled": False,
         "overlap": 1, "inner_id": 1, "total_annotations": 0, "cancelled_annotations": 0, "total_predictions": 0,
         "comment_count": 0, "unresolved_comment_count": 0, "last_comment_updated_at": None, "project": 4,
         "updated_by": None, "file_upload": None, "comment_authors": [], "annotations": [], "predictions": []}
    ],
    "project": "4.1795740180",
    "label_config": RECORDED_CONFIG,
    "params": {"login": None, "password": None, "context": None},
}  # fmt: skip
"""What Label Studio 1.23.2 sent, with the words of these tests."""


def test_what_label_studio_sent_is_answered(client, service):
    """Its address names the folder of images, which is that of `--images` here."""
    assert client.post("/setup", json=RECORDED_SETUP).json() == {"model_version": service.version}
    (result,) = client.post("/predict", json=RECORDED_PREDICT).json()["results"]
    (same,) = predict(client, "/data/local-files/?d=one%20two.png")
    assert result["result"]
    assert [b["value"] for b in result["result"]] == [b["value"] for b in same["result"]]
    assert {(b["from_name"], b["to_name"]) for b in result["result"]} == {("tag", "image")}


def test_predictions_are_the_labels(client, service):
    local, upload = "/data/local-files/?d=one%20two.png", "http://tool:8080/data/upload/1/ab-x.png"
    inline = "data:image/png;base64," + base64.b64encode(png(seed=1)).decode()
    one, two, three = predict(client, local, upload, inline)
    labels = np.array(Image.open(io.BytesIO(service.png(png()))))
    names = service.classes.names
    for brushlabel in ("cat", "dog"):
        mine = [b for b in one["result"] if b["value"]["brushlabels"] == [brushlabel]]
        mask = np.any([decoded(b) for b in mine], axis=0) if mine else np.zeros(labels.shape, bool)
        assert np.array_equal(mask, labels == names.index(brushlabel))
    assert {b["value"]["brushlabels"][0] for b in one["result"]} <= {"cat", "dog"}  # cow is not asked for
    for brush in one["result"]:
        assert (brush["from_name"], brush["to_name"], brush["type"]) == ("brush", "pic", "brushlabels")
        assert (brush["original_height"], brush["original_width"]) == labels.shape
    assert [b["value"] for b in two["result"]] == [b["value"] for b in three["result"]]
    assert len({b["id"] for r in (one, two, three) for b in r["result"]}) == sum(
        len(r["result"]) for r in (one, two, three)
    )


def test_its_own_configuration_is_taken_where_none_is_sent(client):
    (result,) = client.post(
        "/predict", json={"tasks": [{"data": {"image": "/data/local-files/?d=one%20two.png"}}]}
    ).json()["results"]
    assert {(b["from_name"], b["to_name"]) for b in result["result"]} == {("tag", "image")}


def test_the_sdk_accepts_it(client):
    sdk = pytest.importorskip("label_studio_sdk.label_interface")
    (result,) = predict(client, "/data/local-files/?d=one%20two.png")
    assert sdk.LabelInterface(CONFIG).validate_prediction(result, return_errors=True) == []


def test_an_image_is_answered_with_its_label_png(client, service):
    answer = client.post("/segment", content=png(30, 41, seed=4))
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as found:
        assert found.size == (41, 30) and found.mode == "P"
    source = service._decoded(png(30, 41, seed=4))
    assert answer.content == encode_labels(service.label(source).labels, service.classes)


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
