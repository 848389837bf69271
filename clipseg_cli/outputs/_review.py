"""What `clipseg review` writes: `review.csv`, `review_regions.csv`, `review.json` and `review.html`.

All of them are in order of trust, the least trusted first. They are put together on the disk while images are looked
at, and take their names together at the end.
"""

from __future__ import annotations

import csv
import hashlib
import io
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.outputs._own import refuse_strangers
from clipseg_cli.outputs._page import write_page
from clipseg_cli.outputs._regions import rounded
from clipseg_cli.outputs._run import class_table_rows, json_safe
from clipseg_cli.outputs._spool import SortedSpool, to_json
from clipseg_cli.utils.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.ops.components import Regions
    from clipseg_cli.types import ClassList, ClassShare

PAGE, LIST, IMAGES, REGIONS = "review.html", "review.json", "review.csv", "review_regions.csv"
IMAGE_COLUMNS = (
    *("rank", "image", "trust", "confidence", "agreement", "accuracy"),
    *("width", "height", "foreground", "ignored", "regions"),
)
REGION_COLUMNS = (
    *("rank", "image", "region", "class_id", "class", "trust", "confidence", "agreement"),
    *("left", "top", "width", "height", "area", "share"),
)
OUTLINED = 8
"""Regions of an image that the page outlines at most."""

LEAST = 0.002
"""Share of the image that an outlined region takes at least; smaller ones are specks in the page."""


@dataclass(frozen=True, kw_only=True)
class ReviewedImage:
    """What was found about one image. All figures are in [0, 1], NaN where they are not known.

    Attributes:
        name: within the run, without suffix.
        link: its address as seen from the page; "" where the image itself is not at hand.
        size: (H, W).
        trust: by which images are ordered: `agreement` where there is a second run, else `confidence`.
        confidence, agreement, accuracy: mean confidence of the foreground; share of it that a second run labels in the
            same way; share of pixels with the true label.
        foreground, ignored: shares of all pixels.
        label: fingerprint of its label PNG, which a mark is about.
        corrected: somebody has corrected its labels since they were made, or answers for them as they are.
        classes: in label order.
        regions: all of them; R.
        region_trust, region_agreement: [R].
        things: [n] those that are no background, the least trusted first.
    """

    name: str
    link: str
    size: tuple[int, int]
    trust: float
    confidence: float
    agreement: float
    accuracy: float
    foreground: float
    ignored: float
    label: str
    corrected: bool
    classes: Sequence[ClassShare]
    regions: Regions
    region_trust: Any
    region_agreement: Any
    things: Any

    def outlined(self) -> list[int]:
        """Regions that can be seen in the page, and are not more trusted than the image as a whole."""
        least = LEAST * self.size[0] * self.size[1]
        most = np.nan_to_num(self.trust, nan=1.0) + 1e-6  # confidences of one image differ in the last digits
        return [i for i in self.things if self.regions.areas[i] >= least and self.region_trust[i] <= most][
            :OUTLINED
        ]


@dataclass(frozen=True)
class Entry:
    """One image as the files hold it.

    Attributes:
        trust: its place.
        row: of `IMAGES`, without the rank.
        item: of `LIST`.
        shown: of the page, what is known of it at once.
        payload: of the page, what is drawn.
        regions: trust, area and row of `REGIONS`, of each.
    """

    trust: float
    row: bytes
    item: bytes
    shown: bytes
    payload: bytes
    regions: Sequence[tuple[float, int, bytes]]


def review_entry(image: ReviewedImage, names: Sequence[str], payload: Mapping[str, Any]) -> Entry:
    """An image with its regions in all four forms.

    Args:
        image: what was found.
        names: of the classes.
        payload: of the page.
    """
    found = [_region(image, names, i) for i in image.things]
    facts = {
        "trust": rounded(image.trust),
        "confidence": rounded(image.confidence),
        "agreement": rounded(image.agreement),
        "accuracy": rounded(image.accuracy),
        "width": image.size[1],
        "height": image.size[0],
        "foreground": round(image.foreground, 4),
        "ignored": round(image.ignored, 4),
    }
    name = json_safe(image.name)
    classes = [
        {
            "id": c.id,
            "share": round(c.share, 4),
            "confidence": None if c.confidence is None else round(c.confidence, 4),
        }
        for c in image.classes
        if c.pixels
    ]
    shown = {
        "name": name,
        "link": image.link,
        "label": image.label,
        **facts,
        "corrected": image.corrected,
        "classes": classes,
        "regions": [_region(image, names, i) for i in image.outlined()],
    }
    regions = [
        (image.region_trust[i], int(image.regions.areas[i]), _line([name, *_flat(region)]))
        for i, region in zip(image.things, found, strict=True)
    ]
    return Entry(
        image.trust,
        _line([name, *facts.values(), len(found)]),
        to_json({"image": name, **facts, "corrected": image.corrected, "classes": classes, "regions": found}),
        to_json(shown),
        to_json(payload),
        regions,
    )


