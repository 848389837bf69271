"""A service over a folder of images, in this process, and what it is asked.

A test file imports the fixtures that it uses; their names are `service`, `said` and `client`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from clipseg_cli.commands import web
from clipseg_cli.commands.serve import Service, prepare_service
from clipseg_cli.config import ServeConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """<View><Image name="pic" value="$photo" zoom="true"/>
<BrushLabels name="brush" toName="pic"><Label value="cat"/><Label value="dog"/></BrushLabels></View>"""


def png(height=40, width=56, seed=0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module", name="service")
def tiny_service(tiny_clip, tmp_path_factory) -> Service:
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


@pytest.fixture(name="said")
def messages_said() -> list[str]:
    return []


@pytest.fixture(name="client")
def http_client(service, said) -> Iterator[TestClient]:
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
