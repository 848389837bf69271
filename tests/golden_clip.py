"""What the cases in `golden-clip/` check: SC-CLIP, ResCLIP, PEARL; and FreeCP and FLOSS, of `golden_words`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from golden_papers import read_by, size_of, upsampled
from golden_words import check_floss_experts, check_floss_fusion, check_floss_ranking, check_freecp

from clipseg_cli.methods import pearl, resclip, sc_clip
from clipseg_cli.ops.correlation import correlations
from clipseg_cli.ops.pamr import PAMR_DILATIONS
from clipseg_cli.ops.reduce import reduce_layers, stretched, upsample
from clipseg_cli.ops.similarity import cosine_logits, merge_aliases
from clipseg_cli.ops.windows import plan_windows, stitch
from clipseg_cli.refinements.area_threshold import small_classes
from clipseg_cli.refinements.tlp import spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden_cases import Case, Tensors

    from clipseg_cli.types import Method, Tokens


def window_mean(
    case: Case, method: Method, image: torch.Tensor, text: torch.Tensor, **reading: Any
) -> torch.Tensor:
    """Cosines of sliding windows, averaged at the size of the input: [Q, H, W]."""
    size = (image.shape[2], image.shape[3])
    windows = plan_windows(size, case.options["crop"], case.options["stride"])
    maps = []
    for window in windows:
        rows, columns = window.slices
        dense = read_by(case, method, image[:, :, rows, columns], **reading)
        maps.append(cosine_logits(dense.features, text)[0])
    return stitch(maps, windows, size)


def decided(o: dict[str, Any], logits: torch.Tensor, excluded: torch.Tensor | None = None) -> torch.Tensor:
    """Labels as the tool decides them: 0 where the winner is less probable than the threshold."""
    class_of = torch.tensor(o["query_to_class"])
    layer = stretched(o["logit_scale"] * logits, (logits.shape[1], logits.shape[2]))
    reduced = reduce_layers([layer], excluded=None if excluded is None else excluded[class_of])
    return class_of[reduced.winner.long()].masked_fill(reduced.score < o["prob_thd"], 0)


def probabilities(o: dict[str, Any], logits: torch.Tensor) -> torch.Tensor:
    """[C, H, W], the best word speaking for its class."""
    mapping = o["query_to_class"]
    return merge_aliases((o["logit_scale"] * logits).softmax(dim=0), mapping, max(mapping) + 1)


def sc_clip_of(o: dict[str, Any]) -> Method:
    """SC-CLIP with the options of a case; its blocks are counted from 1."""
    names = {
        "beta": "alike",
        "res_cls": "cls_share",
        "lof_neighbours": "neighbours",
        "lof_contamination": "odd_share",
        "middle_gamma": "sharpness",
        "middle_beta": "margin",
    }
    values = {ours: o[theirs] for theirs, ours in names.items() if theirs in o}
    if "pre_adjust_idx" in o:
        values |= {"middle": o["pre_adjust_idx"] + 1, "early": o["post_adjust_idx"] + 1}
        values["detail"] = (o["multi_start_idx"] + 1, o["multi_end_idx"])
    return replace(sc_clip.METHOD, read=partial(sc_clip.read, **values))


def check_sc_clip(case: Case, given: Tensors) -> Tensors:
    method, image, inner = sc_clip_of(case.options), given["image"], {}
    o = case.options
    assert method.read is not None
    own = method.read

    def watched(blocks: Any, x: torch.Tensor, grid: tuple[int, int], guide: Any) -> Tokens:
        behind = [x]
        for block in blocks[:-1]:
            behind.append(block(behind[-1]))
        last, middle = (z[:, 1:].mT.unflatten(2, grid) for z in (behind[-1], behind[o["pre_adjust_idx"] + 1]))
        odd = sc_clip.outliers(last, o["lof_neighbours"], o["lof_contamination"])
        inner["outliers"] = odd.flatten().nonzero()[:, 0]
        inner["lof"] = sc_clip.outlier_factors(last, o["lof_neighbours"])
        inner["mid_similarity"] = correlations(sc_clip.mended(middle, odd), -2.0)
        return own(blocks, x, grid, guide)

    dense = read_by(case, replace(method, read=watched), image)
    logits = cosine_logits(dense.features, given["text"])
    found = {
        **inner,
        **dict.fromkeys(("feat", "feat_corrected"), dense.features),
        **dict.fromkeys(("logits", "logits_corrected"), logits),
        "upsampled": upsampled(logits, image),
    }
    if "out.feat_reference_quirk" in case.tensors:
        found["feat_reference_quirk"] = quirk(case, method, image)
    return found


def quirk(case: Case, method: Method, image: torch.Tensor) -> torch.Tensor:
    """The features where an outlier is looked for at the place that the published code finds by the number of rows."""
    own = sc_clip.outliers

    def misplaced(features: torch.Tensor, *options: Any) -> torch.Tensor:
        rows, odd = features.shape[2], own(features, *options)
        index = odd.flatten(1).nonzero()[:, 1]
        wrong = torch.zeros_like(odd)
        wrong[:, index // rows, index % rows] = True
        return wrong

    with mock.patch.object(sc_clip, "outliers", misplaced):
        return read_by(case, method, image).features


def check_sc_clip_windows(case: Case, given: Tensors) -> Tensors:
    o = case.options
    mean = window_mean(case, sc_clip_of(o), given["image"], given["text"])
    logits = upsample(mean[None], tuple(o["original_size"]))[0]
    prob, small = probabilities(o, logits), None
    if o.get("area_thd"):
        small = small_classes(prob.argmax(dim=0), len(prob), o["area_thd"])
        prob = prob.masked_fill(small[:, None, None], 0)
    return {"logits": logits[None], "prob": prob, "pred": decided(o, logits, small)}


def propagated(o: dict[str, Any], logits: torch.Tensor, pixels: torch.Tensor, text: torch.Tensor) -> Any:
    """PEARL's propagation of logits [Q, H, W] at full size, as it is done in a tool that never holds them."""
    names = {
        "cg_iters": "steps",
        "tau_text": "tau",
        "diag_boost": "boost",
        "edge_sharpness": "sharpness",
        "smoothness": "smoothness",
    }
    options = {ours: o[theirs] for theirs, ours in names.items() if theirs in o}
    return spread(
        [stretched(logits, size_of(logits))], stretched(pixels, size_of(logits)), text, o["grid"], **options
    )


