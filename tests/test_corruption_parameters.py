"""Each corruption against what its definition says, computed here by other means."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from corrupted import flat, lit_scene, severities, spoil  # noqa: F401
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


def normal_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])


def assert_normal(values: Pixels, mean: float, deviation: float) -> None:
    """Rounded and clipped N(mean, deviation): the Kolmogorov distance of so many values is below 2.5 / sqrt(n)."""
    levels = np.arange(255)
    seen = np.cumsum(np.bincount(values.ravel(), minlength=256))[:255] / values.size
    expected = normal_cdf((levels + 0.5 - mean) / deviation)
    assert np.abs(seen - expected).max() < 2.5 / math.sqrt(values.size)


def assert_share(hits: NDArray[np.bool_], share: float) -> None:
    """Five standard deviations of a binomial count."""
    assert abs(hits.mean() - share) <= 5 * math.sqrt(share * (1 - share) / hits.size)


# ---- noise ----


@severities
def test_gaussian_noise_has_the_published_deviation_around_grey(severity: int) -> None:
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    noisy = spoil(flat(128), "gaussian_noise", severity)
    for channel in range(3):
        assert_normal(noisy[..., channel], 128, 255 * scale)


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "speckle_noise"])
def test_noise_is_independent_between_channels_and_neighbours(name: str) -> None:
    noisy = spoil(flat(100), name, 1).astype(float) - 100
    limit = 5 / math.sqrt(noisy[..., 0].size)
    pairs = [(noisy[..., 0], noisy[..., 1]), (noisy[..., 1], noisy[..., 2]), (noisy[:, 1:], noisy[:, :-1])]
    for one, other in [*pairs, (noisy[1:], noisy[:-1])]:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < limit


@severities
@pytest.mark.parametrize("grey", [13, 102])
def test_shot_noise_counts_photons_by_poisson(severity: int, grey: int) -> None:
    photons = (60, 25, 12, 5, 3)[severity - 1]
    noisy = spoil(flat(grey), "shot_noise", severity)
    rate = grey / 255 * photons
    left = 1.0
    for count in range(photons):
        chance = math.exp(-rate + count * math.log(rate) - math.lgamma(count + 1))
        assert_share(noisy == round(count * 255 / photons), chance)
        left -= chance
    assert_share(noisy == 255, max(left, 0.0))  # as many photons as white has, or more


def test_shot_noise_keeps_the_mean_and_has_variance_x_over_c() -> None:
    noisy = spoil(flat(64), "shot_noise", 1) / 255
    x = 64 / 255
    assert abs(noisy.mean() - x) < 5 * math.sqrt(x / 60 / noisy.size)
    assert noisy.var() == pytest.approx(x / 60, rel=0.02)


@severities
def test_impulse_noise_is_half_salt_half_pepper_in_each_channel_by_itself(severity: int) -> None:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    noisy = spoil(flat(100), "impulse_noise", severity)
    assert set(np.unique(noisy)) == {0, 100, 255}
    assert_share(noisy == 255, amount / 2)
    assert_share(noisy == 0, amount / 2)
    assert_share((noisy != 100).all(axis=2), amount**3)


@severities
@pytest.mark.parametrize("grey", [40, 80, 160])
def test_speckle_noise_is_proportional_to_the_light(severity: int, grey: int) -> None:
    scale = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    assert_normal(spoil(flat(grey), "speckle_noise", severity), grey, scale * grey)


@pytest.mark.parametrize("name", ["speckle_noise", "shot_noise"])
def test_black_has_no_light_to_be_noisy(name: str) -> None:
    assert not spoil(flat(0), name, 5).any()


# ---- blur: the picture of a corner is the running sum of the kernel, precise to half a grey level ----


def corner_of(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a kernel [K, K] makes of a white lower right quarter on black: [K, K] around the corner."""
    return 255 * np.cumsum(np.cumsum(kernel, axis=0), axis=1)


def blurred_corner(name: str, severity: int, side: int) -> Pixels:
    pixels = flat(0, 101, 101)
    pixels[50:, 50:] = 255
    half = side // 2
    return spoil(pixels, name, severity)[50 - half : 51 + half, 50 - half : 51 + half]


@severities
def test_gaussian_blur_is_a_sampled_gaussian(severity: int) -> None:
    sigma = (1, 2, 3, 4, 6)[severity - 1]
    steps = np.arange(-4 * sigma, 4 * sigma + 1)
    kernel = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * sigma**2))
    expected = corner_of(kernel / kernel.sum())
    seen = blurred_corner("gaussian_blur", severity, len(steps))
    assert np.abs(seen - expected[..., None]).max() < 0.51


