"""Regions of unlabelled images on the disk: shards of some images each, every one written whole.

A shard says of each of its images which rows are its own, and what it was made of. An image that has changed since, or
is no longer there, leaves rows behind that nobody reads, until nothing in its shard is read any more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clipseg_cli.errors import RunError
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

SHARDS = "shards"
IMAGES = 64
"""In a shard; so many are read again at most after a power cut."""


class Rows(NamedTuple):
    """What a shard holds of one image.

    Attributes:
        name: of the image.
        content: fingerprint of what it was made of.
        regions: how many rows.
    """

    name: str
    content: str
    regions: int


class ShardWriter:
    """Adds images to a bank; `flush` writes what is not written yet.

    Args:
        bank: its folder.
    """

    def __init__(self, bank: Path) -> None:
        self.bank = bank
        self._next = 1 + max((int(path.stem) for path in _files(bank)), default=-1)
        self._rows: list[Rows] = []
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def add(self, name: str, content: str, keys: Tensor, values: Tensor) -> None:
        """Remember the regions of an image: [R, K] and [R, D], unit length.

        Raises:
            DiskFullError: nothing more can be written.
        """
        self._rows.append(Rows(name, content, len(keys)))
        self._keys.append(keys.half())
        self._values.append(values.half())
        if len(self._rows) == IMAGES:
            self.flush()

    def flush(self) -> None:
        """Write the last images, however many they are."""
        if not self._rows:
            return
        data = save(
            {"keys": torch.cat(self._keys).contiguous(), "values": torch.cat(self._values).contiguous()},
            {"images": json.dumps([list(one) for one in self._rows])},
        )
        write_bytes(self.bank / SHARDS / f"{self._next:06d}.safetensors", data)
        self._next += 1
        self._rows, self._keys, self._values = [], [], []


def known_images(bank: Path) -> dict[str, str]:
    """Name of each image that any readable shard holds -> what it was made of; of several, the last."""
    return {one.name: one.content for path in _files(bank) for one in _read_rows(path)}


def read_shards(bank: Path, images: Mapping[str, str], device: torch.device) -> tuple[Tensor, Tensor]:
    """The regions of some images, on a device, in half precision: keys [B, K] and values [B, D].

    No more is held than they take, and one shard.

    Args:
        bank: its folder.
        images: name -> what it was made of.
        device: where they go.

    Raises:
        RunError: a shard is missing or damaged.
    """
    wanted, places = dict(images), list[tuple[Path, slice]]()
    total = 0
    for path in _files(bank):
        start = 0
        for name, content, count in _read_rows(path):
            if wanted.get(name) == content:
                del wanted[name]
                places.append((path, slice(start, start + count)))
                total += count
            start += count
    if wanted:
        raise RunError(
            f"what {bank} remembers of {next(iter(wanted))} is missing or damaged",
            hint="the command that made the bank reads that image again",
        )
    found: dict[str, Tensor] = {}
    done = 0
    for path, rows in _by_shard(places):
        with safe_open(path, "pt") as file:
            for key in ("keys", "values"):
                own = torch.cat([file.get_tensor(key)[one] for one in rows])
                if key not in found:
                    found[key] = torch.empty((total, own.shape[1]), dtype=torch.half, device=device)
                found[key][done : done + len(own)] = own
        done += len(own)
    empty = torch.zeros((0, 1), dtype=torch.half, device=device)
    return found.get("keys", empty), found.get("values", empty)


def remove_unused(bank: Path, images: Mapping[str, str]) -> None:
    """Remove shards that nothing is read from."""
    left = dict(images)
    for path in _files(bank):
        own = [one for one in _read_rows(path) if left.get(one.name) == one.content]
        for one in own:
            del left[one.name]
        if not own:
            path.unlink(missing_ok=True)


def _by_shard(places: list[tuple[Path, slice]]) -> Iterator[tuple[Path, list[slice]]]:
    grouped: dict[Path, list[slice]] = {}
    for path, rows in places:
        grouped.setdefault(path, []).append(rows)
    yield from grouped.items()


def _files(bank: Path) -> list[Path]:
    return sorted(path for path in (bank / SHARDS).glob("*.safetensors") if path.stem.isdigit())


def _read_rows(path: Path) -> list[Rows]:
    """What a shard says of its images; nothing where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            rows = json.loads((file.metadata() or {})["images"])
            return [Rows(str(name), str(content), int(count)) for name, content, count in rows]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return []
