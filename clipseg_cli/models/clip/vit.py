"""The CLIP of transformers that most weights are for, layer by layer as open_clip names it (arXiv:2103.00020).

Networks of open_clip cannot be imported without torchvision, timm and transformers; this one needs torch alone, and
takes any checkpoint that `open_clip.CLIP` of the same configuration takes. Its numbers are those of open_clip, which
a test holds together. The weights of the words wait until words are read: those that were read before are in a cache.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from clipseg_cli.models.weights.precision import LayerNorm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

TOP = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias"}
VISION = {"image_size", "patch_size", "width", "layers", "head_width", "mlp_ratio", "pos_embed_type"}
TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
"""Options of a `model_cfg` that `Clip` knows; positions are learnt or fixed, but always in the checkpoint."""


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether `Clip` is the architecture of a `model_cfg`: a ViT and a causal text tower, without anything special."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    known = config.keys() <= TOP and vision.keys() <= VISION and text.keys() <= TEXT
    sides = (vision.get("image_size", 224), vision.get("patch_size", 16), vision.get("layers", 12))
    return known and all(isinstance(side, int) for side in sides)


class QuickGELU(nn.Module):
    """The sigmoid approximation of GELU that OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Attention and MLP, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: type[nn.Module]) -> None:
        super().__init__()
        inner = int(width * mlp_ratio)
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls_1, self.ls_2 = nn.Identity(), nn.Identity()
        layers = OrderedDict(c_fc=nn.Linear(width, inner), gelu=activation(), c_proj=nn.Linear(inner, width))
        self.mlp = nn.Sequential(layers)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Tokens [B, N, W]; the mask [N, N] is added to the scores."""
        mask = None if attn_mask is None else attn_mask.to(x.dtype)
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Blocks in a row."""

    def __init__(
        self, width: int, layers: int, heads: int, mlp_ratio: float, activation: type[nn.Module]
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, heads, mlp_ratio, activation) for _ in range(layers)
        )

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Tokens [B, N, W]."""
        for block in self.resblocks:
            x = block(x, attn_mask)
        return x


class VisionTransformer(nn.Module):
    """The image tower.

    Attributes:
        image_size, patch_size, grid_size: (height, width) in pixels, in pixels, and in patches.
    """

    attn_pool = None  # open_clip's tower may have one

    def __init__(self, cfg: Mapping[str, Any], output_dim: int, activation: type[nn.Module]) -> None:
        super().__init__()
        side, patch, width = cfg.get("image_size", 224), cfg.get("patch_size", 16), cfg.get("width", 768)
        self.image_size, self.patch_size = (side, side), (patch, patch)
        self.grid_size = (side // patch, side // patch)
        self.output_dim = output_dim
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + self.grid_size[0] ** 2, width))
        self.ln_pre, self.ln_post = LayerNorm(width), LayerNorm(width)
        heads = width // cfg.get("head_width", 64)
        self.transformer = Transformer(
            width, cfg.get("layers", 12), heads, cfg.get("mlp_ratio", 4.0), activation
        )
        self.proj = nn.Parameter(torch.empty(width, output_dim))

    def forward(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] of the native size -> its embedding [B, D]."""
        x = self.conv1(image).flatten(2).transpose(1, 2)  # [B, h*w, W]
        first = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positional_embedding.to(x.dtype)
        x = self.transformer(self.ln_pre(x))
        pooled, _ = self._pool(x)
        return pooled @ self.proj

    def _pool(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class token and patches behind the last norm."""
        x = self.ln_post(x)
        return x[:, 0], x[:, 1:]


class Clip(nn.Module):
    """Both towers; the text tower is on the meta device, without memory, until `load_text`.

    Args:
        config: a `model_cfg` of open_clip for which `is_plain` holds.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        activation: Any = QuickGELU if config.get("quick_gelu") else nn.GELU
        text, embed = config["text_cfg"], config["embed_dim"]
        self.visual = VisionTransformer(config["vision_cfg"], embed, activation)
        width, self.context_length = text.get("width", 512), text.get("context_length", 77)
        with torch.device("meta"):
            self.token_embedding = nn.Embedding(text.get("vocab_size", 49408), width)
            self.positional_embedding = nn.Parameter(torch.empty(self.context_length, width))
            self.transformer = Transformer(
                width, text.get("layers", 12), text.get("heads", 8), text.get("mlp_ratio", 4.0), activation
            )
            self.ln_final = LayerNorm(width)
            self.text_projection = nn.Parameter(torch.empty(width, embed))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(())) if "init_logit_bias" in config else None
        self._waiting: dict[str, Tensor] = {}

    def receive(self, state: Mapping[str, Tensor]) -> None:
        """Take all weights, those of the text tower for later.

        Args:
            state: name -> tensor; names and shapes are those of this network.
        """
        now = {name: tensor for name, tensor in state.items() if name.startswith(("visual.", "logit_"))}
        self.load_state_dict(now, strict=False)
        self._waiting = {name: tensor for name, tensor in state.items() if name not in now}

    @property
    def has_text(self) -> bool:
        """Whether the text tower is loaded."""
        return not self.positional_embedding.is_meta

    @torch.inference_mode(False)
    def load_text(self) -> None:
        """Put the weights of the text tower where those of the image tower are, if they are not yet there."""
        if waiting := self._waiting:
            place = self.visual.conv1.weight.device
            state = {name: tensor.to(place, torch.float32, copy=True) for name, tensor in waiting.items()}
            self.load_state_dict(state, strict=False, assign=True)
            self._waiting = {}

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Name and float32 tensor of all weights in the order of their names, those that wait too."""
        waiting = self._waiting
        for name, tensor in sorted(self.state_dict().items()):
            yield name, waiting[name].float() if name in waiting else tensor

    def encode_image(self, image: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W] -> [B, D]."""
        return self.visual(image)  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [P, L] of at most `context_length` -> [P, D], read at the end-of-text token, the largest id."""
        self.load_text()
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]  # [P, L, W]
        mask = torch.full((length, length), float("-inf"), device=x.device).triu(
            1
        )  # no token sees a later one
        x = self.ln_final(self.transformer(x, mask))
        x = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=1)]
        embeds: Tensor = x @ self.text_projection
        return embeds
