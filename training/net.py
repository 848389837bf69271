"""A tiny CLIP with open_clip's parameters and our own, faster forward pass.

`TinyClip` holds a plain `open_clip.model.CLIP` and runs the same mathematics with bf16 matrix products and manual
attention, which on a CPU is several times faster than the module's own forward. `check_parity` compares them.

Letters: B images, N patches, W width, D embedding, T texts, L text length.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PATCH = 8
GRID = 28
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
PREPROCESS_CFG: dict[str, Any] = {
    "size": [PATCH * GRID, PATCH * GRID],
    "mode": "RGB",
    "mean": list(OPENAI_DATASET_MEAN),
    "std": list(OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
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
        visual: Any = self.clip.visual
        x = self._embed(pixels, offset)
        blocks = list(visual.transformer.resblocks)
        heads = blocks[0].attn.num_heads
        for block in blocks[:-1]:
            x = self._block(block, x, heads)
        dense, pooled = self._last_block(blocks[-1], x, heads)
        both = torch.cat([pooled, dense], dim=1)  # [B, 1 + N, W]
        both = self._norm(visual.ln_post, both) @ visual.proj.to(self.compute)
        return both[:, 1:].float(), both[:, 0].float()

    def encode_text(self, ids: Tensor) -> Tensor:
        """Embeddings of padded token ids [T, L], end of text last: [T, D], float32, not normalised."""
        clip: Any = self.clip
        compute = self.compute
        length = ids.shape[1]
        x = self.tokens[self.row[ids]].to(compute) + clip.positional_embedding[:length].to(compute)
        mask = torch.full((length, length), float("-inf"), device=ids.device, dtype=compute).triu(1)
        for block in clip.transformer.resblocks:
            x = self._block(block, x, block.attn.num_heads, mask)
        x = x[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]
        text: Tensor = self._norm(clip.ln_final, x) @ clip.text_projection.to(compute)
        return text.float()

    def _embed(self, pixels: Tensor, offset: tuple[int, int]) -> Tensor:
        visual: Any = self.clip.visual
        compute = self.compute
        b, _, height, width = pixels.shape
        h, w = height // PATCH, width // PATCH
        mean = torch.tensor(OPENAI_DATASET_MEAN, device=pixels.device).view(3, 1, 1) * 255
        std = torch.tensor(OPENAI_DATASET_STD, device=pixels.device).view(3, 1, 1) * 255
        image = ((pixels.float() - mean) / std).to(compute)
        patches = image.view(b, 3, h, PATCH, w, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w, -1)
        x = patches @ visual.conv1.weight.flatten(1).to(compute).T
        position = visual.positional_embedding[1:].view(GRID, GRID, -1)
        position = position[offset[0] : offset[0] + h, offset[1] : offset[1] + w].reshape(h * w, -1)
        x = x + position.to(compute)
        first = (visual.class_embedding + visual.positional_embedding[0]).to(compute)
        x = torch.cat([first.expand(b, 1, -1), x], dim=1)  # [B, 1 + N, W]
        return self._norm(visual.ln_pre, x)

    def _norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight.to(self.compute), bias.to(self.compute))

    def _mlp(self, block: Any, x: Tensor) -> Tensor:
        hidden = F.gelu(self._linear(self._norm(block.ln_2, x), block.mlp.c_fc.weight, block.mlp.c_fc.bias))
        y: Tensor = x + self._linear(hidden, block.mlp.c_proj.weight, block.mlp.c_proj.bias)
        return y

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        """Multi-head attention: q [B, M, W] looks at k, v [B, N, W]."""

        def split(t: Tensor) -> Tensor:
            per_head: Tensor = t.unflatten(-1, (heads, -1)).transpose(1, 2)
            return per_head

        if q.is_cuda:
            out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
        else:
            scale = (q.shape[-1] // heads) ** -0.5
            scores = split(q) * scale @ split(k).transpose(-1, -2)
            out = (scores if mask is None else scores + mask).softmax(-1) @ split(v)
        return out.transpose(1, 2).flatten(2)

    def _block(self, block: Any, x: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        attn = block.attn
        q, k, v = self._linear(self._norm(block.ln_1, x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        out = self._attend(q, k, v, heads, mask)
        return self._mlp(block, x + self._linear(out, attn.out_proj.weight, attn.out_proj.bias))

    def _last_block(self, block: Any, x: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """The value path for the patches, ordinary attention for the class token: [B, N, W], [B, 1, W]."""
        attn = block.attn
        q, k, v = self._linear(self._norm(block.ln_1, x), attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        pooled = self._attend(q[:, :1], k, v, heads)
        out = torch.cat([pooled, v[:, 1:]], dim=1)
        y = self._mlp(block, x + self._linear(out, attn.out_proj.weight, attn.out_proj.bias))
        return y[:, 1:], y[:, :1]


def normalise(x: Tensor) -> Tensor:
    """Unit length along the last axis."""
    return F.normalize(x, dim=-1)


def dense_logits(model: TinyClip, images: NDArray[np.uint8], text: Tensor) -> Tensor:
    """Cosine x 100 of every pixel of square images [B, S, S, 3] with unit text [T, D]: [B, T, S, S]."""
    device = text.device
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    size = images.shape[1]
    dense, _ = model.encode_image(pixels)
    h = size // PATCH
    logits = INFERENCE_SCALE * normalise(dense) @ text.T  # [B, N, T]
    grid = logits.transpose(1, 2).unflatten(-1, (h, h))
    return F.interpolate(grid, (size, size), mode="bilinear", align_corners=False)


def full_state(model: TinyClip, values: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """open_clip's state dict, with zero rows for tokens that never occurred."""
    values = values or dict(model.state_dict())
    state = {
        key.removeprefix("clip."): value.detach().cpu() for key, value in values.items() if key != "tokens"
    }
    tokens = values["tokens"].detach().cpu()
    table = torch.zeros(len(model.row), tokens.shape[1])
    table[model.token_ids] = tokens.float()
    return state | {"token_embedding.weight": table}


def export(model: TinyClip, values: dict[str, Tensor], folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp16) as open_clip reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    half = {key: value.half().contiguous() for key, value in full_state(model, values).items()}
    half["logit_scale"] = model.clip.logit_scale.detach().float().cpu()
    temporary = folder / "model.safetensors.part"
    save_file(half, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)
    temporary.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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
