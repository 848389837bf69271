"""Sources of region masks: id maps, networks, and what cannot be used."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from region_images import EMOJI, drawing, image_of, source
from region_networks import save_network

from clipseg_cli.errors import ImageError, ModelError
from clipseg_cli.inference import regions as engine
from clipseg_cli.inference.regions import check_regions
from clipseg_cli.models.weights import hub
from clipseg_cli.ops.regions import MOST_REGIONS, id_map_by_area, id_map_by_score, nearest_ids
from clipseg_cli.regions import REGIONS
from clipseg_cli.regions.sam2 import point_grid
from clipseg_cli.types import RegionMap

NETWORKS = [name for name in REGIONS.names() if REGIONS.get(name).network]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Name -> folder of a tiny one."""
    folder = tmp_path_factory.mktemp("networks")
    return {name: save_network(name, folder) for name in NETWORKS}


# id maps


def test_a_larger_mask_covers_a_smaller_one_and_a_surer_one_a_less_sure():
    masks = torch.zeros(3, 4, 6, dtype=torch.bool)
    masks[0, :3, :4] = True  # 12
    masks[1, 1:3, 2:5] = True  # 6
    masks[2, 3, :] = True  # 6, and later
    by_area = id_map_by_area(masks)
    assert by_area.dtype == torch.int32
    assert by_area.tolist() == [[3, 3, 3, 3, 0, 0], [3, 3, 3, 3, 1, 0], [3, 3, 3, 3, 1, 0], [2] * 6]
    by_score = id_map_by_score(masks, torch.tensor([0.6, 0.9, 0.4]))
    assert by_score.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 2, 2, 2, 0], [1, 1, 2, 2, 2, 0], [0] * 6]
    assert id_map_by_score(masks, torch.zeros(3)).eq(0).all()


def test_ids_at_another_size_take_the_cell_below():
    ids = torch.arange(12).view(3, 4)
    assert nearest_ids(ids, (6, 2)).tolist() == [[0, 2], [0, 2], [4, 6], [4, 6], [8, 10], [8, 10]]
    for size in ((3, 4), (7, 11), (1, 1), (299, 301)):
        wanted = torch.nn.functional.interpolate(ids[None, None].float(), size, mode="nearest")
        assert torch.equal(nearest_ids(ids, size), wanted[0, 0].long())


@pytest.mark.parametrize("algorithm", ["felzenszwalb", "slic"])
def test_superpixels_cover_the_image_and_follow_what_is_drawn(algorithm):
    pixels = drawing()
    (found,) = source("superpixels", algorithm=algorithm, segments=60)([image_of(pixels)])
    assert found.ids.shape == (60, 90) and found.ids.dtype == np.int32 and found.ids.min() == 1
    assert set(np.unique(found.ids)) == set(range(1, found.ids.max() + 1))
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 100)
    purity = [max(red[found.ids == i].mean(), 1 - red[found.ids == i].mean()) for i in np.unique(found.ids)]
    assert len(purity) > 2 and np.average(purity, weights=np.bincount(found.ids.ravel())[1:]) > 0.97


def test_superpixels_of_a_large_image_are_made_small_and_cover_it():
    large = np.kron(drawing(), np.ones((4, 4, 1), np.uint8))
    (found,) = source("superpixels", side=90)([image_of(large)])
    (small,) = source("superpixels", side=90)([image_of(drawing())])
    assert found.ids.shape == (240, 360)
    assert np.array_equal(found.ids[2::4, 2::4], small.ids)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2), (3, 3)])
@pytest.mark.parametrize("algorithm", ["felzenszwalb", "slic"])
def test_superpixels_of_a_sliver(size, algorithm):
    (found,) = source("superpixels", algorithm=algorithm)([image_of(np.zeros((*size, 3), np.uint8))])
    assert found.ids.shape == size and (found.ids > 0).all()


@pytest.mark.parametrize(("suffix", "kind"), [("png", np.uint8), ("png", np.uint16), ("npy", np.int64)])
def test_id_maps_of_a_folder_come_back_as_they_were_saved(tmp_path, suffix, kind):
    ids = np.random.default_rng(0).integers(0, 200, (60, 90)).astype(kind)
    path = tmp_path / "sub" / f"photo.{suffix}"
    path.parent.mkdir()
    np.save(path, ids) if suffix == "npy" else Image.fromarray(ids).save(path)
    (found,) = source(f"folder={tmp_path}")([image_of(drawing(), "sub/photo")])
    assert np.array_equal(found.ids, ids) and found.ids.dtype == np.int32


def test_numbers_of_any_size_are_counted_through(tmp_path):
    ids = np.zeros((60, 90), np.int64)
    ids[:30], ids[30:, :40] = 10**12, 70_000
    np.save(tmp_path / "x.npy", ids)
    (found,) = source(f"folder={tmp_path}")([image_of(drawing())])
    assert np.array_equal(found.ids, np.select([ids == 70_000, ids > 70_000], [1, 2]))


# bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no id map"),
        (
            lambda p: np.save(p / "x.npy", np.ones((60, 89), int)),
            "x.npy has 89x60 pixels, and the image 90x60",
        ),
        (lambda p: np.save(p / "x.npy", -np.ones((60, 90), int)), "x.npy holds negative ids"),
        (lambda p: np.save(p / "x.npy", np.ones((60, 90))), "x.npy holds no array of whole numbers"),
        (lambda p: (p / "x.npy").write_bytes(b"\x93NUMPY"), "cannot read"),
        (lambda p: Image.fromarray(drawing()).save(p / "x.png"), "x.png is an RGB image, not class ids"),
        (
            lambda p: np.save(p / "x.npy", np.arange(1, 300 * 300 + 1).reshape(300, 300)),
            "x.png falls into 90,000 regions, and at most 65,535 can be told apart",
        ),
    ],
    ids=["missing", "size", "negative", "floats", "damaged", "colours", "many"],
)
def test_an_id_map_that_cannot_be_used_is_named_and_other_images_are_labelled(cli, tmp_path, make, message):
    photos, maps = tmp_path / "in", tmp_path / "maps"
    photos.mkdir()
    maps.mkdir()
    side = 300 if "regions" in message else None
    pixels = np.zeros((side, side, 3), np.uint8) if side else drawing()
    for name in ("x", "y"):
        Image.fromarray(pixels).save(photos / f"{name}.png")
    np.save(maps / "y.npy", np.ones(pixels.shape[:2], np.uint8))
    make(maps)
    args = ("segment", photos, *EMOJI, "--regions", f"folder={maps}", "--region-vote")
    done = cli(*args, "--out", tmp_path / "a")
    assert done.code == 1 and message in " ".join(done.err.split()), done.err
    assert not (tmp_path / "a/x.png").exists()
    with Image.open(tmp_path / "a/y.png") as one:
        assert len(np.unique(np.asarray(one))) == 1  # one region: one label
    if side is None:
        done = cli(*args, "--set", "folder.missing=none", "--out", tmp_path / "b")
        assert done.code == 0 and "without regions" in done.err
        plain = cli("segment", photos / "x.png", *EMOJI, "--out", tmp_path / "c")
        assert plain.code == 0
        assert (tmp_path / "b/x.png").read_bytes() == (tmp_path / "c/x.png").read_bytes()


def test_more_regions_than_can_be_told_apart_are_refused():
    ids = np.arange(1, MOST_REGIONS + 2).reshape(256, 256) * 2
    assert len(np.unique(ids)) == MOST_REGIONS + 1
    own = engine.Regions("x", True, {}, lambda images: [RegionMap(ids)])
    with pytest.raises(ImageError, match="65,536 regions"):
        own([image_of(np.zeros((256, 256, 3), np.uint8))])
    ids[0, 0] = 0
    assert own([image_of(np.zeros((256, 256, 3), np.uint8))])[0].ids.max() == MOST_REGIONS


