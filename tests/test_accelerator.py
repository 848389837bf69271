"""The accelerator, where there is one, says the same as the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from eval_trees import make_scored_voc

from clipseg_cli.ops.reduce import reduce_maps

DEVICES = [
    name
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
    if there
]


@pytest.mark.skipif(not DEVICES, reason="no accelerator on this machine")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_labels_agree_with_the_cpu(cli, tiny_clip, make_image, tmp_path, precision) -> None:
    from PIL import Image

    photo = make_image(tmp_path / "photo.png", 150, 200)
    maps = {}
    for device in ("cpu", DEVICES[0]):
        out = tmp_path / device
        options = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--device", device)
        done = cli("segment", photo, "-c", "a,b,c,d", *options, "--precision", precision, "--out", out)
        assert done.code == 0, done.err
        maps[device] = np.asarray(Image.open(out / "photo.png"))
    assert np.mean(maps["cpu"] == maps[DEVICES[0]]) > (0.999 if precision == "fp32" else 0.9)


@pytest.mark.skipif(not DEVICES, reason="no accelerator on this machine")
def test_tiles_agree_with_the_cpu() -> None:
    maps = torch.randn(23, 9, 13, generator=torch.Generator().manual_seed(0)) * 4
    here, there = reduce_maps(maps, (200, 300)), reduce_maps(maps.to(DEVICES[0]), (200, 300))
    assert (here.winner != there.winner.cpu()).float().mean() < 1e-4
    torch.testing.assert_close(here.score, there.score.cpu(), atol=1e-4, rtol=0)


@pytest.mark.skipif(not DEVICES, reason="no accelerator on this machine")
def test_a_run_that_lost_labels_makes_the_same_ones_again(cli, tiny_clip, tmp_path) -> None:
    """Groups are cut in one way only, so what shares a batch does too; nothing else may matter on a device."""
    root = make_scored_voc(tmp_path / "voc")
    options = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--device", DEVICES[0])
    command = ("pseudolabel", root, "--split", "val", *options, "--out", tmp_path, "--name", "run")
    assert cli(*command).code == 0
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for path in (tmp_path / "run" / "labels").iterdir():
        path.unlink()
    assert cli(*command).code == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


@pytest.mark.skipif(not DEVICES, reason="no accelerator on this machine")
def test_pixels_are_counted_as_on_the_cpu(cli, tiny_clip, tmp_path) -> None:
    root = make_scored_voc(tmp_path / "voc")
    options = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--precision", "fp32")
    pixels = {}
    for device in ("cpu", DEVICES[0]):
        done = cli("eval", "--dataset", root, *options, "--device", device, "--out", tmp_path, "--json")
        assert done.code == 0, done.err
        pixels[device] = [row["labelled_pixels"] for row in json.loads(done.out)["classes"]]
    assert pixels["cpu"] == pixels[DEVICES[0]]


@pytest.mark.skipif("cuda" not in DEVICES, reason="no CUDA on this machine")
def test_compiled_blocks_give_the_labels_of_the_model_as_it_is(cli, tiny_clip, make_image, tmp_path) -> None:
    from PIL import Image

    photo = make_image(tmp_path / "photo.png", 150, 200)
    options = ("--model", tiny_clip.name, "--pretrained", tiny_clip.weights, "--device", "cuda")
    maps = []
    for name, more in (("eager", ()), ("compiled", ("--compile",))):
        out = tmp_path / name
        done = cli("segment", photo, "-c", "a,b,c,d", *options, "--precision", "fp32", *more, "--out", out)
        assert done.code == 0, done.err
        maps.append(np.asarray(Image.open(out / "photo.png")))
    assert np.mean(maps[0] == maps[1]) > 0.999
