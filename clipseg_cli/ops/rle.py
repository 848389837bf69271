"""Run lengths of masks as three programs count them: COCO, CVAT, Label Studio; written, and read again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BRUSH_WORD = 8  # bits of a value
_BRUSH_SIZES = (3, 4, 8, 16)  # bits of the length of a run, of which each run takes the least that fits
_BRUSH_LONGEST = 1 << _BRUSH_SIZES[-1]
_MOST_GROUPS = 8  # of five bits in a number of COCO's: far more pixels than an image has
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


def mask_of(counts: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """The mask [size] of runs that alternate, beginning with pixels outside it.

    Raises:
        ValueError: a run of less than no pixels, or they do not add up to `size`.
    """
    if counts.size and counts.min() < 0:
        raise ValueError("a run length is below 0")
    if counts.size and counts.max() > size:  # before they are added up, which might overflow
        raise ValueError(f"a run length is {int(counts.max()):,}, of {size:,} pixels")
    total = int(counts.sum())
    if total != size:
        raise ValueError(f"its run lengths add up to {total:,} pixels, not {size:,}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def coco_counts(text: str) -> NDArray[np.int64]:
    """The counts of COCO's compressed run lengths: what `coco_string` has written.

    Raises:
        ValueError: a letter that stands for nothing, a number without end, or one of more than 40 bits.
    """
    try:
        letters = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("its run lengths hold a letter that stands for no number") from None
    if not letters.size:
        return np.zeros(0, np.int64)
    if letters.min() < 0 or letters.max() > 63:
        raise ValueError("its run lengths hold a letter that stands for no number")
    last = (letters & 32) == 0
    if not last[-1]:
        raise ValueError("its run lengths end in the middle of a number")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= _MOST_GROUPS:
        raise ValueError("its run lengths hold a number that is too large")
    group = np.arange(len(letters)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((letters & 31) << (5 * group), starts)
    values -= np.where(letters[ends] & 16, np.int64(1) << (5 * (ends - starts + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def brush_mask(data: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """The mask [size] of Label Studio's run lengths: where the last of the four values of a pixel is 128 or more.

    Args:
        data: [n] bytes, as `brush_bytes` makes them; runs of values that differ are read too.
        size: pixels in all.

    Raises:
        ValueError: they are for another number of pixels, or end too soon.
    """
    bits = (np.unpackbits(data) + ord("0")).tobytes().decode("ascii")
    head = 32 + 5 + 4 * len(_BRUSH_SIZES)
    if len(bits) < head:
        raise ValueError("its run lengths are cut short")
    total, word = int(bits[:32], 2), int(bits[32:37], 2) + 1
    if total != size * _CHANNELS:
        raise ValueError(f"its run lengths are for {total // _CHANNELS:,} pixels, not {size:,}")
    widths = [int(bits[at : at + 4], 2) + 1 for at in range(37, head, 4)]
    at, done = head, 0
    values, counts = list[int](), list[int]()
    while done < total:
        width = widths[int(bits[at + 1 : at + 3] or "0", 2)]
        same, count = bits[at : at + 1] == "1", int(bits[at + 3 : at + 3 + width] or "0", 2) + 1
        at += 3 + width
        own = 1 if same else count
        end = at + own * word
        if end > len(bits):
            raise ValueError("its run lengths are cut short")
        values += [int(bits[i : i + word], 2) for i in range(at, end, word)]
        counts += [count] if same else [1] * count
        at, done = end, done + count
    if done != total:
        raise ValueError(f"its run lengths add up to {done // _CHANNELS:,} pixels, not {size:,}")
    pixels = np.repeat(np.array(values) >= 1 << (word - 1), np.array(counts))
    return np.ascontiguousarray(pixels[_CHANNELS - 1 :: _CHANNELS])


def _bits(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The numbers in binary, each with so many digits, one behind the other: [sum of widths] of 0 and 1."""
    most = int(widths.max(initial=0))
    places = np.arange(most - 1, -1, -1)
    digits = (numbers[:, None] >> places & 1).astype(np.uint8)
    return digits[places < widths[:, None]]
