"""Batches of scenes with patch labels, made by background processes (numpy and cv2 only)."""

from __future__ import annotations

import multiprocessing as mp
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from training.scenes import Scene, SceneMaker, SceneStyle, load_vocabulary

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from numpy.typing import NDArray

PATCH = 8
MAX_INSTANCES = 9
BATCH_AT = {96: 24, 160: 9, 224: 5}
EARLY_MIX = {96: 0.85, 160: 0.15}
LATE_MIX = {96: 0.6, 160: 0.2, 224: 0.2}
LATE_FROM = 0.8


@dataclass
class Batch:
    """Scenes of one size. B scenes, N patches, K = MAX_INSTANCES.

    Attributes:
        images: [B, S, S, 3] uint8.
        patch_labels: [B, N] concept numbers of the instance that covers most of the patch.
        patch_weights: [B, N] the share of the patch that it covers, 0..1.
        is_thing: [B, N] True where that instance is a thing, not a surface.
        cover: [B, K, N] share of each patch that each instance covers, 0..1.
        labels: [B, K] concept number of each instance, -1 for none.
    """

    images: NDArray[np.uint8]
    patch_labels: NDArray[np.int64]
    patch_weights: NDArray[np.float32]
    is_thing: NDArray[np.bool_]
    cover: NDArray[np.float32]
    labels: NDArray[np.int64]


def collate(scenes: list[Scene], first_surface: int) -> Batch:
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
    )


def _work(queue: Any, progress: Synchronized[float], seed: int) -> None:
    cv2.setNumThreads(1)
    os.nice(5)
    vocabulary = load_vocabulary()
    first_surface = min(i for i, c in enumerate(vocabulary.concepts) if not vocabulary.bank.get(c.name))
    maker = SceneMaker(vocabulary, seed, SceneStyle())
    while True:
        mix = EARLY_MIX if progress.value < LATE_FROM else LATE_MIX
        size = int(maker.rng.choice(list(mix), p=list(mix.values())))
        queue.put(collate([maker.make(size) for _ in range(BATCH_AT[size])], first_surface))


class Loader:
    """A queue of batches filled by `workers` processes; `progress` (0..1) steers the mix of sizes."""

    def __init__(self, workers: int, seed: int) -> None:
        context = mp.get_context("spawn")
        self.queue: Any = context.Queue(maxsize=6 * workers)
        self.progress = context.Value("d", 0.0)
        self.processes = [
            context.Process(target=_work, args=(self.queue, self.progress, seed + i), daemon=True)
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
