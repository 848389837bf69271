"""Which images of a run go through the network together, once its list is no longer the one that it was begun with.

Which images share a batch changes the last bits of their scores. So images keep their batches when others are
added or removed, and new ones get batches of their own; `batches.json` remembers that, for every process of the run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from clipseg_cli.inference.dataset import batch_images, cut_into_groups, list_hash
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.inference.dataset import Group
    from clipseg_cli.types import Sample

FILE = "batches.json"


def planned_groups(folder: Path, samples: Sequence[Sample], batch_size: int) -> list[Group]:
    """The units of work of a run, as they were first cut.

    Args:
        folder: of the run.
        samples: all images of the run, in their order.
        batch_size: windows in one forward pass.
    """
    numbers = _read(folder, samples)
    if numbers is None:
        return cut_into_groups(samples, batch_size)
    groups = defaultdict(list)
    for sample in samples:
        groups[numbers[sample.source.name]].append(sample)
    return [(number, tuple(own)) for number, own in sorted(groups.items())]


def keep_batches(
    folder: Path, samples: Sequence[Sample], batch_size: int, known: Mapping[str, int], images: int
) -> None:
    """Write down the batches of a list of images that has changed; no file where they are those of a new run.

    Args:
        folder: of the run.
        samples: all images of the run now, in their order.
        batch_size: windows in one forward pass.
        known: image -> its batch, of those that were labelled before.
        images: how many the run had before.

    Raises:
        OutputError: it cannot be written.
    """
    names = [sample.source.name for sample in samples]
    kept = {name: known[name] for name in names if name in known}
    new = [name for name in names if name not in known]
    size = batch_images(batch_size)
    first = max(-(-images // size), *(number + 1 for number in known.values()), 0)
    numbers = kept | {name: first + i // size for i, name in enumerate(new)}
    if all(numbers[name] == i // size for i, name in enumerate(names)):
        (folder / FILE).unlink(missing_ok=True)
        return
    ordered = {name: numbers[name] for name in names}
    # In ASCII, so that a name with bytes that are no text comes back as it is.
    text = json.dumps({"images_sha256": list_hash(samples), "batches": ordered}, indent=2)
    write_bytes(folder / FILE, text.encode() + b"\n")


def _read(folder: Path, samples: Sequence[Sample]) -> dict[str, int] | None:
    """Image -> its batch; None where nothing sound about this very list is there."""
    try:
        data = json.loads((folder / FILE).read_text(encoding="utf-8"))
        numbers: dict[str, int] = data["batches"]
        sound = data["images_sha256"] == list_hash(samples) and all(
            type(numbers[sample.source.name]) is int for sample in samples
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return numbers if sound else None
