"""What the cases in `golden-regions/` check of memories: RNS, and banks of regions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from clipseg_cli.ops import rns

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden_cases import Case, Tensors


def check_rns(case: Case, given: Tensors) -> Tensors:
    """One image against a memory of labelled images; queries of class 0 come first."""
    o = case.options
    classes, queries = given["support"].shape[1], len(given["text"])
    first = o["background_queries"]
    query_to_class = [0] * first + list(range(1, queries - first + 1))
    assert 1 + query_to_class[-1] == classes
    absent = (~given["support_present"].bool()).all(dim=0).nonzero()[:, 0].tolist()
    assert absent == list(o["classes_without_support"])
    patches = given["feat"][0].flatten(1).mT
    taught = rns.lesson(
        patches,
        given["text"],
        query_to_class,
        given["support"],
        given["support_present"].bool(),
        k=o["k"],
        mixing=tuple(o["mixing"]),
        temperature=o["class_score_temperature"],
        scale=o["softmax_scale"],
        beta_mixed=o["beta_mixed"],
        beta_pseudo=o["beta_pseudo"],
    )
    optimiser = re.fullmatch(
        r"AdamW lr ([\d.e-]+), betas \(0\.9,0\.999\), eps 1e-8, weight decay ([\d.e-]+) on weight and bias",
        o["optimiser"],
    )
    assert optimiser is not None, o["optimiser"]
    lr, decay = map(float, optimiser.groups())
    weight, bias = rns.fit(taught, given["init_weight"], steps=o["steps"], lr=lr, weight_decay=decay)
    prob = rns.classify(patches, weight, bias)
    return {
        "neighbours": taught.neighbours,
        "class_weight": taught.class_weight,
        "train_feats": taught.vectors,
        "pseudo_targets": taught.soft,
        "weight": weight,
        "bias": bias,
        "prob": prob,
        "label": prob.argmax(dim=1),
    }


CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {"rns": check_rns}
