"""What the cases in `golden-regions/` check of memories: RNS, and banks of regions."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from golden_regions import Proxy

from clipseg_cli.methods import corrclip
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops import rns
from clipseg_cli.ops.neighbours import nearest, support
from clipseg_cli.ops.reduce import reduce_maps
from clipseg_cli.ops.region_means import paint, region_means
from clipseg_cli.ops.regions import nearest_ids, vote
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.ops.windows import plan_windows, stitch
from clipseg_cli.refinements import region_memory
from clipseg_cli.types import ClassList, Context, LogitMaps, Reading, RegionBank, Words

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
    training = rns.training_vectors(
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
    weight, bias = rns.fit(training, given["init_weight"], steps=o["steps"], lr=lr, weight_decay=decay)
    prob = rns.classify(patches, weight, bias)
    return {
        "neighbours": training.neighbours,
        "class_weight": training.class_weight,
        "train_feats": training.vectors,
        "pseudo_targets": training.soft,
        "weight": weight,
        "bias": bias,
        "prob": prob,
        "label": prob.argmax(dim=1),
    }


def check_bank_build(case: Case, given: Tensors) -> Tensors:
    """One picture into a bank."""
    assert case.options["order"] == "ascending region id, 0 left out"
    _, keys = region_means(given["feat"][0], given["regions"].int(), unit=True)
    return {"keys": keys, "keys_unit": F.normalize(keys, dim=1)}


def check_bank(case: Case, given: Tensors) -> Tensors:
    """The method in windows, what the bank says beside it, both fused, and the vote."""
    o = case.options
    assert o["image_normalisation"] == "CLIP" and o["index"] == "exact inner product"
    size, original = tuple(o["input_size"]), tuple(o["original_size"])
    ids = nearest_ids(given["regions"].int(), size)
    found, means = region_means(given["vfm"][0], ids, unit=True, none=None)
    query = F.normalize(means, dim=1)
    rows, similarity = nearest(query, given["bank_keys"], o["neighbours"], block=7)
    if "bank_ids" in given:
        rows = torch.where(rows >= 0, given["bank_ids"].long()[rows.clamp(min=0)], -1)
    scores = support(given["bank_values"], rows) @ given["text"].mT
    if o["auxiliary"]:
        scores = (scores + support(given["bank_aux"], rows) @ given["aux_text"].mT) / 2
    remembered = paint(scores, found, ids)
    own = own_logits(case, given, ids)
    fused = o["fusion_own"] * own + (1 - o["fusion_own"]) * remembered
    if not o["auxiliary"] and "bank_ids" not in given:
        # The step itself, which all commands take.
        bank = RegionBank(given["bank_keys"], given["bank_values"], lambda _: given["vfm"], {})
        maps = region_memory.refine(
            LogitMaps((own,)),
            bank_context(given, ids, bank),
            "",
            neighbours=o["neighbours"],
            share=o["fusion_own"],
        )
        fused = maps.maps[0]
    fused = F.interpolate(fused[None], original, mode="bilinear")
    reduced = reduce_maps(o["logit_scale"] * fused[0], original)
    before = torch.tensor(o["query_to_class"])[reduced.winner.long()]
    before[reduced.score < o["prob_thd"]] = o["below_threshold_label"]
    regions = given["regions"].int()
    label = vote(before, reduced.score, regions, unsegmented=int(regions.min())).labels
    return {
        "query": query,
        "neighbours": rows,
        "similarity": similarity,
        "support": remembered,
        "own": own,
        "fused": fused,
        "before": before,
        "label": label,
    }


def bank_context(given: Tensors, ids: torch.Tensor, bank: RegionBank) -> Context:
    """What the step is told of an image at network size."""
    size = (ids.shape[0], ids.shape[1])
    classes = ClassList(("a",), (("a",),))
    words = Words(classes, torch.zeros(1), 100.0, given["text"])
    return Context(
        words,
        lambda: given["image"][0],
        lambda: given["image"][0],
        size,
        1.0,
        "token",
        auxiliary={"regions": ids[None]},
        bank=bank,
    )


def own_logits(case: Case, given: Tensors, ids: torch.Tensor) -> torch.Tensor:
    """CorrCLIP in windows, each padded to whole patches and by zeros: [Q, H, W] at the size of the input."""
    o, image = case.options, given["image"]
    size, multiple = (image.shape[2], image.shape[3]), o["pad_multiple"]
    wide = F.normalize(F.interpolate(given["vfm"], size, mode="bilinear"), dim=1)
    visual, maps = case.tower(), []
    windows = plan_windows(size, o["crop"], o["stride"])
    for window in windows:
        rows, columns = window.slices
        down, across = -window.height % multiple, -window.width % multiple
        pad = (across // 2, across - across // 2, down // 2, down - down // 2)
        part = F.pad(image[:, :, rows, columns], pad)
        own = ids[rows, columns]
        own = F.pad(own - own.min(), pad, value=10_000)
        patch = case.weights_entry["constructor_kwargs"]["patch_size"]
        grid = (2 * part.shape[2] // patch, 2 * part.shape[3] // patch)
        proxy = F.interpolate(F.pad(wide[:, :, rows, columns], pad, mode="replicate"), grid, mode="bilinear")
        read = functools.partial(corrclip.read, merge=False)
        how = Reading(o["activation"], o["ln_eps"], guide=Proxy(proxy))
        reader = dense_reader(visual, replace(corrclip.METHOD, read_regions=read), how)
        logits = cosine_logits(reader(part, own[None]).features, given["text"])
        full = F.interpolate(logits, (part.shape[2], part.shape[3]), mode="bilinear")[0]
        maps.append(full[:, pad[2] : pad[2] + window.height, pad[0] : pad[0] + window.width])
    return stitch(maps, windows, size)


CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {
    "rns": check_rns,
    "corrclip_bank": check_bank,
    "corrclip_bank_build": check_bank_build,
}