def disk(radius: int, softening: float) -> NDArray[np.float64]:
    """A uniform disk, softened by a Gaussian of 3 or 5 taps that mirrors at the border of the kernel."""
    half, taps = max(8, radius), (1 if radius <= 8 else 2)
    steps = np.arange(-half, half + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
    weights = np.exp(-(np.arange(-taps, taps + 1) ** 2) / (2 * softening**2))
    weights /= weights.sum()
    padded = np.pad(inside / inside.sum(), taps, mode="reflect")
    rows = sum(w * padded[i : i + len(steps)] for i, w in enumerate(weights))
    return np.asarray(sum(w * rows[:, i : i + len(steps)] for i, w in enumerate(weights)))


@severities
def test_defocus_blur_is_a_soft_disk(severity: int) -> None:
    kernel = disk(*((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1])
    seen = blurred_corner("defocus_blur", severity, len(kernel))
    assert np.abs(seen - np.minimum(corner_of(kernel), 255)[..., None]).max() < 0.51


@severities
def test_a_point_out_of_focus_is_a_disk(severity: int) -> None:
    radius = (3, 4, 6, 8, 10)[severity - 1]
    pixels = flat(0, 41, 41)
    pixels[20, 20] = 255
    seen = spoil(pixels, "defocus_blur", severity)
    y, x = np.mgrid[-20:21, -20:21]
    distance = np.hypot(y, x)
    assert not seen[distance > radius + 1.5].any()
    core = seen[distance < radius - 1.5]
    assert set(np.unique(core)) == {round(255 / np.count_nonzero(distance <= radius))}


@severities
@pytest.mark.parametrize(
    ("name", "excess"), [("gaussian_blur", (0, 0, 0, 0, 0)), ("defocus_blur", (0, 0, 0, 3, 2))]
)
def test_blur_keeps_a_flat_picture_up_to_the_edges(name: str, excess: tuple[int, ...], severity: int) -> None:
    """But for ImageNet-C's own disks of radius 8 and 10, which sum to 1.013 and 1.011."""
    assert (spoil(flat(200, 37, 53), name, severity) == 200 + excess[severity - 1]).all()


# ---- JPEG ----

LUMA = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
CHROMA = (
    """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99"""
    + (" 99" * 32)
)
"""The example tables of the JPEG standard (ITU-T T.81, K.1 and K.2)."""


@severities
def test_jpeg_uses_the_standard_tables_scaled_by_quality(severity: int, scene: Pixels) -> None:
    quality = (25, 18, 15, 10, 7)[severity - 1]
    percent = 5000 // quality  # libjpeg's scale below quality 50
    tables = [
        [min(255, max(1, (int(v) * percent + 50) // 100)) for v in table.split()] for table in (LUMA, CHROMA)
    ]
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "JPEG", qtables=tables, subsampling="4:2:0")
    with Image.open(buffer) as expected:
        assert np.array_equal(spoil(scene, "jpeg_compression", severity), np.asarray(expected))


# ---- spatter ----


def liquid_share(severity: int) -> float:
    """Share of smoothed Gaussian noise above the threshold: smoothing divides the deviation by 2 sigma sqrt(pi)."""
    mean, deviation, sigma, threshold = [
        (0.65, 0.3, 4, 0.69),
        (0.65, 0.3, 3, 0.68),
        (0.65, 0.3, 2, 0.68),
        (0.65, 0.3, 1, 0.65),
        (0.67, 0.4, 1, 0.65),
    ][severity - 1]
    rest = deviation / (2 * sigma * math.sqrt(math.pi))
    return float(1 - normal_cdf(np.array([(threshold - mean) / rest]))[0])


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_water_adds_pale_turquoise_light(severity: int) -> None:
    strength = (0.6, 0.6, 0.5)[severity - 1]
    water = spoil(flat(0), "spatter", severity).astype(float)
    assert np.abs(water.max(axis=(0, 1)) - strength * np.array([175, 238, 238])).max() < 1
    assert np.array_equal(water[..., 1], water[..., 2])
    assert np.abs(water[..., 0] - water[..., 1] * 175 / 238).max() < 1
    grey = spoil(flat(60), "spatter", severity)
    assert np.abs(grey - (60 + water)).max() <= 1  # light is added, whatever is below; halves round to even
    assert np.array_equal(grey != 60, water != 0)


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_water_covers_the_share_of_the_noise_above_the_threshold(severity: int) -> None:
    wet = np.mean(
        [spoil(flat(0, 400, 500), "spatter", severity, seed=s).any(axis=2).mean() for s in range(4)]
    )
    # The relief is too faint to be seen in places. Drops are few and large, so the share varies by a tenth.
    assert 0.6 * liquid_share(severity) < wet < 1.15 * liquid_share(severity)


@pytest.mark.parametrize("severity", [4, 5])
def test_mud_covers_with_brown(severity: int) -> None:
    white = spoil(flat(255), "spatter", severity).astype(float)
    cover = (255 - white) / (255 - np.array([63, 42, 20]))  # the same in all channels
    assert (np.ptp(cover, axis=2) < 0.006).all()
    dirty = cover[..., 0] > 0.01
    assert (cover[dirty] > 0.797).all()
    assert (cover <= 1).all()
    assert np.array_equal(spoil(flat(90), "spatter", severity)[~dirty], flat(90)[~dirty])
    # Opening holes below 0.8 leaves a part of the liquid, which is half of the picture.
    assert 0.05 < dirty.mean() < liquid_share(severity) < 0.6


def test_mud_changes_a_dark_picture_less_than_water() -> None:
    """So the mean difference need not grow from severity 3 to 4: that is the definition's."""
    dark = flat(40)
    assert np.abs(spoil(dark, "spatter", 4) - 40.0).mean() < np.abs(spoil(dark, "spatter", 3) - 40.0).mean()


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_spatter_leaves_a_picture_without_drops(severity: int) -> None:
    keys = [str(i) for i in range(40)]
    outcomes = [(spoil(flat(77, 1, 1), "spatter", severity, key=key) == 77).all() for key in keys]
    assert any(outcomes)
