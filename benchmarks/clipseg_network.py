"""The network CLIPSeg of CVPR 2022 at its published size, as transformers runs it; weights are random.

Sizes are those of the published `CIDAS/clipseg-rd64-refined`: ViT-B/16 read at 352x352, a decoder of 64 channels on
layers 3, 6 and 9, and a refined upsampling (arXiv:2112.10003).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SIDE = 352
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(device: torch.device) -> CLIPSegForImageSegmentation:
    """The network with random weights, in eval mode."""
    config = CLIPSegConfig(
        vision_config={"patch_size": 16, "image_size": 224},
        reduce_dim=64,
        extract_layers=[3, 6, 9],
        use_complex_transposed_convolution=True,
    )
    net: Any = CLIPSegForImageSegmentation(config)
    return net.eval().requires_grad_(False).to(device)  # type: ignore[no-any-return]


@torch.inference_mode()
def label_files(net: Any, tokens: torch.Tensor, files: Sequence[Path], out: Path) -> None:
    """Files in, label maps out, as its documentation does it: the image once for each prompt, one batch an image.

    Args:
        net: of `build`.
        tokens: [Q, L] ids of the prompts.
        files: images.
        out: folder of the label maps.
    """
    device = net.device
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))
    for file in files:
        image = Image.open(file).convert("RGB")
        resized = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        pixels = (torch.from_numpy(resized.copy()).to(device).permute(2, 0, 1) / 255 - mean) / std
        batch = pixels.expand(len(tokens), -1, -1, -1)
        logits = net(input_ids=tokens.to(device), pixel_values=batch, interpolate_pos_encoding=True).logits
        logits = F.interpolate(logits[None], size=(image.height, image.width), mode="bilinear")[0]
        labels = logits.argmax(dim=0).cpu().numpy().astype(np.uint8)
        Image.fromarray(labels).save(out / f"{file.stem}.png")
