"""Where there is something: a head in FOUND's form (arXiv:2212.07834) for a frozen tower.

    python -m recipes.emoji.saliency_head --model clipseg_cli/models/bundled/emoji --minutes 3

One 1x1 convolution on what the last attention of the tower works with, trained with binary cross-entropy on composed
scenes: the share of each patch that things cover. FOUND learns from masks that DINO's attention gives; here they are
exact. Writes `saliency.safetensors` into the folder of the model, with the fingerprint of its tower. The last fifth of
the time is for the fit and for the IoU on fresh scenes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from clipseg_cli.models.auxiliary.clip_vit import ClipViT
from clipseg_cli.models.auxiliary.saliency import OWN_HEAD, Found
from clipseg_cli.models.clip.architectures import Normalisation, build_model, load_config
from recipes.emoji.loader import make_batch
from recipes.emoji.scenes import SceneMaker, SceneStyle
from recipes.emoji.textures import PAINTERS
from recipes.emoji.vocabulary import heldout_vocabulary, load_vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.emoji.vocabulary import Vocabulary

SIDES, CROPPED, PATCHES = (160, 224), 0.1, 320
"""Of the scenes, share of the batches that are crops, and patches kept of each image."""

GATHERED = 0.8
"""Share of the time in which scenes are looked at."""

READS = ("q", "k", "v", "qkv")


def load_tower(folder: Path) -> ClipViT:
    """The image tower of an exported model, as `clipseg` reads it."""
    config = load_config(folder / "config.json")
    net = build_model(config["model_cfg"])
    weights = load_file(folder / "model.safetensors")  # as they are shipped, not as they are trained
    net.load_state_dict({key: value.float() for key, value in weights.items()})
    seen = Normalisation.of(config.get("preprocess_cfg") or {})
    return ClipViT(net.visual, seen.mean, seen.std)


def first_surface(vocabulary: Vocabulary) -> int:
    """The number of the first concept that is painted; all before it are things."""
    return min(i for i, concept in enumerate(vocabulary.concepts) if concept.name in PAINTERS)


@torch.inference_mode()
def gather(vit: ClipViT, vocabulary: Vocabulary, seconds: float, seed: int) -> tuple[Tensor, Tensor, int]:
    """Features [n, 3 W] of patches of fresh scenes, which share of each things cover [n], and how many scenes."""
    maker = SceneMaker(vocabulary, seed, SceneStyle(low=24, high=180))
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    features, shares, scenes = list[torch.Tensor](), list[torch.Tensor](), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        side, crops = int(rng.choice(SIDES)), bool(rng.random() < CROPPED)
        batch = make_batch(maker, first_surface(vocabulary), side, crops=crops)
        pixels = torch.from_numpy(batch.images).permute(0, 3, 1, 2).float() / 255
        found = vit.last_block(pixels).parts("qkv").flatten(2).transpose(1, 2)  # [B, N, 3 W]
        share = torch.from_numpy((batch.cover * batch.thing_instances[..., None]).sum(1))  # [B, N]
        for one, covered in zip(found, share, strict=True):
            kept = torch.randperm(len(one), generator=generator)[:PATCHES]
            features.append(one[kept].half())
            shares.append(covered[kept])
            scenes += 1
    return torch.cat(features), torch.cat(shares).clamp(0, 1), scenes


def fit(features: Tensor, shares: Tensor, seed: int, steps: int = 400) -> tuple[Tensor, Tensor, float]:
    """Weight [1, W, 1, 1] and bias [1] of the head, and the last loss."""
    x = features.float()
    mean, spread = x.mean(0), x.std(0) + 1e-6
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (8192,), generator=generator)
        logits = (x[rows] - mean) / spread @ weight + bias
        loss = F.binary_cross_entropy_with_logits(logits, shares[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():  # the head sees features as they are
        weight = weight / spread
        bias = bias - mean @ weight
    return weight.detach().view(1, -1, 1, 1), bias.detach(), float(loss.detach())


@torch.inference_mode()
def foreground_iou(head: Found, vocabulary: Vocabulary, seed: int, scenes: int = 40) -> float:
    """IoU of what covers pixels with things, over fresh scenes in the style of their art."""
    maker, surface = SceneMaker(vocabulary, seed, SceneStyle(augment=False)), first_surface(vocabulary)
    shared = either = 0
    for _ in range(scenes):
        scene = maker.make(224)
        truth = torch.from_numpy((np.array(scene.labels) < surface)[scene.instances])
        image = torch.from_numpy(np.ascontiguousarray(scene.image)).permute(2, 0, 1)[None].float() / 255
        found = head(image)[0, 0] > 0.5
        shared += int((found & truth).sum())
        either += int((found | truth).sum())
    return shared / max(1, either)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.emoji.saliency_head", description="A saliency head for a tower."
    )
    parser.add_argument(
        "--model", type=Path, required=True, help="folder with config.json and model.safetensors"
    )
    parser.add_argument("--out", type=Path, help=f"default: {OWN_HEAD} in that folder")
    parser.add_argument("--minutes", type=float, default=3.0, help="loading the artwork comes on top")
    parser.add_argument("--reads", choices=READS, default="q", help="what the head looks at")
    parser.add_argument("--compare", action="store_true", help="print the others too; they are not written")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    vit, vocabulary, other = load_tower(args.model), load_vocabulary(), heldout_vocabulary()
    features, shares, scenes = gather(vit, vocabulary, 60 * args.minutes * GATHERED, args.seed)
    print(
        f"tower {vit.fingerprint}: {scenes} scenes, {len(features)} patches, {shares.mean():.0%} of them things"
    )
    width = vit.width
    for reads in READS if args.compare else (args.reads,):
        columns = torch.cat([torch.arange(width) + width * "qkv".index(name) for name in reads])
        weight, bias, loss = fit(features[:, columns], shares, args.seed)
        head = Found(vit, weight, bias, reads=reads)
        known, new = (foreground_iou(head, art, args.seed + 1) for art in (vocabulary, other))
        print(
            f"{reads}: loss {loss:.4f}; IoU of the foreground: known art {known:.3f}, held-out art {new:.3f}"
        )
        if reads == args.reads:
            path = args.out or args.model / OWN_HEAD
            facts = {"tower": vit.fingerprint, "reads": reads}
            save_file({"decoder.weight": weight.contiguous(), "decoder.bias": bias}, path, facts)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
