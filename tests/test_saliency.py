"""Second networks: self-supervised ViTs of timm, FOUND's head on them, the normalised cut of CLIP's own patches."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from clipseg_cli.config import InferenceConfig
from clipseg_cli.data.saliency_maps import read_saliency
from clipseg_cli.errors import ImageError, ModelError, UsageError
from clipseg_cli.inference.auxiliary import check_guides
from clipseg_cli.methods import METHODS
from clipseg_cli.models.auxiliary.clip_vit import ClipViT
from clipseg_cli.models.auxiliary.saliency import MOST_PATCHES, ClipCut, Found, LeastAttended, bounded
from clipseg_cli.models.auxiliary.self_supervised import (
    SelfSupervisedGuide,
    SelfSupervisedViT,
    load_self_supervised,
)
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops import spectral
from clipseg_cli.ops.spectral import foreground

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
CPU = torch.device("cpu")
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}


def small(**options: Any) -> SelfSupervisedViT:
    torch.manual_seed(0)
    net = timm.create_model(
        "vit_small_patch8_224", num_classes=0, dynamic_img_size=True, **{**SMALL, **options}
    )
    return SelfSupervisedViT(net.eval().requires_grad_(False), MEAN, STD)


def random_images(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_features_are_those_of_timm() -> None:
    vit, image = small(), random_images(32, 48)
    x = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected = vit.net.forward_features(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(vit.features(image), expected)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"init_values": 0.1}])
@torch.inference_mode()
def test_the_last_block_sees_what_timm_hands_to_it(options: dict[str, Any]) -> None:
    vit, image, seen = small(**options), random_images(32, 32), {}
    vit.net.blocks[-1].attn.qkv.register_forward_hook(lambda m, i, out: seen.update(qkv=out))
    vit.features(image)
    found = vit.last_block(image)
    patches = seen["qkv"][:, vit.net.num_prefix_tokens :].chunk(3, dim=-1)
    for ours, theirs in zip(found[:3], patches, strict=True):
        torch.testing.assert_close(ours.flatten(2).mT, theirs)
    assert found.cls_attention.shape == (2, 3, 17)
    torch.testing.assert_close(found.cls_attention.sum(dim=-1), torch.ones(2, 3))


@torch.inference_mode()
def test_sides_are_padded_to_whole_patches() -> None:
    vit = small()
    assert vit.features(random_images(30, 41)).shape == (2, 24, 4, 6)
    head = Found(vit, torch.randn(1, 24, 1, 1), torch.zeros(1))
    saliency = head(random_images(30, 41))
    assert saliency.shape == (2, 1, 30, 41)
    assert 0 <= saliency.min() < saliency.max() <= 1


@torch.inference_mode()
def test_what_dino_attends_to_is_all_but_its_least_attended_kind_of_patch() -> None:
    vit = small()
    image = random_images(40, 64)
    found, last = LeastAttended(vit)(image), vit.last_block(image)
    assert found.shape == (2, 1, 40, 64)
    least = last.cls_attention[:, :, 1:]
    assert (found.amin(dim=(1, 2, 3)) == 0).all() and found.max() <= 1 and least.shape == (2, 3, 40)


@torch.inference_mode()
def test_a_guide_sees_the_picture_as_it_was() -> None:
    """Normalised for CLIP, it is brought back before the other network normalises it for itself."""
    vit, image = small(), random_images(32, 32)
    mean, std = (0.1, 0.2, 0.3), (0.9, 0.8, 0.7)
    normalised = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(SelfSupervisedGuide(vit, mean, std)(normalised), vit.features(image))
    values = SelfSupervisedGuide(vit, mean, std, reads="values")(normalised)
    torch.testing.assert_close(values, vit.last_block(image).v)


# Weights


@pytest.fixture
def tiny_dino(monkeypatch) -> Any:
    """timm builds its DINO small here."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **k: create(name, **{**k, **SMALL}))
    torch.manual_seed(0)
    return create("vit_small_patch8_224", num_classes=0, **SMALL)


@pytest.mark.parametrize("layout", ["plain", "teacher"])
def test_published_layouts_are_read(tiny_dino, tmp_path, layout: str) -> None:
    """DINO's own file has the backbone alone, with or without the prefix of its training checkpoint."""
    prefix = "" if layout == "plain" else "backbone."
    state = {prefix + key: value for key, value in tiny_dino.state_dict().items()}
    torch.save(state | {"head.mlp.0.weight": torch.zeros(2)}, tmp_path / "dino.pth")
    vit = load_self_supervised(f"dino={tmp_path / 'dino.pth'}", CPU)
    for key, value in vit.net.state_dict().items():
        assert torch.equal(value, tiny_dino.state_dict()[key])
    assert vit.patch == 8


