"""The one inference loop against the plain computation, on a tiny CLIP with random weights."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.config import DEFAULT_PROTOCOL, PROTOCOLS, SegmentConfig
from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.backbones import Backbone
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, Segmentation

CPU = torch.device("cpu")


def backbone_of(clip: Any) -> Backbone:
    return Backbone(
        model=clip.model,
        tokenizer=open_clip.tokenize,
        name="tiny",
        pretrained="random",
        fingerprint="0",
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        image_size=64,
        short_side=64,
        logit_scale=100.0,
    )


def predictor_of(
    clip: Any,
    classes: ClassList | str = "a,b|c,d",
    method: str = "maskclip",
    *,
    class_scores: bool = False,
    **options: Any,
) -> Predictor:
    if isinstance(classes, str):
        classes = load_classes(classes)
    generator = torch.Generator().manual_seed(3)
    text = F.normalize(torch.randn(len(classes.queries), 32, generator=generator), dim=1)
    config = SegmentConfig(**options)
    return Predictor(
        backbone_of(clip),
        METHODS.get(method),
        classes,
        text,
        config,
        device=CPU,
        dtype=torch.float32,
        class_scores=class_scores,
    )


def random_image(height: int, width: int, seed: int = 0) -> DecodedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return DecodedImage(ImageSource(None, PurePosixPath("x")), pixels)


def run(predictor: Predictor, *images: DecodedImage) -> list[Segmentation]:
    return list(predictor.predict([predictor.prepare(image) for image in images]))


@pytest.mark.parametrize("size", [(64, 64), (80, 100), (1, 1), (3, 500), (200, 70)])
@pytest.mark.parametrize("options", [{}, {"window": 0}, {"protocol": "maskclip", "short_side": 40}])
def test_maps_have_the_size_of_the_picture(tiny_clip, size, options) -> None:
    (result,) = run(predictor_of(tiny_clip, **options), random_image(*size))
    assert result.labels.shape == result.scores.shape == size
    assert result.labels.dtype == np.uint8
    assert result.labels.max() < 3
    assert 0 < result.scores.min() <= result.scores.max() <= 1


@torch.inference_mode()
def test_equals_the_plain_computation(tiny_clip) -> None:
    """One window at the native size: tower, cosines, upsampling of all words, softmax, argmax."""
    predictor, image = predictor_of(tiny_clip), random_image(64, 64)
    (result,) = run(predictor, image)
    tensor = (torch.from_numpy(image.pixels).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
    features = F.normalize(predictor.reader(tensor).features, dim=1)
    logits = torch.einsum("bdhw,qd->bqhw", features, predictor.text_embeds)
    words = F.interpolate(100 * logits, size=(64, 64), mode="bilinear")[0].softmax(dim=0)
    classes = torch.stack([words[0], torch.maximum(words[1], words[2]), words[3]])
    assert np.array_equal(result.labels, classes.argmax(dim=0).numpy())
    np.testing.assert_allclose(result.scores, classes.amax(dim=0).numpy(), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batching_windows_of_many_pictures_changes_nothing(tiny_clip, batch_size) -> None:
    images = [
        random_image(70, 90, 1),
        random_image(64, 64, 2),
        random_image(90, 70, 3),
        random_image(70, 90, 4),
    ]
    together = run(predictor_of(tiny_clip, batch_size=batch_size, stride=16), *images)
    for image, result in zip(images, together, strict=True):
        (alone,) = run(predictor_of(tiny_clip, batch_size=1, stride=16), image)
        assert np.mean(alone.labels != result.labels) < 1e-3
        np.testing.assert_allclose(alone.scores, result.scores, atol=1e-4)


def test_pixel_and_patch_stitching_agree_for_one_window(tiny_clip, monkeypatch) -> None:
    """The published order differs from ours only where windows meet or sizes are odd."""
    published = dataclasses.replace(DEFAULT_PROTOCOL, stitch="pixel", keep_exact_size=True)
    monkeypatch.setitem(PROTOCOLS, "pixel", published)
    (patch,) = run(predictor_of(tiny_clip), random_image(64, 64))
    (pixel,) = run(predictor_of(tiny_clip, protocol="pixel"), random_image(64, 64))
    assert np.array_equal(patch.labels, pixel.labels)
    np.testing.assert_allclose(patch.scores, pixel.scores, atol=1e-5)
    wide = random_image(64, 160)
    (patch,), (pixel,) = (run(predictor_of(tiny_clip, protocol=p), wide) for p in ("default", "pixel"))
    assert np.mean(patch.labels == pixel.labels) > 0.9
    assert not np.array_equal(patch.scores, pixel.scores)


def test_a_short_side_of_zero_keeps_the_size(tiny_clip) -> None:
    predictor = predictor_of(tiny_clip, short_side=0)
    prepared = predictor.prepare(random_image(203, 170))
    assert prepared.resized.shape == (200, 168, 3)  # whole patches, so that windows lie on one grid
    assert len(prepared.windows) > 4
    assert next(predictor.predict([prepared])).labels.shape == (203, 170)


def test_unsure_pixels_become_background(tiny_clip) -> None:
    classes = load_classes("a,b,c", background="wall,sky")
    (plain,) = run(predictor_of(tiny_clip, classes), random_image(64, 64))
    threshold = float(np.quantile(plain.scores, 0.5))
    (strict,) = run(predictor_of(tiny_clip, classes, background_threshold=threshold), random_image(64, 64))
    unsure = plain.scores < threshold
    assert (strict.labels[unsure] == 0).all()
    assert np.array_equal(strict.labels[~unsure], plain.labels[~unsure])
    assert (strict.scores >= 0).all()
    assert (strict.scores <= 1).all()


def test_a_closed_set_has_no_background_to_fall_back_to(tiny_clip) -> None:
    (result,) = run(predictor_of(tiny_clip, background_threshold=0.99), random_image(64, 64))
    (plain,) = run(predictor_of(tiny_clip), random_image(64, 64))
    assert np.array_equal(result.labels, plain.labels)


@pytest.mark.parametrize("options", [{"prompt_denoising": 0.999}, {"key_smoothing": 0.9}])
@pytest.mark.parametrize("protocol", ["default", "maskclip"])
def test_refinement_changes_the_map_and_stays_valid(tiny_clip, options, protocol) -> None:
    words = ",".join(f"word {i}" for i in range(40))
    options |= {"protocol": protocol, "short_side": 64}
    (plain,) = run(predictor_of(tiny_clip, words, protocol=protocol, short_side=64), random_image(64, 96))
    (refined,) = run(predictor_of(tiny_clip, words, **options), random_image(64, 96))
    assert not np.array_equal(plain.scores, refined.scores)
    assert np.isfinite(refined.scores).all()
    assert 0 <= refined.scores.min() <= refined.scores.max() <= 1


def test_heatmaps_are_the_probabilities_behind_the_labels(tiny_clip) -> None:
    (result,) = run(predictor_of(tiny_clip, class_scores=True), random_image(50, 70))
    assert result.class_scores is not None
    maps = np.stack([result.class_scores(i) for i in range(3)])
    assert np.array_equal(maps.argmax(axis=0), result.labels)
    np.testing.assert_allclose(maps.max(axis=0), result.scores, atol=1e-5)
    assert run(predictor_of(tiny_clip), random_image(50, 70))[0].class_scores is None


def test_shares_add_up(tiny_clip) -> None:
    (result,) = run(predictor_of(tiny_clip), random_image(64, 80))
    shares = result.shares()
    assert sum(s.pixels for s in shares) == 64 * 80
    assert sum(s.share for s in shares) == pytest.approx(1)
    for s in shares:
        mean = result.scores[result.labels == s.id].mean() if s.pixels else None
        assert s.confidence == (None if mean is None else pytest.approx(float(mean), rel=1e-5))


def test_more_than_256_classes_need_wider_labels(tiny_clip) -> None:
    (result,) = run(predictor_of(tiny_clip, ",".join(f"c{i}" for i in range(400))), random_image(64, 64))
    assert result.labels.dtype == np.uint16
    assert result.labels.max() > 255


@pytest.mark.parametrize(("window", "stride"), [(64, 65), (64, 0)])
def test_strides_that_leave_gaps_are_refused(tiny_clip, window, stride) -> None:
    with pytest.raises(UsageError, match="--stride"):
        predictor_of(tiny_clip, window=window, stride=stride)


def test_smoothing_without_keys_is_refused_before_any_weights_are_asked_for() -> None:
    config = SegmentConfig(model="no-such-model", method="clip_diy", key_smoothing=1.0)
    with pytest.raises(UsageError, match="has no keys"):
        plan_clip(config, find_protocol("default"))


def test_unknown_protocol(tiny_clip) -> None:
    with pytest.raises(UsageError) as caught:
        predictor_of(tiny_clip, protocol="maskclp")
    assert "maskclip" in caught.value.hint


MEMORY = """
import pathlib, torch
from clipseg_cli.ops.reduce import reduce_maps
torch.set_num_threads(1)
maps = torch.randn(171, 21, 28) * 5
reduce_maps(maps, (64, 64))
status = lambda key: int(next(x for x in pathlib.Path("/proc/self/status").read_text().splitlines()
                              if x.startswith(key)).split()[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
reduce_maps(maps, (1500, 2000))
print((status("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_171_classes_on_3_megapixels_stay_small() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # Three maps of 3 megapixels are 34 MiB; 171 of them would be 1,950.
    assert float(done.stdout) < 200
