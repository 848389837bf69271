"""Run lengths of masks as three programs count them: COCO, CVAT, Label Studio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BRUSH_WORD = 8  # bits of a value
_BRUSH_SIZES = (3, 4, 8, 16)  # bits of the length of a run, of which each run takes the least that fits
_BRUSH_LONGEST = 1 << _BRUSH_SIZES[-1]
_CHANNELS = 4  # Label Studio counts every pixel as red, green, blue and alpha


def counts_of(starts: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Lengths of runs that alternate, beginning with pixels outside the mask, which may be none.

    Args:
        starts, lengths: [n] of the runs inside the mask, ascending, not touching.
        size: pixels in all.

    Returns:
        [2n], or [2n + 1] where the last pixel is outside; they add up to `size`.
    """
    edges = np.stack([starts, starts + lengths], 1).ravel()
    counts: NDArray[np.int64] = np.diff(edges, prepend=0, append=size)
    return counts if not len(edges) or edges[-1] < size else counts[:-1]


def runs_in(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and lengths of the runs of a mask [H, W], row by row, each going on in the next row."""
    change = np.flatnonzero(np.diff(mask.ravel().view(np.int8), prepend=0, append=0))
    return change[::2], change[1::2] - change[::2]


def coco_string(counts: NDArray[np.int64]) -> str:
    """COCO's compressed run lengths.

    From the third on a count is the difference to the one two before it; every number is cut into groups of five bits,
    the lowest first, with a sixth that says whether more follow, and 48 is added to make a letter
    (cocodataset/cocoapi@8c9bcc3, common/maskApi.c, rleToString).
    """
    values = counts.copy()
    values[3:] -= counts[1:-2]
    letters = np.zeros((len(values), 13), np.uint8)  # 13 groups hold any 64 bits
    used = np.zeros(letters.shape, np.bool_)
    alive = np.ones(len(values), np.bool_)
    for group in range(letters.shape[1]):
        low = values & 31
        values = values >> 5
        more = alive & np.where(low & 16, values != -1, values != 0)
        letters[:, group] = low + 32 * more + 48
        used[:, group] = alive
        alive = more
        if not alive.any():
            break
    return letters[used].tobytes().decode("ascii")


def brush_bytes(starts: NDArray[np.int64], lengths: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
    """Label Studio's run lengths of a brush: [n] bytes.

    A stream of bits, high ones first: the number of values (32), the bits of a value less one (5), four bits of lengths
    less one (4 each); then runs: 1, which of the four (2), length less one, value. Every pixel is four values, 255 in
    the mask and 0 outside (label_studio_sdk, converter/brush.py, decode_rle).

    Args:
        starts, lengths: [n] of the runs inside the mask, row by row, ascending, not touching.
        size: pixels in all.
    """
    counts = counts_of(starts, lengths, size) * _CHANNELS
    values = np.where(np.arange(len(counts)) % 2, 255, 0)
    # A run that no length can say is several.
    parts = -(-counts // _BRUSH_LONGEST)
    values, last = np.repeat(values, parts), np.cumsum(parts) - 1
    runs = np.full(int(parts.sum()), _BRUSH_LONGEST, np.int64)
    inside = counts > 0
    runs[last[inside]] = counts[inside] - (parts[inside] - 1) * _BRUSH_LONGEST
    sizes = np.array(_BRUSH_SIZES)
    which = np.searchsorted(1 << sizes, runs)
    head = np.array([0b1, *(b - 1 for b in (32, _BRUSH_WORD, *_BRUSH_SIZES))])
    bits = [_bits(np.array([size * _CHANNELS]), np.array([32])), _bits(head[2:3], np.array([5]))]
    bits += [_bits(head[3:], np.full(len(sizes), 4))]
    # One number a run: flag, which, length less one, value.
    width = 3 + sizes[which] + _BRUSH_WORD
    number = (((4 + which) << sizes[which]) + runs - 1 << _BRUSH_WORD) + values
    bits.append(_bits(number, width))
    return np.packbits(np.concatenate(bits))


def _bits(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The numbers in binary, each with so many digits, one behind the other: [sum of widths] of 0 and 1."""
    most = int(widths.max(initial=0))
    places = np.arange(most - 1, -1, -1)
    digits = (numbers[:, None] >> places & 1).astype(np.uint8)
    return digits[places < widths[:, None]]