def check_pearl_tlp(case: Case, given: Tensors) -> Tensors:
    logits = given["logits"][0]
    found = propagated(case.options, logits, given["pixels"][0], given["query"])
    return {"propagated": upsample(found[None], size_of(logits))}


def pearl_of(o: dict[str, Any]) -> Method:
    alpha = o["alpha_kk"] if o["use_kk"] else 0.0
    attention = partial(pearl.attention, alpha_kk=alpha, iterations=o["polar_iters"])
    if o["align_solver"] == "svd":
        attention = partial(pearl.exact_attention, alpha_kk=alpha)
    whole = o["arch"] == "vanilla"
    return replace(pearl.METHOD, attention=attention, residual=whole, mlp=whole)


def check_pearl(case: Case, given: Tensors) -> Tensors:
    dense = read_by(case, pearl_of(case.options), given["image"])
    assert dense.cls is not None
    logits = cosine_logits(dense.features, given["text"])
    return {"feat": dense.features, "cls": dense.cls, "logits": logits}


def check_pearl_windows(case: Case, given: Tensors) -> Tensors:
    o, image = case.options, given["image"]
    original = tuple(o["original_size"])
    mean = window_mean(case, pearl_of(o), image, given["text"])
    steps = {**o, **o["tlp"]}
    cells = propagated(steps, upsample(mean[None], original)[0], upsample(image, original)[0], given["text"])
    full = upsample(cells[None], original)[0]
    return {"window_mean": mean[None], "propagated": full[None], "pred": decided(o, full)}


def resclip_of(o: dict[str, Any], **others: Any) -> Method:
    layers = [layer + 1 for layer in o["rcs_layers"]]
    assert layers == list(range(layers[0], layers[-1] + 1)), "blocks in a row are taken"
    assert tuple(o["first_pass_pamr"]["dilations"]) == PAMR_DILATIONS
    own = {
        "layers": (layers[0], layers[-1]),
        "rcs_scale": o["attn_rcs_weights"][0],
        "rcs_share": o["attn_rcs_weights"][1],
        "sfr_scale": o["attn_sfr_weights"][0],
        "sfr_share": o["attn_sfr_weights"][1],
        "threshold": o["temp_thd"],
        "scale": float(o["logit_scale"]),
        "std": o["gaussian_std"],
        "split": o["delete_same_entity"],
        "pamr_steps": o["first_pass_pamr"]["steps"],
        "kind": o.get("attn_strategy", "resclip"),
        "whole_block": o.get("arch", "wo_resi") == "w_resi",
        **others,
    }
    return replace(resclip.METHOD, read_twice=partial(resclip.read_twice, **own))


def check_resclip(case: Case, given: Tensors) -> Tensors:
    o, text, inner = case.options, given["text"], {}
    own_segmentation, own_labels, own_same = (
        resclip.first_segmentation,
        resclip.patch_labels,
        resclip.same_object,
    )

    def segmentation(*args: Any) -> torch.Tensor:
        inner["first_prob"] = own_segmentation(*args)
        return inner["first_prob"]

    def labels(*args: Any) -> torch.Tensor:
        inner["patch_labels"] = own_labels(*args)
        return inner["patch_labels"]

    def same(*args: Any, **options: Any) -> torch.Tensor:
        found = own_same(*args, **options)
        inner["sfr"] = torch.nn.functional.pad(found, (1, 0, 1, 0))
        return found

    with (
        mock.patch.object(resclip, "first_segmentation", segmentation),
        mock.patch.object(resclip, "patch_labels", labels),
        mock.patch.object(resclip, "same_object", same),
    ):
        dense = read_by(case, resclip_of(o), given["image"], text_embeds=text)
    with mock.patch.object(resclip, "same_object", lambda *a, **k: own_same(*a, **k).half().float()):
        half = read_by(case, resclip_of(o), given["image"], text_embeds=text)
    once = read_by(case, resclip_of(o, feedback=False), given["image"], text_embeds=text)
    assert dense.cls is not None
    return {
        **inner,
        "feat": dense.features,
        "cls": dense.cls,
        "logits": cosine_logits(dense.features, text),
        "feat_reference_half": half.features,
        "feat_rcs_only": once.features,
    }


def check_resclip_strategies(case: Case, given: Tensors) -> Tensors:
    found = {}
    for name in case.options["variants"]:
        arch, kind = name.split(".")
        method = resclip_of({**case.options, "arch": arch, "attn_strategy": kind})
        dense = read_by(case, method, given["image"], text_embeds=given["text"])
        found[f"feat.{name}"] = dense.features
    return found


CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {
    "floss_ranking": check_floss_ranking,
    "floss_experts": check_floss_experts,
    "floss_fusion": check_floss_fusion,
    "freecp": check_freecp,
    "pearl": check_pearl,
    "pearl_sliding_window": check_pearl_windows,
    "resclip": check_resclip,
    "resclip_strategies": check_resclip_strategies,
    "pearl_tlp": check_pearl_tlp,
    "sc_clip": check_sc_clip,
    "sc_clip_sliding_window": check_sc_clip_windows,
}
