"""Any architecture, any weight file, no code run from it, and one clear sentence when it cannot be."""

import copy
import io
import json
import logging
import os
import pickle
import socket
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from open_clip.pretrained import _PRETRAINED, _pcfg, _slpcfg
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from clipseg_cli.errors import ModelError, UsageError
from clipseg_cli.models.clip import architectures
from clipseg_cli.models.clip.backbones import Backbone, load_backbone
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.checkpoints import read_checkpoint

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


@pytest.fixture(scope="module")
def state():
    """Weights that a half holds exactly, so that every format carries the same numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**copy.deepcopy(CONFIG))
    return {k: v.detach().half().float() for k, v in model.state_dict().items()}


@pytest.fixture
def weights(state, tmp_path) -> Path:
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
    loaded = backbone.model.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name


def message(call, *args) -> str:
    with pytest.raises((ModelError, UsageError)) as caught:
        call(*args)
    return f"{caught.value.message} | {caught.value.hint}"


# ---- what comes out


def test_a_backbone_is_frozen_and_says_what_it_is(weights, state):
    backbone = load_backbone("tiny", str(weights), CPU)
    assert_same_weights(backbone, state)
    assert not backbone.model.training
    assert not any(p.requires_grad for p in backbone.model.parameters())
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    assert (backbone.name, backbone.pretrained) == ("tiny", str(weights))
    assert (backbone.image_size, backbone.short_side) == (32, 48)
    assert backbone.mean == pytest.approx((0.481, 0.458, 0.408), abs=1e-3)
    assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-3)
    assert backbone.words is None
    assert backbone.tokenizer(["a cat"]).shape == (1, 77)
    image = backbone.model.encode_image(torch.zeros(1, 3, 32, 32))
    assert image.shape == (1, 32)


def test_the_features_are_those_of_open_clip(weights):
    mine = load_backbone("tiny", str(weights), CPU).model
    with hub.quiet():
        theirs = open_clip.create_model("tiny", pretrained=str(weights)).eval()
    image, text = torch.rand(2, 3, 32, 32), torch.randint(0, 49408, (2, 77))
    with torch.no_grad():
        torch.testing.assert_close(mine.encode_image(image), theirs.encode_image(image))
        torch.testing.assert_close(mine.encode_text(text), theirs.encode_text(text))


@pytest.mark.parametrize(("size", "patch", "side"), [(224, 16, 336), (224, 14, 336), (224, 32, 352)])
def test_short_side_is_one_and_a_half_times_the_native_in_whole_patches(size, patch, side):
    from types import SimpleNamespace

    from clipseg_cli.models.clip.backbones import _dense_side

    net = SimpleNamespace(visual=SimpleNamespace(patch_size=(patch, patch)))
    assert _dense_side(net, size) == side


def test_logit_scale_is_capped(state, tmp_path):
    save_file({**state, "logit_scale": torch.tensor(9.0)}, tmp_path / "hot.safetensors")
    assert load_backbone("tiny", str(tmp_path / "hot.safetensors"), CPU).logit_scale == 100.0


def test_a_slash_in_the_name_is_understood(monkeypatch, weights):
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-b-16", CONFIG)
    assert load_backbone("tiny-b/16", str(weights), CPU).name == "tiny-b-16"


# ---- formats


def written(path: Path, state, layout: str) -> Path:
    wrapped = {f"module.{k}": v for k, v in state.items()}
    match layout:
        case "safetensors without suffix":
            save_file(state, path)
        case "state dict":
            torch.save(state, path)
        case "old torch.save":
            torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
        case "training checkpoint":
            torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": {"lr": 1.0}}, path)
        case "compiled under 'model'":
            torch.save({"model": {f"module._orig_mod.{k}": v for k, v in state.items()}}, path)
        case "half precision":
            torch.save({k: v.half() for k, v in state.items()}, path)
        case "OpenAI archive of GELU":
            torchscript(path, state, quick_gelu=False)
    return path


@pytest.mark.parametrize(
    "layout",
    [
        "safetensors without suffix",
        "state dict",
        "old torch.save",
        "training checkpoint",
        "compiled under 'model'",
        "half precision",
        "OpenAI archive of GELU",
    ],
)
def test_every_format_gives_the_same_weights_and_fingerprint(layout, state, weights, tmp_path):
    reference = load_backbone("tiny", str(weights), CPU)
    backbone = load_backbone("tiny", str(written(tmp_path / "file", state, layout)), CPU)
    assert_same_weights(backbone, state)
    assert backbone.fingerprint == reference.fingerprint


def test_another_weight_gives_another_fingerprint(state, weights, tmp_path):
    changed = {**state, "ln_final.bias": state["ln_final.bias"] + 1e-6}
    save_file(changed, tmp_path / "changed.safetensors")
    one, two = (load_backbone("tiny", str(f), CPU) for f in (weights, tmp_path / "changed.safetensors"))
    assert one.fingerprint != two.fingerprint
    assert len(one.fingerprint) == 16


def test_a_custom_text_tower_takes_plain_clip_weights(weights):
    backbone = load_backbone("tiny-custom", str(weights), CPU)
    assert type(backbone.model).__name__ == "CustomTextCLIP"
    assert float(backbone.model.logit_bias) == 0.0


def test_a_resnet_loads(tmp_path):
    model = open_clip.CLIP(**copy.deepcopy(variant(layers=[1, 1, 1, 1], width=8, head_width=16)))
    plain = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(plain, tmp_path / "resnet.pt")
    backbone = load_backbone("tiny-resnet", str(tmp_path / "resnet.pt"), CPU)
    assert backbone.short_side == 64  # 1.5 x 32, in steps of 32


def test_positions_of_another_image_size_are_resized_and_it_is_said(weights, caplog):
    with caplog.at_level(logging.INFO, logger="clipseg_cli"):
        backbone = load_backbone("tiny-64", str(weights), CPU)
    assert backbone.model.visual.positional_embedding.shape[0] == 65
    assert "visual.positional_embedding resized from 17 to 65 positions" in caplog.text


# ---- QuickGELU and normalisation


def activations(backbone: Backbone) -> set[type]:
    blocks = [*backbone.model.visual.transformer.resblocks, *backbone.model.transformer.resblocks]
    return {type(block.mlp.gelu) for block in blocks}


def test_openai_archives_get_quickgelu_by_themselves(state, weights, tmp_path):
    archive = torchscript(tmp_path / "openai.pt", state, quick_gelu=True)
    backbone = load_backbone("tiny", str(archive), CPU)
    assert_same_weights(backbone, state)
    assert activations(backbone) == {QuickGELU}
    # The same weights with the same activation are the same model, however they came.
    forced = load_backbone("tiny-quickgelu", str(weights), CPU)
    assert backbone.fingerprint == forced.fingerprint
    # With the other activation they are another: cached text embeddings must not be shared.
    assert backbone.fingerprint != load_backbone("tiny", str(weights), CPU).fingerprint


def test_an_archive_that_names_gelu_keeps_gelu(state, tmp_path):
    archive = torchscript(tmp_path / "gelu.pt", state, quick_gelu=False)
    assert activations(load_backbone("tiny", str(archive), CPU)) == {torch.nn.GELU}


def test_a_state_dict_with_openais_sizes_gets_quickgelu(state, tmp_path):
    sizes = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(77)}
    torch.save({**state, **sizes, "vocab_size": torch.tensor(49408)}, tmp_path / "openai.pt")
    assert activations(load_backbone("tiny", str(tmp_path / "openai.pt"), CPU)) == {QuickGELU}


@pytest.mark.parametrize(
    ("model", "file", "activation"),
    [
        ("tiny", "weights.pt", torch.nn.GELU),
        ("tiny-quickgelu", "weights.pt", QuickGELU),
        ("tiny", "published_as.pt", QuickGELU),
    ],
)
def test_a_bare_state_dict_follows_the_name(model, file, activation, state, tmp_path):
    torch.save(state, tmp_path / file)
    assert activations(load_backbone(model, str(tmp_path / file), CPU)) == {activation}


def test_a_configuration_beside_the_weights_is_believed(weights):
    config = {
        "model_cfg": {"quick_gelu": True},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    weights.with_name("open_clip_config.json").write_text(json.dumps(config))
    backbone = load_backbone("tiny", str(weights), CPU)
    assert activations(backbone) == {QuickGELU}
    assert (backbone.mean, backbone.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("model", "tag"), [("ViT-B-16", "openai"), ("ViT-B-16", "metaclip_400m"), ("ViT-L-14", "dfn2b")]
)
def test_open_clip_still_marks_quickgelu_tags(model, tag):
    assert architectures.tag_config(model, tag)["quick_gelu"]
    assert not architectures.tag_config("ViT-B-16", "laion2b_s34b_b88k").get("quick_gelu")


def test_a_file_is_normalised_as_the_published_weights_of_its_architecture():
    assert architectures.common_normalisation("ViT-B-16-SigLIP").mean == (0.5, 0.5, 0.5)
    assert architectures.common_normalisation("ViT-B-16").mean[0] == pytest.approx(0.4815, abs=1e-4)


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


# ---- names


@pytest.mark.parametrize(
    ("model", "pretrained", "said"),
    [
        ("ViT-B16", None, "unknown model 'ViT-B16' | did you mean 'ViT-B-16'"),
        ("tiny", "opnai", "tiny has no weights with the tag 'opnai' | did you mean 'openai'?"),
        ("ViT-S-16", None, "open_clip has no weights for ViT-S-16"),
    ],
)
def test_a_wrong_name_is_a_usage_error_with_the_nearest(model, pretrained, said):
    with pytest.raises(UsageError):
        load_backbone(model, pretrained, CPU)
    assert said in message(load_backbone, model, pretrained, CPU)


# ---- the bundled model


@pytest.fixture
def bundle(monkeypatch, tmp_path, state):
    folder = tmp_path / "bundled/emoji"
    folder.mkdir(parents=True)
    config = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: v.half() for k, v in state.items()}, folder / "model.safetensors")
    (folder / "words.txt").write_text("# trained on\ncat\nhot dog\n\n")
    monkeypatch.setattr(architectures, "BUNDLED", tmp_path / "bundled")
    return folder


def test_the_bundled_model_loads_in_full_precision_with_its_words(bundle, state):
    backbone = load_backbone("emoji", None, CPU)
    assert_same_weights(backbone, state)
    assert {p.dtype for p in backbone.model.parameters()} == {torch.float32}
    assert backbone.words == {"cat", "hot dog"}
    assert (backbone.name, backbone.pretrained) == ("emoji", "bundled")
    assert backbone.image_size == backbone.short_side == 32
    assert backbone.mean == (0.5, 0.5, 0.5)


def test_the_bundled_architecture_takes_other_weights(bundle, weights, state):
    backbone = load_backbone("emoji", str(weights), CPU)
    assert_same_weights(backbone, state)
    assert backbone.words is None


def test_the_bundled_model_has_no_tags(bundle):
    assert "emoji has no weights with the tag 'openai'" in message(load_backbone, "emoji", "openai", CPU)


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_a_missing_bundle_is_said(bundle, missing):
    (bundle / missing).unlink()
    assert "the bundled model is missing in this installation" in message(load_backbone, "emoji", None, CPU)


# ---- files that are not what they should be


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(new, tmp_path, state):
    marker, path = tmp_path / "it-ran", tmp_path / "evil.pt"
    torch.save({"state_dict": state, "x": Evil(marker)}, path, _use_new_zipfile_serialization=new)
    said = message(load_backbone, "tiny", str(path), CPU)
    assert "wants to run code when opened" in said
    assert "system" in said
    assert not marker.exists()


def archive(path: Path, data: bytes, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("evil/constants.pkl", b"")
        file.writestr("evil/code/__torch__.py", b"raise SystemExit")
        file.writestr("evil/data.pkl", data)
        for name, content in entries.items():
            file.writestr(f"evil/data/{name}", content)
    return path


def test_an_archive_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "it-ran"
    path = archive(tmp_path / "evil.pt", pickle.dumps({"visual": Evil(marker)}, protocol=2))
    said = message(read_checkpoint, path)
    assert "wants to run code when opened (posix.system)" in said
    assert not marker.exists()


@pytest.mark.parametrize("name", ["builtins getattr", "torch load", "torch.jit load", "functools partial"])
def test_an_archive_may_name_nothing_but_tensors(name, tmp_path):
    module, _, attribute = name.partition(" ")
    data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b")R."
    assert "wants to run code" in message(read_checkpoint, archive(tmp_path / "evil.pt", data))


def tensor_stream(size: int, stride: int, offset: int, key: str = "0") -> bytes:
    """`data.pkl` of a module `m` with one tensor `w`, written by hand."""

    class Rebuild:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (Storage(), offset, (size,), (stride,), False, {}))

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", torch.FloatStorage, key, "cpu", 4) if isinstance(item, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Rebuild())
    tensor = buffer.getvalue()[2:-1]
    return b"\x80\x02c__torch__\nM\n)\x81}(X\x01\x00\x00\x00w" + tensor + b"ub."


def test_a_tensor_written_by_hand_reads(tmp_path):
    content = torch.arange(4, dtype=torch.float32).numpy().tobytes()
    path = archive(tmp_path / "m.pt", tensor_stream(2, 2, 1), **{"0": content})
    assert read_checkpoint(path).tensors["w"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "key"), [(5, 1, 0, "0"), (2, 4, 0, "0"), (1, 1, -1, "0"), (1, 1, 0, "../0")]
)
def test_a_tensor_cannot_reach_beyond_its_data(size, stride, offset, key, tmp_path):
    path = archive(tmp_path / "m.pt", tensor_stream(size, stride, offset, key), **{"0": bytes(16)})
    assert "m.pt" in message(read_checkpoint, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>Not Found</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"just some text", "is not a weight file"),
        (b"\x80\x02garbage", "is damaged or cut short"),
        (b"PK\x03\x04garbage", "is damaged or cut short"),
        ((64).to_bytes(8, "little") + b'{"a": {"dtype"', "is damaged or cut short"),
    ],
)
def test_every_wrong_file_has_its_own_sentence(content, said, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    assert said in message(load_backbone, "tiny", str(tmp_path / "weights.pt"), CPU)


@pytest.mark.parametrize("layout", ["safetensors without suffix", "state dict", "OpenAI archive of GELU"])
@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_file_that_is_cut_short_is_said_so(layout, share, state, tmp_path):
    path = written(tmp_path / "weights.pt", state, layout)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "is damaged or cut short" in message(load_backbone, "tiny", str(path), CPU)


def test_a_folder_a_missing_file_and_a_zip_are_named(tmp_path):
    assert "is a folder" in message(load_backbone, "tiny", str(tmp_path), CPU)
    assert "no such weight file" in message(load_backbone, "tiny", str(tmp_path / "none.pt"), CPU)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("photo.jpg", b"")
    assert "zip archive without PyTorch weights" in message(read_checkpoint, tmp_path / "photos.zip")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], torch.zeros(3)])
def test_a_file_without_a_table_of_weights_is_said_so(content, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    assert "not a table of weights" in (said := message(read_checkpoint, tmp_path / "odd.pt")) or (
        "holds no weights" in said
    )


# ---- weights of another architecture


def test_other_shapes_name_the_first_and_the_architecture_that_fits(weights):
    said = message(load_backbone, "tiny-wide", str(weights), CPU)
    assert "does not fit tiny-wide" in said
    assert "visual.class_embedding is [32] where [48] is expected (and " in said
    assert "--model tiny" in said


def test_missing_and_unexpected_names_are_counted(state, tmp_path):
    odd = {k: v for k, v in state.items() if "visual.transformer.resblocks.1" not in k}
    torch.save({**odd, "head.weight": torch.zeros(2)}, tmp_path / "odd.pt")
    said = message(load_backbone, "tiny", str(tmp_path / "odd.pt"), CPU)
    assert "missing 12 keys (visual.transformer.resblocks.1.ln_1.weight, " in said
    assert ", ...)" in said
    assert "unexpected 1 key (head.weight)" in said


def test_weights_for_transformers_are_recognised(tmp_path):
    torch.save({"vision_model.embeddings.class_embedding": torch.zeros(3)}, tmp_path / "hf.bin")
    assert "laid out for 'transformers'" in message(load_backbone, "tiny", str(tmp_path / "hf.bin"), CPU)


def test_published_shapes_are_guessed():
    for name in ("ViT-B-16", "ViT-L-14-336", "RN50", "RN101"):
        with torch.device("meta"):
            net = architectures.build_model(architectures.architecture_config(name))
        assert architectures.guess_architecture(net.state_dict()) == name
