"""Every kind of image tower that open_clip has: read densely in whole agreement with its own code, or refused."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from clipseg_cli.errors import ModelError
from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.catalogue import unreadable_config
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.models.clip.towers import patch_of, unreadable
from clipseg_cli.types import Reading

VIT = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32, "patch_size": 8}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A tower of timm as open_clip configures it, made small."""

    trunk: str
    pool: str
    proj: str | None
    small: dict[str, Any]
    size: int = 32
    gain: float = 1.5

    def build(self) -> TimmModel:
        create = timm.create_model
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timm, "create_model", lambda *a, **k: create(*a, **{**k, **self.small}))
            net = TimmModel(self.trunk, 24, image_size=self.size, pool=self.pool, proj=self.proj)
        return randomised(net, self.gain)


KINDS = {
    "siglip": Kind("vit_base_patch16_siglip_224", "map", "none", VIT),
    "eva01": Kind("eva_giant_patch14_224", "token", None, VIT),
    "eva02": Kind("eva02_base_patch16_clip_224", "token", None, VIT),
    "eva02-e": Kind("eva02_enormous_patch14_clip_224", "token", None, VIT),
    "pe-core": Kind("vit_pe_core_base_patch16_224", "map", None, VIT),
    "pe-core-s": Kind("vit_pe_core_small_patch16_384", "map", None, VIT),
    "mobileclip-l": Kind("vit_large_patch14_clip_224", "token", None, VIT),
    "vit-gap": Kind("vit_medium_patch16_gap_256", "", "linear", VIT),
    "vitamin": Kind("vitamin_small_224", "", "linear", {"img_size": 64}, 64),
    "convnext": Kind("convnext_base", "", "linear", CONVNEXT, 64),
    "convnext-d": Kind("convnext_large", "", "mlp", CONVNEXT, 64),
    "mobileclip-s": Kind("fastvit_mci0", "avg", None, {}, 64, gain=0.7),
}
TRANSFORMERS = [name for name, kind in KINDS.items() if kind.small is not CONVNEXT and name != "mobileclip-s"]


