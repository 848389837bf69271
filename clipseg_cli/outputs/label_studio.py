"""`label_studio.json` and `label_studio.xml`: predictions for Label Studio to import, and its labelling configuration.

One brush for each region, as Label Studio's own run lengths, so that nothing is lost; the background has none. A
prediction's score is the mean confidence of what is not background, by which the Data Manager sorts. Images are
looked for in local storage (`/data/local-files/?d=<folder>/<image>`): it cannot be the document root itself, but any
folder in it, and is that of the images where the root is the folder above theirs. Images of earlier runs in the same
folder keep their predictions. Format: labelstud.io/guide/predictions, .../storage.
"""

from __future__ import annotations

import hashlib
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import numpy as np

from clipseg_cli.ops.rle import brush_bytes
from clipseg_cli.outputs._colors import class_colors, hex_color
from clipseg_cli.outputs._own import MARK, refuse_strangers, write_own
from clipseg_cli.outputs._regions import (
    AREAS,
    Lost,
    class_numbers,
    image_name,
    regions_of,
    rounded,
    runs_along,
    things,
    writable_names,
)
from clipseg_cli.outputs._spool import Collected, Spool, read_lines, to_json, write_lines
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from clipseg_cli.outputs._spool import Entry
    from clipseg_cli.types import RunInfo, Segmentation, Writer

FILE, CONFIG = "label_studio.json", "label_studio.xml"
LOCAL = "/data/local-files/?d="
_TAG, _IMAGE = "tag", "image"


class LabelStudio(Collected):
    """Predictions for all images, and the configuration that they need."""

    def __init__(self, run: RunInfo, out: Path, min_area: int) -> None:
        self._run, self._out, self._min_area = run, out, min_area
        self._names = writable_names(run.classes)
        self._lost = Lost("label-studio")
        super().__init__(
            out / FILE, entry=self._task, read=_read_tasks, join=_join_tasks, said=self._lost.say
        )

    def begin(self) -> None:
        """Take over what earlier runs wrote.

        Raises:
            OutputError: another file of one of the names lies there, or one that is damaged.
        """
        refuse_strangers(self._out / CONFIG)
        super().begin()

    def end(self) -> Sequence[Path]:
        """Write both files.

        Raises:
            OutputError: one of them cannot be written.
        """
        written = super().end()
        return (*written, write_own(self._out / CONFIG, self._config().encode())) if written else ()

    def _config(self) -> str:
        classes = self._run.classes
        colors = class_colors(len(classes), classes.background)
        labels = "".join(
            f'    <Label value="{escape(name, _QUOTES)}" background="{hex_color(color)}"/>\n'
            for number, name, color in zip(class_numbers(classes), self._names, colors, strict=True)
            if number
        )
        return (
            f"<!-- {MARK} {self._run.versions.get('clipseg', '')} -->\n<View>\n"
            f'  <Image name="{_IMAGE}" value="$image" zoom="true"/>\n'
            f'  <BrushLabels name="{_TAG}" toName="{_IMAGE}">\n{labels}  </BrushLabels>\n</View>\n'
        )

    def _task(self, result: Segmentation, stem: Path) -> Entry:
        name = image_name(result, stem, self._out)
        self._lost.ignored(result)
        begins = hashlib.sha256(name.encode()).hexdigest()[:10]
        return name, to_json(
            {
                "meta": {MARK: self._run.versions.get("clipseg", ""), "image": name},
                "data": {"image": LOCAL + quote(_below_root(result, name))},
                "predictions": [
                    {
                        "model_version": model_version(self._run),
                        **prediction(result, self._names, begins, min_area=self._min_area),
                    }
                ],
            }
        )


def _below_root(result: Segmentation, name: str) -> str:
    """The name of an image with that of the folder of all images before it, as far as that is known."""
    source = result.image.source
    if source.path is None:
        return name
    above = source.path.absolute().parents[len(source.relative.parts) - 1 :][:1]
    folder = above[0].name.encode(errors="replace").decode() if above else ""
    return f"{folder}/{name}" if folder else name


def model_version(run: RunInfo) -> str:
    """As in "clipseg 0.1.0 emoji vanilla"."""
    return f"{MARK} {run.versions.get('clipseg', '')} {run.made_by}".strip()


def prediction(
    result: Segmentation,
    names: Sequence[str],
    begins: str,
    *,
    min_area: int = 0,
    tags: tuple[str, str] = (_TAG, _IMAGE),
) -> dict[str, Any]:
    """`result` and, where confidence is known, `score`, as Label Studio takes a prediction for one image.

    Args:
        result: its regions become brushes, those of the background none.
        names: of the classes, as the labelling configuration has them; an empty one leaves a class out.
        begins: what the ids of the brushes begin with, another one for each image.
        min_area: smaller regions, in pixels, go to their surroundings.
        tags: names of the brush and of the image in the labelling configuration.
    """
    regions = regions_of(result, min_area)
    own = [i for i in things(result, regions) if names[regions.labels[i]]]
    made: dict[str, Any] = {
        "result": [_brush(result, i, f"{begins}-{i}", names, min_area, tags) for i in own]
    }
    areas = regions.areas[own]
    mean = float(areas @ regions.confidences[own] / areas.sum()) if own else np.nan
    score = rounded(mean)
    return made if score is None else {**made, "score": score}


def _brush(
    result: Segmentation,
    region: int,
    name: str,
    names: Sequence[str],
    min_area: int,
    tags: tuple[str, str],
) -> dict[str, Any]:
    regions = regions_of(result, min_area)
    runs = runs_along(result, min_area, "rows").of(region)
    height, width = result.labels.shape
    brush = {
        "id": name,
        "type": "brushlabels",
        "from_name": tags[0],
        "to_name": tags[1],
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "format": "rle",
            "rle": brush_bytes(*runs, height * width).tolist(),
            "brushlabels": [names[regions.labels[region]]],
        },
    }
    score = rounded(regions.confidences[region])
    return brush if score is None else {**brush, "score": score}


_QUOTES = {'"': "&quot;", "\t": "&#9;"}


def _join_tasks(spool: Spool, file: IO[bytes]) -> None:
    write_lines(file, b"[", (data for _, data in spool), b"]\n")


def _read_tasks(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        for _, task in read_lines(file, "tasks"):
            yield str(task["meta"]["image"]), to_json(task)


def open_label_studio(run: RunInfo, out: Path, *, min_area: int = 0) -> Writer:
    """A writer of both files; `min_area`: smaller regions, in pixels, go to their surroundings."""
    return LabelStudio(run, out, min_area)


FORMAT = Format(
    open_label_studio,
    ranges={"min_area": AREAS},
    summary="label_studio.json: predictions as brushes, and label_studio.xml: the configuration for them",
)