class ReviewFiles:
    """The four files, being put together.

    Args:
        out: their folder.
        head: what is said about the run as a whole.
        classes: of the run.
        most: images that the page holds.
    """

    def __init__(self, out: Path, head: Mapping[str, Any], classes: ClassList, most: int) -> None:
        self.out, self._classes, self._most = out, classes, most
        self._head = dict(head)
        self._digest = hashlib.sha256()

    def begin(self) -> None:
        """Before the first image.

        Raises:
            OutputError: a file of that name lies there that is not ours.
        """
        for name, mark in (
            (PAGE, "clipseg"),
            (LIST, "clipseg"),
            (IMAGES, "rank,image"),
            (REGIONS, "rank,image"),
        ):
            refuse_strangers(self.out / name, mark)
        self._rows, self._items, self._shown, self._payloads, self._regions = (
            SortedSpool(self.out / PAGE) for _ in range(5)
        )

    def add(self, entry: Entry) -> None:
        """Keep an image, in the order of names.

        Raises:
            OutputError: the disk is full.
        """
        self._digest.update(entry.shown)
        for spool, data in (
            (self._rows, entry.row),
            (self._items, entry.item),
            (self._shown, entry.shown),
            (self._payloads, entry.payload),
        ):
            spool.add(data, entry.trust)
        for trust, area, row in entry.regions:
            self._regions.add(row, trust, area)

    def end(self, failures: Mapping[str, str]) -> tuple[Path, ...]:
        """Write all four files, or none.

        Args:
            failures: image -> why it is missing.

        Raises:
            OutputError: they cannot be written.
        """
        paths = tuple(self.out / name for name in (IMAGES, REGIONS, LIST, PAGE))
        said = {key: self._head[key] for key in ("run", "command", "made_by", "order", "against")}
        rows = class_table_rows(self._classes)
        with ExitStack() as stack:
            images, regions, listing, page = (stack.enter_context(replacing(path)) for path in paths)
            _write_ranked(images, IMAGE_COLUMNS, self._rows)
            _write_ranked(regions, REGION_COLUMNS, self._regions)
            told = {"format": "clipseg-review-list", "version": 1, **said}
            told |= {
                "classes": [{"id": r["id"], "name": r["name"]} for r in rows],
                "failures": dict(failures),
            }
            listing.write(to_json(told)[:-1] + b',\n"images": [')
            for i, item in enumerate(self._items):
                listing.write((b",\n" if i else b"\n") + item)
            listing.write(b"\n]}\n")
            shown = [{"id": r["id"], "name": r["name"], "color": r["overlay_color"]} for r in rows]
            head = {
                **self._head,
                "id": self._digest.hexdigest()[:16],
                "classes": shown,
                "background": self._classes.background,
                "failures": dict(failures),
                "images_in_all": len(self._rows),
            }
            write_page(page, head, *(islice(spool, self._most) for spool in (self._shown, self._payloads)))
        self.close()
        return paths

    def close(self) -> None:
        """Give the disk back."""
        for spool in (self._rows, self._items, self._shown, self._payloads, self._regions):
            spool.close()


def _region(image: ReviewedImage, names: Sequence[str], i: int) -> dict[str, Any]:
    regions, pixels = image.regions, image.size[0] * image.size[1]
    label = int(regions.labels[i])
    return {
        "region": int(i),
        "class_id": label,
        "class": json_safe(names[label]),
        "trust": rounded(image.region_trust[i]),
        "confidence": rounded(regions.confidences[i]),
        "agreement": rounded(image.region_agreement[i]),
        "box": regions.boxes[i].tolist(),
        "area": int(regions.areas[i]),
        "share": float(f"{regions.areas[i] / pixels:.4g}"),
    }


def _flat(region: Mapping[str, Any]) -> Iterable[Any]:
    """A region as a row, whose box takes four cells."""
    for key, value in region.items():
        if key == "box":
            yield from value
        else:
            yield value


def _line(cells: Iterable[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def _write_ranked(file: Any, columns: Sequence[str], rows: Iterable[bytes]) -> None:
    file.write(_line(columns))
    for rank, row in enumerate(rows, start=1):
        file.write(b"%d," % rank + row)


def by_trust(trust: Any, areas: Any, chosen: Any) -> Any:
    """[n] the chosen regions, the least trusted first, of equal ones the largest, unknown ones last."""
    keys = np.nan_to_num(trust[chosen], nan=np.inf)
    return chosen[np.lexsort((-areas[chosen], keys))]
