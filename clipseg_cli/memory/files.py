"""A bank on the disk: `bank.json` with its facts, and one file of tensors for each image, each written whole.

The facts are written twice: when a bank is begun, so that nobody goes on with other options, and when it is whole, with
the fingerprint of all that is in it. An image whose file is there and made of the same bytes is not read again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from clipseg_cli import __version__
from clipseg_cli.errors import RunError
from clipseg_cli.utils.files import write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

FACTS = "bank.json"
LABELS, REGIONS = "labels", "regions"
"""What a bank may remember."""

FORMATS = {LABELS: 2, REGIONS: 1}
"""Of what is remembered of an image; a bank of another one is made anew."""

IMAGES = "pictures"
"""What a bank calls its images: an entry of `bank.json`, and the folder of their tensors."""

_ANEW = "make it anew with clipseg index, into another --out"


@dataclass(frozen=True)
class Facts:
    """What a bank is.

    Attributes:
        kind: `LABELS` or `REGIONS`.
        identity: all that what is remembered of an image depends on: model, method, sizes, classes.
        images: name of each image that is remembered -> fingerprint of what it was made of; empty until whole.
        fingerprint: of all that is in it; empty until it is whole.
    """

    kind: str
    identity: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


def content_of(*parts: bytes) -> str:
    """Fingerprint of some bytes: 16 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return found.hexdigest()[:16]


def image_file(bank: Path, name: str) -> Path:
    """Where an image's tensors lie, whatever its name holds."""
    return (
        bank
        / IMAGES
        / f"{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:24]}.safetensors"
    )


def begin(bank: Path, facts: Facts, names: Iterable[str]) -> frozenset[str]:
    """Write the facts of a bank that is not whole yet.

    Args:
        bank: its folder.
        facts: of what is to be remembered.
        names: of the images.

    Returns:
        Names of the images that the bank remembered when it was last whole.

    Raises:
        RunError: there is a bank already that was made in another way, or of other images alone.
        OutputError: it cannot be written.
    """
    there = read_facts(bank, whole=False)
    if there is not None and (there.kind, there.identity) != (facts.kind, _plain(facts.identity)):
        changed = sorted(
            k
            for k in {*there.identity, *facts.identity}
            if there.identity.get(k) != _plain(facts.identity).get(k)
        )
        what = f"other {', '.join(changed)}" if changed and there.kind == facts.kind else there.kind
        raise RunError(f"{bank} is a bank of {what}", hint="use the same options to go on, or another --out")
    before = frozenset(there.images if there else ())
    if before and before.isdisjoint(names):
        raise RunError(
            f"{bank} is a bank of other images: {min(before)}"
            + (f" and {len(before) - 1:,} more" if len(before) > 1 else ""),
            hint="index these images into another --out",
        )
    _write(bank, Facts(facts.kind, facts.identity))
    return before


def finish(bank: Path, facts: Facts) -> Facts:
    """Write the facts of a bank that is whole, and remove what is left of images that are in it no more.

    Returns:
        The same with its fingerprint.
    """
    kept = {image_file(bank, name) for name in facts.images}
    for path in (bank / IMAGES).glob("*.safetensors"):
        if path not in kept:
            path.unlink(missing_ok=True)
    text = json.dumps([facts.kind, _plain(facts.identity), dict(facts.images)], sort_keys=True)
    whole = Facts(facts.kind, facts.identity, facts.images, content_of(text.encode(errors="surrogatepass")))
    _write(bank, whole)
    return whole


def read_facts(bank: Path, *, whole: bool = True) -> Facts | None:
    """The facts of a bank; None where there are none and `whole` is not asked for.

    Raises:
        RunError: it is no bank, damaged, of another version, or, where `whole`, not finished or empty.
    """
    path = bank / FACTS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not whole:
            return None
        raise RunError(
            f"{bank} is no bank: it has no {FACTS}",
            hint="make one with clipseg index FOLDER --out BANK, or of labels with --labels",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {error}", hint=_ANEW) from error
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("kind"), str)
        or not isinstance(data.get("identity"), dict)
    ):
        raise RunError(f"{path} is not the record of a bank that this clipseg reads", hint=_ANEW)
    if data.get("format") != FORMATS.get(data["kind"], data.get("format")):
        made = data.get("clipseg", "another version")
        raise RunError(f"{bank} was made by clipseg {made}, which remembered less or more", hint=_ANEW)
    facts = Facts(data["kind"], data["identity"], data.get(IMAGES) or {}, data.get("fingerprint") or "")
    if whole and not facts.fingerprint:
        raise RunError(f"{bank} is not finished", hint="the command that began it goes on with it")
    if whole and not facts.images:
        raise RunError(f"{bank} is empty", hint="index images again, or correct a label first")
    return facts


def write_image(bank: Path, name: str, content: str, tensors: Mapping[str, Tensor]) -> None:
    """What is remembered of an image, whole or not at all."""
    data = save(
        {k: v.contiguous() for k, v in tensors.items()},
        {"image": content_of(name.encode(errors="surrogateescape")), "content": content},
    )
    write_bytes(image_file(bank, name), data)


def known_content(bank: Path, name: str) -> str:
    """Fingerprint of what an image that is remembered was made of; empty where it is not."""
    try:
        with safe_open(image_file(bank, name), "pt") as file:
            return str((file.metadata() or {}).get("content", ""))
    except (OSError, SafetensorError):
        return ""


def read_images(bank: Path, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """What is remembered of some images.

    Raises:
        RunError: a file is missing or damaged.
    """
    for name in names:
        path = image_file(bank, name)
        try:
            with safe_open(path, "pt") as file:
                yield {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"what {bank} remembers of {name} is missing or damaged",
                hint="the command that made the bank reads that image again",
            ) from error


def _write(bank: Path, facts: Facts) -> None:
    record = {
        "format": FORMATS[facts.kind],
        "clipseg": __version__,
        "torch": torch.__version__,
        "kind": facts.kind,
        "identity": facts.identity,
        IMAGES: facts.images,
        "fingerprint": facts.fingerprint,
    }
    write_json(bank / FACTS, record)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as it would come back from JSON."""
    found: dict[str, Any] = json.loads(json.dumps(value))
    return found
