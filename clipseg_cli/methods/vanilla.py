"""Plain CLIP: the patch tokens as the tower gives them (arXiv:2103.00020). The baseline of every paper.

For a ResNet this is full attention pooling in which every position asks for itself, as in the `attn_pooling`
option of chongzhou96/MaskCLIP@245d31f, mmseg/models/decode_heads/maskclip_head.py.
"""

from __future__ import annotations

from clipseg_cli.ops.attention import plain_attention
from clipseg_cli.types import Method

METHOD = Method(
    plain_attention,
    residual=True,
    mlp=True,
    pointwise=True,
    summary="ordinary attention, the baseline",
    paper="arXiv:2103.00020",
    reference="openai/CLIP@a1d0717",
)
