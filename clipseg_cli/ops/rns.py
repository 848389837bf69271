"""RNS: a linear classifier of one image, fitted to the rows of a memory that its patches retrieve (arXiv:2602.23339).

Letters: n patches, D embedding, C classes, Q queries, P labelled images. The rows of a memory are unit means of the
patches of one class in one labelled image, weighted by how much of the class each patch holds.

Reference: TilemahosAravanis/Retrieve-and-Segment@6c858ba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from clipseg_cli.ops.similarity import merge_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

MIXING = (0.9, 0.8, 0.6, 0.4, 0.2, 0.0)
"""Share of the images in vectors that are mixed of images and words."""

BETA_MIXED, BETA_PSEUDO = 1.5, 0.2
"""Weight of a mixed vector with a hard label, and of one whose class no image shows; retrieved rows count 1."""


class TrainingVectors(NamedTuple):
    """What the classifier of one image learns from.

    Attributes:
        neighbours: [r] rows of the memory that any patch retrieved, ascending.
        class_weight: [C] how much each class matters for the image; they sum to 1 where every class has one query.
        vectors: [m, D]: retrieved rows, then mixed vectors, then those of classes that no image shows.
        hard: [m - s] class ids of the first of them.
        soft: [s, C] probabilities of the rest.
        importance: [m] factor of each in the loss.
    """

    neighbours: Tensor
    class_weight: Tensor
    vectors: Tensor
    hard: Tensor
    soft: Tensor
    importance: Tensor


def class_rows(patches: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that one labelled image adds to a memory.

    Args:
        patches: [n, D], of any length.
        shares: [n, C] part of each patch that a class covers, in [0, 1].

    Returns:
        Unit vectors [C, D], zero where the class is absent, and bool [C], where it is present.
    """
    sums = shares.to(patches).mT @ patches
    return F.normalize(sums, dim=-1), shares.sum(dim=0) > 0


def class_weights(
    patches: Tensor, text: Tensor, query_to_class: Sequence[int], temperature: float = 10.0
) -> Tensor:
    """How much each class matters for an image: softmax of its mean patch against the words, best word of a class.

    Args:
        patches: unit [n, D].
        text: unit [Q, D].
        query_to_class: [Q].
        temperature: factor on the cosines.

    Returns:
        [C].
    """
    whole = F.normalize(patches.mean(dim=0), dim=0)
    words = (temperature * (text @ whole)).softmax(dim=0)
    return merge_aliases(words, query_to_class, 1 + max(query_to_class))


def retrieve(patches: Tensor, rows: Tensor, k: int = 4) -> Tensor:
    """Numbers of the rows that are among the `k` nearest of any patch, ascending; unit [n, D], unit [r, D]."""
    if not len(rows):
        return torch.zeros(0, dtype=torch.long, device=rows.device)
    found: Tensor = (patches @ rows.mT).topk(min(k, len(rows)), dim=1).indices.unique()
    return found


