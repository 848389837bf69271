"""Sources of region masks, the vote in them, and CorrCLIP's attention: properties, and the command."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from region_networks import save_network
from test_dense_clip import Colors, tower

from clipseg_cli import Segmenter
from clipseg_cli.config import InferenceConfig, TrainConfig
from clipseg_cli.errors import ImageError, ModelError, UsageError
from clipseg_cli.inference import regions as engine
from clipseg_cli.inference.hyperparameters import Chosen
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.regions import check_regions, load_regions
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.models.weights import hub
from clipseg_cli.ops.region_attention import merge_alike, scoped_attention
from clipseg_cli.ops.regions import MOST_REGIONS, id_map_by_area, id_map_by_score, nearest_ids, vote
from clipseg_cli.regions import REGIONS
from clipseg_cli.regions.sam2 import point_grid
from clipseg_cli.training.task import check_sources
from clipseg_cli.types import ClassList, DecodedImage, ImageSource, Reading, RegionMap

CPU = torch.device("cpu")
NETWORKS = [name for name in REGIONS.names() if REGIONS.get(name).network]
EMOJI = ("--model", "emoji", "--device", "cpu", "-c", "car,tree,house")


def image_of(pixels: np.ndarray, name: str = "x") -> DecodedImage:
    return DecodedImage(ImageSource(None, PurePosixPath(name)), pixels)


def drawing(height: int = 60, width: int = 90) -> np.ndarray:
    """A red disc on two grounds, with a little noise."""
    y, x = np.mgrid[:height, :width]
    pixels = np.where((y < height // 2)[..., None], (120, 180, 240), (60, 140, 60))
    pixels[(y - height / 2) ** 2 + (x - width / 2) ** 2 < (height / 4) ** 2] = (220, 30, 30)
    noise = np.random.default_rng(0).integers(-4, 5, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def source(text: str, **hyperparameters: Any) -> Any:
    config = InferenceConfig(regions=text)
    name = text.partition("=")[0]
    found = load_regions(config, Chosen(hyperparameters={name: hyperparameters}), CPU, torch.float32)
    assert found is not None
    return found


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


# the vote


@pytest.fixture
def noisy():
    torch.manual_seed(0)
    regions = torch.randint(0, 9, (40, 50), dtype=torch.int32)
    return torch.randint(0, 6, (40, 50), dtype=torch.uint8), torch.rand(40, 50), regions


def test_a_vote_leaves_one_label_a_region_and_a_second_one_changes_nothing(noisy):
    labels, confidence, regions = noisy
    first = vote(labels, confidence, regions)
    assert first.labels.dtype == labels.dtype and first.confidence.dtype == confidence.dtype
    for number in range(1, 9):
        here = regions == number
        counts = torch.bincount(labels[here].long())
        assert set(first.labels[here].tolist()) == {int(counts.argmax())}
    again = vote(first.labels, first.confidence, regions)
    assert torch.equal(again.labels, first.labels) and torch.equal(again.confidence, first.confidence)


def test_pixels_in_no_region_stay_as_they_are(noisy):
    labels, confidence, regions = noisy
    found = vote(labels, confidence, regions)
    free = regions == 0
    assert torch.equal(found.labels[free], labels[free])
    assert torch.equal(found.confidence[free], confidence[free])
    alone = vote(labels, confidence, torch.zeros_like(regions))
    assert torch.equal(alone.labels, labels) and torch.equal(alone.confidence, confidence)


def test_a_vote_does_not_depend_on_the_numbers_of_regions(noisy):
    labels, confidence, regions = noisy
    other = torch.tensor([0, *(torch.randperm(8) * 7 + 3).tolist()], dtype=torch.int32)[regions.long()]
    assert torch.equal(vote(labels, confidence, regions).labels, vote(labels, confidence, other).labels)


def test_a_vote_does_not_depend_on_how_many_pixels_are_counted_at_once(noisy, monkeypatch):
    whole = vote(*noisy)
    monkeypatch.setattr("clipseg_cli.ops.regions.BLOCK_PIXELS", 170)
    parts = vote(*noisy)
    assert torch.equal(parts.labels, whole.labels)
    torch.testing.assert_close(parts.confidence, whole.confidence)


def test_changed_pixels_are_as_sure_as_their_region_and_others_as_before():
    labels = torch.tensor([[2, 2, 2, 5], [1, 1, 5, 5]])
    confidence = torch.tensor([[0.9, 0.6, 0.3, 0.8], [0.5, 0.7, 0.4, 0.2]])
    regions = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2]])
    found = vote(labels, confidence, regions)
    assert found.labels.tolist() == [[2, 2, 2, 2], [1, 1, 1, 1]]  # of two equally frequent ones the smaller
    wanted = torch.tensor([[0.9, 0.6, 0.3, 1.8 / 4], [0.5, 0.7, 1.2 / 4, 1.2 / 4]])
    torch.testing.assert_close(found.confidence, wanted)


def test_the_vote_in_the_command_is_that_of_the_labels_without(cli, tmp_path):
    args = ("segment", "samples/cars.png", *EMOJI)
    assert cli(*args, "--out", tmp_path / "plain").code == 0
    done = cli(*args, "--regions", "superpixels", "--region-vote", "--out", tmp_path / "voted")
    assert done.code == 0, done.err
    with Image.open("samples/cars.png") as one:
        (regions,) = source("superpixels")([image_of(np.asarray(one.convert("RGB")))])
    plain, voted = (
        torch.from_numpy(np.asarray(Image.open(tmp_path / f"{name}/cars.png")).copy())
        for name in ("plain", "voted")
    )
    wanted = vote(plain, torch.ones(plain.shape), torch.from_numpy(regions.ids)).labels
    assert torch.equal(voted, wanted) and not torch.equal(voted, plain)
    steps = json.loads((tmp_path / "voted/classes.json").read_text("utf-8"))["model"]["settings"]
    assert steps["refinements"][-1] == {"name": "region_vote", "value": True}
    assert steps["regions"]["name"] == "superpixels" and "scikit-image" in steps["regions"]


def test_the_protocol_lists_the_vote_behind_the_decision(cli):
    done = cli(
        *("eval", "--benchmark", "voc21", "--regions", "superpixels", "--region-vote", "--pamr", "1"),
        *("--show-protocol", "--json"),
    )
    assert done.code == 0, done.err
    names = [step["name"] for step in json.loads(done.out)["steps"]]
    assert names[-3:] == ["pamr", "decide", "region_vote"]


def test_python_gives_what_the_command_gives(cli, tmp_path):
    args = ("--regions", "superpixels", "--region-vote", "--set", "superpixels.scale=300")
    assert cli("segment", "samples/cars.png", *EMOJI, *args, "--out", tmp_path).code == 0
    own = Segmenter.from_pretrained(
        "emoji",
        regions="superpixels",
        region_vote=True,
        hyperparameters={"superpixels.scale": 300},
        device="cpu",
    )
    background = InferenceConfig.background
    found = own.segment("samples/cars.png", "car,tree,house", background=background)
    with Image.open(tmp_path / "cars.png") as one:
        assert np.array_equal(found.labels, np.asarray(one))


def test_maps_by_name_fit_neither_python_nor_crops(tmp_path):
    text = f"folder={tmp_path}"
    with pytest.raises(UsageError, match="maps of regions are found by the names of files"):
        Segmenter.from_pretrained("emoji", regions=text, region_vote=True)
    with pytest.raises(UsageError, match="maps of --regions are of whole images"):
        check_sources(TrainConfig(dataset=".", teacher=True, regions=text, region_vote=True))


def test_crops_in_memory_get_regions_of_their_own():
    """As a teacher of `clipseg train` labels them."""
    config = InferenceConfig(model="emoji", device="cpu", regions="superpixels", region_vote=True)
    plan = plan_clip(config, find_protocol("default"))
    names = ("car", "tree", "house")
    backbone, predictor = plan.load(ClassList(names, tuple((name,) for name in names)))
    crops = np.stack([drawing(64, 96), drawing(64, 96)[:, ::-1]])
    crops[0] ^= np.random.default_rng(0).integers(0, 32, crops[0].shape, dtype=np.uint8)
    found = list(predictor.labels(torch.from_numpy(crops).permute(0, 3, 1, 2), (64, 96)))
    plain = dataclasses.replace(config, regions="", region_vote=False)
    alone = plan_clip(plain, find_protocol("default")).predictor(backbone, predictor.classes)
    for pixels, labels, before in zip(
        crops, found, alone.labels(torch.from_numpy(crops).permute(0, 3, 1, 2), (64, 96)), strict=True
    ):
        (regions,) = source("superpixels")([image_of(np.ascontiguousarray(pixels))])
        wanted = vote(before, torch.ones(64, 96), torch.from_numpy(regions.ids)).labels
        assert torch.equal(labels, wanted)


# CorrCLIP


def test_regions_that_look_alike_are_one_and_number_zero_stays():
    unit = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1]]), dim=1
    )
    assert merge_alike(unit, torch.tensor([5, 3, 4, 9, 0])).tolist() == [3, 3, 3, 9, 0]
    assert merge_alike(unit, torch.tensor([5, 3, 4, 9, 0]), 0.0).tolist() == [5, 3, 4, 9, 0]
    assert merge_alike(unit, torch.tensor([5, 5, 5, 9, 9])).tolist() == [5, 5, 5, 9, 9]


def test_attention_stays_in_its_region_and_free_positions_look_for_what_is_alike():
    torch.manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(30, 8), dim=1)
    regions = torch.arange(30) % 4
    attention = scoped_attention(unit, regions)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(30))
    both = (regions[:, None] > 0) & (regions > 0)
    assert not attention[both & (regions[:, None] != regions)].any()
    assert (attention[both & (regions[:, None] == regions)] > 0).all()
    similar = unit @ unit.mT
    assert torch.equal(attention[~both] > 0, similar[~both] > similar.mean())
    equal = torch.ones(6, 1)
    assert torch.equal(scoped_attention(equal, torch.zeros(6, dtype=torch.int32)), torch.eye(6))


@torch.inference_mode()
def test_without_a_guide_the_tower_s_own_features_say_what_is_alike():
    torch.manual_seed(0)
    image, method = torch.randn(1, 3, 32, 48), METHODS.get("corrclip")
    left = (torch.arange(48) < 20).expand(1, 32, 48).int() + 1
    found = dense_reader(tower(), method)(image, left).features
    assert found.shape == (1, 16, 4, 6)
    fine = dense_reader(tower(), method, Reading(guide=Colors()))(image, left).features
    assert fine.shape == (1, 16, 8, 12)
    other = dense_reader(tower(), method)(image, left.flip(2)).features
    assert not torch.allclose(found, other)


@torch.inference_mode()
def test_corrclip_does_not_depend_on_the_numbers_of_regions():
    torch.manual_seed(0)
    image, reader = torch.randn(2, 3, 32, 48), dense_reader(tower(), METHODS.get("corrclip"))
    regions = torch.randint(0, 4, (2, 4, 6)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    renamed = torch.tensor([0, 900, 17, 3])[regions]
    torch.testing.assert_close(reader(image, regions).features, reader(image, renamed).features)


def test_corrclip_in_the_command_windows_and_vote(cli, tiny_clip, tmp_path):
    Image.fromarray(drawing(90, 150)).save(tmp_path / "x.png")
    args = ("segment", tmp_path / "x.png", "-c", "cat,dog", *tiny_clip.options, "--templates", "single")
    args = (*args, "--method", "corrclip", "--regions", "superpixels")
    done = cli(*args, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    settings = ("--region-vote", "--presence", "--set", "corrclip.merge=false", "--window", "32")
    done = cli(*args, *settings, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    labels = [np.asarray(Image.open(tmp_path / f"{name}/x.png")) for name in "ab"]
    assert labels[0].shape == labels[1].shape == (90, 150)