def randomised(net: Any, gain: float = 1.5) -> Any:
    """No weight at its starting value: zeros and ones would hide what a path leaves out."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        spread = 0.2 if parameter.ndim < 2 else gain / parameter[0].numel() ** 0.5
        base = 1.0 if parameter.ndim == 1 and bool((parameter == 1).all()) else 0.0
        parameter.data = base + spread * torch.randn(parameter.shape, generator=generator)
    return net.eval().requires_grad_(False)


def random_images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_our_path_gives_what_the_tower_itself_gives(name: str) -> None:
    """Embedding, blocks, pooling and projection, taken apart and put together again."""
    net = KINDS[name].build()
    image = random_images(KINDS[name].size, KINDS[name].size)
    expected = net(image)
    assert expected.abs().mean() > 1e-3 and not torch.allclose(expected[0], expected[1], atol=1e-3)
    found = dense_reader(net, METHODS.get("maskclip")).whole(image)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["maskclip", "vanilla", "sclip", "clearclip", "naclip", "gem"])
@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.inference_mode()
def test_every_method_reads_every_transformer_on_any_grid(name: str, method: str) -> None:
    kind = KINDS[name]
    reader = dense_reader(kind.build(), METHODS.get(method))
    height, width = kind.size, kind.size + 2 * reader.patch
    dense = reader(random_images(height, width))
    assert dense.features.shape == (
        2,
        24 if kind.proj != "none" else 32,
        height // reader.patch,
        width // reader.patch,
    )
    assert dense.features.isfinite().all() and dense.features.std(dim=(2, 3)).min() > 0


@pytest.mark.parametrize("name", [n for n in KINDS if n not in TRANSFORMERS])
@torch.inference_mode()
def test_convolutions_are_read_position_by_position_or_refused(name: str) -> None:
    net = KINDS[name].build()
    patch = patch_of(net)
    dense = dense_reader(net, METHODS.get("maskclip"))(random_images(2 * patch, 3 * patch))
    assert dense.features.shape == (2, 24, 2, 3)
    with pytest.raises(ModelError, match="a convolutional tower has none"):
        dense_reader(net, METHODS.get("sclip"))


@torch.inference_mode()
def test_pooling_over_one_token_is_its_value_path() -> None:
    """Where all tokens are the same, attention pooling gives what each of them gives by itself."""
    net = KINDS["siglip"].build()
    reader = dense_reader(net, METHODS.get("maskclip"))
    token = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(2))
    alone = reader.tower.head(token)[1][:, 0]
    torch.testing.assert_close(reader.tower.pooled(token.expand(-1, 16, -1)), alone, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_coca_pools_like_open_clip_and_is_read_by_its_values() -> None:
    net = VisionTransformer(
        image_size=32, patch_size=8, width=32, layers=2, heads=4, mlp_ratio=2.0, output_dim=16,
        attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2,
    )  # fmt: skip
    net, image = randomised(net), random_images(32, 32)
    reader = dense_reader(net, METHODS.get("maskclip"))
    found = net(image)
    expected = found[0] if isinstance(found, tuple) else found
    torch.testing.assert_close(reader.whole(image), expected, atol=1e-5, rtol=1e-4)
    token = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(2))
    alone = reader.tower.head(token)[1][:, 0]
    torch.testing.assert_close(reader.tower.pooled(token.expand(-1, 17, -1)), alone, atol=1e-5, rtol=1e-4)


SMALL_TRUNKS: dict[str, dict[str, Any]] = {
    "VisionTransformer": VIT,
    "Eva": VIT,
    "ConvNeXt": CONVNEXT,
    "FastVit": {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32)},
}
"""What makes a class of timm small; what has no entry is small enough, or is made so below."""


def smallest(config: dict[str, Any]) -> dict[str, Any]:
    """The image tower of an architecture with all that distinguishes it, but for its size."""
    vision = dict(config["vision_cfg"])
    if trunk := vision.get("timm_model_name"):
        kept = {
            k: v
            for k, v in vision.items()
            if k.startswith("timm_") and "drop" not in k and "pretrained" not in k
        }
        large = trunk.startswith(("vitamin", "convnext", "fastvit", "vit_base_mci"))
        return {**kept, "image_size": 64 if large else 32}
    if isinstance(vision["layers"], list):
        return {**vision, "layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    vision.update(layers=2, width=32, head_width=16, patch_size=8, image_size=32, patch_dropout=0)
    if vision.get("attentional_pool"):
        vision.update(attn_pooler_queries=4, attn_pooler_heads=2)
    return vision


def every_architecture() -> dict[str, tuple[str, str]]:
    """Architecture -> its smallest tower as JSON, and why it is refused; of equal towers only the first."""
    found, seen = {}, set()
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        text = json.dumps(smallest(config), sort_keys=True)
        reason = unreadable_config(config)
        kind = text if reason else re.sub(r"_\d{3}\b", "", text)  # timm's names end in the size of pictures
        if kind not in seen:
            seen.add(kind)
            found[name] = (text, reason)
    return found


EVERY = every_architecture()


@pytest.mark.parametrize("name", EVERY)
@torch.inference_mode()
def test_every_architecture_is_read_in_agreement_with_open_clip_or_refused(name: str) -> None:
    """With random weights: the embedding by our path is that of the tower itself, and each patch has a feature."""
    vision, reason = json.loads(EVERY[name][0]), EVERY[name][1]
    create = timm.create_model

    def small(trunk: str, **options: Any) -> Any:
        with torch.device("meta"):
            kind = type(create(trunk)).__name__
        own = dict(SMALL_TRUNKS.get(kind, {}))
        if trunk in ("fastvit_mci3", "fastvit_mci4"):  # they have five stages
            own = {"layers": (1, 1, 1, 1, 1), "embed_dims": (16, 16, 32, 32, 32)}
        if trunk.startswith("vitamin"):
            own = {"img_size": 64, "depth": 2}
        if trunk.startswith("vit_base_mci"):
            own = {"img_size": 64, "depth": 2}
        return create(trunk, **{**options, **own})

    if reason:
        with torch.device("meta"):
            net = _build_vision_tower(24, open_clip.get_model_config(name)["vision_cfg"])
        assert unreadable(net)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", small)
        net = randomised(_build_vision_tower(24, vision), 0.7 if "fastvit" in str(vision) else 1.5)
    image = random_images(vision["image_size"], vision["image_size"])
    found = net(image)
    expected = found[0] if isinstance(found, tuple) else found
    reader = dense_reader(net, METHODS.get("maskclip"), Reading(whole=True))
    dense = reader(image)
    assert dense.whole is not None
    torch.testing.assert_close(dense.whole, expected, atol=1e-4, rtol=1e-3)
    side = vision["image_size"] // reader.patch
    assert dense.features.shape == (2, expected.shape[1], side, side)
    if side > 1:
        assert dense.features.std(dim=(2, 3)).min() > 0


def test_just_two_architectures_are_refused() -> None:
    reasons = {name: unreadable_config(open_clip.get_model_config(name)) for name in open_clip.list_models()}
    refused = {name: reason for name, reason in reasons.items() if reason}
    assert set(refused) == {"swin_base_patch4_window7_224", "vit_relpos_medium_patch16_cls_224"}
    assert all("bound to one grid" in reason for reason in refused.values())


@pytest.mark.parametrize("trunk", ["swin_tiny_patch4_window7_224", "vit_relpos_small_patch16_224"])
def test_attention_that_is_bound_to_a_grid_is_refused(trunk: str) -> None:
    net = TimmModel(trunk, 24, image_size=224, pool="", proj="linear")
    assert "bound to one grid" in unreadable(net)
    with pytest.raises(ModelError, match="bound to one grid"):
        dense_reader(net, METHODS.get("maskclip"))