def test_weights_of_another_network_are_refused(tiny_dino, tmp_path) -> None:
    state = tiny_dino.state_dict()
    torch.save({**state, "pos_embed": torch.zeros(1, 5, 24)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"pos_embed is \[1, 5, 24\] where"):
        load_self_supervised(f"dino={tmp_path / 'other.pth'}", CPU)
    del state["cls_token"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(ModelError, match=r"missing 1 key \(cls_token\)"):
        load_self_supervised(f"dino={tmp_path / 'half.pth'}", CPU)


def test_unknown_networks_and_missing_files_are_named() -> None:
    with pytest.raises(UsageError, match="unknown network 'dyno'") as caught:
        load_self_supervised("dyno", CPU)
    assert "dino" in (caught.value.hint or "")
    with pytest.raises(ModelError, match=r"nowhere\.pth: no such weight file"):
        load_self_supervised("dino=nowhere.pth", CPU)


def test_a_head_of_another_width_is_refused() -> None:
    with pytest.raises(ModelError, match="is for 384 channels, and the network has 24"):
        Found.of(
            small(), {"decoder.weight": torch.zeros(1, 384, 1, 1), "decoder.bias": torch.zeros(1)}, "x.pt"
        )
    with pytest.raises(ModelError, match=r"x\.pt holds no head of FOUND"):
        Found.of(small(), {"something": torch.zeros(1)}, "x.pt")


# Foreground by normalised cuts

H, W = 16, 20
SKY, BLOBS = slice(0, 7), ((slice(3, 9), slice(3, 7)), (slice(9, 13), slice(13, 17)))


def inside(*blobs: tuple[slice, slice]) -> torch.Tensor:
    mask = torch.zeros(H, W, dtype=torch.bool)
    for blob in blobs:
        mask[blob] = True
    return mask


def features(*blobs: tuple[slice, slice], horizon: bool = True, noise: float = 0.03) -> torch.Tensor:
    """A sky above a ground, things before both, each kind with a feature of its own."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.linalg.qr(torch.randn(128, 16, generator=generator))[0].mT
    found = kinds[0][:, None, None].repeat(1, H, W)
    if horizon:
        found[:, SKY] = kinds[1][:, None, None]
    for kind, blob in zip(kinds[2:], blobs, strict=False):
        found[(slice(None), *blob)] = kind[:, None, None]
    found = found + noise * torch.randn(found.shape, generator=generator)
    return found - found.mean(dim=(1, 2), keepdim=True)  # as `ClipCut` compares them


@pytest.mark.parametrize("horizon", [False, True])
@pytest.mark.parametrize("blobs", [BLOBS[:1], BLOBS[1:], BLOBS], ids=["across", "below", "both"])
def test_things_are_found_and_neither_sky_nor_ground(blobs: Any, horizon: bool) -> None:
    found = foreground(features(*blobs, horizon=horizon))
    assert found.min() >= 0 and found.max() <= 1
    assert found[inside(*blobs)].min() > 0.5 > found[~inside(*blobs)].max()


def test_the_sign_of_an_eigenvector_means_nothing(monkeypatch) -> None:
    before = foreground(features(*BLOBS))
    cut = spectral.normalised_cut
    monkeypatch.setattr(
        spectral, "normalised_cut", lambda graph: (lambda vector, cost: (-vector, cost))(*cut(graph))
    )
    torch.testing.assert_close(foreground(features(*BLOBS)), before)


def test_a_thing_that_reaches_out_of_the_picture_is_one() -> None:
    blob = (slice(10, H), slice(6, 12))
    found = foreground(features(blob))
    assert found[inside(blob)].min() > 0.5 > found[~inside(blob)].max()


@pytest.mark.parametrize(
    "flat",
    [
        torch.zeros(8, H, W),
        features(horizon=False),
        features(horizon=True),
        torch.randn(8, 1, 1),
        torch.randn(8, 1, 3),
        torch.randn(64, H, W, generator=torch.Generator().manual_seed(2)),
    ],
    ids=["nothing", "ground", "horizon", "patch", "row", "noise"],
)
def test_a_picture_without_a_thing_is_undecided(flat: torch.Tensor) -> None:
    """So that the fusion leaves the scores as they are."""
    assert torch.equal(foreground(flat), torch.full(flat.shape[1:], 0.5))


def test_no_more_is_cut_than_agreed(monkeypatch) -> None:
    sizes: list[int] = []
    cut = spectral.normalised_cut
    monkeypatch.setattr(spectral, "normalised_cut", lambda graph: sizes.append(len(graph)) or cut(graph))
    many = [(slice(y, y + 2), slice(x, x + 2)) for y in (1, 5, 9, 13) for x in (2, 7, 12, 16)]
    foreground(features(*many[:14]))
    assert 1 <= len(sizes) <= spectral.MOST_CUTS and sizes[0] == H * W


def test_the_cut_is_an_eigenvector_of_the_normalised_laplacian() -> None:
    graph = spectral.similarity_graph(features(*BLOBS))
    cut, cost = spectral.normalised_cut(graph)
    degree, graph, cut = graph.sum(dim=1).double(), graph.double(), cut.double()
    left, right = degree * cut - graph @ cut, degree * cut
    assert 0 < cost < spectral.WHOLE
    torch.testing.assert_close(left, cost * right, atol=1e-3, rtol=0)
    assert abs(float(cut @ degree / degree.norm())) < 1e-3  # orthogonal to the first, which is constant


@torch.inference_mode()
def test_clip_cuts_its_own_patches(tiny_clip) -> None:
    reader = dense_reader(tiny_clip.model.visual, METHODS.get("maskclip"))
    side = 4 * reader.patch
    found = ClipCut(reader, reader.tower.visual, MEAN, STD)(random_images(side, side + reader.patch))
    assert found.shape == (2, 1, 4, 5)
    assert 0 <= found.min() <= found.max() <= 1


@torch.inference_mode()
def test_very_large_pictures_are_seen_smaller(tiny_clip) -> None:
    """Or every patch would be compared with a hundred thousand others."""
    reader = dense_reader(tiny_clip.model.visual, METHODS.get("maskclip"))
    found = ClipCut(reader, reader.tower.visual, MEAN, STD)(random_images(400, 640, batch=1))
    assert 900 < found.shape[2] * found.shape[3] <= MOST_PATCHES
    assert abs(found.shape[3] / found.shape[2] - 1.6) < 0.1
    assert bounded(random_images(40, 64), 40 * 64).shape == (2, 3, 40, 64)
    assert bounded(random_images(1, 4000, batch=1), 1000, 8).shape == (1, 3, 8, 2000)


# The tower of a CLIP in the place of DINO


@torch.inference_mode()
def test_a_clip_is_seen_as_a_dino_is(tiny_clip) -> None:
    """Its keys are those of the last block as open_clip runs it."""
    visual: Any = tiny_clip.model.visual
    vit, image = ClipViT(visual, MEAN, STD), random_images(64, 64)
    seen: dict[str, torch.Tensor] = {}
    last = visual.transformer.resblocks[-1]
    handle = last.ln_1.register_forward_hook(lambda m, i, out: seen.update(x=out))
    visual((image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    handle.remove()
    joined = torch.nn.functional.linear(seen["x"], last.attn.in_proj_weight, last.attn.in_proj_bias)[:, 1:]
    found = vit.last_block(image)
    torch.testing.assert_close(found.parts("qkv").flatten(2).mT, joined, atol=1e-4, rtol=1e-4)
    assert found.parts("k").shape == (2, vit.width, 8, 8) and found.heads == 4
    torch.testing.assert_close(found.cls_attention.sum(dim=-1), torch.ones(2, 4))
    assert vit.last_block(random_images(30, 41)).q.shape == (2, vit.width, 4, 6)
    assert LeastAttended(vit)(image).shape == (2, 1, 64, 64)


# Options


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("proxyclip", {}, "--method proxyclip needs another network"),
        ("maskclip", {"guide": "dino"}, "--method maskclip asks no other network"),
        ("maskclip", {"saliency": "fuond"}, "unknown saliency 'fuond'"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_loads(method, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        check_guides(InferenceConfig(method=method, **options), METHODS.get(method))


def test_maps_of_any_kind_are_read_and_others_refused(tmp_path) -> None:
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "a.npy", values)
    Image.fromarray((values * 255).round().astype(np.uint8)).save(tmp_path / "b.png")
    Image.fromarray((values * 65_535).round().astype(np.uint16)).save(tmp_path / "c.png")
    for name, tolerance in (("a", 0), ("b", 1 / 255), ("c", 1 / 65_535)):
        np.testing.assert_allclose(read_saliency(tmp_path, PurePosixPath(name)), values, atol=tolerance)
    np.save(tmp_path / "d.npy", values + 1)
    with pytest.raises(ImageError, match=r"is no map of values from 0 to 1"):
        read_saliency(tmp_path, PurePosixPath("d"))
    with pytest.raises(ImageError, match=r"there is no saliency map"):
        read_saliency(tmp_path, PurePosixPath("e"))
