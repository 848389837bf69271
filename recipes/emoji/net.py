"""A tiny CLIP with open_clip's parameters and our own, faster forward pass.

`TinyClip` holds a plain `open_clip.model.CLIP` and runs the same mathematics with bf16 matrix products and manual
attention, which on a CPU is several times faster than the module's own forward (`fast_tower`); `parity` compares them.
Dense features come from the tool's own methods, so that what is trained is what the tool reads.

Letters: B images, N patches, W width, D embedding, T texts, L text length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor, nn

from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import DenseTransformer
from recipes.emoji.fast_tower import GRID, PATCH, FastBlock, FastTower, fast_attention, plain_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": PATCH * GRID,
        "patch_size": PATCH,
        "width": 192,
        "layers": 6,
        "head_width": 64,
        "pos_embed_type": "sin_cos_2d",
    },
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 96, "heads": 3, "layers": 2},
}
INFERENCE_SCALE = 100.0


class TinyClip(nn.Module):
    """open_clip's CLIP with a token table cut down to the tokens that occur.

    Args:
        token_ids: every token of the standard vocabulary that training uses.
        model_cfg: an open_clip `model_cfg`.
    """

    def __init__(self, token_ids: list[int], model_cfg: dict[str, Any] | None = None) -> None:
        super().__init__()
        cfg = model_cfg or MODEL_CFG
        self.clip = CLIP(**cfg)
        table = self.clip.token_embedding.weight
        self.tokens = nn.Parameter(table.detach()[token_ids].clone() * 2)
        self.clip.token_embedding = nn.Identity()
        self.token_ids = token_ids
        row = torch.zeros(cfg["text_cfg"]["vocab_size"], dtype=torch.long)
        row[token_ids] = torch.arange(len(token_ids))
        self.row: Tensor
        self.register_buffer("row", row, persistent=False)
        self.clip.logit_scale.requires_grad_(False)
        self.clip.logit_scale.fill_(float(np.log(INFERENCE_SCALE)))
        self.compute = torch.bfloat16

    def encode_image(self, pixels: Tensor, offset: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
        """Dense features by the value path of the last block, and the pooled embedding.

        Args:
            pixels: [B, 3, H, W] uint8, sides multiples of the patch and at most 224.
            offset: which window of the position grid to use, in patches.

        Returns:
            [B, N, D] and [B, D], float32, not normalised.
        """
        features, pooled = self.readings(pixels, ("maskclip",), offset)
        return features["maskclip"], pooled

    def readings(
        self, pixels: Tensor, methods: tuple[str, ...], offset: tuple[int, int] = (0, 0)
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Dense features as several methods of the tool read them, and the pooled embedding.

        The blocks that the methods share are computed once.

        Args:
            pixels: [B, 3, H, W] uint8, sides multiples of the patch and at most 224.
            methods: names of the tool's registry.
            offset: which window of the position grid to use, in patches.

        Returns:
            [B, N, D] for each method, and [B, D]; float32, not normalised.
        """
        tower = FastTower(self.clip.visual, self.compute, pixels, offset)
        found = {}
        with fast_attention(on=not pixels.is_cuda):
            for name in methods:
                reader = DenseTransformer(tower, METHODS.get(name))
                found[name] = reader(pixels).features.float().flatten(2).mT
            pooled = tower.pooled_embedding()
        return found, pooled.float()

    def encode_text(self, ids: Tensor) -> Tensor:
        """Embeddings of padded token ids [T, L], end of text last: [T, D], float32, not normalised."""
        clip: Any = self.clip
        compute = self.compute
        length = ids.shape[1]
        x = self.tokens[self.row[ids]].to(compute) + clip.positional_embedding[:length].to(compute)
        mask = torch.full((length, length), float("-inf"), device=ids.device, dtype=compute).triu(1)
        for block in (FastBlock(block, compute) for block in clip.transformer.resblocks):
            q, k, v = block.qkv(block.norm1(x))
            x = block.mlp(x + block.project(plain_products(q, k, v, mask)))
        x = x[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]
        text: Tensor = self._norm(clip.ln_final, x) @ clip.text_projection.to(compute)
        return text.float()

    def _norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


def normalise(x: Tensor) -> Tensor:
    """Unit length along the last axis."""
    return F.normalize(x, dim=-1)


def dense_logits(
    model: TinyClip, images: NDArray[np.uint8], text: Tensor, method: str = "maskclip"
) -> Tensor:
    """Cosine x 100 of every pixel of square images [B, S, S, 3] with unit text [T, D]: [B, T, S, S]."""
    device = text.device
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    size = images.shape[1]
    dense = model.readings(pixels, (method,))[0][method]
    h = size // PATCH
    logits = INFERENCE_SCALE * normalise(dense) @ text.T  # [B, N, T]
    grid = logits.transpose(1, 2).unflatten(-1, (h, h))
    return F.interpolate(grid, (size, size), mode="bilinear", align_corners=False)