def training_vectors(
    patches: Tensor,
    text: Tensor,
    query_to_class: Sequence[int],
    support: Tensor,
    present: Tensor,
    *,
    k: int = 4,
    mixing: Sequence[float] = MIXING,
    temperature: float = 10.0,
    scale: float = 100.0,
    beta_mixed: float = BETA_MIXED,
    beta_pseudo: float = BETA_PSEUDO,
) -> TrainingVectors:
    """What the classifier of an image learns from.

    Args:
        patches: [n, D] of the image, of any length.
        text: [Q, D] of any length.
        query_to_class: [Q], every class from 0 occurs.
        support: unit [P, C, D].
        present: bool [P, C]; absent rows are never retrieved.
        k: neighbours of a patch.
        mixing: share of the images in the mixed vectors.
        temperature, scale: factors on cosines before the softmax over the image's words, and over those of a vector.
        beta_mixed, beta_pseudo: importance of mixed vectors.
    """
    x, t = F.normalize(patches, dim=-1), F.normalize(text, dim=-1)
    class_of = torch.as_tensor(query_to_class, device=x.device)
    classes = support.shape[1]
    known = present.flatten().bool().nonzero()[:, 0]
    rows = support.flatten(0, 1)
    neighbours = known[retrieve(x, rows[known], k)]
    supported = set((neighbours % classes).tolist())
    winner = class_of[(x @ t.mT).argmax(dim=1)]  # [n] class of the best word of each patch
    mixed, owners, pseudo, unknown = [], list[int](), [], list[int]()
    for query, own in enumerate(class_of.tolist()):
        if own in supported:
            mean = support[present[:, own].bool(), own].mean(dim=0)
            mixed.append(_mixed(mean, t[query], mixing))
            owners.append(own)
        elif (winner == own).any():
            pseudo.append(_mixed(x[winner == own].mean(dim=0), t[query], mixing))
            unknown.append(own)
    empty = x.new_zeros((0, x.shape[1]))
    # As published: all classes at one degree of mixing, and then the next degree.
    known_mixed = torch.stack(mixed, dim=1).flatten(0, 1) if mixed else empty
    extra = torch.stack(pseudo, dim=1).flatten(0, 1) if pseudo else empty
    hard = torch.cat([neighbours % classes, class_of.new_tensor(owners * len(mixing))])
    owner = torch.cat([hard, class_of.new_tensor(unknown * len(mixing))])
    counts = [len(neighbours), len(known_mixed), len(extra)]
    beta = torch.repeat_interleave(
        x.new_tensor([1.0, beta_mixed, beta_pseudo]), torch.tensor(counts, device=x.device)
    )
    soft = merge_aliases((scale * (extra @ t.mT)).softmax(dim=1).mT, query_to_class, classes).mT
    weight = class_weights(x, t, query_to_class, temperature)
    importance = beta * weight[owner] / weight[owner].sum()
    return TrainingVectors(
        neighbours, weight, torch.cat([rows[neighbours], known_mixed, extra]), hard, soft, importance
    )


def _mixed(image: Tensor, word: Tensor, mixing: Sequence[float]) -> Tensor:
    """Unit vectors [len(mixing), D] between a vector of images, of any length, and a word."""
    image = F.normalize(image, dim=0)
    part = torch.tensor(mixing, device=image.device, dtype=image.dtype)[:, None]
    return F.normalize(part * image + (1 - part) * word, dim=1)


def fit(
    training: TrainingVectors,
    weight: Tensor,
    *,
    steps: int = 700,
    lr: float = 2e-3,
    weight_decay: float = 5e-4,
) -> tuple[Tensor, Tensor]:
    """The linear classifier of an image: full-batch AdamW on cross entropy and Kullback-Leibler divergence.

    Args:
        training: by `training_vectors`.
        weight: [C, D] to begin with; the bias begins at 0.
        steps, lr, weight_decay: of AdamW.

    Returns:
        Weight [C, D] and bias [C].
    """
    # Also inside `inference_mode`, whose tensors take no gradient.
    with torch.inference_mode(mode=False), torch.enable_grad():
        vectors, importance, hard, soft = (
            one.clone() for one in (training.vectors, training.importance, training.hard, training.soft)
        )
        w = weight.clone().requires_grad_()
        b = weight.new_zeros(len(weight)).requires_grad_()
        optimiser = torch.optim.AdamW([w, b], lr=lr, weight_decay=weight_decay)
        for _ in range(steps):
            found = F.linear(vectors, w, b).log_softmax(dim=1)
            given = F.nll_loss(found[: len(hard)], hard, reduction="none")
            guessed = F.kl_div(found[len(hard) :], soft, reduction="none").sum(dim=1)
            loss = (importance * torch.cat([given, guessed])).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return w.detach(), b.detach()


def classify(patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Probabilities [n, C] of patches [n, D] of any length."""
    return F.linear(F.normalize(patches, dim=-1), weight, bias).softmax(dim=-1)
