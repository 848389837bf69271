"""Where there is something in a picture, whatever it is: FOUND, or CLIP's own patches, or maps from anywhere."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F

from clipseg_cli.errors import ModelError
from clipseg_cli.ops.saliency import least_attended_background, saliency_map
from clipseg_cli.ops.spectral import fiedler_vector, foreground

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from clipseg_cli.models.self_supervised import SelfSupervisedViT


MOST_PIXELS = 1 << 20
"""A DINO sees larger pictures smaller: what it takes grows with the square of their pixels."""

MOST_PATCHES = 1024
"""The same for the normalised cut, which compares every patch with every other; where there is something in a picture
shows at this size."""


class Saliency(Protocol):
    """Pictures -> how probably each pixel is foreground."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights."""

    def __call__(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, 1, h, w] in [0, 1], of any size."""


class Found:
    """FOUND (arXiv:2212.07834): one 1x1 convolution on the keys of a self-supervised ViT.

    Args:
        vit: the network that the head was trained on, DINO ViT-S/8.
        weight: [1, W, 1, 1].
        bias: [1].

    Reference: valeoai/FOUND@1ad22ba, model.py, FoundModel.
    """

    def __init__(self, vit: SelfSupervisedViT, weight: Tensor, bias: Tensor) -> None:
        self.vit, self.weight, self.bias = vit, weight, bias

    @classmethod
    def of(cls, vit: SelfSupervisedViT, tensors: Mapping[str, Tensor], source: str) -> Found:
        """The head of a checkpoint, under the names of the published one (`decoder.weight`, or `weight`).

        Raises:
            ModelError: there is no such head in it, or it is one for another network.
        """
        names = [name for name in ("decoder.", "") if f"{name}weight" in tensors]
        if not names:
            raise ModelError(
                f"{source} holds no head of FOUND", hint="give decoder_weights.pt of valeoai/FOUND"
            )
        weight, bias = tensors[f"{names[0]}weight"], tensors[f"{names[0]}bias"]
        width = vit.net.embed_dim
        if tuple(weight.shape) != (1, width, 1, 1):
            raise ModelError(
                f"the head in {source} is for {weight.shape[1]} channels, and the network has {width}",
                hint="FOUND was trained on DINO ViT-S/8, which has 384",
            )
        device = vit._mean.device
        return cls(vit, weight.float().to(device), bias.float().to(device))

    @property
    def fingerprint(self) -> str:
        """That of the network and of the head."""
        head = hashlib.sha256(self.weight.cpu().numpy().tobytes() + self.bias.cpu().numpy().tobytes())
        return f"{self.vit.fingerprint}-{head.hexdigest()[:16]}"

    def __call__(self, image: Tensor) -> Tensor:
        """At the size of the pictures, or of what is left of very large ones."""
        image = bounded(image, MOST_PIXELS)
        logits = F.conv2d(self.vit.last_block(image).k.float(), self.weight, self.bias)
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
        """At the size of the pictures, or of what is left of very large ones; 0 or 1 but for a seam."""
        image = bounded(image, MOST_PIXELS)
        last = self.vit.last_block(image)
        behind = least_attended_background(last.k.float(), last.cls_attention.float(), last.heads)
        maps = 1 - behind[:, None].float()
        full = F.interpolate(maps, scale_factor=self.vit.patch, mode="bilinear", align_corners=False)
        return full[..., : image.shape[2], : image.shape[3]]


class ClipCut:
    """The normalised cut of CLIP's own patches: no second network, less sharp.

    Args:
        reader: of CLIP; `tokens` are what is compared.
        mean, std: of pictures in [0, 1], for CLIP.
        threshold: cosine from which patches count as alike, once the mean of the picture is taken off.
    """

    def __init__(
        self,
        reader: Any,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        threshold: float = 0.2,
    ) -> None:
        self.reader, self.threshold = reader, threshold
        self.fingerprint = "clip"  # that of CLIP stands in every record anyway
        self._mean, self._std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        """On the grid of CLIP, of at most `MOST_PATCHES` patches."""
        image = bounded(image, MOST_PATCHES * self.reader.patch**2, self.reader.patch)
        tokens = self.reader((image - self._mean.to(image)) / self._std.to(image)).tokens.float()
        centred = tokens - tokens.mean(dim=(2, 3), keepdim=True)
        return torch.stack([foreground(fiedler_vector(one, self.threshold)) for one in centred])[:, None]


def bounded(image: Tensor, pixels: int, multiple: int = 1) -> Tensor:
    """[B, 3, H, W] as it is, or made smaller so that it has at most so many pixels, its sides multiples of a number."""
    height, width = image.shape[2:]
    if height * width <= pixels:
        return image
    scale = (pixels / (height * width)) ** 0.5
    size = [max(multiple, int(side * scale / multiple) * multiple) for side in (height, width)]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
