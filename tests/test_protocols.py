"""Named protocols: the published order of steps, every setting visible, one fingerprint for equal settings."""

from __future__ import annotations

import dataclasses
import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dataset_trees import make_context
from eval_trees import NAMES, make_scored_voc, read_ids, results_below
from PIL import Image
from test_predict import CPU, backbone_of, random_image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from clipseg_cli.config import PROTOCOLS, SegmentConfig
from clipseg_cli.data.classes import benchmark_names, load_benchmark, load_classes
from clipseg_cli.data.images import resize_labels, target_size
from clipseg_cli.evaluation.scoring import size_to_score
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.methods import METHODS

SCLIP_MEAN, SCLIP_STD = (122.771, 116.746, 104.094), (68.501, 66.632, 70.323)


def small(name, **sizes):
    """A published protocol with sizes that fit the tiny model."""
    return dataclasses.replace(PROTOCOLS[name], **sizes)


def predictor_of(clip, protocol):
    classes = load_classes("a,b|c,d", background="wall,sky")
    generator = torch.Generator().manual_seed(3)
    text = F.normalize(torch.randn(len(classes.queries), 32, generator=generator), dim=1)
    config = SegmentConfig(protocol=protocol.name)
    options = {"device": CPU, "dtype": torch.float32, "protocol": protocol}
    return Predictor(backbone_of(clip), METHODS.get("maskclip"), classes, text, config, **options)


