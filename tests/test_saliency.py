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
from clipseg_cli.errors import ImageError, ModelError, UsageError
from clipseg_cli.methods import METHODS
from clipseg_cli.models import self_supervised
from clipseg_cli.models.dense_clip import dense_reader
from clipseg_cli.models.saliency import MOST_PATCHES, ClipCut, Found, LeastAttended, bounded
from clipseg_cli.models.self_supervised import SelfSupervisedGuide, SelfSupervisedViT, load_self_supervised
from clipseg_cli.ops.spectral import fiedler_vector, foreground
from clipseg_cli.pipelines.guides import check_guides, read_saliency

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
CPU = torch.device("cpu")
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}


def small(**options: Any) -> SelfSupervisedViT:
    torch.manual_seed(0)
    net = timm.create_model(
        "vit_small_patch8_224", num_classes=0, dynamic_img_size=True, **{**SMALL, **options}
    )
    return SelfSupervisedViT(net.eval().requires_grad_(False), MEAN, STD)


def pictures(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_features_are_those_of_timm() -> None:
    vit, image = small(), pictures(32, 48)
    x = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    expected = vit.net.forward_features(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(vit.features(image), expected)


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"init_values": 0.1}])
@torch.inference_mode()
def test_the_last_block_sees_what_timm_hands_to_it(options: dict[str, Any]) -> None:
    vit, image, seen = small(**options), pictures(32, 32), {}
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
    assert vit.features(pictures(30, 41)).shape == (2, 24, 4, 6)
    head = Found(vit, torch.randn(1, 24, 1, 1), torch.zeros(1))
    saliency = head(pictures(30, 41))
    assert saliency.shape == (2, 1, 30, 41)
    assert 0 <= saliency.min() < saliency.max() <= 1


@torch.inference_mode()
def test_what_dino_attends_to_is_all_but_its_least_attended_kind_of_patch() -> None:
    vit = small()
    image = pictures(40, 64)
    found, last = LeastAttended(vit)(image), vit.last_block(image)
    assert found.shape == (2, 1, 40, 64)
    least = last.cls_attention[:, :, 1:]
    assert (found.amin(dim=(1, 2, 3)) == 0).all() and found.max() <= 1 and least.shape == (2, 3, 40)


@torch.inference_mode()
def test_a_guide_sees_the_picture_as_it_was() -> None:
    """Normalised for CLIP, it is brought back before the other network normalises it for itself."""
    vit, image = small(), pictures(32, 32)
    mean, std = (0.1, 0.2, 0.3), (0.9, 0.8, 0.7)
    normalised = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(SelfSupervisedGuide(vit, mean, std)(normalised), vit.features(image))
    values = SelfSupervisedGuide(vit, mean, std, values=True)(normalised)
    torch.testing.assert_close(values, vit.last_block(image).v)


# Weights


@pytest.fixture
def tiny_dino(monkeypatch) -> Any:
    """timm builds its DINO small here."""
    create = timm.create_model
    monkeypatch.setattr(
        self_supervised.timm, "create_model", lambda name, **k: create(name, **{**k, **SMALL})
    )
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
    with pytest.raises(ModelError, match=r"has pos_embed of shape \(1, 5, 24\)"):
        load_self_supervised(f"dino={tmp_path / 'other.pth'}", CPU)
    del state["cls_token"]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(ModelError, match="lacks cls_token"):
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


# Foreground by the normalised cut


def two_parts(noise: float = 0.1) -> torch.Tensor:
    """Features of a ground with a square on it."""
    generator = torch.Generator().manual_seed(0)
    ground, thing = torch.randn(2, 16, generator=generator)
    features = ground[:, None, None].repeat(1, 12, 14)
    features[:, 4:9, 5:11] = thing[:, None, None]
    features += noise * torch.randn(features.shape, generator=generator)
    return features - features.mean(dim=(1, 2), keepdim=True)  # as `ClipCut` compares them


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_the_square_is_the_foreground(noise: float) -> None:
    found = foreground(fiedler_vector(two_parts(noise)))
    inside = torch.zeros(12, 14, dtype=torch.bool)
    inside[4:9, 5:11] = True
    assert found[inside].min() > 0.5 > found[~inside].max()


def test_the_cut_is_an_eigenvector_of_the_normalised_laplacian() -> None:
    features = two_parts()
    unit = torch.nn.functional.normalize(features.flatten(1), dim=0)
    alike = torch.where(unit.mT @ unit > 0.2, 1.0, 1e-5).double()
    degree, cut = alike.sum(dim=1), fiedler_vector(features).flatten().double()
    left, right = degree * cut - alike @ cut, degree * cut
    value = (cut @ left) / (cut @ right)
    assert 0 < value < 1
    torch.testing.assert_close(left, value * right, atol=1e-3, rtol=0)
    assert abs(float(cut @ degree / degree.norm())) < 1e-3  # orthogonal to the first, which is constant


def test_a_picture_of_one_thing_is_half_of_everything() -> None:
    flat = torch.ones(8, 5, 5)
    assert foreground(fiedler_vector(flat)).isfinite().all()


@torch.inference_mode()
def test_clip_cuts_its_own_patches(tiny_clip) -> None:
    reader = dense_reader(tiny_clip.model.visual, METHODS.get("maskclip"))
    side = 4 * reader.patch
    found = ClipCut(reader, MEAN, STD)(pictures(side, side + reader.patch))
    assert found.shape == (2, 1, 4, 5)
    assert 0 <= found.min() < found.max() <= 1


@torch.inference_mode()
def test_very_large_pictures_are_seen_smaller(tiny_clip) -> None:
    """Or every patch would be compared with a hundred thousand others."""
    reader = dense_reader(tiny_clip.model.visual, METHODS.get("maskclip"))
    found = ClipCut(reader, MEAN, STD)(pictures(400, 640, batch=1))
    assert 900 < found.shape[2] * found.shape[3] <= MOST_PATCHES
    assert abs(found.shape[3] / found.shape[2] - 1.6) < 0.1
    assert bounded(pictures(40, 64), 40 * 64).shape == (2, 3, 40, 64)
    assert bounded(pictures(1, 4000, batch=1), 1000, 8).shape == (1, 3, 8, 2000)


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
