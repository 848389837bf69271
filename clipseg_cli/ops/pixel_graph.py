"""Label propagation over pixels that look alike to the eye: LPOSS+ (arXiv:2503.19777). Q words, H, W pixels.

The graph is never held as a sparse matrix: its weights are those between a pixel and its neighbours at fixed
distances, strip by strip of the image, and where they would take too much room they are made again at each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.ops.propagation import conjugate_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

KEPT_BYTES = 512 << 20
"""Weights that are kept between steps; above, they are made again."""

STRIP_BYTES, STRIP_WORDS = 256 << 10, 32
"""Scores of so many words in a strip of the image, which should stay in the cache of a CPU."""

ACCELERATOR_STRIP_BYTES = 64 << 20

WORDS_BYTES = 512 << 20
"""Scores of the words that are solved for at once; at least one word is, however large the image."""

WHITE = (0.95047, 1.0, 1.08883)
"""D65."""

LEAST = 1e-20
"""Weights below are 0: products of the smallest floats take a CPU ten times as long."""

FAR = 1e4
"""Colour of what lies outside the image: unlike any other."""


def cie_lab(image: Tensor) -> Tensor:
    """Colours of sRGB [3, H, W] in [0, 1] -> CIE Lab under D65, L* from 0 to 100: [3, H, W]."""
    linear = torch.where(image > 0.04045, ((image.clamp(min=0) + 0.055) / 1.055) ** 2.4, image / 12.92)
    matrix = image.new_tensor(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    xyz = torch.einsum("ab,bhw->ahw", matrix, linear) / image.new_tensor(WHITE)[:, None, None]
    root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-12) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


class PixelGraph:
    """D^-1/2 W D^-1/2 between pixels near each other, by the difference of their colours.

    Args:
        image: [3, H, W] sRGB in [0, 1].
        tau: width of exp(-|difference| / tau), colours being Lab divided by (100, 128, 128).
        reach: pixels along each axis to the farthest neighbour.

    Source: vladan-stojnic/LPOSS@e489a74.
    """

    def __init__(self, image: Tensor, *, tau: float = 0.01, reach: int = 6) -> None:
        lab = cie_lab(image.float()) / image.new_tensor([100.0, 128.0, 128.0])[:, None, None]
        self.size, self.tau, self.reach = (image.shape[1], image.shape[2]), tau, reach
        self._colours = F.pad(lab, (reach,) * 4, value=FAR)
        self._shifts = [
            (row, column)
            for row in range(2 * reach + 1)
            for column in range(2 * reach + 1)
            if (row, column) != (reach, reach)
        ]
        pixels = self.size[0] * self.size[1]
        self._kept: dict[tuple[int, int], Tensor] | None = (
            {} if 4 * len(self._shifts) * pixels <= KEPT_BYTES else None
        )
        total = self._sum(torch.ones(1, *self.size, device=image.device))[0]
        self._inverse = torch.where(total > 0, total.clamp(min=1e-30).rsqrt(), 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        """[Q, H, W] -> what each pixel's neighbours say: [Q, H, W]."""
        return self._inverse * self._sum(x * self._inverse)

    def _sum(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.reach,) * 4)
        found = torch.zeros_like(x)
        for top, bottom in self._strips():
            strip = found[:, top:bottom]
            for weight, (row, column) in zip(self._weights(top, bottom), self._shifts, strict=True):
                strip.addcmul_(weight, padded[:, top + row : bottom + row, column : column + self.size[1]])
        return found

    def _strips(self) -> Iterator[tuple[int, int]]:
        """Rows of the image, the same whatever the number of words, so that kept weights fit."""
        room = STRIP_BYTES if self._colours.device.type == "cpu" else ACCELERATOR_STRIP_BYTES
        rows = max(1, room // (4 * STRIP_WORDS * self.size[1]))
        for top in range(0, self.size[0], rows):
            yield top, min(self.size[0], top + rows)

    def _weights(self, top: int, bottom: int) -> Tensor:
        """Of rows of the image: [neighbours, rows, W]."""
        if self._kept is not None and (top, bottom) in self._kept:
            return self._kept[top, bottom]
        width, reach = self.size[1], self.reach
        own = self._colours[:, top + reach : bottom + reach, reach : reach + width]
        weights = own.new_empty(len(self._shifts), bottom - top, width)
        for weight, (row, column) in zip(weights, self._shifts, strict=True):
            other = self._colours[:, top + row : bottom + row, column : column + width]
            torch.exp((other - own).square_().sum(dim=0).sqrt_() / -self.tau, out=weight)
        weights[weights < LEAST] = 0
        if self._kept is not None:
            self._kept[top, bottom] = weights
        return weights

    def propagate(
        self, scores: Tensor, *, alpha: float = 0.95, steps: int = 10, tolerance: float = 1e-6
    ) -> Tensor:
        """Scores [Q, H, W] that flow between pixels, as in `ops.propagation.propagate`; some words at a time."""

        def product(x: Tensor) -> Tensor:
            return x - alpha * self(x)

        some = max(1, WORDS_BYTES // (4 * self.size[0] * self.size[1]))
        parts = scores.float().split(some)
        solved = [conjugate_gradients(product, y, steps=steps, tolerance=tolerance) for y in parts]
        return torch.cat(solved)
