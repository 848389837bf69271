"""`features/`: what the network said of the images of a run, for labels with more words without the network.

A safetensors file for each image: float16 tensors "0.features", "1.features" ... of its windows, and what the steps of
the run look at beside them; in the metadata with what they were made, of which bytes, and a checksum.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clipseg_cli.outputs import json_safe
from clipseg_cli.utils.files import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

FOLDER = "features"
COST = "cost.json"
ENDING = ".safetensors"
KEY = "clipseg"
"""Of the metadata: JSON with `made`, `content` and `checksum`."""

FORMAT = "safetensors, float16"

_OF_THE_WORDS = ("classes", "background", "templates", "unseen", "min_confidence")


def made_with(identity: Mapping[str, Any]) -> str:
    """Fingerprint of all that features depend on, and nothing of the words: 16 hexadecimal digits."""
    known = json_safe(identity)
    options = {key: value for key, value in known["options"].items() if key not in _OF_THE_WORDS}
    parts = [options, *(known[key] for key in ("method", "model", "settings", "versions"))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def feature_path(folder: Path, image: str) -> Path:
    """Where the features of an image lie."""
    return folder / FOLDER / f"{image}{ENDING}"


@dataclass(frozen=True)
class FeatureStore:
    """The features of a run; may be used by several threads at once.

    Attributes:
        folder: of the run.
        made: `made_with` of the run.
    """

    folder: Path
    made: str

    def read(
        self, image: str, content: str, windows: int
    ) -> tuple[list[dict[str, NDArray[Any]]] | None, str]:
        """What is kept of an image, or None and why that cannot be used: "missing", "damaged", "of another ...".

        Args:
            image: its name.
            content: fingerprint of its file.
            windows: that the network sees of it.
        """
        path = feature_path(self.folder, image)
        found: list[dict[str, NDArray[Any]]] = [{} for _ in range(windows)]
        try:
            with safe_open(path, "np") as file:
                facts = json.loads((file.metadata() or {}).get(KEY, "{}"))
                if facts.get("made") != self.made:
                    return None, "made in another way"
                if facts.get("content") != content:
                    return None, "of other bytes"
                for key in file.keys():  # noqa: SIM118  (not a mapping)
                    number, _, name = key.partition(".")
                    found[int(number)][name] = file.get_tensor(key)
        except FileNotFoundError:
            return None, "missing"
        except (OSError, SafetensorError, ValueError, IndexError, AttributeError):
            return None, "damaged"
        sound = all("features" in own for own in found) and facts.get("checksum") == _checksum(found)
        return (found, "") if sound else (None, "damaged")

    def write(self, image: str, content: str, windows: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Keep the features of an image, whole or not at all.

        Raises:
            OutputError: they cannot be written.
        """
        tensors = {f"{i}.{name}": values for i, own in enumerate(windows) for name, values in own.items()}
        facts = {"made": self.made, "content": content, "checksum": _checksum(windows)}
        # One entry, since several are written in any order.
        data = save(tensors, {KEY: json.dumps(facts)})
        write_bytes(feature_path(self.folder, image), data)

    def seconds_each(self) -> float | None:
        """How long the images took of which features were made; None where nobody knows."""
        images, seconds = self._cost()
        return seconds / images if images else None

    def add_cost(self, images: int, seconds: float) -> None:
        """Note how long some images took.

        Raises:
            OutputError: it cannot be written.
        """
        before = self._cost()
        cost = {"images": before[0] + images, "seconds": round(before[1] + seconds, 3)}
        write_json(self.folder / FOLDER / COST, cost)

    def _cost(self) -> tuple[int, float]:
        try:
            data = json.loads((self.folder / FOLDER / COST).read_text(encoding="utf-8"))
            return max(0, int(data["images"])), max(0.0, float(data["seconds"]))
        except (OSError, ValueError, LookupError, TypeError):
            return 0, 0.0


def kept_features(folder: Path, images: Iterable[str]) -> dict[str, Any]:
    """What a run keeps of some images, for its manifest."""
    sizes = []
    for image in images:
        try:
            sizes.append(feature_path(folder, image).stat().st_size)
        except OSError:
            continue
    return {"format": FORMAT, "images": len(sizes), "bytes": sum(sizes)}


def _checksum(windows: Sequence[Mapping[str, NDArray[Any]]]) -> str:
    crc = 0
    for own in windows:
        for name, values in sorted(own.items()):
            crc = zlib.crc32(
                values.tobytes(), zlib.crc32(f"{name}{values.shape}{values.dtype}".encode(), crc)
            )
    return f"{crc:08x}"
