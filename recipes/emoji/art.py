"""Emoji artwork: fetched with npm, its licence checked, rasterised once and cached.

Each set is one npm package that holds SVG bodies by emoji name. The Twemoji set is another artist's hand and
stays out of training: it measures how far the model goes beyond the styles it saw.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recipes.emoji.concepts import Concept

DEFAULT_CACHE = Path.home() / ".cache" / "clipseg-training"
SPRITE_SIDE = 104
ALLOWED_LICENCES = ("Apache-2.0", "CC-BY-4.0", "MIT")
TRAIN_FAMILIES = (
    "noto", "noto-v1", "emojione", "fxemoji", "fluent-emoji-flat", "fluent-emoji", "streamline-emojis",
)  # fmt: skip
HELDOUT_FAMILIES = ("twemoji",)
TONES = {"medium-skin-tone": "medium", "dark-skin-tone": "dark"}
MIN_FAMILIES = 3
"""A thing is learnt when at least this many training families draw it."""

Sprite = NDArray[np.uint8]  # [h, w, 4] RGBA, cropped to the drawing


@dataclass(frozen=True)
class Family:
    """One art set, loaded: SVG bodies by squeezed name, and the facts for attribution."""

    name: str
    bodies: dict[str, tuple[str, int, int]]
    title: str
    author: str
    url: str
    licence: str
    version: str


def fetch(name: str, cache_dir: Path = DEFAULT_CACHE) -> Path:
    """Download the npm package of one set (once) and return the folder with its JSON files."""
    target = cache_dir / "packages" / name
    if not (target / "icons.json").exists():
        target.mkdir(parents=True, exist_ok=True)
        package = f"@iconify-json/{name}"
        done = subprocess.run(
            ["npm", "pack", package, "--silent"], cwd=target, capture_output=True, text=True, check=True
        )
        archive = target / done.stdout.strip().splitlines()[-1]
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                file = tar.extractfile(member) if member.name.endswith(".json") else None
                if file is not None and member.name.count("/") == 1:
                    (target / Path(member.name).name).write_bytes(file.read())
        archive.unlink()
    return target


def squeeze(name: str) -> str:
    """A name without hyphens and quotes, so that the sets' spellings meet."""
    return "".join(c for c in name.lower() if c.isalnum())


@cache
def load_family(name: str, cache_dir: Path = DEFAULT_CACHE) -> Family:
    """Load one art set, refusing a licence that is not on the list."""
    folder = fetch(name, cache_dir)
    info: dict[str, Any] = json.loads((folder / "info.json").read_text())
    licence = info["license"]["spdx"]
    if licence not in ALLOWED_LICENCES:
        raise ValueError(f"{name}: licence {licence} is not one of {', '.join(ALLOWED_LICENCES)}")
    data: dict[str, Any] = json.loads((folder / "icons.json").read_text())
    width, height = data.get("width", 16), data.get("height", 16)
    bodies = {
        squeeze(key): (icon["body"], icon.get("width", width), icon.get("height", height))
        for key, icon in data["icons"].items()
    }
    for alias, entry in data.get("aliases", {}).items():
        if set(entry) == {"parent"} and squeeze(entry["parent"]) in bodies:
            bodies.setdefault(squeeze(alias), bodies[squeeze(entry["parent"])])
    version = json.loads((folder / "package.json").read_text())["version"]
    author = info["author"]
    return Family(name, bodies, info["name"], author["name"], author["url"], licence, version)


def rasterise(body: str, width: int, height: int, side: int) -> Sprite:
    """Draw one SVG body and crop it to its visible part."""
    import resvg_py

    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    rgba = decode_sprite(np.frombuffer(bytes(png), np.uint8))
    ys, xs = np.nonzero(rgba[..., 3] > 24)
    if len(ys) == 0:
        return np.zeros((1, 1, 4), np.uint8)
    return np.ascontiguousarray(rgba[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])


def decode_sprite(png: NDArray[np.uint8]) -> Sprite:
    """RGBA pixels of PNG bytes."""
    pixels = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("not a PNG")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA), np.uint8)


def glyph_keys(glyph: str) -> list[str]:
    """The names under which a glyph, its numbered variants and its darker skin tones may be found."""
    keys = [squeeze(f"{glyph}{suffix}") for suffix in ("", "-1", "-2", "-3", "-face", "-face-1", "-face-2")]
    if any(word in glyph for word in ("man", "woman", "person", "boy", "girl", "superhero", "supervillain")):
        for long, short in TONES.items():
            keys += [squeeze(f"{glyph}-{long}"), squeeze(f"{glyph}-{short}")]
    return keys


def draw_concept(concept: Concept, family: Family, side: int) -> list[Sprite]:
    """Every drawing of a concept in one family, without repeats."""
    sprites: list[Sprite] = []
    seen: set[str] = set()
    for glyph in concept.glyphs:
        for key in glyph_keys(glyph):
            entry = family.bodies.get(key)
            if entry is None or entry[0] in seen:
                continue
            seen.add(entry[0])
            sprite = rasterise(*entry, side)
            if min(sprite.shape[:2]) > side // 10:
                sprites.append(sprite)
    return sprites


SpriteBank = dict[str, dict[str, list[Sprite]]]  # concept -> family -> drawings


def load_sprites(
    concepts: list[Concept],
    families: tuple[str, ...],
    cache_dir: Path = DEFAULT_CACHE,
    side: int = SPRITE_SIDE,
) -> SpriteBank:
    """All drawings of the concepts in the named families; rasterised once, then read from the cache."""
    bank: SpriteBank = {concept.name: {} for concept in concepts}
    for name in families:
        path = cache_dir / "sprites" / f"{name}-{side}.npz"
        stamp = json.dumps([[c.name, *c.glyphs] for c in concepts])
        if not path.exists() or not _matches(path, stamp):
            _write_cache(
                path, stamp, {c.name: draw_concept(c, load_family(name, cache_dir), side) for c in concepts}
            )
        with np.load(path) as store:
            for key in store.files:
                if key == "stamp":
                    continue
                concept = key.rsplit("#", 1)[0]
                bank[concept].setdefault(name, []).append(decode_sprite(store[key]))
    return bank


def _matches(path: Path, stamp: str) -> bool:
    with np.load(path) as store:
        return io.BytesIO(store["stamp"].tobytes()).read().decode() == stamp


def _write_cache(path: Path, stamp: str, drawings: dict[str, list[Sprite]]) -> None:
    arrays: dict[str, Any] = {"stamp": np.frombuffer(stamp.encode(), np.uint8)}
    for concept, sprites in drawings.items():
        for i, sprite in enumerate(sprites):
            done, png = cv2.imencode(".png", cv2.cvtColor(sprite, cv2.COLOR_RGBA2BGRA))
            if done:
                arrays[f"{concept}#{i}"] = png.ravel()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
