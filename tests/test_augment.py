"""Random crops: labels stay on their pixels, and everything random comes from one generator."""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as vision

from clipseg_cli.config import UNLABELLED
from clipseg_cli.data.images import resize_image, resize_labels
from clipseg_cli.errors import ShapeError
from clipseg_cli.ops.augment import REDRAWS, Crop, CropSpec, augment, distort, recolour

IGNORE = 255
SPEC = CropSpec(crop=48, short_side=40, long_side=160, scale=(0.5, 2.0), max_share=0.75, fill=(9, 8, 7))
PLAIN = dataclasses.replace(SPEC, flip=0.0, distort=False, max_share=1.0)
PALETTE = torch.tensor([[20, 200, 90], [250, 10, 160], [90, 90, 30], [5, 130, 240]], dtype=torch.uint8)


def blocks(
    rows: int = 6, columns: int = 8, side: int = 8, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture [3, H, W] of coloured squares, and its labels [1, H, W], which the colours tell."""
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, len(PALETTE), (rows, columns)))
    labels = ids.repeat_interleave(side, 0).repeat_interleave(side, 1)
    return PALETTE[labels].permute(2, 0, 1), labels[None].int()


def texture(height: int = 45, width: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture of noise and labels of noise."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    return image, torch.from_numpy(rng.integers(0, 5, (1, height, width), dtype=np.int32))


def cut(image: torch.Tensor, labels: torch.Tensor, spec: CropSpec, seed: int = 0) -> Crop:
    return augment(image, labels, np.random.default_rng(seed), spec)


def extent(crop: Crop) -> tuple[int, int]:
    """Height and width of what is not padding."""
    inside = crop.labels[0] != IGNORE
    return int(inside[:, 0].sum()), int(inside[0].sum())


@pytest.mark.parametrize("seed", range(12))
def test_labels_stay_on_their_pixels(seed):
    crop = cut(*blocks(), dataclasses.replace(SPEC, distort=False), seed)
    labels = crop.labels[0]
    # Pixels whose neighbours have their label: only next to a border does the linear resize mix two colours.
    around = torch.nn.functional.unfold(labels[None, None].float(), 3)[0]  # [9, pixels]
    inside = (around.amax(0) == around.amin(0)).view(46, 46) & (labels[1:-1, 1:-1] != IGNORE)
    assert inside.sum() > 100
    expected = PALETTE[labels.clamp(max=3)].permute(2, 0, 1)
    off = (crop.image.int() - expected.int()).abs().amax(0)[1:-1, 1:-1]
    assert off[inside].max() <= 1


@pytest.mark.parametrize("factor", [0.6, 0.8, 1.0, 1.37, 2.0])
def test_resizes_as_the_rest_of_the_tool_does(factor):
    image, labels = texture()
    crop = cut(image, labels, dataclasses.replace(PLAIN, crop=200, short_side=0, scale=(factor, factor)))
    rows, columns = size = extent(crop)
    assert size == (int(45 * factor + 0.5), int(60 * factor + 0.5))
    assert np.array_equal(crop.labels[0, :rows, :columns], resize_labels(labels[0].numpy(), size))
    expected = resize_image(image.permute(1, 2, 0).numpy(), size, antialias=False)
    assert np.abs(crop.image[:, :rows, :columns].permute(1, 2, 0).int().numpy() - expected).max() <= 1


def test_a_crop_is_a_piece_of_the_resized_picture():
    image, _ = texture()
    numbers = torch.arange(45 * 60, dtype=torch.int32).view(1, 45, 60)
    fixed = dataclasses.replace(PLAIN, scale=(2.0, 2.0), ignore=9999)
    whole = cut(image, numbers, dataclasses.replace(fixed, crop=200))
    corners = set()
    for seed in range(20):
        crop = cut(image, numbers, fixed, seed)
        for top, left in (whole.labels[0] == crop.labels[0, 0, 0]).nonzero().tolist():
            place = (slice(None), slice(top, top + 48), slice(left, left + 48))
            if torch.equal(crop.labels, whole.labels[place]) and torch.equal(crop.image, whole.image[place]):
                corners.add((top, left))
    assert len(corners) == 20


@pytest.mark.parametrize(
    ("size", "base", "factor", "expected"),
    [
        ((45, 60), (40, 160), 1.0, (40, 53)),  # the short side decides
        ((20, 120), (40, 160), 1.0, (27, 160)),  # the long side does
        ((60, 45), (40, 160), 1.99, (105, 79)),  # 40 * 1.99 is cut to 79, as published
        ((45, 60), (0, 7), 1.5, (68, 90)),  # own size, whatever the long side
        ((1, 300), (40, 160), 0.5, (1, 80)),  # never no pixel at all
    ],
)
def test_base_size_keeps_the_ratio_within_both_sides(size, base, factor, expected):
    spec = dataclasses.replace(PLAIN, crop=200, short_side=base[0], long_side=base[1], scale=(factor, factor))
    assert extent(cut(*texture(*size), spec)) == expected


def test_scale_reaches_from_end_to_end():
    heights = [extent(cut(*texture(), dataclasses.replace(PLAIN, crop=200), seed))[0] for seed in range(60)]
    assert min(heights) in range(20, 24)
    assert max(heights) in range(76, 81)


def test_shrinking_a_large_picture_averages():
    stripes = torch.zeros(3, 160, 160, dtype=torch.uint8)
    stripes[:, :, ::4] = 200
    crop = cut(stripes, torch.zeros(1, 160, 160, dtype=torch.int32), PLAIN)
    rows, columns = extent(crop)
    middle = crop.image[:, 4 : rows - 4, 4 : columns - 4].float()
    assert middle.std() < 25
    assert middle.mean() == pytest.approx(50, abs=5)


def test_padding_is_right_and_below():
    image, labels = texture()
    crop = cut(image, labels, dataclasses.replace(SPEC, short_side=0, scale=(0.5, 0.5), flip=1.0))
    assert crop.padded
    assert crop.image.shape == (3, 48, 48)
    assert crop.labels.shape == (1, 48, 48)
    outside = torch.ones(48, 48, dtype=torch.bool)
    outside[:23, :30] = False
    assert torch.equal(crop.labels[0] == IGNORE, outside)
    assert (crop.image[:, outside] == torch.tensor([[9], [8], [7]])).all()


@pytest.mark.parametrize(("size", "padded"), [((48, 48), False), ((47, 48), True), ((48, 47), True)])
def test_only_padded_crops_say_so(size, padded):
    spec = dataclasses.replace(PLAIN, short_side=0, scale=(1.0, 1.0))
    assert cut(*texture(*size), spec).padded == padded


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_crop_is_the_mirror_image(seed):
    plain, flipped = (
        cut(*texture(), dataclasses.replace(PLAIN, scale=(1.5, 2.0), flip=flip), seed) for flip in (0.0, 1.0)
    )
    assert torch.equal(flipped.image, plain.image.flip(-1))
    assert torch.equal(flipped.labels, plain.labels.flip(-1))


def test_all_label_maps_are_cut_alike():
    image, labels = texture()
    for seed in range(5):
        crop = cut(image, torch.cat([labels, labels + 7]), SPEC, seed)
        expected = torch.where(crop.labels[0] == IGNORE, IGNORE, crop.labels[0] + 7)
        assert torch.equal(crop.labels[1], expected)


def test_distortion_leaves_the_labels():
    for seed in range(5):
        plain = cut(*texture(), dataclasses.replace(SPEC, distort=False), seed)
        assert torch.equal(cut(*texture(), SPEC, seed).labels, plain.labels)


def test_equal_generators_give_equal_crops_on_any_number_of_threads():
    before = torch.get_num_threads()
    image, labels = texture(200, 260)
    spec = dataclasses.replace(SPEC, crop=256, short_side=200)
    crops = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            crops.append([cut(image, labels, spec, seed) for seed in range(4)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*crops, strict=True):
        # An older torch rounds a pixel now and then the other way; batches make every crop on one thread.
        assert (one.image.int() - other.image.int()).abs().max() <= 1
        assert torch.equal(one.labels, other.labels)


def test_nothing_random_comes_from_torch():
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    cut(*texture(), SPEC)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


def test_the_caller_keeps_its_arrays():
    image, labels = texture()
    kept = image.clone(), labels.clone()
    for seed in range(8):
        cut(image, labels, dataclasses.replace(SPEC, short_side=0, scale=(1.0, 1.0)), seed)
    assert torch.equal(image, kept[0])
    assert torch.equal(labels, kept[1])


def largest_share(labels: torch.Tensor) -> float:
    counted = labels[labels != IGNORE]
    return max(float((counted == value).float().mean()) for value in counted.unique())


def mostly_one_label() -> tuple[torch.Tensor, torch.Tensor]:
    """Sixty rows by 160 columns, two thirds of which are label 0, at the left."""
    labels = torch.zeros(1, 60, 160, dtype=torch.int32)
    labels[:, :, 105:] = torch.arange(55) % 3 + 1
    return torch.zeros(3, 60, 160, dtype=torch.uint8), labels


def test_crops_of_one_label_are_drawn_again():
    own_size = dataclasses.replace(PLAIN, short_side=0, scale=(1.0, 1.0))
    shares = {
        limit: [
            largest_share(
                cut(*mostly_one_label(), dataclasses.replace(own_size, max_share=limit), seed).labels
            )
            for seed in range(25)
        ]
        for limit in (1.0, 0.75)
    }
    assert sum(share > 0.75 for share in shares[1.0]) > 10
    assert max(shares[0.75]) <= 0.75


def test_ignored_pixels_have_no_share():
    image, labels = mostly_one_label()
    labels[labels == 0] = IGNORE
    labels[:, :, :20] = 0  # a crop from the left has label 0 alone, though most of it is ignored
    spec = dataclasses.replace(PLAIN, short_side=0, scale=(1.0, 1.0), max_share=0.75)
    crops = [cut(image, labels, spec, seed).labels for seed in range(25)]
    assert all((crop >= 1).logical_and(crop != IGNORE).any() for crop in crops)


class CountedDraws:
    """A generator that counts its integers."""

    def __init__(self) -> None:
        self.rng, self.integers_drawn = np.random.default_rng(0), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.rng, name)

    def integers(self, *args: int) -> int:
        self.integers_drawn += 1
        return int(self.rng.integers(*args))


@pytest.mark.parametrize(
    ("left", "right", "draws"),
    [
        (UNLABELLED, UNLABELLED, 1),  # nothing else can be found
        (IGNORE, IGNORE, 1),
        (3, IGNORE, 1),
        (3, 4, 1 + REDRAWS),
        (UNLABELLED, 4, 1 + REDRAWS),  # unlabelled is a label too
    ],
)
def test_drawing_again_ends(left, right, draws):
    labels = torch.full((1, 60, 160), left, dtype=torch.int32)
    labels[:, :, 159:] = right
    rng = CountedDraws()
    spec = dataclasses.replace(PLAIN, short_side=0, scale=(1.0, 1.0), max_share=0.6)
    augment(torch.zeros(3, 60, 160, dtype=torch.uint8), labels, rng, spec)  # type: ignore[arg-type]
    assert rng.integers_drawn == 2 * draws


def test_labels_of_another_size_are_refused():
    image, labels = texture()
    with pytest.raises(ShapeError, match=r"labels of \[45, 59\] for an image of \[45, 60\]"):
        cut(image, labels[..., :-1], SPEC)


def test_recolouring_is_that_of_hsv():
    image = texture(16, 16)[0]
    image[:, 0] = 0
    image[:, 1] = 77  # grey
    for saturation, turn in ((1.0, 0.0), (0.5, 0.0), (1.5, 0.1), (1.2, -0.1), (0.0, 0.07)):
        found = recolour(image, saturation, turn).flatten(1).T.tolist()
        for pixel, new in zip(image.flatten(1).T.tolist(), found, strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in pixel))
            wanted = colorsys.hsv_to_rgb((h + turn) % 1, min(1.0, s * saturation), v)
            assert new == pytest.approx([255 * c for c in wanted], abs=0.51)


@pytest.mark.parametrize("turn", [-0.1, 0.03, 0.1])
def test_hue_turns_as_in_torchvision(turn):
    image = texture()[0]
    expected = vision.adjust_hue(image, turn)
    assert (recolour(image, 1.0, turn).int() - expected.int()).abs().max() <= 1


def test_half_of_the_pictures_get_each_distortion():
    grey = torch.full((3, 1, 1), 128, dtype=torch.uint8)
    values = torch.stack([distort(grey, np.random.default_rng(seed)) for seed in range(400)]).flatten(1)
    assert (values == values[:, :1]).all(), "hue and saturation leave grey"
    assert float((values[:, 0] == 128).float().mean()) == pytest.approx(0.25, abs=0.06)
    assert values.min() in range(int(96 * 0.5), 64)
    assert values.max() in range(193, int(160 * 1.5) + 1)
    red = torch.tensor([120, 60, 60], dtype=torch.uint8).view(3, 1, 1)
    values = (
        torch.stack([distort(red, np.random.default_rng(seed)) for seed in range(400)]).view(400, 3).int()
    )
    still_red = (values[:, 1] == values[:, 2]) & (values[:, 0] >= values[:, 1])
    assert float(still_red.float().mean()) == pytest.approx(0.5, abs=0.1), "half of them keep their hue"
    saturation = 1 - values.amin(1) / values.amax(1)
    unchanged = (saturation - 0.5).abs() < 0.02  # neither saturation nor brightness was varied, or hardly
    assert float(unchanged.float().mean()) == pytest.approx(0.33, abs=0.08)
