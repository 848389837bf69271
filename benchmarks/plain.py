"""The loop that research code runs: one window at a time, all classes at full size, softmax, argmax.

Written as in the forks that this tool wants to replace (sinahmr/NACLIP@0cac3a6, naclip.py, forward_slide), so that
the comparison is with what people really use. It computes the same thing with the same settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clipseg_cli.inference.predictor import Predictor


@torch.inference_mode()
def plain_loop(predictor: Predictor, files: Sequence[Path], out: Path) -> None:
    """Label files one by one with the model, words and window settings of `predictor`."""
    settings, device = predictor.settings, predictor.device
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB"))
        height, width = pixels.shape[:2]
        scale = min(settings.short_side / min(height, width), settings.long_side / max(height, width))
        new_h, new_w = (
            round(side * scale / settings.multiple) * settings.multiple for side in (height, width)
        )
        resized = torch.from_numpy(cv2.resize(pixels, (new_w, new_h))).to(device)
        image = (resized.permute(2, 0, 1).float() - predictor.mean) / predictor.std
        logits = _slide(predictor, image[None])
        logits = F.interpolate(logits, size=(height, width), mode="bilinear")[0]  # [Q, H, W]
        prob = logits.mul_(settings.softmax_scale).softmax(dim=0)  # in place: kinder than the forks
        label = prob.argmax(dim=0).cpu().numpy().astype(np.uint8)
        Image.fromarray(label).save(out / f"{file.stem}.png")


def _slide(predictor: Predictor, image: torch.Tensor) -> torch.Tensor:
    """[1, 3, H, W] -> [1, Q, H, W] average of the windows."""
    crop, stride = predictor.settings.window, predictor.settings.stride
    _, _, height, width = image.shape
    queries: Any = len(predictor.text_embeds)
    total = image.new_zeros((1, queries, height, width))
    count = image.new_zeros((1, 1, height, width))
    for i in range(max(height - crop + stride - 1, 0) // stride + 1):
        for j in range(max(width - crop + stride - 1, 0) // stride + 1):
            y2, x2 = min(i * stride + crop, height), min(j * stride + crop, width)
            y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
            with torch.autocast(image.device.type, predictor.dtype, enabled=predictor.dtype != torch.float32):
                features = predictor.reader(image[:, :, y1:y2, x1:x2]).features
            features = F.normalize(features.float(), dim=1)
            logits = torch.einsum("bdhw,qd->bqhw", features, predictor.text_embeds)
            logits = F.interpolate(logits, size=(y2 - y1, x2 - x1), mode="bilinear")
            total[:, :, y1:y2, x1:x2] += logits
            count[:, :, y1:y2, x1:x2] += 1
    return total / count
