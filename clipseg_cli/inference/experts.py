"""`--templates floss:FOLDER`: for each class the templates that are surest of it on unlabelled images (FLOSS).

The images are read with every template alone; the choice and its classifiers are kept in the cache, under a name that
holds for these weights, words, settings and files. Entropies are those of the merged map on the grid of patches, or of
pixels at network size where a protocol averages pixels, and not of full-size maps.

Reference: yasserben/FLOSS@ccf1d49 (arXiv:2504.10487).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from clipseg_cli.data.image_files import find_images
from clipseg_cli.data.images import read_image
from clipseg_cli.errors import ClipsegError, ImageError, OutputError, UsageError
from clipseg_cli.inference.expert_classifier import Experts
from clipseg_cli.models.clip.text_classifier import cache_folder, embed_prompts
from clipseg_cli.ops.experts import Surprise, choose_experts, expert_embeddings, surprise
from clipseg_cli.ops.similarity import merge_aliases
from clipseg_cli.types import LogitMaps
from clipseg_cli.utils.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.models.clip.backbones import Backbone
    from clipseg_cli.types import DenseFeatures, ImageSource

COUNT = 4
"""Experts of a class, as published."""

ROOM = 64 << 20
"""Bytes of maps of all templates that are looked at together."""

logger = logging.getLogger(__name__)


def find_experts(
    predictor: Predictor,
    backbone: Backbone,
    prompts: Sequence[Sequence[str]],
    folder: Path,
    *,
    method: str,
    max_megapixels: float,
) -> Experts:
    """The experts of each class of a predictor, chosen on the images of a folder, or as they were chosen before.

    Args:
        predictor: with the usual classifier, and nothing else on than what reads images.
        backbone: its CLIP.
        prompts: [Q][T] every word in every template.
        folder: of unlabelled images.
        method: its name, for the cache.
        max_megapixels: larger images are refused before they are decoded.

    Raises:
        ClipsegError: no image of the folder can be read.
    """
    sources, failures = find_images([str(folder)], twins="suffix")
    if not sources:
        raise failures[0] if failures else ClipsegError(f"{folder}: no images to choose templates on")
    path = cache_folder() / "experts" / f"{_key(predictor, backbone, prompts, sources, method)}.safetensors"
    kept = _read(path, len(predictor.classes))
    if kept is None:
        raw = embed_prompts(backbone.model, backbone.tokenizer, prompts, device=predictor.device)  # [Q, T, D]
        ranked, images = _ranked(predictor, raw, sources, max_megapixels)
        numbers = choose_experts(ranked, COUNT)
        kept = Experts(numbers, expert_embeddings(raw, numbers).cpu(), images)
        _keep(path, kept)
    return dataclasses.replace(kept, text_embeds=kept.text_embeds.to(predictor.device))


@torch.inference_mode()
def _ranked(
    predictor: Predictor, raw: Tensor, sources: Sequence[ImageSource], max_megapixels: float
) -> tuple[Surprise, int]:
    """How unsure each template is of each class over all images that can be read, and how many these are."""
    queries, templates, _ = raw.shape
    alone = torch.nn.functional.normalize(raw, dim=2).transpose(0, 1)  # [T, Q, D]
    total: Surprise | None = None
    images = 0
    for source in sources:
        try:
            image = read_image(source, max_megapixels=max_megapixels)
        except ImageError as error:
            logger.warning("%s", error)
            continue
        prepared = predictor.prepare(image)
        height, width = prepared.resized.shape[:2]
        some = max(1, ROOM // (4 * queries * max(1, height * width // predictor.settings.cell**2)))
        features = list(_features(predictor, prepared))
        rows = []
        for part in alone.split(some):
            logits = _merged(predictor, prepared, features, part.flatten(0, 1))  # [T' * Q, h, w]
            words = (predictor.words.scale * logits.unflatten(0, (-1, queries))).softmax(dim=1)
            classes = predictor.classes
            of_classes = merge_aliases(words.transpose(0, 1), classes.query_to_class, len(classes))
            rows.append(surprise(of_classes.transpose(0, 1)))
        found = Surprise(
            torch.cat([row.total for row in rows], dim=1).cpu(),
            torch.cat([row.pixels for row in rows], dim=1).cpu(),
            rows[0].seen,
        )
        total = found if total is None else total + found
        images += 1
    if total is None:
        raise ClipsegError("none of the images to choose templates on can be read")
    assert total.total.shape[1] == templates
    return total, images


def _features(predictor: Predictor, image: Prepared) -> Iterator[DenseFeatures]:
    """What the network says of each window."""
    pixels = predictor.normalise(torch.from_numpy(image.resized).to(predictor.device).permute(2, 0, 1))
    for window in image.windows:
        rows, columns = window.slices
        with torch.autocast(predictor.device.type, predictor.dtype, enabled=predictor.dtype != torch.float32):
            yield predictor.reader(pixels[None, :, rows, columns])


def _merged(
    predictor: Predictor, image: Prepared, features: Sequence[DenseFeatures], text_embeds: Tensor
) -> Tensor:
    """Cosines of an image with some words [Q', D], before any step: [Q', h, w]."""
    parts = [LogitMaps((predictor.reader.logits(one.features, text_embeds)[0],)) for one in features]
    size = (image.resized.shape[0], image.resized.shape[1])
    return predictor.tiling.merge(parts, image.windows, [one.padding for one in features], size).maps[0]


def _key(
    predictor: Predictor,
    backbone: Backbone,
    prompts: Sequence[Sequence[str]],
    sources: Sequence[ImageSource],
    method: str,
) -> str:
    files = [(str(s.path), s.path.stat().st_size, s.path.stat().st_mtime_ns) for s in sources if s.path]
    facts = [
        backbone.fingerprint,
        method,
        str(predictor.dtype),
        predictor.describe(),
        list(predictor.classes.query_to_class),
        prompts,
        files,
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:40]


def _read(path: Path, classes: int) -> Experts | None:
    try:
        kept = load(path.read_bytes())
        found = Experts(kept["numbers"], kept["text_embeds"], int(kept["images"]))
    except (OSError, KeyError, SafetensorError):
        return None
    return found if len(found.numbers) == classes == len(found.text_embeds) - 1 else None


def _keep(path: Path, experts: Experts) -> None:
    tensors = {
        "numbers": experts.numbers,
        "text_embeds": experts.text_embeds.contiguous(),
        "images": torch.tensor(experts.images),
    }
    try:
        write_bytes(path, save(tensors))
    except OutputError:
        # A cache that cannot be written costs time in the next run, never a result.
        return


def check_experts(folder: Path, *, words_in_sight: bool, crops: bool) -> None:
    """Prove what can be proved of `--templates floss:FOLDER` before a model is loaded.

    Raises:
        UsageError: no such folder, or a method that it does not go with.
    """
    if not folder.is_dir():
        raise UsageError(
            f"--templates floss:{folder}: no such folder", hint="name a folder of unlabelled images"
        )
    if words_in_sight or crops:
        raise UsageError(
            "--templates floss:FOLDER chooses a classifier for each patch, which this method does not work with",
            hint="take other --templates, or choose another --method",
        )
