"""Corruptions: what all of them keep to, their names, and what is refused."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from corrupted import NAMES, RANDOM, flat, lit_scene, spoil  # noqa: F401

from clipseg_cli.data import corruptions
from clipseg_cli.data.corruptions import CORRUPTIONS, SEVERITIES, parse_corruptions
from clipseg_cli.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]


# ---- all ----


@pytest.mark.parametrize("name", NAMES)
def test_severity_grows(name: str, scene: Pixels) -> None:
    """Of spatter too, on a picture brighter than mud."""
    changes = [np.abs(spoil(scene, name, s).astype(float) - scene).mean() for s in SEVERITIES]
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert len(set(changes)) == 5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3), (37, 53)])
def test_any_size(name: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    for severity in SEVERITIES:
        result = spoil(pixels, name, severity)
        assert result.shape == pixels.shape
        assert result.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_the_callers_array_stays_as_it_is(name: str, scene: Pixels) -> None:
    for pixels in (scene.copy(), scene[:, ::-1]):  # a flipped view is not contiguous
        before = pixels.copy()
        pixels.flags.writeable = False
        for severity in (1, 5):
            result = spoil(pixels, name, severity)
            assert not np.shares_memory(result, pixels)
            assert np.array_equal(result, spoil(before, name, severity))
        assert np.array_equal(pixels, before)


@pytest.mark.parametrize("name", RANDOM)
def test_noise_depends_on_seed_key_and_severity(name: str, scene: Pixels) -> None:
    one = spoil(scene, name, 4)
    assert np.array_equal(one, spoil(scene, name, 4))
    assert not np.array_equal(one, spoil(scene, name, 4, seed=1))
    assert not np.array_equal(one, spoil(scene, name, 4, key="b.jpg"))


def test_severities_and_corruptions_do_not_share_their_noise() -> None:
    mild = spoil(flat(128), "gaussian_noise", 1).astype(float) - 128
    for other in (spoil(flat(128), "gaussian_noise", 2), spoil(flat(128), "speckle_noise", 1)):
        assert abs(np.corrcoef(mild.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(mild.size)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(RANDOM)))
def test_blur_and_jpeg_do_not_depend_on_chance(name: str, scene: Pixels) -> None:
    assert not CORRUPTIONS[name].random
    assert np.array_equal(spoil(scene, name, 3), spoil(scene, name, 3, seed=9, key="z"))


def test_order_and_threads_do_not_matter(scene: Pixels) -> None:
    jobs = [(name, severity, f"{i}.jpg") for name in NAMES for severity in (2, 4) for i in range(2)]
    alone = {job: spoil(scene, job[0], job[1], key=job[2]) for job in jobs}
    with ThreadPoolExecutor(4) as pool:
        beside = pool.map(lambda job: spoil(scene, job[0], job[1], key=job[2]), reversed(jobs))
        for job, result in zip(reversed(jobs), beside, strict=True):
            assert np.array_equal(result, alone[job])


def test_another_process_draws_the_same_noise() -> None:
    """Python salts hash() anew in each process, so it must not reach the seed."""
    code = (
        "import numpy as np, zlib; from clipseg_cli.data.corruptions import corrupt; "
        "print(zlib.crc32(corrupt(np.full((9, 9, 3), 99, np.uint8), 'shot_noise', 3, seed=1, key='é/ü.jpg')))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(seen) == 1


@pytest.mark.parametrize("name", RANDOM[:4])
def test_working_in_bands_does_not_change_the_noise(
    name: str, scene: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = spoil(scene, name, 3)
    monkeypatch.setattr(corruptions, "_BAND", 5000)
    assert np.array_equal(spoil(scene, name, 3), whole)


def test_a_key_may_be_any_file_name() -> None:
    spoil(flat(9, 4, 4), "shot_noise", 1, key="caf\udce9.jpg")  # a byte that is no UTF-8


# ---- names and errors ----


def test_the_eight_of_the_paper_in_its_order() -> None:
    assert NAMES == [
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "speckle_noise",
        "gaussian_blur",
        "defocus_blur",
        "spatter",
        "jpeg_compression",
    ]
    assert {name for name in NAMES if CORRUPTIONS[name].random} == set(RANDOM)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ((), ()),
        (("all",), tuple(NAMES)),
        (("spatter", "shot_noise"), ("shot_noise", "spatter")),
        (("spatter, shot_noise,spatter",), ("shot_noise", "spatter")),
        (("spatter,all",), tuple(NAMES)),
    ],
)
def test_names_come_in_the_papers_order_each_once(given: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert parse_corruptions(given) == names


@pytest.mark.parametrize(
    "call", [lambda: parse_corruptions(["shot_nois"]), lambda: spoil(flat(0, 2, 2), "shot_nois", 1)]
)
def test_an_unknown_name_is_answered_with_the_nearest(call: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match="unknown corruption 'shot_nois'") as caught:
        call()
    assert "'shot_noise'" in caught.value.hint


@pytest.mark.parametrize("severity", [0, 6, 7, -1])
def test_severity_is_1_to_5(severity: int) -> None:
    with pytest.raises(UsageError, match=f"severity {severity}: there are 1 to 5"):
        spoil(flat(0, 2, 2), "spatter", severity)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_something_else_than_rgb_bytes_is_refused(pixels: Pixels) -> None:
    with pytest.raises(ShapeError, match="expected uint8"):
        spoil(pixels, "spatter", 1)
