"""Memories of unlabelled images: banks of regions, built, killed, gone on with, asked; RNS beside banks of labels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from memory_banks import COLOURS, draw
from PIL import Image

from clipseg_cli.commands import index_regions
from clipseg_cli.inference import banks
from clipseg_cli.memory import shards
from clipseg_cli.memory.shards import read_shards

if TYPE_CHECKING:
    from pathlib import Path

CPU = torch.device("cpu")
SUPERPIXELS = ("--set", "superpixels.min_size=200")


@pytest.fixture(scope="module", name="drawn")
def drawn_data(tmp_path_factory) -> Path:
    return draw(tmp_path_factory.mktemp("drawn") / "data", 4)


@pytest.fixture(name="make")
def make_bank(cli, tiny_clip, tmp_path):
    """`make(FOLDER, ...)` into the bank `tmp_path / "bank"`."""

    def run(*options: object):
        return cli("index", *options, *tiny_clip.options, "--out", tmp_path / "bank", *SUPERPIXELS)

    return run


@pytest.fixture(name="label")
def label_command(cli, tiny_clip, tmp_path, drawn):
    """`label(...)`: the label map of a drawn image, or what went wrong."""

    def run(*options: object, quiet: bool = True):
        words = ("-c", ",".join(COLOURS), "--background", "none")
        more = ("--quiet",) if quiet else ()
        out = tmp_path / "out"
        found = cli(
            "segment", drawn / "images" / "p0.png", *words, *tiny_clip.options, *options, *more, "--out", out
        )
        return np.asarray(Image.open(out / "p0.png")).copy() if found.code == 0 and quiet else found

    return run


def facts_in(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "bank" / "bank.json").read_text())
    return found


# Building


def test_a_bank_of_unlabelled_images(make, drawn, tmp_path) -> None:
    made = make(drawn / "images")
    assert made.code == 0, made.err
    facts = facts_in(tmp_path)
    assert facts["kind"] == "regions" and list(facts["pictures"]) == ["p0", "p1", "p2", "p3"]
    assert facts["identity"]["regions"]["option"] == "superpixels" and facts["identity"]["guide"] is None
    keys, values = read_shards(tmp_path / "bank", facts["pictures"], CPU)
    assert len(keys) == len(values) >= 8
    for rows in (keys, values):
        assert torch.allclose(rows.float().norm(dim=1), torch.ones(len(rows)), atol=1e-2)
    before = {path: path.read_bytes() for path in (tmp_path / "bank").rglob("*") if path.is_file()}
    again = make(drawn / "images")
    assert "4 of them before" in again.err
    assert before == {path: path.read_bytes() for path in before}


def test_a_split_of_a_data_set(make, drawn, tmp_path) -> None:
    made = make(drawn, "--split", "train")
    assert made.code == 0, made.err
    assert list(facts_in(tmp_path)["pictures"]) == ["p0", "p1"]


def test_label_maps_of_a_data_set_are_not_remembered(make, drawn, tmp_path) -> None:
    found = make(drawn)
    assert found.code == 0, found.err
    assert (
        f"Note: {drawn} is a data set (a folder of pictures): its images are taken, and no other file"
        in found.err
    )
    assert sorted(facts_in(tmp_path)["pictures"]) == ["p0", "p1", "p2", "p3"]


def test_the_facts_of_a_bank_are_read_once(make, label, drawn, monkeypatch, tmp_path) -> None:
    assert make(drawn / "images").code == 0
    read, calls = banks.read_facts, []

    def count(folder):
        calls.append(folder)
        return read(folder)

    monkeypatch.setattr(banks, "read_facts", count)
    banks._facts.cache_clear()
    assert label("--memory", tmp_path / "bank", quiet=False).code == 0
    assert calls == [tmp_path / "bank"]
    (tmp_path / "bank" / "bank.json").write_text("{}")  # another file is not taken for the one that was read
    assert "is not the record of a bank" in label("--memory", tmp_path / "bank", quiet=False).err


def test_a_killed_index_goes_on_and_follows_its_folder(make, label, drawn, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in (drawn / "images").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    read, calls = index_regions.read_regions, []

    def stops(*args: Any):
        calls.append(args)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return read(*args)

    with monkeypatch.context() as patch:
        patch.setattr(index_regions, "read_regions", stops)
        stopped = make(folder)
    assert stopped.code == 130 and "2 of 4 images" in stopped.err
    unfinished = label("--memory", tmp_path / "bank", quiet=False)
    assert unfinished.code == 1 and "is not finished" in unfinished.err
    other = make(folder, "--method", "naclip")
    assert other.code == 1 and "is a bank of other reading" in other.err
    assert "2 of them before" in make(folder).err
    whole = facts_in(tmp_path)
    # An image that has changed is read again, one that is gone is forgotten, one that is no image fails alone.
    (folder / "p1.png").write_bytes((folder / "p2.png").read_bytes())
    (folder / "p3.png").unlink()
    (folder / "broken.png").write_bytes(b"no image")
    found = make(folder)
    assert found.code == 1 and "broken.png" in found.err and "2 of them before" in found.err
    facts = facts_in(tmp_path)
    assert list(facts["pictures"]) == ["p0", "p1", "p2"] and facts["fingerprint"] != whole["fingerprint"]
    assert facts["pictures"]["p1"] == facts["pictures"]["p2"]
    assert "1 image that it knew is no longer among them" in found.err
    # One that cannot be read any more stays; other images alone are not taken for those of before.
    (folder / "p1.png").write_bytes(b"no image")
    assert make(folder).code == 1 and facts_in(tmp_path)["pictures"] == facts["pictures"]
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "q.png").write_bytes((folder / "p2.png").read_bytes())
    assert "is a bank of other images" in make(tmp_path / "others").err
    assert facts_in(tmp_path)["pictures"] == facts["pictures"]


# Asking


def test_a_share_of_one_is_no_memory(make, label, drawn, tmp_path) -> None:
    assert make(drawn / "images").code == 0
    memory = ("--memory", tmp_path / "bank")
    plain = label()
    assert np.array_equal(label(*memory, "--set", "region_memory.share=1"), plain)
    told = json.loads((tmp_path / "out" / "classes.json").read_text())["model"]["settings"]
    assert told["memory"]["images"] == 4 and told["regions"]["name"] == "superpixels"


@pytest.mark.parametrize("protocol", ["default", "sclip"])
def test_a_region_says_what_the_bank_says_of_it(make, label, drawn, tmp_path, protocol) -> None:
    """With nothing of its own, all pixels of a region say the same, in either order of steps."""
    assert make(drawn / "images", "--protocol", protocol).code == 0
    ids = np.zeros((64, 64), np.uint8)
    ids[:, :32], ids[:, 32:] = 1, 2
    (tmp_path / "maps").mkdir()
    Image.fromarray(ids).save(tmp_path / "maps" / "p0.png")
    options = (
        "--memory",
        tmp_path / "bank",
        "--regions",
        f"folder={tmp_path / 'maps'}",
        "--protocol",
        protocol,
    )
    found = label(*options, "--set", "region_memory.share=0", "--set", "region_memory.neighbours=3")
    assert len(np.unique(found[:, :31])) == len(np.unique(found[:, 33:])) == 1


def test_a_bank_smaller_than_its_neighbours_is_told(make, label, drawn, tmp_path) -> None:
    assert make(drawn / "images").code == 0
    said = label("--memory", tmp_path / "bank", "--set", "region_memory.neighbours=9000", quiet=False)
    assert said.code == 0 and "9000 neighbours are asked for" in said.err
    few = label("--memory", tmp_path / "bank", "--set", "region_memory.neighbours=1", quiet=False)
    assert few.code == 0 and "neighbours are asked for" not in few.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "emoji", "--pretrained", "bundled"), "was made with --model"),
        (("--guide", "dino-b8"), "was made without --guide, not with --guide dino-b8"),
        (("--key-smoothing", "0.5"), "mixes cosines"),
        (("--method", "clip-diy"), "looks at whole crops"),
        (("--set", "memory.classifier=rns"), "does nothing without --memory BANK of labelled images"),
        (("--regions", "none", "--regions", "folder=nowhere"), "there is no folder nowhere"),
    ],
)
def test_what_does_not_fit_is_said_before_weights_are_loaded(
    make, label, drawn, tmp_path, monkeypatch, options, message
) -> None:
    assert make(drawn / "images").code == 0
    monkeypatch.setattr("clipseg_cli.inference.load.load_backbone", lambda *_: pytest.fail("loads weights"))
    found = label(*options, "--memory", tmp_path / "bank", quiet=False)
    assert found.code == 2 and message in found.err, found.err


def test_other_weights_are_refused_with_both_fingerprints(make, label, drawn, tmp_path) -> None:
    assert make(drawn / "images").code == 0
    facts = facts_in(tmp_path)
    own, facts["identity"]["weights"] = facts["identity"]["weights"], "0123456789abcdef"
    (tmp_path / "bank" / "bank.json").write_text(json.dumps(facts))
    found = label("--memory", tmp_path / "bank", quiet=False)
    assert found.code == 1 and "0123456789abcdef" in found.err and own in found.err


def test_another_guide_is_refused_with_both_fingerprints(
    make, cli, tiny_clip, label, drawn, tmp_path, monkeypatch
) -> None:
    import timm

    make_net = timm.create_model
    small = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
    monkeypatch.setattr(timm, "create_model", lambda name, **k: make_net(name, **(k | small)))
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        net = timm.create_model("vit_small_patch8_224", num_classes=0, dynamic_img_size=True)
        torch.save(net.state_dict(), tmp_path / f"{name}.pth")
    guide = f"dino={tmp_path / 'one.pth'}"
    made = make(drawn / "images", "--guide", guide)
    assert made.code == 0, made.err
    facts = facts_in(tmp_path)
    assert facts["identity"]["guide"]["name"] == guide
    keys, _ = read_shards(tmp_path / "bank", facts["pictures"], CPU)
    assert keys.shape[1] == 32
    assert label("--memory", tmp_path / "bank", "--guide", guide).shape == (64, 64)
    bare = label("--memory", tmp_path / "bank", quiet=False)
    assert bare.code == 2 and f"add --guide {guide}" in bare.err
    (tmp_path / "one.pth").write_bytes((tmp_path / "other.pth").read_bytes())
    found = label("--memory", tmp_path / "bank", "--guide", guide, quiet=False)
    assert found.code == 1 and facts["identity"]["guide"]["fingerprint"] in found.err


def test_empty_and_damaged_banks(make, label, drawn, tmp_path) -> None:
    assert make(drawn / "images").code == 0
    bank = tmp_path / "bank"
    (shard,) = (bank / shards.SHARDS).iterdir()
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-50])
    found = label("--memory", bank, quiet=False)
    assert found.code == 1 and "missing or damaged" in found.err
    assert "before" not in make(drawn / "images").err  # all is read again
    assert label("--memory", bank).shape == (64, 64)
    facts = facts_in(tmp_path)
    (bank / "bank.json").write_text(json.dumps(facts | {"pictures": {}}))
    empty = label("--memory", bank, quiet=False)
    assert empty.code == 1 and "is empty" in empty.err


def test_an_image_with_too_many_regions_fails_alone(cli, tiny_clip, drawn, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("clipseg_cli.inference.regions.MOST_REGIONS", 50)
    maps = tmp_path / "maps"
    maps.mkdir()
    for i, name in enumerate(("p0", "p1", "p2", "p3")):
        many = np.arange(64 * 64).reshape(64, 64) if i == 1 else np.full((64, 64), i % 3)
        np.save(maps / f"{name}.npy", many.astype(np.int32))
    found = cli(
        *("index", drawn / "images", "--regions", f"folder={maps}", *tiny_clip.options),
        *("--out", tmp_path / "bank"),
    )
    assert found.code == 1 and "falls into 4,095 regions" in found.err
    assert "has no region" in found.err  # the first and the last hold nothing but 0
    assert list(facts_in(tmp_path)["pictures"]) == ["p2"]


# RNS beside a bank of labelled images


def test_rns_labels_by_what_it_retrieves(cli, tiny_clip, label, drawn, tmp_path) -> None:
    labels = cli(
        "index", "--labels", drawn, *tiny_clip.options, "--out", tmp_path / "labels", "--short-side", 64
    )
    assert labels.code == 0, labels.err
    truth = np.asarray(Image.open(drawn / "masks" / "p0.png"))
    rns = ("--memory", tmp_path / "labels", "--set", "memory.classifier=rns")
    found = label(*rns)
    assert (found == truth).mean() > 0.7 > (label() == truth).mean()
    told = json.loads((tmp_path / "out" / "classes.json").read_text())["model"]["settings"]
    assert "classifier" not in told.get("memory", {})
    again = label(*rns)
    assert np.array_equal(found, again)
    told = json.loads((tmp_path / "out" / "classes.json").read_text())["model"]["settings"]
    assert told["memory"]["classifier"] == "rns"
