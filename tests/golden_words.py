"""What the cases in `golden-clip/` check about words: FreeCP, FLOSS."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from golden_papers import size_of

from clipseg_cli.methods import METHODS
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops.experts import (
    choose_experts,
    chosen_of,
    expert_embeddings,
    fuse_experts,
    surprise,
    template_order,
)
from clipseg_cli.ops.purify import affinity, consistency, refined_maps, settled, soft_iou
from clipseg_cli.ops.reduce import upsample
from clipseg_cli.ops.similarity import cosine_logits
from clipseg_cli.types import Reading

if TYPE_CHECKING:
    from golden_cases import Case, Tensors

    from clipseg_cli.types import Method


def freecp_method(kind: str) -> Method:
    """The readings of FreeCP; those of MaskCLIP and SCLIP drop the residual around the attention here."""
    if kind == "GEM":
        return METHODS.get("gem")
    attention = METHODS.get(kind.lower()).attention
    return replace(
        METHODS.get("clearclip"), attention=attention, mlp=kind in ("MaskCLIP", "SCLIP"), padding="drop"
    )


def check_freecp(case: Case, given: Tensors) -> Tensors:
    o, image, text = case.options, given["image"], given["text"]
    background, method = o["background_words"], freecp_method(o["model_type"])
    assert o["last_layers_left_out"] == 1
    reader = dense_reader(case.tower(), method, Reading(o["activation"], o["ln_eps"], attention=True))
    dense = reader(image)
    assert dense.attention is not None
    attention = dense.attention[0, 0] if o["model_type"] == "GEM" else dense.attention[0].mean(dim=0)
    prob = (o["logit_scale"] * cosine_logits(dense.features, text)).softmax(dim=1)
    scaled = (prob[0] - prob.min()) / (prob.max() - prob.min())
    maps = refined_maps(scaled[background:], affinity(attention), o["box_threshold"])
    agreement = consistency(prob[0, background:], maps)
    kept = (agreement > o["rp_thres"]).nonzero()[:, 0].tolist()
    patch, side = reader.patch, o["crop_side"]

    def judge(box: Any, classes: Any) -> int:
        top, bottom, left, right = (patch * edge for edge in box)
        crop = torch.nn.functional.interpolate(
            image[..., top:bottom, left:right], (side, side), mode="bilinear"
        )
        words = given["text_llm"][background:][classes]
        return int(classes[int((reader.whole(crop)[0] @ words.T).argmax())])

    last = settled(maps, kept, o["ap_thres"], judge, o["box_threshold"])
    scores = torch.zeros_like(prob[0])
    scores[[c + background for c in last]] = maps[last]
    return {
        "attention": attention,
        "prob": prob,
        "refined": maps,
        "consistency": agreement,
        "kept_by_redundancy": torch.tensor(kept),
        "soft_iou": soft_iou(maps[kept]),
        "kept": torch.tensor(last),
        "scores": upsample(scores[None], size_of(image)),
    }


def check_floss_ranking(case: Case, given: Tensors) -> Tensors:
    o = case.options
    images = [given[f"prob.{i}"] for i in range(len(given))]
    if o["resize_to"]:
        images = [upsample(one, tuple(o["resize_to"])) for one in images]
    found = sum((surprise(one) for one in images[1:]), surprise(images[0]))
    return {
        "entropy": found.entropy,
        "pixel_percentage": 100 * found.pixels / found.seen,
        "order": template_order(found),
        "experts": choose_experts(found, o["top_n"]),
    }


def check_floss_experts(case: Case, given: Tensors) -> Tensors:
    return {"embeddings": expert_embeddings(given["prompts"], given["expert_templates"].long())}


def check_floss_fusion(case: Case, given: Tensors) -> Tensors:
    prob, usual = given["expert_prob"], given["default_prob"]
    fused = chosen_of(prob, usual, fuse_experts(prob))
    return {"fused": fused, "pred": fused.argmax(dim=0)}
