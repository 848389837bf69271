"""Where there is something in an image, whatever it is: FOUND on DINO or on a CLIP, or cuts of CLIP's own patches."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ModelError, hinting
from clipseg_cli.models.auxiliary.clip_vit import ClipViT
from clipseg_cli.models.clip.architectures import bundled_file
from clipseg_cli.models.weights.checkpoints import read_checkpoint, read_metadata
from clipseg_cli.models.weights.precision import computing_as_held
from clipseg_cli.ops.saliency import least_attended_background, saliency_map
from clipseg_cli.ops.spectral import foreground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from clipseg_cli.models.auxiliary.self_supervised import SelfSupervisedViT
    from clipseg_cli.models.clip.backbones import Backbone


OWN_HEAD = "saliency.safetensors"
"""Beside the weights of a bundled model; its metadata say for which tower (`tower`, its fingerprint) and which features
of the last block (`reads`, of the letters q, k and v) it was trained."""

MOST_PIXELS = 1 << 20
"""A DINO sees larger images smaller: what it takes grows with the square of their pixels."""

MOST_PATCHES = 1024
"""The same for a CLIP and its normalised cuts, which compare every patch with every other; where there is something in
an image shows at this size."""


class Saliency(Protocol):
    """Images -> how probably each pixel is foreground."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights."""

    def __call__(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, 1, h, w] in [0, 1], of any size."""


class Found:
    """FOUND (arXiv:2212.07834): one 1x1 convolution on what the last attention of a ViT works with.

    Args:
        vit: the network that the head was trained on: DINO ViT-S/8, or the image tower of a CLIP.
        weight: [1, n * W, 1, 1].
        bias: [1].
        reads: which n of queries, keys and values; FOUND itself reads the keys.
        pixels: larger images are seen smaller.

    Reference: valeoai/FOUND@1ad22ba, model.py, FoundModel.
    """

    def __init__(
        self,
        vit: SelfSupervisedViT | ClipViT,
        weight: Tensor,
        bias: Tensor,
        *,
        reads: str = "k",
        pixels: int = MOST_PIXELS,
    ) -> None:
        self.vit, self.weight, self.bias, self.reads, self.pixels = vit, weight, bias, reads, pixels

    @classmethod
    def of(cls, vit: SelfSupervisedViT, tensors: Mapping[str, Tensor], source: str) -> Found:
        """The head of a checkpoint for DINO.

        Raises:
            ModelError: there is no such head in it, or it is one for another network.
        """
        weight, bias = _head(tensors, source, vit.width, "FOUND was trained on DINO ViT-S/8, which has 384")
        device = vit._mean.device
        return cls(vit, weight.to(device), bias.to(device))

    @classmethod
    def own(cls, backbone: Backbone) -> Found:
        """The head in the package, on the tower of the bundled model that it was trained for.

        Raises:
            ModelError: it is missing, damaged, or for another tower.
        """
        path = bundled_file(OWN_HEAD, backbone.name)
        again = "install the package again, or do without it: --saliency none, or clip"
        if not path.is_file():
            raise ModelError(
                f"the saliency head of {backbone.name} is missing in this installation ({path})", hint=again
            )
        with hinting(again):
            tensors, facts = read_checkpoint(path).tensors, read_metadata(path)
        vit = ClipViT(backbone.model.visual, backbone.mean, backbone.std, backbone.tower)
        reads, tower = facts.get("reads", ""), facts.get("tower", "none")
        if not reads or set(reads) - set("qkv"):
            raise ModelError(f"{path} does not say which features it reads", hint=again)
        weight, bias = _head(tensors, str(path), len(reads) * vit.width, again)
        if tower != vit.fingerprint:
            raise ModelError(
                f"{path} was trained for another tower: {tower}, and that of {backbone.name} is {vit.fingerprint}",
                hint=again,
            )
        device = vit._mean.device
        pixels = MOST_PATCHES * vit.patch**2
        return cls(vit, weight.to(device), bias.to(device), reads=reads, pixels=pixels)

    @property
    def fingerprint(self) -> str:
        """That of the network and of the head."""
        head = hashlib.sha256(self.weight.cpu().numpy().tobytes() + self.bias.cpu().numpy().tobytes())
        return f"{self.vit.fingerprint}-{head.hexdigest()[:16]}"

    def __call__(self, image: Tensor) -> Tensor:
        """At the size of the images, or of what is left of very large ones."""
        image = bounded(image, self.pixels)
        features = self.vit.last_block(image).parts(self.reads).float()
        logits = F.conv2d(features, self.weight, self.bias)
        return saliency_map(logits, self.vit.patch, (image.shape[2], image.shape[3]))


class LeastAttended:
    """What DINO looks at, without any head: all but the patches like the one that its class token attends to least.

    FOUND's head was trained on these masks (arXiv:2212.07834, section 3.1).

    Args:
        vit: a self-supervised network; the paper takes DINO ViT-S/8.
    """

    def __init__(self, vit: SelfSupervisedViT) -> None:
        self.vit = vit

    @property
    def fingerprint(self) -> str:
        """That of the network."""
        return self.vit.fingerprint

    def __call__(self, image: Tensor) -> Tensor:
        """At the size of the images, or of what is left of very large ones; 0 or 1 but for a seam."""
        image = bounded(image, MOST_PIXELS)
        last = self.vit.last_block(image)
        behind = least_attended_background(last.k.float(), last.cls_attention.float(), last.heads)
        maps = 1 - behind[:, None].float()
        full = F.interpolate(maps, scale_factor=self.vit.patch, mode="bilinear", align_corners=False)
        return full[..., : image.shape[2], : image.shape[3]]


class ClipCut:
    """Normalised cuts of CLIP's own patches, thing by thing: no second network, less sharp.

    Args:
        reader: of CLIP; `tokens` are what is compared.
        visual: the tower that it reads.
        mean, std: of images in [0, 1], for CLIP.
        threshold: cosine from which patches count as alike, once the mean of the image is taken off.
    """

    def __init__(
        self,
        reader: Any,
        visual: Any,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        threshold: float = 0.2,
    ) -> None:
        self.reader, self.visual, self.threshold = reader, visual, threshold
        self.fingerprint = "clip"  # that of CLIP stands in every record anyway
        self._mean, self._std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        """On the grid of CLIP, of at most `MOST_PATCHES` patches."""
        image = bounded(image, MOST_PATCHES * self.reader.patch**2, self.reader.patch)
        with computing_as_held(self.visual):
            tokens = self.reader((image - self._mean.to(image)) / self._std.to(image)).tokens
        tokens = tokens.float()
        centred = tokens - tokens.mean(dim=(2, 3), keepdim=True)
        return torch.stack([foreground(one, self.threshold) for one in centred])[:, None]


def _head(tensors: Mapping[str, Tensor], source: str, width: int, hint: str) -> tuple[Tensor, Tensor]:
    """Weight and bias under the names of the published head (`decoder.weight`, or `weight`).

    Raises:
        ModelError: there are none, or they do not fit.
    """
    prefix = "decoder." if "decoder.weight" in tensors else ""
    weight, bias = (tensors.get(f"{prefix}{name}") for name in ("weight", "bias"))
    if weight is None or bias is None:
        raise ModelError(f"{source} holds no head of FOUND", hint="give decoder_weights.pt of valeoai/FOUND")
    weight, bias = weight.float(), bias.float()
    if weight.ndim != 4 or weight.shape[0] != 1 or weight.shape[2:] != (1, 1) or bias.shape != (1,):
        raise ModelError(f"the head in {source} is no 1x1 convolution to one map", hint=hint)
    if weight.shape[1] != width:
        raise ModelError(
            f"the head in {source} is for {weight.shape[1]} channels, and the network has {width}", hint=hint
        )
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ModelError(f"the head in {source} is damaged: not all of its weights are numbers", hint=hint)
    return weight, bias


def bounded(image: Tensor, pixels: int, multiple: int = 1) -> Tensor:
    """[B, 3, H, W] as it is, or made smaller so that it has at most so many pixels, its sides multiples of a number."""
    height, width = image.shape[2:]
    if height * width <= pixels:
        return image
    scale = (pixels / (height * width)) ** 0.5
    size = [max(multiple, int(side * scale / multiple) * multiple) for side in (height, width)]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
