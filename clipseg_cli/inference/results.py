"""From labels where the network is to a `Segmentation`, which lies on the host at the image's own size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from clipseg_cli.config import ignore_value
from clipseg_cli.data.images import resize_nearest
from clipseg_cli.inference.kept import on_cpu
from clipseg_cli.types import Segmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipseg_cli.inference.parts import Labelled
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import ClassList
    from clipseg_cli.utils.transfer import Download


def label_type(classes: ClassList) -> tuple[type[np.uint8 | np.uint16], torch.dtype]:
    """Types of a label map of so many classes on the host and before, so that none is ever held as int64."""
    return (np.uint8, torch.uint8) if ignore_value(len(classes)) < 256 else (np.uint16, torch.int32)


def finish(
    one: Prepared, labelled: Labelled, row: int, download: Download, classes: ClassList
) -> Segmentation:
    """The label map of an image at its own size; waits until it is here.

    Args:
        one: the image.
        labelled: what came out for it and for those that went with it.
        row: which of them it is.
        download: of confidence and labels.
        classes: what the labels mean.
    """
    size, maps = one.size, labelled.class_maps

    def map_of(class_id: int) -> NDArray[np.float32]:
        assert maps is not None
        with torch.inference_mode():
            return resize_nearest(maps[row](class_id).cpu().numpy(), size)

    confidence, labels = (labelled.stack.split(found)[row].numpy() for found in download())
    if download.pinned:  # memory of this kind is scarce, and results may be kept for long
        confidence, labels = confidence.copy(), labels.copy()
    return Segmentation(
        labels=resize_nearest(labels.astype(label_type(classes)[0], copy=False), size),
        scores=resize_nearest(confidence, size),
        classes=classes,
        image=one.image,
        class_scores=None if maps is None else map_of,
        features=on_cpu(labelled.kept_of(row)),
    )
