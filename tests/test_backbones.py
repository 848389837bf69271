"""Backbones: what comes out of a loader, for every name, and the bundled model."""

import json

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
    weights_fixture,
)
from safetensors.torch import save_file

from clipseg_cli.errors import UsageError
from clipseg_cli.models.clip import architectures
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.vit import QuickGELU
from clipseg_cli.models.weights import hub

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
