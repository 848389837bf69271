"""Weights of a tiny CLIP in every format, and what tests of them ask."""

import copy
import warnings
import zipfile
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED, _pcfg, _slpcfg
from safetensors.torch import save_file

from clipseg_cli.errors import ModelError, UsageError
from clipseg_cli.models.clip.backbones import Backbone
from clipseg_cli.models.weights import hub

CPU = torch.device("cpu")


CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def variant(**vision):
    config = copy.deepcopy(CONFIG)
    config["vision_cfg"].update(vision)
    return config


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """A few tiny architectures, known to open_clip only here; and never the network."""
    known = {
        "tiny": CONFIG,
        "tiny-quickgelu": {**copy.deepcopy(CONFIG), "quick_gelu": True},
        "tiny-64": variant(image_size=64),
        "tiny-wide": variant(width=48),
        "tiny-resnet": variant(layers=[1, 1, 1, 1], width=8, head_width=16),
        "tiny-custom": {**copy.deepcopy(CONFIG), "custom_text": True, "init_logit_bias": -10},
        "tiny-hub": {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "some/tokenizer"}},
    }
    for name, config in known.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    tags = {
        "other": _pcfg(hf_hub="someone/other/"),
        "openai": _pcfg(url="http://x/openaipublic/0/tiny.pt", hf_hub="someone/tiny/", quick_gelu=True),
        "named": _pcfg(url="http://x/published_as.pt", hf_hub="someone/named/", quick_gelu=True),
    }
    monkeypatch.setitem(_PRETRAINED, "tiny", tags)
    monkeypatch.setitem(_PRETRAINED, "tiny-hub", {"other": _pcfg(hf_hub="someone/other/")})
    monkeypatch.setitem(_PRETRAINED, "tiny-wide", {"webli": _slpcfg(hf_hub="someone/wide/file.bin")})

    def no_download(*_, **__):
        raise AssertionError("tried to download")

    monkeypatch.setattr(hub, "reachable", lambda *_: False)
    monkeypatch.setattr(hub, "download_pretrained", no_download)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nowhere")


@pytest.fixture(name="state", scope="module")
def state_fixture():
    """Weights that a half holds exactly, so that every format carries the same numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**copy.deepcopy(CONFIG))
    return {k: v.detach().half().float() for k, v in model.state_dict().items()}


@pytest.fixture(name="weights")
def weights_fixture(state, tmp_path) -> Path:
    save_file(state, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def torchscript(path: Path, state, quick_gelu: bool) -> Path:
    """An archive as OpenAI published them: half precision, with three sizes between the weights."""
    model = open_clip.CLIP(**copy.deepcopy(CONFIG), quick_gelu=quick_gelu).eval()
    model.load_state_dict(state)
    if quick_gelu:
        for name, size in (("input_resolution", 32), ("context_length", 77), ("vocab_size", 49408)):
            if hasattr(model, name):
                delattr(model, name)
            model.register_buffer(name, torch.tensor(size))
    image, text = torch.ones(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace_module(
            model, {"encode_image": (image,), "encode_text": (text,)}, check_trace=False
        )
        traced.half().save(str(path))
    return path


def assert_same_weights(backbone: Backbone, state) -> None:
    backbone.model.load_text()
    loaded = backbone.model.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name


def message(call, *args) -> str:
    with pytest.raises((ModelError, UsageError)) as caught:
        call(*args)
    return f"{caught.value.message} | {caught.value.hint}"


# ---- QuickGELU and normalisation


def activations(backbone: Backbone) -> set[type]:
    blocks = [*backbone.model.visual.transformer.resblocks, *backbone.model.transformer.resblocks]
    return {type(block.mlp.gelu) for block in blocks}


def archive(path: Path, data: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("evil/constants.pkl", b"")
        file.writestr("evil/code/__torch__.py", b"raise SystemExit")
        file.writestr("evil/data.pkl", data)
        for name, content in entries.items():
            file.writestr(f"evil/data/{name}", content)
    return path
