"""A tiny CLIP with open_clip's parameters and our own, faster forward pass.

`TinyClip` holds a plain `open_clip.model.CLIP` and runs the same mathematics with bf16 matrix products and manual
attention, which on a CPU is several times faster than the module's own forward. `check_parity` compares them. Dense
features come from the tool's own methods, so that what is trained is what the tool reads.

Letters: B images, N patches, W width, D embedding, T texts, L text length.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import DenseTransformer
from clipseg_cli.ops.attention import merge_heads, split_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from clipseg_cli.types import Positions

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
SHARPNESS = 4.0
"""Factor on the first LayerNorm of every image block, taken back in the weights behind it.

Nothing changes by it but GEM, which takes the length of the normed tokens as the sharpness of its attention: at width
192 that is half of what it is in a ViT-B, and every patch would attend to all others alike. A power of two is exact.
"""


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
        tower = FastTower(self, pixels, offset)
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
        for block in (FastBlock(self, block) for block in clip.transformer.resblocks):
            q, k, v = block.qkv(block.norm1(x))
            x = block.mlp(x + block.project(_plain_products(q, k, v, mask)))
        x = x[torch.arange(len(ids), device=ids.device), ids.argmax(-1)]
        text: Tensor = self._norm(clip.ln_final, x) @ clip.text_projection.to(compute)
        return text.float()

    def _norm(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


class FastBlock:
    """A block of open_clip's under the tool's names (`types.Block`), with weights cast once and every result kept.

    Several methods that read the same tokens therefore pay for them once. It lives for one forward pass.
    """

    def __init__(self, model: TinyClip, block: Any) -> None:
        cast = model.compute
        self.model, self.heads = model, block.attn.num_heads
        attn, mlp, first, second = block.attn, block.mlp, block.ln_1, block.ln_2
        self.norms = [
            ((first.weight * SHARPNESS).to(cast), (first.bias * SHARPNESS).to(cast), first.eps),
            (second.weight.to(cast), second.bias.to(cast), second.eps),
        ]
        self.joined = (attn.in_proj_weight / SHARPNESS).to(cast), attn.in_proj_bias.to(cast)
        self.out = attn.out_proj.weight.to(cast), attn.out_proj.bias.to(cast)
        self.up, self.down = (
            (layer.weight.to(cast), layer.bias.to(cast)) for layer in (mlp.c_fc, mlp.c_proj)
        )
        self.kept: dict[tuple[str, int], tuple[Tensor, Any]] = {}

    def _once(self, what: str, x: Tensor, make: Callable[[Tensor], Any]) -> Any:
        key = what, id(x)
        if key not in self.kept:
            self.kept[key] = x, make(x)  # x is kept too, so that its id is not given to another
        return self.kept[key][1]

    def _norm(self, which: int, x: Tensor) -> Tensor:
        weight, bias, eps = self.norms[which]
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def __call__(self, x: Tensor) -> Tensor:
        """As it was trained."""

        def whole(x: Tensor) -> Tensor:
            q, k, v = self.qkv(self.norm1(x))
            return self.mlp(x + self.project(F.scaled_dot_product_attention(q, k, v)))

        return self._once("block", x, whole)  # type: ignore[no-any-return]

    def norm1(self, x: Tensor) -> Tensor:
        """Before the attention."""
        return self._once("normed", x, lambda x: self._norm(0, x))  # type: ignore[no-any-return]

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values."""

        def split(x: Tensor) -> tuple[Tensor, ...]:
            return tuple(split_heads(part, self.heads) for part in F.linear(x, *self.joined).chunk(3, -1))

        return self._once("qkv", x, split)  # type: ignore[no-any-return]

    def project(self, mixed: Tensor) -> Tensor:
        """Output projection."""
        return F.linear(merge_heads(mixed), *self.out)

    def layer_scale(self, x: Tensor) -> Tensor:
        """There is no layer scale."""
        return x

    def mlp(self, x: Tensor) -> Tensor:
        """MLP and its residual."""
        return x + F.linear(F.gelu(F.linear(self._norm(1, x), *self.up)), *self.down)

    def pre_mlp(self, x: Tensor) -> Tensor:
        """Between attention and MLP."""
        q, k, v = self.qkv(self.norm1(x))
        return self._norm(1, x + self.project(F.scaled_dot_product_attention(q, k, v)))


