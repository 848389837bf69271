"""`shares.json`: what share of each image each class took, of all images in the folder.

`images` maps the name of an image to its `height`, `width` and `classes`, a list of id, name, pixels, share and
confidence. Images of earlier runs in the same folder keep their entries.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any

from clipseg_cli.outputs._own import MARK, refuse_strangers, write_own
from clipseg_cli.outputs._run import json_safe
from clipseg_cli.types import Format

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from clipseg_cli.types import RunInfo, Segmentation

FILE = "shares.json"


class Shares:
    """Entries of all images, written at the end."""

    def __init__(self, run: RunInfo, out: Path) -> None:
        self._path, self._version = out / FILE, run.versions.get("clipseg", "")
        self._images: dict[str, Any] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Take over what earlier runs wrote.

        Raises:
            OutputError: another file of that name lies there.
        """
        refuse_strangers(self._path)
        try:
            self._images = dict(json.loads(self._path.read_text(encoding="utf-8"))["images"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            self._images = {}

    def write(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """Note one image; its file comes at the end."""
        del stem
        height, width = result.labels.shape
        classes = [dataclasses.asdict(share) for share in result.shares() if share.pixels]
        with self._lock:
            self._images[result.image.source.name] = {
                "height": height,
                "width": width,
                "classes": classes,
            }
        return ()

    def end(self) -> Sequence[Path]:
        """Write `shares.json`, sorted by name."""
        if not self._images:
            return ()
        data = json_safe({MARK: self._version, "images": dict(sorted(self._images.items()))})
        return (write_own(self._path, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()),)


FORMAT = Format(Shares, summary="shares.json: share and confidence of each class in each image")
