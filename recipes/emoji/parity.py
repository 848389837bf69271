"""Whether our own forward pass says what open_clip's modules say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP

from recipes.emoji.fast_tower import GRID, PATCH
from recipes.emoji.net import MODEL_CFG
from recipes.emoji.weights import full_state

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.emoji.net import TinyClip


@torch.no_grad()
def check_parity(model: TinyClip) -> float:
    """Largest difference between our forward in fp32 and open_clip's own modules: dense, pooled, text."""
    reference = CLIP(**MODEL_CFG)
    reference.load_state_dict(full_state(model), strict=True)
    reference.eval()
    compute, model.compute = model.compute, torch.float32
    pixels = torch.randint(0, 256, (2, 3, PATCH * GRID, PATCH * GRID), dtype=torch.uint8)
    mean = torch.tensor(OPENAI_DATASET_MEAN).view(3, 1, 1) * 255
    std = torch.tensor(OPENAI_DATASET_STD).view(3, 1, 1) * 255
    ids = torch.zeros(2, 24, dtype=torch.long)
    ids[:, :3] = torch.tensor([[49406, model.token_ids[5], 49407], [49406, model.token_ids[9], 49407]])
    images = (pixels.float() - mean) / std
    dense, pooled = model.encode_image(pixels)
    gaps = (
        dense - reference_dense(reference.visual, images),
        pooled - reference.encode_image(images),
        model.encode_text(ids[:, :5]) - reference.encode_text(ids),
    )
    model.compute = compute
    return max(float(gap.abs().max()) for gap in gaps)


def reference_dense(visual: Any, images: Tensor) -> Tensor:
    """The read-out of MaskCLIP (arXiv:2112.01071) with open_clip's modules: values instead of attention."""
    x = visual._embeds(images)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    width = x.shape[-1]
    attn = last.attn
    value = F.linear(last.ln_1(x), attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
    x = x + attn.out_proj(value)
    x = x + last.mlp(last.ln_2(x))
    dense: Tensor = (visual.ln_post(x) @ visual.proj)[:, 1:]
    return dense
