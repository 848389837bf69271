"""Reading towers densely: parity with open_clip on random weights, any grid, clear refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import nn

from clipseg_cli.errors import ModelError
from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import DenseTransformer, dense_reader
from clipseg_cli.types import Reading

TINY = {
    "image_size": 32,
    "patch_size": 8,
    "width": 32,
    "layers": 2,
    "heads": 4,
    "mlp_ratio": 2.0,
    "output_dim": 16,
}

VARIANTS = {
    "class token": {},
    "no ln_pre": {"no_ln_pre": True},
    "average pool": {"pool_type": "avg"},
    "norm after pool": {"pool_type": "avg", "final_ln_after_pool": True},
    "layer scale": {"ls_init_value": 0.5},
    "QuickGELU": {"act_layer": QuickGELU},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
}


def tower(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    visual = VisionTransformer(**{**TINY, **options})
    for parameter in visual.parameters():
        if parameter.ndim == 1:  # biases and norms start at 0 and 1, which would hide mistakes
            nn.init.normal_(parameter, 0.5, 0.2)
    return visual.eval()


def resnet() -> ModifiedResNet:
    torch.manual_seed(0)
    return ModifiedResNet(layers=[1, 1, 1, 1], width=8, heads=4, output_dim=16, image_size=64).eval()


def images(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_vanilla_equals_open_clip(variant: str) -> None:
    visual = tower(**VARIANTS[variant], output_tokens=True)
    pooled, tokens = visual(images(32, 32))
    if visual.final_ln_after_pool:  # open_clip hands these tokens out before the norm
        tokens = visual.ln_post(tokens)
    dense = dense_reader(visual, METHODS.get("vanilla"))(images(32, 32))
    torch.testing.assert_close(dense.tokens.flatten(2).transpose(1, 2), tokens, atol=1e-5, rtol=0)
    if visual.pool_type == "avg" and not visual.final_ln_after_pool:
        torch.testing.assert_close(dense.features.mean(dim=(2, 3)), pooled, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_no_projection_gives_tokens() -> None:
    visual = tower()
    visual.proj = None
    dense = dense_reader(visual, METHODS.get("maskclip"))(images(32, 32))
    assert torch.equal(dense.features, dense.tokens)


DENSE = [name for name in METHODS.names() if METHODS.get(name).pyramid is None]


class Colors:
    """A guide that knows the colours of a picture, twice as finely as CLIP."""

    inner = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(x, (x.shape[2] // 4, x.shape[3] // 4))

    def objectness(self, x: torch.Tensor) -> None:
        return None


def words() -> torch.Tensor:
    """For methods that read with them in sight."""
    return F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(2)), dim=1)


def reader_of(name: str) -> Any:
    method = METHODS.get(name)
    guide = Colors() if method.guided else None
    reading = Reading(keys=True, guide=guide, whole=True, values=True, text_embeds=words())
    return with_regions(dense_reader(tower(), method, reading), method)


def with_regions(reader: Any, method: Any) -> Any:
    """The reader, with squares of 16 pixels as regions where the method asks for some; the first is in none."""
    if method.read_regions is None:
        return reader

    def read(image: torch.Tensor) -> Any:
        rows, columns = (torch.arange(side) // 16 for side in image.shape[2:])
        squares = rows[:, None] * 100 + columns
        return reader(image, squares.expand(len(image), -1, -1))

    return read


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("size", [(32, 32), (24, 56), (30, 33), (8, 8), (5, 70)])
@torch.inference_mode()
def test_one_feature_per_patch(name: str, size: tuple[int, int]) -> None:
    """Or four, where a guide sees more finely."""
    dense, method = reader_of(name)(images(*size)), METHODS.get(name)
    up = (-(-size[0] // 8), -(-size[1] // 8))
    down = (size[0] // 8, size[1] // 8)
    grid = down if method.padding == "drop" and min(down) else up
    fine = 2 if method.guided else 1
    assert dense.features.shape == (2, 16, fine * grid[0], fine * grid[1])
    assert dense.keys.shape == (2, 32, *dense.features.shape[2:])  # every method can be smoothed by keys
    assert dense.whole.shape == (2, 16)
    assert dense.values.shape == (2, 32, *grid)
    assert (dense.guide is not None) == bool(method.guided)
    assert dense.features.isfinite().all()
    over = (8 * up[0] - size[0], 8 * up[1] - size[1]) if method.padding == "around" else (0, 0)
    assert (sum(dense.padding[:2]), sum(dense.padding[2:])) == over


@pytest.mark.parametrize("name", DENSE)
@torch.inference_mode()
def test_images_of_a_batch_do_not_meet(name: str) -> None:
    reader, batch = reader_of(name), images(24, 40, batch=3)
    alone = torch.cat([reader(one[None]).features for one in batch])
    torch.testing.assert_close(reader(batch).features, alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_maskclip_is_pointwise_in_the_last_block() -> None:
    """With one block, a patch's feature depends on that patch only."""
    torch.manual_seed(0)
    reader = dense_reader(VisionTransformer(**{**TINY, "layers": 1}).eval(), METHODS.get("maskclip"))
    one, other = images(32, 32, batch=1), images(32, 32, batch=1)
    other[..., 8:, 8:] += 1  # all but the first row and column of patches
    before, after = reader(one).features, reader(other).features
    assert torch.equal(before[..., 0, :], after[..., 0, :])
    assert not torch.allclose(before[..., 1:, 1:], after[..., 1:, 1:])


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (65, 100)])
@torch.inference_mode()
def test_resnet_grid(name: str, size: tuple[int, int]) -> None:
    method = METHODS.get(name)
    if method.attention is None:
        with pytest.raises(ModelError, match="reads the blocks of a transformer"):
            dense_reader(resnet(), method)
        return
    dense = dense_reader(resnet(), method, Reading(guide=Colors() if method.guided else None))(images(*size))
    cell = 4 if method.guided else 32
    assert dense.features.shape == (2, 16, size[0] // cell, size[1] // cell)


@pytest.mark.parametrize("name", DENSE)
@torch.inference_mode()
def test_the_embedding_beside_any_reading_is_that_of_open_clip(name: str) -> None:
    for visual, size in ((tower(), 32), (resnet(), 64)):
        method = METHODS.get(name)
        if method.attention is None and not hasattr(visual, "transformer"):
            continue
        guide = Colors() if method.guided else None
        reading = Reading(guide=guide, whole=True, text_embeds=words())
        reader = with_regions(dense_reader(visual, method, reading), method)
        batch = images(size, size)
        torch.testing.assert_close(reader(batch).whole, visual(batch), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_keys_are_those_of_the_trained_block_whatever_reads_it() -> None:
    batch = images(32, 32)  # on other grids methods are published with other position embeddings
    plain = reader_of("vanilla")(batch).keys
    for name in DENSE:
        keys = reader_of(name)(batch).keys
        wanted = torch.nn.functional.interpolate(plain, keys.shape[2:], mode="bilinear")
        torch.testing.assert_close(keys, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", DENSE)
@torch.inference_mode()
def test_attention_is_that_of_the_trained_blocks_whatever_reads_it(name: str) -> None:
    """All blocks but the last, which methods replace from one to all of; what else is read stays as it was."""
    visual, method, batch = tower(layers=4), METHODS.get(name), images(32, 32)
    seen: list[torch.Tensor] = []
    for block in visual.transformer.resblocks[:-1]:
        block.attn.register_forward_hook(
            lambda attn, given, _: seen.append(
                F.multi_head_attention_forward(
                    *(x.transpose(0, 1) for x in given[:3]),
                    *(32, 4, attn.in_proj_weight, attn.in_proj_bias, None, None, False, 0.0),
                    *(attn.out_proj.weight, attn.out_proj.bias),
                    average_attn_weights=False,
                )[1]
            )
        )
    visual(batch)
    wanted = torch.stack(seen).mean(dim=0)[:, :, 1:, 1:]
    guide = Colors() if method.guided else None
    reading = Reading(guide=guide, text_embeds=words(), keys=True)
    without = with_regions(dense_reader(visual, method, reading), method)(batch)
    read = with_regions(dense_reader(visual, method, replace(reading, attention=True)), method)(batch)
    torch.testing.assert_close(read.attention, wanted, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(read.features, without.features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(read.keys, without.keys, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_resnet_vanilla_pools_like_open_clip() -> None:
    """The token that takes the class token's place is what open_clip pools, without positions."""
    visual = resnet()
    visual.attnpool.positional_embedding.zero_()
    seen = {}

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        seen["mixed"] = METHODS.get("vanilla").attention(q, k, v, grid)
        return seen["mixed"]

    method = METHODS.get("vanilla")
    reader = dense_reader(visual, type(method)(spy, residual=True, mlp=True))
    reader(images(64, 64))
    pooled = visual.attnpool.c_proj(seen["mixed"][:, :, 0].flatten(1))
    torch.testing.assert_close(pooled, visual(images(64, 64)), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_bf16_stays_near_fp32() -> None:
    reader = dense_reader(tower(), METHODS.get("maskclip"))
    exact = reader(images(32, 32)).features
    with torch.autocast("cpu", torch.bfloat16):
        rough = reader(images(32, 32)).features
    cosine = torch.cosine_similarity(exact, rough.float(), dim=1)
    assert cosine.min() > 0.99


@torch.inference_mode()
def test_overrides_work_on_a_copy() -> None:
    visual = tower(act_layer=QuickGELU)
    reader = dense_reader(visual, METHODS.get("maskclip"), Reading("gelu", 1e-6))
    assert isinstance(reader, DenseTransformer)
    own, changed = visual.transformer.resblocks[0], reader.tower.visual.transformer.resblocks[0]
    assert isinstance(own.mlp.gelu, QuickGELU)
    assert isinstance(changed.mlp.gelu, nn.GELU)
    assert (own.ln_1.eps, changed.ln_1.eps) == (1e-5, 1e-6)
    plain = dense_reader(visual, METHODS.get("maskclip"))(images(32, 32)).features
    assert not torch.allclose(plain, reader(images(32, 32)).features)
