"""What a region is, and the shards in which a bank of them lies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.memory import shards
from clipseg_cli.memory.shards import ShardWriter, known_images, read_shards, remove_unused
from clipseg_cli.ops.region_means import region_means, windowed_means
from clipseg_cli.types import Tile

CPU = torch.device("cpu")


# What a region is


@pytest.mark.parametrize("unit", [True, False])
def test_windows_count_each_pixel_once(unit: bool) -> None:
    """Two windows that overlap, the second with a map that reaches over it: a pixel is the mean of its windows."""
    torch.manual_seed(0)
    ids, one, other = torch.randint(0, 4, (20, 30)), torch.randn(6, 4, 4), torch.randn(6, 3, 5)
    tiles = (Tile(0, 20, 0, 18), Tile(0, 20, 10, 30))
    parts = [(one, tiles[0], (0, 0, 0, 0)), (other, tiles[1], (1, 3, 2, 0))]
    wide = [F.interpolate(one[None], (20, 18), mode="bilinear")[0]]
    wide.append(F.interpolate(other[None], (24, 22), mode="bilinear")[0][:, 1:21, 2:])
    total, cover = torch.zeros(6, 20, 30), torch.zeros(20, 30)
    for map_, tile in zip(wide, tiles, strict=True):
        own = F.normalize(map_, dim=0) if unit else map_
        total[:, :, tile.left : tile.right] += own
        cover[:, tile.left : tile.right] += 1
    found, means = windowed_means(parts, ids, unit=unit)
    assert found.tolist() == [1, 2, 3]
    for number, mean in zip(found.tolist(), means, strict=True):
        assert torch.allclose(mean, (total / cover)[:, ids == number].mean(dim=1), atol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (4, 1)])
def test_regions_of_thin_maps(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    features, ids = torch.randn(3, *grid), torch.randint(1, 3, (9, 11))
    full = F.normalize(F.interpolate(features[None], (9, 11), mode="bilinear")[0], dim=0)
    found, means = region_means(features, ids, unit=True)
    for number, mean in zip(found.tolist(), means, strict=True):
        assert torch.allclose(mean, full[:, ids == number].mean(dim=1), atol=1e-5)


# Shards


def test_shards_come_back_without_what_has_changed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shards, "IMAGES", 2)
    writer = ShardWriter(tmp_path)
    vectors = {name: F.normalize(torch.randn(3, 4), dim=1).half() for name in "abc"}
    for name, rows in vectors.items():
        writer.add(name, "old", rows, 2 * rows)
    writer.flush()
    assert known_images(tmp_path) == dict.fromkeys("abc", "old")
    again = ShardWriter(tmp_path)
    again.add("a", "new", vectors["c"], vectors["c"])
    again.flush()
    keys, values = read_shards(tmp_path, {"a": "new", "b": "old"}, CPU)
    assert torch.equal(keys, torch.cat([vectors["b"], vectors["c"]])) and len(values) == 6
    remove_unused(tmp_path, {"a": "new", "b": "old"})
    assert sorted(known_images(tmp_path).items()) == [("a", "new"), ("b", "old")]
    assert len(list((tmp_path / shards.SHARDS).iterdir())) == 2  # that of "c" alone is gone
