"""Foreground from the features of a self-supervised ViT: FOUND (arXiv:2212.07834)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def qkv_maps(qkv: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the patches, heads side by side.

    Args:
        qkv: [B, 1 + h*w, 3 * W] as the linear layer of the last block gives them, class token first.
        grid: (h, w), in patches.

    Returns:
        Three times [B, W, h, w].
    """
    q, k, v = (part[:, 1:].transpose(1, 2).unflatten(2, grid) for part in qkv.chunk(3, dim=-1))
    return q, k, v


def saliency_map(logits: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """Probability of foreground at every pixel: upsampled by the patch, cut to the image, then the sigmoid.

    Args:
        logits: [B, 1, h, w] of the head, on the grid of the padded image.
        patch: side of a patch in pixels.
        size: (H, W) of the image.

    Returns:
        [B, 1, H, W] in [0, 1].

    Source: valeoai/FOUND@1ad22ba, model.py and evaluation/saliency.py.
    """
    full = F.interpolate(logits.float(), scale_factor=patch, mode="bilinear", align_corners=False)
    return full[..., : size[0], : size[1]].sigmoid()


def least_attended_background(
    keys: Tensor, cls_attention: Tensor, heads: int, *, threshold: float = 0.3
) -> Tensor:
    """Patches like the one that the class token looks at least: the background that FOUND's head was trained with.

    Args:
        keys: [B, W, h, w] of `qkv_maps`.
        cls_attention: [B, Nh, 1 + h*w] what the class token attends to in the last block.
        heads: Nh.
        threshold: cosine from which a patch is background too.

    Returns:
        [B, h, w] bool.

    Source: valeoai/FOUND@1ad22ba, bkg_seg.py, compute_img_bkg_seg.
    """
    attention = cls_attention[..., 1:]  # [B, Nh, n]
    above = attention > attention.mean(dim=(1, 2), keepdim=True)
    share = above.float().mean(dim=2)  # [B, Nh]
    weights = torch.log((share + 1e-10).sum(dim=1, keepdim=True) / (share + 1e-10))  # [B, Nh]
    flat = keys.flatten(2).unflatten(1, (heads, -1)) * weights[:, :, None, None]  # [B, Nh, Dh, n]
    unit = F.normalize(flat.flatten(1, 2), dim=1)  # [B, W, n]
    reference = (attention * weights[:, :, None]).sum(dim=1).argmin(dim=1)  # [B]
    seed = unit.gather(2, reference[:, None, None].expand(-1, unit.shape[1], 1))  # [B, W, 1]
    near: Tensor = (seed * unit).sum(dim=1) > threshold  # [B, n]
    return near.view(-1, *keys.shape[2:])