def cosines(predictor, pixels, mean, std):
    """Of a whole picture [H, W, 3] in 0..255: [1, Q, h, w]."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    tensor = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() - mean) / std
    features = F.normalize(predictor.reader(tensor).features, dim=1)
    return torch.einsum("bdhw,qd->bqhw", features, predictor.text_embeds)


# The published order


@torch.inference_mode()
@pytest.mark.parametrize("size", [(70, 90), (90, 70), (40, 200), (64, 64)])
def test_sclip_equals_the_published_order(tiny_clip, size):
    """Windows, cosines stretched to each, averaged by coverage, stretched, x 40, softmax, best word, threshold."""
    image, crop, stride, short = random_image(*size, seed=5), 64, 32, 96
    plain = small("sclip", short_side=short, window=crop, stride=stride, background_threshold=0.0)
    predictor = predictor_of(tiny_clip, plain)
    scale = min(short / min(size), 2048 / max(size))
    height, width = (int(side * scale + 0.5) for side in size)
    resized = cv2.resize(image.pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    total, cover = torch.zeros(1, 6, height, width), torch.zeros(1, 1, height, width)
    for i in range(max(height - crop + stride - 1, 0) // stride + 1):
        for j in range(max(width - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + crop, height), min(j * stride + crop, width)
            rows, columns = slice(max(bottom - crop, 0), bottom), slice(max(right - crop, 0), right)
            window = np.ascontiguousarray(resized[rows, columns])
            logits = cosines(predictor, window, SCLIP_MEAN, SCLIP_STD)
            total[:, :, rows, columns] += F.interpolate(logits, window.shape[:2], mode="bilinear")
            cover[:, :, rows, columns] += 1
    words = (F.interpolate(total / cover, size, mode="bilinear") * 40).softmax(dim=1)[0]
    classes = torch.stack([words[:2].amax(0), words[2], words[3:5].amax(0), words[5]])
    threshold = float(classes.amax(0).quantile(0.3))
    expected = torch.where(classes.amax(0) < threshold, 0, classes.argmax(0)).numpy()
    strict = predictor_of(tiny_clip, dataclasses.replace(plain, background_threshold=threshold))
    (result,) = strict.predict([strict.prepare(image)])
    assert np.mean(result.labels != expected) < 1e-3  # ties, and pixels on the threshold
    (result,) = predictor.predict([predictor.prepare(image)])
    assert np.mean(result.labels != classes.argmax(0).numpy()) < 1e-3
    # Behind a softmax of 40 times a cosine: processors sum channels and windows in orders of their own.
    np.testing.assert_allclose(result.scores, classes.amax(0).numpy(), atol=1e-4)
    assert len(np.unique(expected)) > 2


@torch.inference_mode()
def test_clip_diy_decides_at_network_size_and_repeats(tiny_clip):
    image = random_image(70, 90, seed=5)
    predictor = predictor_of(tiny_clip, small("clip-diy", short_side=64, long_side=64))
    resized = cv2.resize(image.pixels, (64, 64), interpolation=cv2.INTER_LINEAR)
    logits = cosines(predictor, resized, (0.5 * 255,) * 3, (0.25 * 255,) * 3)
    words = F.interpolate(logits, (64, 64), mode="bilinear").softmax(dim=1)[0]
    classes = torch.stack([words[:2].amax(0), words[2], words[3:5].amax(0), words[5]])
    expected = F.interpolate(classes.argmax(0)[None, None].float(), (48, 61), mode="nearest")[0, 0]
    (result,) = predictor.predict([predictor.prepare(image, (48, 61))])
    assert np.mean(result.labels != expected.numpy()) < 1e-3
    assert len(np.unique(result.labels)) > 2


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (448, 448), (281, 500), (500, 375), (96, 1000)])
def test_clip_diy_scores_at_the_size_that_torchvision_gives(size):
    truth = np.random.default_rng(1).integers(-1, 21, size).astype(np.int32)
    expected = np.asarray(tv.resize(Image.fromarray(truth), 448, InterpolationMode.NEAREST))
    found = resize_labels(truth, size_to_score(*size, PROTOCOLS["clip-diy"]))
    assert np.array_equal(found, expected)


def test_the_other_protocols_score_at_the_labels_own_size():
    for name in ("default", "sclip", "maskclip"):
        assert size_to_score(375, 500, PROTOCOLS[name]) == (375, 500)


def test_clip_diy_through_the_command(cli, tiny_clip, tmp_path):
    voc = make_scored_voc(tmp_path / "VOC2012")
    done = cli(
        "eval", "--dataset", voc, "--protocol", "clip-diy", *tiny_clip.options, "--out", tmp_path / "out"
    )
    assert done.code == 0, done.err
    found = results_below(tmp_path / "out")
    pixels = 0
    for name in NAMES:
        truth = Image.fromarray(read_ids(voc / "SegmentationClass" / f"{name}.png").astype(np.int32))
        pixels += int((np.asarray(tv.resize(truth, 448, InterpolationMode.NEAREST)) != 255).sum())
    assert np.sum(found["confusion"]) == pixels
    assert found["protocol"]["templates"] == ["a photo of a {}"]
    assert found["settings"]["window"] == 0 and found["benchmark"] == "voc21"


def test_numbers_of_the_sources():
    sclip, maskclip = PROTOCOLS["sclip"], PROTOCOLS["maskclip"]
    for values, expected in ((sclip.mean, SCLIP_MEAN), (sclip.std, SCLIP_STD)):
        assert np.array(values) * 255 == pytest.approx(expected)
    assert (sclip.window, sclip.stride, sclip.softmax_scale) == (224, 112, 40)
    on = {name: sclip.on(name, load_benchmark(name)) for name in benchmark_names()}
    assert {n: p.short_side for n, p in on.items()} == {n: 560 if n == "cityscapes" else 336 for n in on}
    with_background = {"voc21", "context60", "coco-object"}
    assert {n for n, p in on.items() if p.background_threshold == 0.1} == with_background
    assert {n for n, p in on.items() if not p.background_threshold} == set(on) - with_background
    assert np.array(maskclip.mean) * 255 == pytest.approx([123.675, 116.28, 103.53])
    assert (maskclip.short_side, maskclip.long_side, maskclip.ln_eps) == (512, 2048, 1e-6)


# What a data set and a protocol make of each other


def show(cli, *args):
    done = cli("eval", "--show-protocol", "--json", *args)
    assert done.code == 0, done.err
    document = json.loads(done.out, parse_constant=pytest.fail)
    return document, {s["name"]: s["value"] for s in document["settings"]}


@pytest.mark.parametrize(
    ("protocol", "benchmark", "key"),
    [
        ("maskclip", "voc20", "maskclip_prompt_names"),
        ("clip-diy", "voc21", "clip_diy_prompt_names"),
        ("sclip", "voc21", "prompt_names"),
        ("default", "voc21", "prompt_names"),
    ],
)
def test_a_protocol_chooses_benchmark_and_words(cli, tmp_path, protocol, benchmark, key):
    voc = make_scored_voc(tmp_path / "VOC2012")
    document, settings = show(cli, "--protocol", protocol, "--dataset", voc)
    facts = load_benchmark(benchmark)
    assert document["benchmark"] == benchmark
    assert settings["classes"] == facts["labels"]
    assert settings["words"] == [[w] if isinstance(w, str) else w for w in facts[key]]


def test_maskclip_bounds_the_long_side_on_context59(cli, tmp_path):
    document, settings = show(cli, "--protocol", "maskclip", "--dataset", make_context(tmp_path / "VOC2010"))
    assert document["benchmark"] == "context59"
    assert (settings["short side"], settings["long side"]) == (520, 520)
    assert target_size(375, 500, short_side=520, long_side=520) == (390, 520)


# Every setting visible


@pytest.mark.parametrize("benchmark", benchmark_names())
def test_every_setting_is_shown_without_a_model(cli, monkeypatch, benchmark):
    monkeypatch.setattr(
        "clipseg_cli.inference.load.load_backbone", lambda *args: pytest.fail("loads weights")
    )
    fingerprints, names = dict[str, str](), set()
    for protocol in PROTOCOLS:
        document, settings = show(cli, "--protocol", protocol, "--benchmark", benchmark)
        assert (document["protocol"], document["benchmark"]) == (protocol, benchmark)
        assert document["source"] and document["changed"] == []
        assert all(s["value"] is not None and s["meaning"] for s in document["settings"])
        same = json.dumps(document["settings"])
        assert fingerprints.setdefault(document["fingerprint"], same) == same
        names.add(tuple(settings))
    # What SCLIP, SC-CLIP, PEARL and ResCLIP were published with is the base configuration on most benchmarks.
    assert len(set(fingerprints.values())) == len(fingerprints) >= 6 and len(names) == 1


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_fits_the_terminal_and_names_the_settings(cli, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = cli("eval", "--show-protocol", "--protocol", "sclip", "--short-side", "448")
    assert done.code == 0
    assert done.out.startswith("Protocol sclip, but short side 448 on voc21, fingerprint ")
    assert max(map(len, done.out.splitlines())) <= columns
    _, settings = show(cli, "--protocol", "sclip")
    for name in settings:
        assert f"  {name}  " in done.out
    assert "Source: wangf3014/SCLIP@b56bd30" in done.err and "--verbose" in done.err
    whole = cli("eval", "--show-protocol", "--protocol", "sclip", "--verbose")
    assert "tvmonitor" in whole.out and "..." not in whole.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--benchmark", "vox21"], "did you mean 'voc21'"),
        (["--protocol", "skip"], "did you mean 'sclip'"),
        (["--templates", "imagnet"], "did you mean 'imagenet'"),
    ],
)
def test_unknown_names_exit_with_2(cli, args, said):
    done = cli("eval", "--show-protocol", *args)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("benchmark", "scale", "threshold", "area"),
    [
        ("voc21", 50, 0.15, 0.1),
        ("context60", 40, 0.15, 0),
        ("coco-object", 55, 0.35, 0),
        ("voc20", 40, 0, 0),
        ("cityscapes", 40, 0, 0),
    ],
)
def test_sc_clip_is_scored_as_it_was_published(benchmark, scale, threshold, area):
    """Scale, threshold and area rule of SuleBai/SC-CLIP@0417ba9, configs/."""
    protocol = PROTOCOLS["sc-clip"].on(benchmark, load_benchmark(benchmark))
    found = (protocol.softmax_scale, protocol.background_threshold or 0, protocol.area_threshold)
    assert found == (scale, threshold, area) and protocol.method == "sc_clip"
    assert protocol.short_side == (560 if benchmark == "cityscapes" else 336)
