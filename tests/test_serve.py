"""`clipseg serve`: Label Studio's requests as it sends them, and the answers it gets."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")

from serving import CONFIG, http_client, messages_said, png, predict, tiny_service  # noqa: F401

from clipseg_cli.outputs.labels import encode_labels


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
