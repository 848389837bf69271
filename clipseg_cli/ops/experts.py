"""Which prompt templates suit which class, found on unlabelled images (FLOSS, arXiv:2504.10487).

Letters: T templates, C classes, D embedding.

Reference: yasserben/FLOSS@ccf1d49.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from clipseg_cli.ops.similarity import average_prompts

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-10
NONE = -1


class Surprise(NamedTuple):
    """How unsure templates are of the pixels that they give to each class.

    Attributes:
        total: [C, T] sum of the entropies of these pixels, in nat.
        pixels: [C, T] how many there are.
        seen: all pixels.
    """

    total: Tensor
    pixels: Tensor
    seen: int

    def __add__(self, other: Surprise) -> Surprise:  # type: ignore[override]
        """Of the images of both."""
        return Surprise(self.total + other.total, self.pixels + other.pixels, self.seen + other.seen)

    @property
    def entropy(self) -> Tensor:
        """[C, T] mean entropy; 0 where a template gives no pixel to a class."""
        return self.total / self.pixels.clamp(min=1)


def surprise(prob: Tensor) -> Surprise:
    """Of one image, by probabilities [T, C, H, W] of each template alone."""
    entropy = -(prob * (prob + EPSILON).log()).sum(dim=1).flatten(1).double()  # [T, n]
    label = prob.argmax(dim=1).flatten(1)  # [T, n]
    empty = entropy.new_zeros(prob.shape[0], prob.shape[1])
    total = empty.scatter_add(1, label, entropy)
    pixels = empty.scatter_add(1, label, torch.ones_like(entropy))
    return Surprise(total.T, pixels.T, label.shape[1])


def template_order(found: Surprise) -> Tensor:
    """[C, T] templates by rising entropy, the first of equals first; those without a pixel have 0."""
    return found.entropy.argsort(dim=1, stable=True)


def choose_experts(found: Surprise, count: int = 4) -> Tensor:
    """The templates that are least unsure of each class.

    Args:
        found: over all images.
        count: at most so many a class.

    Returns:
        [C, count] numbers of templates, filled up with -1.
    """
    experts = torch.full((len(found.pixels), count), NONE)
    for row, order in enumerate(template_order(found)):
        own = order[found.pixels[row, order] > 0][:count]
        experts[row, : len(own)] = own
    return experts


def expert_embeddings(prompts: Tensor, experts: Tensor) -> Tensor:
    """A classifier for each class by its experts, and the usual one behind them.

    Args:
        prompts: [Q, T, D] raw outputs of the text tower for every word.
        experts: [C, count] of `choose_experts`; a class without any has the usual classifier.

    Returns:
        [C + 1, Q, D] unit vectors.
    """
    usual = average_prompts(prompts)
    own = [average_prompts(prompts[:, row[row != NONE]]) if (row != NONE).any() else usual for row in experts]
    return torch.stack([*own, usual])


def fuse_experts(prob: Tensor, class_of: Tensor | None = None) -> Tensor:
    """Which classifier speaks for each pixel.

    An expert claims a pixel that it gives to its own class; the surest one wins, and where none does the usual
    classifier speaks.

    Args:
        prob: [C, Q, ...] probabilities of the words by the expert of each class.
        class_of: [Q] class of each word; None where every word is one.

    Returns:
        [...] int64, the expert, or C for the usual classifier.
    """
    count = len(prob)
    classes = torch.arange(count, device=prob.device)
    words = classes if class_of is None else class_of.long()
    best, word = prob.max(dim=1)  # [C, ...]
    own = words[word] == classes.view(-1, *[1] * (prob.ndim - 2))
    claim, expert = best.masked_fill(~own, -1.0).max(dim=0)
    return torch.where(claim >= 0, expert, count)


def chosen_of(values: Tensor, usual: Tensor, expert: Tensor) -> Tensor:
    """What the chosen classifier says: values [C, Q, ...], usual [Q, ...], expert [...] -> [Q, ...]."""
    all_of_them = torch.cat([values, usual[None]])
    index = expert.expand_as(usual)[None]
    return all_of_them.gather(0, index)[0]
