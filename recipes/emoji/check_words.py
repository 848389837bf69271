"""Which words work: `python -m recipes.emoji.check_words --model runs/emoji/model`.

Every thing is shown in several drawings, four to an image, over fresh surfaces. The mean dense feature over its mask
is compared with the names of ALL things: a word works when at least half of its drawings have it first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recipes.emoji.fast_tower import PATCH
from recipes.emoji.loader import collate
from recipes.emoji.net import TinyClip, normalise
from recipes.emoji.scenes import Scene, paste
from recipes.emoji.style import transform
from recipes.emoji.textures import PAINTERS
from recipes.emoji.vocabulary import heldout_vocabulary, load_vocabulary
from recipes.emoji.weights import load_exported
from recipes.emoji.words import TextSampler

if TYPE_CHECKING:
    from recipes.emoji.art import Sprite
    from recipes.emoji.vocabulary import Vocabulary

SIZE, SIDE = 224, 92


def show(vocabulary: Vocabulary, shown: list[tuple[int, Sprite]], rng: np.random.Generator) -> Scene:
    """Up to four drawings in the quarters of one image."""
    surface = list(PAINTERS)[int(rng.integers(len(PAINTERS)))]
    image = PAINTERS[surface](rng, SIZE, SIZE)
    scene = Scene(image, np.zeros((SIZE, SIZE), np.uint8), [vocabulary.index[surface]])
    for place, (label, sprite) in enumerate(shown):
        sprite = transform(rng, sprite, SIDE, strong=False)
        centre = 56 + 112 * (place // 2), 56 + 112 * (place % 2)
        paste(scene, sprite, (centre[0] - sprite.shape[0] // 2, centre[1] - sprite.shape[1] // 2), label)
    return scene


@torch.no_grad()
def hits(model: TinyClip, vocabulary: Vocabulary, drawings: int, seed: int) -> dict[str, tuple[float, float]]:
    """Concept -> share of its drawings for which its name comes first, and among the first five."""
    rng = np.random.default_rng(seed)
    sampler = TextSampler(vocabulary.concepts, 24, seed)
    things = [i for i in vocabulary.drawable() if not vocabulary.concepts[i].colour]
    names = [vocabulary.concepts[i].name for i in things]
    text = normalise(model.encode_text(sampler.plain(names)))
    queue: list[tuple[int, Sprite]] = []
    for i in things:
        sprites = [s for family in vocabulary.bank[vocabulary.concepts[i].name].values() for s in family]
        queue += [(i, sprites[k]) for k in rng.permutation(len(sprites))[:drawings]]
    queue = [queue[k] for k in rng.permutation(len(queue))]
    found: dict[int, list[tuple[bool, bool]]] = {i: [] for i in things}
    for start in range(0, len(queue), 4):
        scene = show(vocabulary, queue[start : start + 4], rng)
        batch = collate([scene], len(vocabulary.concepts))
        pixels = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
        dense = normalise(model.encode_image(pixels)[0])[0].view((SIZE // PATCH) ** 2, -1)
        means = normalise(torch.from_numpy(batch.cover[0, 1 : len(scene.labels)]) @ dense)
        ranks = (means @ text.T).argsort(-1, descending=True)[:, :5].tolist()
        for label, best in zip(scene.labels[1:], ranks, strict=True):
            right = [k for k, i in enumerate(things) if i == label or vocabulary.related[label, i]]
            found[label].append((best[0] in right, any(k in right for k in best)))
    return {
        vocabulary.concepts[i].name: (
            float(np.mean([f for f, _ in pairs])),
            float(np.mean([t for _, t in pairs])),
        )
        for i, pairs in found.items()
        if pairs
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.check_words", description="Which words work."
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder with config.json and model.safetensors"
    )
    parser.add_argument("--art", choices=("train", "heldout"), default="train")
    parser.add_argument("--drawings", type=int, default=6, help="drawings of each thing")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary = load_vocabulary() if args.art == "train" else heldout_vocabulary()
    table = hits(load_exported(args.model), vocabulary, args.drawings, args.seed)
    first, five = np.array(list(table.values())).T
    print(f"things: {len(table)}; candidates: {len(table)}")
    print(
        f"first choice, mean over things: {100 * first.mean():.1f} %; among the first five: {100 * five.mean():.1f} %"
    )
    print(f"things whose name comes first for at least half of their drawings: {(first >= 0.5).sum()}")
    print(f"things whose name is among the first five for at least half: {(five >= 0.5).sum()}")
    print("weakest:", ", ".join(sorted(table, key=lambda name: table[name])[:40]))


if __name__ == "__main__":
    main()
