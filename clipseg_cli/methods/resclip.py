"""ResCLIP: attention of earlier blocks, and a first segmentation, are mixed into the last (arXiv:2411.15851).

RCS: attention of blocks 6 to 9 knows where things are better than the last; a share of it is mixed in. SFR: the last
block is read once, its labels are refined by the colours of pixels, and patches of one object attend to each other when
it is read again. So this method reads with the words in sight. Pixels less sure than a threshold count as the FIRST
word, as published, whatever it is.

The blocks are those of a tower of twelve; in others they are taken at the same share of the depth. Published numbers
differ with the data set; the defaults are in their middle. The published
code rounds what the first segmentation says to half precision, which is left out.

Variants: `resclip:vanilla`, `resclip:clearclip` and `resclip:sclip` mix the same into other attentions, as published
with the residual and the MLP (`sclip`, `vanilla`) or without (`clearclip`); `resclip:rcs` reads once.

Reference: yvhangyang/ResCLIP@0e085f7.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from clipseg_cli.methods.naclip import STD, neighbourhood
from clipseg_cli.ops.attention import to_grid
from clipseg_cli.ops.feedback import patch_labels, same_object
from clipseg_cli.ops.pamr import PAMR_DILATIONS, pamr, pamr_affinity
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import Method, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types import Block, Scene

Kind = Literal["resclip", "vanilla", "clearclip", "sclip"]

BLOCKS, LAYERS = 12, (6, 9)
"""Depth of the tower that the block numbers are about, and the first and last whose attention is mixed in."""

ENTIRE = 1 << 20
"""More blocks than any tower has."""


def read_twice(
    blocks: Sequence[Block],
    x: Tensor,
    grid: tuple[int, int],
    scene: Scene,
    kind: Kind = "resclip",
    whole_block: bool = False,
    *,
    layers: tuple[int, ...] = LAYERS,
    rcs_scale: float = 2.0,
    rcs_share: float = 0.3,
    sfr_scale: float = 2.1,
    sfr_share: float = 0.7,
    threshold: float = 0.25,
    scale: float = 40.0,
    std: float = STD,
    split: bool = True,
    pamr_steps: int = 10,
    feedback: bool = True,
) -> Tokens:
    """The whole tower, its last block twice.

    Args:
        blocks: all of the tower.
        x: [B, N, W] what goes into the first of them, class token first.
        grid: (h, w), in patches.
        scene: the image and the words.
        kind: which scores the last block compares; "resclip" are those of NACLIP.
        whole_block: keep the residual and the MLP.
        layers: first and last block whose attention is mixed in, counted from 1 in a tower of twelve.
        rcs_scale, rcs_share: factor on the mixture, and the share of these blocks in it.
        sfr_scale, sfr_share: the same of what the first segmentation says, in the scores before the softmax.
        threshold: pixels of the first segmentation less sure than that count as the first word.
        scale: factor on cosines before its softmax.
        std: width of the Gaussians, in patches.
        split: whether other labels between two patches of one label part them.
        pamr_steps: of the refinement of the first segmentation.
        feedback: False reads once.
    """
    depth, prefix = len(blocks), x.shape[1] - grid[0] * grid[1]
    first, last = (min(max(round(layer * depth / BLOCKS), 1), depth) for layer in (min(layers), max(layers)))
    earlier: list[Tensor] = []
    for i, block in enumerate(blocks[:-1], start=1):
        if first <= i <= last:
            q, k, _ = block.qkv(block.norm1(x))
            earlier.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1))
        x = block(x)
    residual = torch.stack(earlier).mean(dim=0) if earlier else None  # [B, Nh, N, N]
    final = blocks[-1]
    q, k, v = final.qkv(final.norm1(x))
    pairs = {"vanilla": ((q, k),), "clearclip": ((q, q),), "sclip": ((q, q), (k, k))}.get(kind, ((k, k),))
    bias = neighbourhood(grid, std, prefix).to(q) if kind == "resclip" else 0.0

    def read(same: Tensor | None) -> Tokens:
        mixture = torch.zeros_like(q[..., :1])
        for a, b in pairs:
            scores = a @ b.mT * a.shape[-1] ** -0.5  # [B, Nh, N, N]
            if same is not None:
                scores = sfr_scale * ((1 - sfr_share) * scores + sfr_share * same)
            mixture = mixture + (scores + bias).softmax(dim=-1)
        if residual is not None:
            mixture = rcs_scale * ((1 - rcs_share) * mixture + rcs_share * residual)
        mixed = final.layer_scale(final.project(mixture.to(v) @ v))
        tokens = final.mlp(x + mixed) if whole_block else mixed
        return Tokens(tokens[:, prefix:], grid, tokens[:, :1] if prefix else None)

    found = read(None)
    if not feedback:
        return found
    prob = first_segmentation(found, scene, scale, pamr_steps)
    same = torch.stack([same_object(patch_labels(one, grid, threshold), std, split=split) for one in prob])
    same = same / same.amax(dim=(1, 2), keepdim=True).clamp(min=1e-8)
    return read(F.pad(same, (prefix, 0, prefix, 0))[:, None].to(q))


def first_segmentation(found: Tokens, scene: Scene, scale: float, pamr_steps: int) -> Tensor:
    """Probabilities of the words at the size of the image, refined by its colours: [B, Q, H, W]."""
    features = to_grid(scene.embed(found.patches), found.grid)
    with torch.autocast(features.device.type, enabled=False):
        cosines = cosine_logits(features, scene.text_embeds)
    size = (scene.image.shape[2], scene.image.shape[3])
    full = F.interpolate(cosines, size, mode="bilinear", align_corners=False)
    if pamr_steps:
        refined = [
            pamr(maps, pamr_affinity(image.float(), PAMR_DILATIONS), PAMR_DILATIONS, pamr_steps)
            for maps, image in zip(full, scene.image, strict=True)
        ]
        full = torch.stack(refined)
    return (scale * full).softmax(dim=1)


METHOD = Method(
    None,
    read_twice=read_twice,
    blocks=ENTIRE,
    positions="scale",
    padding="drop",
    ranges={
        "layers": (1, BLOCKS - 1),
        "rcs_scale": (0, 100),
        "rcs_share": (0, 1),
        "sfr_scale": (0, 100),
        "sfr_share": (0, 1),
        "threshold": (0, 1),
        "scale": (0, 1000),
        "std": (0.01, 10_000),
        "split": (0, 1),
        "pamr_steps": (0, 100),
        "feedback": (0, 1),
    },
    cost=3.0,
    summary="attention of earlier blocks and a first segmentation mixed into the last",
    paper="arXiv:2411.15851",
    reference="yvhangyang/ResCLIP@0e085f7",
)


def _variant(kind: Kind, *, whole_block: bool) -> Method:
    own = functools.partial(read_twice, kind=kind, whole_block=whole_block)
    return dataclasses.replace(METHOD, read_twice=own)


VARIANTS = {
    "rcs": dataclasses.replace(METHOD, read_twice=functools.partial(read_twice, feedback=False)),
    "vanilla": _variant("vanilla", whole_block=True),
    "clearclip": _variant("clearclip", whole_block=False),
    "sclip": _variant("sclip", whole_block=True),
}
