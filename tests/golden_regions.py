"""What the cases in `golden-regions/` check: id maps, CorrCLIP, its votes and banks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from clipseg_cli.methods import corrclip
from clipseg_cli.methods.corrclip import SPATIAL_BLOCKS
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops.attention import to_grid
from clipseg_cli.ops.reduce import reduce_maps
from clipseg_cli.ops.region_attention import merge_alike, scoped_attention
from clipseg_cli.ops.regions import id_map_by_area, id_map_by_score, nearest_ids, vote
from clipseg_cli.ops.similarity import cosine_logits, merge_aliases
from clipseg_cli.types import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden_cases import Case, Tensors

    from clipseg_cli.types import Tokens


def check_id_map(case: Case, given: Tensors) -> Tensors:
    masks = given["masks"].bool()
    if "ascending area" in case.options["order"]:
        return {"regions": id_map_by_area(masks)}
    return {"regions": id_map_by_score(masks, given["scores"], case.options.get("min_score", 0.5))}


def check_correction(case: Case, given: Tensors) -> Tensors:
    """From the scores of queries to labels, and the vote; the smallest id is left alone, as published."""
    o = case.options
    class_of, scaled = o["query_to_class"], o["logit_scale"] * given["logits"].float()
    reduced = reduce_maps(scaled, (scaled.shape[1], scaled.shape[2]))
    before = torch.tensor(class_of)[reduced.winner.long()]
    before[reduced.score < o["prob_thd"]] = o["below_threshold_label"]
    regions = given["regions"].int()
    label = vote(before, reduced.score, regions, unsegmented=int(regions.min())).labels
    prob = merge_aliases(scaled.softmax(dim=0), class_of, 1 + max(class_of))
    return {"prob": prob, "before": before, "label": label}


def check_corrclip(case: Case, given: Tensors) -> Tensors:
    """The method in the tower; the smallest id becomes 0, which is how the published code takes it."""
    o = case.options
    assert o["image_normalisation"] == "CLIP" and o["pos_embed"].startswith("bicubic,scale_factor")
    visual = case.tower()
    depth = len(visual.transformer.resblocks)
    before = o.get("spatial_branch_blocks") or range(
        depth - 2 - SPATIAL_BLOCKS.get(depth, depth - 4), depth - 2
    )
    assert list(before) == list(range(depth - 2 - len(before), depth - 2))
    settings = {
        "tau": o["tau"],
        "merge": o["merge_regions"],
        "spatial_blocks": len(before),
        "weights": tuple(o["branch_weights"][name] for name in ("main", "spatial", "semantic")),
    }
    if o["merge_eps"] is not None:
        settings["merge_distance"] = o["merge_eps"]
    seen: Tensors = {}

    def read(*args: Any) -> Tokens:
        seen["tokens"] = corrclip.read(*args, **settings)
        return seen["tokens"]

    method = replace(corrclip.METHOD, read_regions=read)
    proxy = Proxy(given["proxy"])
    reader = dense_reader(visual, method, Reading(o["activation"], o["ln_eps"], guide=proxy))
    regions = given["regions"].int()
    regions -= regions.min()
    dense = reader(given["image"], regions[None])
    tokens, size = seen["tokens"], tuple(o["output_grid"])
    ended = [reader.tower.head(one)[0] for one in (tokens.patches, *(one for one, _ in tokens.added))]
    unit = F.normalize(given["proxy"][0].flatten(1), dim=0).mT
    fine = nearest_ids(regions, size).flatten()
    merged = merge_alike(unit, fine, o["merge_eps"]) if o["merge_regions"] else fine
    return {
        "partition": by_appearance(merged),
        "unsegmented": merged == 0,
        "feat": dense.features,
        "logits": cosine_logits(dense.features, given["text"]),
        "attn": scoped_attention(unit, merged, o["tau"]),
        **{key: to_grid(one, size) for key, one in zip(("main", "spatial", "semantic"), ended, strict=True)},
    }


class Proxy:
    """A guide that was asked already."""

    inner = None
    fingerprint = ""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.features

    def objectness(self, x: torch.Tensor) -> None:
        """It has no opinion."""


def by_appearance(numbers: torch.Tensor) -> torch.Tensor:
    """The same partition, with 0, 1, 2 ... in the order in which they first appear."""
    known = list(dict.fromkeys(numbers.tolist()))
    return torch.tensor([known.index(number) for number in numbers.tolist()])


CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {
    "corrclip": check_corrclip,
    "corrclip_id_map": check_id_map,
    "corrclip_map_correction": check_correction,
}
