"""Half precision: weights are cast once, the labels stay, and what identifies a network does not change."""

from __future__ import annotations

import copy

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import nn

from clipseg_cli import Segmenter
from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import dense_reader, with_overrides
from clipseg_cli.models.weights.precision import computing_as_held, hold_weights_in
from clipseg_cli.utils import device as devices

PLAIN = [
    name
    for name, method in ((name, METHODS.get(name)) for name in METHODS.names())
    if not method.guided and method.pyramid is None and method.read_twice is None
]
WORDS = ("cow,sheep,horse,tractor,tree,house,sun", "sky,grass")


@pytest.fixture
def visual():
    torch.manual_seed(0)
    net = open_clip.transformer.VisionTransformer(
        image_size=32, patch_size=4, width=32, layers=12, heads=2, mlp_ratio=2, output_dim=16
    )
    return net.eval().requires_grad_(False)


def test_matrices_are_cast_and_nothing_else(visual):
    hold_weights_in(visual, torch.bfloat16)
    kinds = {name: parameter.dtype for name, parameter in visual.named_parameters()}
    assert kinds["conv1.weight"] == kinds["transformer.resblocks.3.mlp.c_fc.weight"] == torch.bfloat16
    assert kinds["transformer.resblocks.3.attn.in_proj_weight"] == torch.bfloat16
    assert kinds["positional_embedding"] == kinds["ln_post.weight"] == torch.float32


def test_weights_that_are_shared_stay_shared(visual):
    other = with_overrides(visual, "quick_gelu", 1e-5)
    hold_weights_in(visual, torch.bfloat16)
    assert other.conv1.weight is visual.conv1.weight


def test_float32_changes_nothing(visual):
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    hold_weights_in(visual, torch.float32)
    assert all(tensor.equal(before[name]) for name, tensor in visual.state_dict().items())
    with computing_as_held(visual):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("method", PLAIN)
def test_every_method_reads_cast_weights_as_autocast_reads_uncast_ones(visual, method):
    image = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    own = copy.deepcopy(visual)
    hold_weights_in(own, torch.bfloat16)
    with torch.inference_mode():
        exact = dense_reader(visual, METHODS.get(method))(image).features
        with torch.autocast("cpu", torch.bfloat16):
            cast = dense_reader(visual, METHODS.get(method))(image).features.float()
        with computing_as_held(own):
            held = dense_reader(own, METHODS.get(method))(image).features.float()
    near = nn.functional.cosine_similarity(exact, held, dim=1)
    assert near.median() > 0.99
    # Not worse than what autocast itself loses, but for rounding at other places.
    assert (1 - near.median()) <= 3 * (
        1 - nn.functional.cosine_similarity(exact, cast, dim=1).median()
    ) + 1e-3


def small_farm():
    """uint8 [224, 320, 3], in which the bundled model sees several classes."""
    with Image.open("samples/farm_large.jpg") as image:
        return np.asarray(image.convert("RGB").resize((320, 224)))


def test_labels_hardly_change():
    maps = []
    for precision in ("fp32", "bf16"):
        model = Segmenter.from_pretrained("emoji", device="cpu", precision=precision)
        maps.append(model.segment(small_farm(), WORDS[0], background=WORDS[1]).labels)
    assert len(np.unique(maps[0])) > 3
    assert (maps[0] == maps[1]).mean() > 0.98


@pytest.mark.parametrize("saliency", ["found", "clip"])
def test_what_finds_the_foreground_computes_in_it_too(cli, tmp_path, saliency):
    options = ("--model", "emoji", "--classes", WORDS[0], "--device", "cpu", "--saliency", saliency)
    farm = tmp_path / "farm.png"
    Image.fromarray(small_farm()).save(farm)
    maps = []
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        done = cli(
            "segment",
            farm,
            *options,
            "--precision",
            precision,
            "--short-side",
            "224",
            "--out",
            out,
        )
        assert done.code == 0, done.err
        assert f", {precision}" in done.err
        maps.append(np.asarray(Image.open(out / "farm.png")))
    assert len(np.unique(maps[0])) > 3
    assert (maps[0] == maps[1]).mean() > 0.95


@pytest.mark.parametrize(("units", "chosen"), [("AMX", torch.bfloat16), ("", torch.float32)])
def test_auto_takes_it_where_the_processor_has_units_for_it(monkeypatch, units, chosen):
    monkeypatch.setattr(devices, "_bf16_units", lambda: units)
    assert devices.pick_precision("auto", torch.device("cpu")) == chosen
    assert devices.pick_precision("bf16", torch.device("cpu")) == torch.bfloat16
    assert devices.pick_precision("fp32", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("units", "said"), [("AMX", "bf16 (AMX)"), ("", "bf16 (slow: this CPU has no instructions for it)")]
)
def test_bf16_works_on_every_processor_and_is_said_to_be_slow_where_it_is(
    cli, tiny_clip, make_image, tmp_path, monkeypatch, units, said
):
    monkeypatch.setattr(devices, "_bf16_units", lambda: units)
    options = ("--model", tiny_clip.name, "--pretrained", str(tiny_clip.weights), "--device", "cpu")
    image = make_image(tmp_path / "a.png", 64, 80)
    done = cli(
        "segment", image, *options, "--classes", "cat,dog", "--precision", "bf16", "--out", tmp_path / "o"
    )
    assert done.code == 0, done.err
    assert said in done.err
    assert (tmp_path / "o" / "a.png").is_file()
