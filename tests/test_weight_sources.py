"""Weights by tag: caches, no network, packages that are missing."""

import copy
import json
import logging
import socket
import time
import warnings

import huggingface_hub
import open_clip
import pytest
import torch
from clip_weights import (  # noqa: F401
    CONFIG,
    CPU,
    activations,
    assert_same_weights,
    message,
    registered,
    state_fixture,
    torchscript,
    variant,
    weights_fixture,
)
from safetensors.torch import save_file

from clipseg_cli.errors import ModelError
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.vit import QuickGELU
from clipseg_cli.models.weights import hub

# ---- tags, caches, no network


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A hub cache to put weights into: cache(repository, file name, state)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(repository, name, state):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text("a" * 40)
        (folder / "snapshots" / ("a" * 40)).mkdir(parents=True, exist_ok=True)
        path = folder / "snapshots" / ("a" * 40) / name
        save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)

    return put


def test_a_cached_tag_loads_without_network(cache, state):
    cache("someone/tiny", "open_clip_model.safetensors", state)
    backbone = load_backbone("tiny", None, CPU)
    assert backbone.pretrained == "openai"
    assert activations(backbone) == {QuickGELU}
    assert load_backbone("tiny", "OpenAI", CPU).fingerprint == backbone.fingerprint


def test_a_cached_pickle_of_a_named_file_loads_with_the_normalisation_of_its_tag(cache):
    model = open_clip.CLIP(**copy.deepcopy(variant(width=48)))
    cache("someone/wide", "file.bin", model.state_dict())
    backbone = load_backbone("tiny-wide", None, CPU)
    assert backbone.pretrained == "webli"
    assert backbone.mean == (0.5, 0.5, 0.5)


def test_weights_that_openais_package_downloaded_are_found(monkeypatch, tmp_path, state):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache/clip").mkdir(parents=True)
    torchscript(tmp_path / ".cache/clip/tiny.pt", state, quick_gelu=True)
    assert_same_weights(load_backbone("tiny", "openai", CPU), state)


def test_without_network_one_message_names_three_ways_out(caplog, capfd):
    said = message(load_backbone, "tiny", "openai", CPU)
    assert "tiny / openai is not on this machine" in said
    for way in ("--pretrained TAG", "--pretrained FILE", "--model emoji"):
        assert way in said
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_hub_offline_is_obeyed_without_asking_the_network(monkeypatch):
    def never(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(hub, "reachable", never)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids" in message(load_backbone, "tiny", None, CPU)


def test_a_failing_download_is_one_sentence_and_leaves_logging_as_it_was(monkeypatch):
    def fail(*_):
        logging.getLogger().warning("retrying")
        warnings.warn("still retrying", stacklevel=1)
        raise FileNotFoundError("first line\n404 for url")

    monkeypatch.setattr(hub, "reachable", lambda *_: True)
    monkeypatch.setattr(hub, "download_pretrained", fail)
    before = logging.root.manager.disable, list(logging.getLogger().handlers)
    said = message(load_backbone, "tiny", "other", CPU)
    assert said.startswith("cannot fetch tiny / other: 404 for url | three ways out")
    assert (logging.root.manager.disable, list(logging.getLogger().handlers)) == before


def test_a_server_that_never_answers_counts_as_no_network(monkeypatch):
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not hub.reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)
    assert time.monotonic() - start < 2
    assert hub.PROBE_SECONDS <= 5


def test_a_tokenizer_from_the_hub_says_the_same(monkeypatch, weights):
    said = []
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())

    def get_tokenizer(name, **options):
        said.append(options)
        raise OSError("no connection")

    monkeypatch.setattr(open_clip, "get_tokenizer", get_tokenizer)
    text = message(load_backbone, "tiny-hub", str(weights), CPU)
    assert "the tokenizer of tiny-hub (some/tokenizer) is not on this machine" in text
    assert "--model emoji" in text
    assert said == [{"local_files_only": True}]


def test_a_text_tower_whose_configuration_is_cached_is_built_without_network(cache, tmp_path):
    pytest.importorskip("transformers")
    from clipseg_cli.models.clip.backbones import _build

    text = {"hf_model_name": "some/bert", "hf_model_pretrained": False, "hf_proj_type": "linear"}
    config = {**copy.deepcopy(CONFIG), "text_cfg": {**text, "hf_pooler_type": "mean_pooler"}}
    with pytest.raises(ModelError, match="the text tower of tiny / other is not on this machine"):
        _build(config, "tiny / other")
    cache("some/bert", "config.json", {"unused": torch.zeros(1)})
    size = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    (path,) = tmp_path.glob("hub/**/config.json")
    path.write_text(json.dumps({"model_type": "bert", "vocab_size": 9, **size}))
    assert _build(config, "tiny / other").text.transformer.config.hidden_size == 8


def test_a_package_missing_behind_the_tokenizer_is_named():
    def local(only):
        raise ImportError("needs sentencepiece")

    said = message(hub.with_cache_first, local, "the tokenizer")
    assert said.startswith("the tokenizer cannot be loaded: needs sentencepiece")


def test_a_missing_package_is_named_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "needs the package 'transformers'" in message(load_backbone, "tiny-hub", "other", CPU)
