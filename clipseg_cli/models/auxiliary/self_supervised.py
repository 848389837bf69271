"""Self-supervised ViTs of timm (DINO, DINOv2, DINOv3), which know what belongs together but have no words."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ModelError, UsageError, did_you_mean
from clipseg_cli.models.weights import hub
from clipseg_cli.models.weights.checkpoints import read_checkpoint
from clipseg_cli.models.weights.fingerprints import fingerprint
from clipseg_cli.models.weights.fitting import fit_weights
from clipseg_cli.models.weights.precision import computing_as_held, hold_weights_in
from clipseg_cli.ops.saliency import qkv_maps

if TYPE_CHECKING:
    from torch import Tensor

    from clipseg_cli.types import GuideReads

SHORT_NAMES = {
    "dino": "vit_small_patch8_224.dino",
    "dino-b8": "vit_base_patch8_224.dino",
    "dino-b16": "vit_base_patch16_224.dino",
    "dinov2": "vit_base_patch14_dinov2.lvd142m",
}
"""What papers call them: FOUND's network, ProxyCLIP's, LPOSS', and their successor."""

WAYS_OUT = "give the weights with NAME=FILE, as in dino=dino_deitsmall8_pretrain.pth"


class LastBlock(NamedTuple):
    """What the last attention of a ViT works with.

    Attributes:
        q, k, v: [B, W, h, w], heads side by side.
        cls_attention: [B, Nh, 1 + h*w] what the class token attends to.
        heads: Nh.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    cls_attention: Tensor
    heads: int

    def parts(self, names: str) -> Tensor:
        """Those of q, k and v that are named, as in "k" or "qkv", on top of each other: [B, n * W, h, w]."""
        return torch.cat([getattr(self, name) for name in names], dim=1)


class SelfSupervisedViT:
    """A frozen ViT of timm, for images of any size.

    Position embeddings are interpolated by timm.

    Args:
        net: a `timm.models.vision_transformer.VisionTransformer` with `dynamic_img_size`, in eval mode.
        mean, std: of the images that it was trained on, in [0, 1].
    """

    def __init__(self, net: Any, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        self.net = net
        self.patch: int = net.patch_embed.patch_size[0]
        self.width: int = net.embed_dim
        device = next(net.parameters()).device
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (mean, std))

    @cached_property
    def fingerprint(self) -> str:
        """Equal for equal weights."""
        return fingerprint(self.net, {"kind": type(self.net).__name__})

    def features(self, image: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1] -> patches behind the last LayerNorm, [B, W, ceil(H / p), ceil(W / p)]."""
        x, grid = self._fit(image)
        with computing_as_held(self.net):
            tokens = self.net.forward_features(x)[:, self.net.num_prefix_tokens :]  # [B, h*w, W]
        return tokens.transpose(1, 2).unflatten(2, grid)  # type: ignore[no-any-return]

    def last_block(self, image: Tensor) -> LastBlock:
        """Images [B, 3, H, W] in [0, 1] -> what the attention of the last block sees."""
        with computing_as_held(self.net):
            return self._last_block(image)

    def _last_block(self, image: Tensor) -> LastBlock:
        x, grid = self._fit(image)
        net = self.net
        x = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x))))
        for block in net.blocks[:-1]:
            x = block(x)
        attn = net.blocks[-1].attn
        qkv = attn.qkv(net.blocks[-1].norm1(x))  # [B, N, 3W]
        # Register tokens are no patches; the class token comes first.
        kept = torch.cat([qkv[:, :1], qkv[:, net.num_prefix_tokens :]], dim=1)
        q, k, _ = (part.unflatten(2, (attn.num_heads, -1)).transpose(1, 2) for part in kept.chunk(3, dim=-1))
        attention = (q[:, :, :1] @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)[:, :, 0]
        return LastBlock(*qkv_maps(kept, grid), attention, attn.num_heads)

    def _fit(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Normalised, and padded with zeros at the right and the bottom to whole patches; and the grid."""
        x = (image - self._mean) / self._std
        x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
        return x, (x.shape[2] // self.patch, x.shape[3] // self.patch)


class SelfSupervisedGuide:
    """A `Guide` that looks at the image with eyes of its own.

    Args:
        vit: the other network.
        mean, std: by which the images that it gets were normalised, for CLIP; of images in [0, 1].
        reads: what it hands out: the last tokens (ProxyCLIP), or of the last attention the values (CLIP-DINOiser) or
            the queries plus keys (CorrCLIP).
    """

    inner = None

    def __init__(
        self,
        vit: SelfSupervisedViT,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        *,
        reads: GuideReads = "tokens",
    ) -> None:
        self.vit, self.reads = vit, reads
        device = vit._mean.device
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (mean, std))

    @property
    def fingerprint(self) -> str:
        """That of the network."""
        return self.vit.fingerprint

    def __call__(self, x: Tensor) -> Tensor:
        """Images normalised for CLIP [B, 3, H, W] -> [B, W, h, w]."""
        image = x * self._std + self._mean
        if self.reads == "tokens":
            return self.vit.features(image)
        last = self.vit.last_block(image)
        return last.v if self.reads == "values" else last.q + last.k

    def objectness(self, x: Tensor) -> None:
        """It has no opinion."""


def check_self_supervised(text: str) -> tuple[str, str, Path | None]:
    """What a text NAME or NAME=FILE means: a name of timm, its architecture, and the file.

    Raises:
        UsageError: there is no such network.
        ModelError: there is no such file.
    """
    short, _, file = text.partition("=")
    name = SHORT_NAMES.get(short, short)
    architecture = name.partition(".")[0]
    import timm

    known = timm.list_models("vit_*")
    if architecture not in known:
        raise UsageError(
            f"unknown network '{short}'",
            hint=did_you_mean(short, [*SHORT_NAMES, *known]) or "dino, dino-b8, dinov2",
        )
    return name, architecture, _file(file) if file else None


def self_supervised_is_here(text: str) -> bool:
    """Whether the weights of a network are on this machine.

    Raises:
        ClipsegError: as `check_self_supervised`.
    """
    name, _, file = check_self_supervised(text)
    import timm

    config = timm.get_pretrained_cfg(name)
    if file is not None or config is None:
        return file is not None
    where = f"{config.hf_hub_id}/{config.hf_hub_filename or 'model.safetensors'}" if config.hf_hub_id else ""
    return hub.cached_weights({"hf_hub": where} if where else {"url": config.url}) is not None


def load_self_supervised(
    text: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> SelfSupervisedViT:
    """A network by name, with the weights that timm publishes or those of a file.

    Args:
        text: a name of `SHORT_NAMES` or of timm, or NAME=FILE.
        device: where it goes.
        dtype: that it computes in.

    Raises:
        UsageError: there is no such network.
        ModelError: its weights cannot be downloaded, read or loaded into the network.
    """
    name, architecture, file = check_self_supervised(text)
    short = text.partition("=")[0]
    import timm

    net: Any = timm.create_model(name if "." in name else architecture, num_classes=0, dynamic_img_size=True)
    config = net.pretrained_cfg
    path = file or hub.fetch_timm_weights(config, f"the network {name}", WAYS_OUT)
    own, tensors = net.state_dict(), read_checkpoint(path).tensors
    found = {key.removeprefix("backbone.").removeprefix("module."): value for key, value in tensors.items()}
    fit_weights(
        net,
        {key: value for key, value in found.items() if key in own},  # heads of the pretraining are left aside
        source=str(file or name),
        name=short,
        hint=lambda: "give the weights of that network",
    )
    net = net.eval().requires_grad_(False).to(device)
    vit = SelfSupervisedViT(net, tuple(config["mean"]), tuple(config["std"]))
    _ = vit.fingerprint  # of the weights as they were loaded
    hold_weights_in(net, dtype)
    return vit


def _file(text: str) -> Path:
    path = Path(os.path.expanduser(text))  # noqa: PTH111  (leaves the home of an unknown user as it is written)
    if not path.is_file():
        raise ModelError(f"{text}: no such weight file", hint=WAYS_OUT)
    return path
