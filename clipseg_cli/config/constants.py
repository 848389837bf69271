"""Words and label values that several modules agree on."""

from __future__ import annotations

IGNORE_INDEX = 255
"""Label value of pixels that nobody scores or learns from, as in PASCAL VOC."""

IGNORE_INDEX_16 = 65_535
"""The same where 8 bits do not hold the class ids."""

UNLABELLED = -1
"""In training, a pixel that the teacher or the student itself may label."""

BACKGROUND_WORDS = ("building", "ground", "grass", "tree", "sky")
"""What MaskCLIP adds to a list of things so that they do not split the whole photo between them."""

PLAIN_BACKGROUND = "background"

BUNDLED_MODEL = "emoji"

SALIENCY_HEADS = (BUNDLED_MODEL,)
"""Bundled models with a head of FOUND beside their tower."""

BUNDLED_BACKBONE = "resnet10t"
"""The one that the package has weights of, for students of the bundled model."""

PROPAGATIONS = ("lposs", "lposs+", "pearl")

GRAPHS = PROPAGATIONS[:2]
"""Those that look at patches, and may ask a guide."""


def ignore_value(classes: int) -> int:
    """The label value for "ignore" beside so many class ids: 255, or 65535 where ids need 16 bits."""
    return IGNORE_INDEX if classes <= IGNORE_INDEX else IGNORE_INDEX_16