class FastTower:
    """The image tower under the tool's names (`models.towers.Tower`), for one batch of pictures.

    Args:
        model: whose weights are read.
        pixels: [B, 3, H, W] uint8.
        offset: which window of the position grid is used, in patches.
    """

    patch, prefix = PATCH, 1

    def __init__(self, model: TinyClip, pixels: Tensor, offset: tuple[int, int]) -> None:
        self.visual: Any = model.clip.visual
        self.compute = model.compute
        self.all = [FastBlock(model, block) for block in self.visual.transformer.resblocks]
        self.depth = len(self.all)
        self.tokens = self._embed(pixels, offset)

    def _embed(self, pixels: Tensor, offset: tuple[int, int]) -> Tensor:
        visual, compute = self.visual, self.compute
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
        return F.layer_norm(
            x, norm.normalized_shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps
        )

    def embed(self, image: Tensor, grid: tuple[int, int], positions: Positions) -> Tensor:
        """The tokens of the batch; its grid is never larger than that of the positions."""
        del image, grid, positions
        return self.tokens

    def blocks(self, grid: tuple[int, int]) -> list[FastBlock]:
        """The same for every grid."""
        del grid
        return self.all

    def head(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The last LayerNorm, and the projection behind it."""
        tokens = self._norm(self.visual.ln_post, tokens)
        return tokens, tokens @ self.visual.proj.to(self.compute)

    def pooled(self, x: Tensor) -> Tensor:
        """The class token in the space of the words: [B, D]."""
        return self.head(x[:, :1])[1][:, 0]

    def pooled_embedding(self) -> Tensor:
        """The embedding of each picture [B, D]; of the last block only the class token is computed."""
        x = self.tokens
        for block in self.all[:-1]:
            x = block(x)
        last = self.all[-1]
        q, k, v = last.qkv(last.norm1(x))
        return self.pooled(
            last.mlp(x[:, :1] + last.project(F.scaled_dot_product_attention(q[:, :, :1], k, v)))
        )


@contextmanager
def fast_attention(*, on: bool) -> Iterator[None]:
    """Attention as two products and a softmax: in bf16 on a CPU three times as fast as torch's own, there and back."""
    original = F.scaled_dot_product_attention
    if on:
        F.scaled_dot_product_attention = _plain_products
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def _plain_products(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    scores = q * (q.shape[-1] ** -0.5 if scale is None else scale) @ k.transpose(-1, -2)
    return (scores if attn_mask is None else scores + attn_mask).softmax(-1) @ v


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
    state = sharpened(full_state(model, values), SHARPNESS)
    half = {key: value.half().contiguous() for key, value in state.items()}
    half["logit_scale"] = model.clip.logit_scale.detach().float().cpu()
    temporary = folder / "model.safetensors.part"
    save_file(half, temporary, metadata={"format": "pt", "sharpness": f"{SHARPNESS:g}"})
    temporary.chmod(0o644)
    temporary.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def sharpened(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The same network with the first norm of each image block so many times as long; see `SHARPNESS`."""
    found = dict(state)
    for key in state:
        if key.startswith("visual.transformer.resblocks"):
            if ".ln_1." in key:
                found[key] = state[key] * factor
            elif key.endswith("in_proj_weight"):
                found[key] = state[key] / factor
    return found


def read_exported(folder: Path) -> dict[str, Tensor]:
    """open_clip's state dict of an exported model, in fp32, as it is trained."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        factor = float((file.metadata() or {}).get("sharpness", 1))
    return sharpened({key: value.float() for key, value in load_file(path).items()}, 1 / factor)


@torch.no_grad()
def begin_with(model: TinyClip, folder: Path) -> None:
    """Take over the weights of an exported model; tokens that it never saw keep their random rows."""
    state = read_exported(folder)
    table = state.pop("token_embedding.weight")[model.token_ids]
    seen = table.abs().sum(1) > 0
    own = {f"clip.{key}": value for key, value in state.items()}
    own["tokens"] = torch.where(seen[:, None], table, model.tokens.detach())
    model.load_state_dict(own, strict=True)


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