@pytest.mark.parametrize(
    ("args", "code", "message", "hint"),
    [
        (("--region-vote",), 2, "--region-vote needs regions", "--regions: eomt, folder"),
        (("--method", "corrclip"), 2, "--method corrclip needs regions", "superpixels needs no weights"),
        (("--regions", "superpixels"), 2, "--regions superpixels does nothing", "--region-vote"),
        (("--regions", "superpixel", "--region-vote"), 2, "unknown source of regions", "superpixels"),
        (("--regions", "folder", "--region-vote"), 2, "--regions folder needs a folder", "folder=FOLDER"),
        (("--regions", "folder=nowhere", "--region-vote"), 2, "there is no folder nowhere", "id maps"),
        (("--regions", "superpixels=x", "--region-vote"), 2, "superpixels takes no files", "superpixels"),
        (
            ("--regions", "eomt=nowhere", "--region-vote"),
            1,
            "nowhere: no such folder of weights",
            "eomt=FOLDER",
        ),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(cli, tmp_path, args, code, message, hint):
    Image.fromarray(drawing()).save(tmp_path / "x.png")
    done = cli("segment", tmp_path / "x.png", *EMOJI, *args, "--out", tmp_path / "out")
    said = " ".join(done.err.split())
    assert done.code == code and message in said and hint in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_missing_package_names_the_extra(monkeypatch):
    real = engine.find_spec
    lacking = ("transformers", "skimage")
    monkeypatch.setattr(engine, "find_spec", lambda name: None if name in lacking else real(name))
    for name in ("superpixels", "sam2"):
        with pytest.raises(ModelError, match="not installed") as caught:
            check_regions(name, ["--region-vote"])
        assert 'pip install "clipseg-cli[regions]"' in caught.value.hint
    assert "scikit-image" in str(caught_of(lambda: check_regions("superpixels", ["--region-vote"])))


def caught_of(call: Any) -> BaseException:
    with pytest.raises(ModelError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_cannot_be_had_are_a_sentence_in_time(monkeypatch, tmp_path, name):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda *_: False)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.perf_counter()
    error = caught_of(lambda: source(name))
    assert time.perf_counter() - began < 10
    assert REGIONS.get(name).weights in error.message and "cannot be reached" in error.message
    assert "--regions superpixels" in error.hint and "FOLDER" in error.hint


def test_weights_that_ask_for_a_login_say_so(monkeypatch):
    def gated(*args: Any, **options: Any) -> Any:
        raise OSError("You are trying to access a gated repo.\nLog in first.")

    import transformers

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda *_: True)
    monkeypatch.setattr(transformers.Sam2ImageProcessor, "from_pretrained", gated)
    error = caught_of(lambda: source("sam2"))
    assert "cannot fetch facebook/sam2.1-hiera-large" in error.message
    assert "--regions superpixels" in error.hint


# networks


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_makes_one_map_for_each_image_whatever_their_sizes(networks, name):
    images = [image_of(drawing(*size)) for size in ((60, 90), (120, 50), (200, 180))]
    free: dict[str, Any] = {"threshold": 0.0, "overlap": 0.0}
    if name == "sam2":
        free = {"points": 5, "iou": 0.0, "stability": 0.0, "masks": 3, "nms": 1.0}
    make = source(f"{name}={networks[name]}", side=160, **free)
    found = make(images)
    assert [one.ids.shape for one in found] == [(60, 90), (120, 50), (200, 180)]
    assert all(one.ids.dtype == np.int32 and one.ids.min() >= 0 for one in found)
    assert max(one.ids.max() for one in found) > 1
    for image, one in zip(images, found, strict=True):
        (alone,) = make([image])
        assert (alone.ids == one.ids).mean() > 0.99  # rounding may move a border
    strict = source(f"{name}={networks[name]}", **{("iou" if name == "sam2" else "threshold"): 1.0})
    assert not strict(images)[0].ids.any()  # nothing is so sure: no region anywhere


def test_segments_are_those_of_the_library_with_none_as_zero(networks):
    """EoMT's own post-processing counts from 0, and says -1 where there is no segment."""
    import transformers

    net = transformers.EomtForUniversalSegmentation.from_pretrained(networks["eomt"]).eval()
    processor = transformers.EomtImageProcessor.from_pretrained(networks["eomt"])
    pixels = torch.from_numpy(drawing().transpose(2, 0, 1).copy())
    with torch.inference_mode():
        outputs = net(**processor(images=[pixels], return_tensors="pt"))
    (own,) = processor.post_process_panoptic_segmentation(
        outputs, [(60, 90)], threshold=0.0, overlap_mask_area_threshold=0.0
    )
    (found,) = source(f"eomt={networks['eomt']}", threshold=0.0, overlap=0.0)([image_of(drawing())])
    assert np.array_equal(found.ids, own["segmentation"].numpy() + 1)
    assert len(own["segments_info"]) == found.ids.max() > 1


def test_points_cover_a_square_that_the_image_was_stretched_to():
    grid = point_grid(2, (64, 32))
    assert grid.tolist() == [[8, 16], [24, 16], [8, 48], [24, 48]]


def test_files_of_another_network_and_damaged_ones_are_refused(networks, tmp_path):
    with pytest.raises(ModelError, match="Sam2Model"):
        source(f"sam2={networks['eomt']}")
    broken = shutil.copytree(networks["eomt"], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"cannot read .*broken as a EomtForUniversalSegmentation"):
        source(f"eomt={broken}")


def test_a_network_s_regions_in_a_run(cli, networks, tmp_path):
    Image.fromarray(drawing()).save(tmp_path / "x.png")
    regions = f"mask2former={networks['mask2former']}"
    settings = ("--set", "mask2former.threshold=0", "--set", "mask2former.overlap=0")
    args = ("segment", tmp_path / "x.png", *EMOJI, "--regions", regions, "--region-vote", *settings)
    done = cli(*args, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    (ids,) = source(regions, threshold=0.0, overlap=0.0)([image_of(drawing())])
    with Image.open(tmp_path / "out/x.png") as one:
        labels = np.asarray(one)
    assert len(np.unique(ids.ids)) > 2
    for number in np.unique(ids.ids[ids.ids > 0]):
        assert len(np.unique(labels[ids.ids == number])) == 1
    made = json.loads((tmp_path / "out/classes.json").read_text("utf-8"))["model"]["settings"]["regions"]
    assert made["name"] == "mask2former" and made["threshold"] == 0 and "transformers" in made
