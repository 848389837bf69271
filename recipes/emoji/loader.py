"""Batches of scenes with patch labels, made by background processes (numpy and cv2 only)."""

from __future__ import annotations

import multiprocessing as mp
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from recipes.emoji.scenes import Scene, SceneMaker, SceneStyle
from recipes.emoji.vocabulary import load_vocabulary

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from numpy.typing import NDArray

PATCH = 8
MAX_INSTANCES = 9
BATCH_AT = {96: 32, 160: 11, 224: 6}
SCENES, CROPS = False, True
EARLY_MIX = {(SCENES, 96): 0.62, (SCENES, 160): 0.1, (SCENES, 224): 0.06,
             (CROPS, 96): 0.12, (CROPS, 160): 0.04, (CROPS, 224): 0.06}  # fmt: skip
LATE_MIX = {(SCENES, 96): 0.36, (SCENES, 160): 0.12, (SCENES, 224): 0.18,
            (CROPS, 96): 0.08, (CROPS, 160): 0.06, (CROPS, 224): 0.2}  # fmt: skip
"""Share of the batches of each kind and side: at first, and from `LATE_FROM` of the run on."""

LATE_FROM = 0.5
CROPPED_SIDE, CROPS_A_SCENE, SMALLEST_CROP = 224, 4, 0.22
"""Crops are cut as CLIP-DIY does: squares of a quarter of the image's side to all of it, seen at one size."""


@dataclass
class Batch:
    """Scenes of one size, or crops of scenes. B scenes, N patches, K = MAX_INSTANCES.

    Attributes:
        images: [B, S, S, 3] uint8.
        patch_labels: [B, N] concept numbers of the instance that covers most of the patch.
        patch_weights: [B, N] the share of the patch that it covers, 0..1.
        is_thing: [B, N] True where that instance is a thing, not a surface.
        cover: [B, K, N] share of each patch that each instance covers, 0..1.
        labels: [B, K] concept number of each instance, -1 for none.
        thing_instances: [B, K] True where an instance is a thing.
        crops: True where the images are crops.
    """

    images: NDArray[np.uint8]
    patch_labels: NDArray[np.int64]
    patch_weights: NDArray[np.float32]
    is_thing: NDArray[np.bool_]
    cover: NDArray[np.float32]
    labels: NDArray[np.int64]
    thing_instances: NDArray[np.bool_]
    crops: bool = False


def collate(scenes: list[Scene], first_surface: int, *, crops: bool = False) -> Batch:
    """Stack scenes of one size; concepts from `first_surface` on are painted surfaces."""
    count, size = len(scenes), scenes[0].image.shape[0]
    h = size // PATCH
    cover = np.zeros((count, MAX_INSTANCES, h * h), np.float32)
    labels = np.full((count, MAX_INSTANCES), -1, np.int64)
    for i, scene in enumerate(scenes):
        for k, label in enumerate(scene.labels[:MAX_INSTANCES]):
            mask = (scene.instances == k).astype(np.float32)
            cover[i, k] = cv2.resize(mask, (h, h), interpolation=cv2.INTER_AREA).ravel()
            labels[i, k] = label
    winner = cover.argmax(1)  # [B, N]
    patch_labels = np.take_along_axis(labels, winner, 1)
    return Batch(
        np.stack([scene.image for scene in scenes]),
        patch_labels,
        cover.max(1),
        patch_labels < first_surface,
        cover,
        labels,
        (labels >= 0) & (labels < first_surface),
        crops,
    )


def cut(rng: np.random.Generator, scene: Scene, side: int) -> Scene:
    """A random square of a scene, at another size; small ones are enlarged, and blurred by it."""
    whole = scene.image.shape[0]
    part = max(8, round(whole * float(np.exp(rng.uniform(np.log(SMALLEST_CROP), 0)))))
    y, x = rng.integers(0, whole - part + 1, 2)
    at = slice(y, y + part), slice(x, x + part)
    flavour = cv2.INTER_AREA if part > side else (cv2.INTER_CUBIC, cv2.INTER_LINEAR)[int(rng.integers(2))]
    image = cv2.resize(scene.image[at], (side, side), interpolation=flavour)
    instances = cv2.resize(scene.instances[at], (side, side), interpolation=cv2.INTER_NEAREST)
    return Scene(np.asarray(image, np.uint8), np.asarray(instances, np.uint8), scene.labels)


def make_batch(maker: SceneMaker, first_surface: int, side: int, *, crops: bool) -> Batch:
    """A fresh batch of scenes, or of crops of larger ones."""
    count = BATCH_AT[side]
    if not crops:
        return collate([maker.make(side) for _ in range(count)], first_surface)
    scenes = [maker.make(CROPPED_SIDE) for _ in range(-(-count // CROPS_A_SCENE))]
    cuts = [cut(maker.rng, scenes[i // CROPS_A_SCENE], side) for i in range(count)]
    return collate(cuts, first_surface, crops=True)


Mix = dict[tuple[bool, int], float]
"""Share of the batches of each kind and side."""


def _work(queue: Any, progress: Synchronized[float], seed: int, early: Mix, late: Mix) -> None:
    cv2.setNumThreads(1)
    os.nice(5)
    vocabulary = load_vocabulary()
    first_surface = min(i for i, c in enumerate(vocabulary.concepts) if not vocabulary.bank.get(c.name))
    maker = SceneMaker(vocabulary, seed, SceneStyle())
    while True:
        mix = early if progress.value < LATE_FROM else late
        crops, side = list(mix)[int(maker.rng.choice(len(mix), p=list(mix.values())))]
        queue.put(make_batch(maker, first_surface, side, crops=crops))


class Loader:
    """A queue of batches filled by `workers` processes; `progress` (0..1) steers the mix of sizes, `mix` fixes it."""

    def __init__(self, workers: int, seed: int, mix: Mix | None = None) -> None:
        context = mp.get_context("spawn")
        self.queue: Any = context.Queue(maxsize=6 * workers)
        self.progress = context.Value("d", 0.0)
        self.processes = [
            context.Process(
                target=_work,
                args=(self.queue, self.progress, seed + i, mix or EARLY_MIX, mix or LATE_MIX),
                daemon=True,
            )
            for i in range(workers)
        ]
        for process in self.processes:
            process.start()

    def next(self) -> Batch:
        """The next batch; raises if a worker died."""
        if not all(process.is_alive() for process in self.processes):
            raise RuntimeError("a scene worker died")
        batch: Batch = self.queue.get(timeout=300)
        return batch

    def close(self) -> None:
        """Stop the workers."""
        for process in self.processes:
            process.terminate()
