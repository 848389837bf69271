"""What the cases in `golden/` check of whole images: windows, CLIP-DIY, CLIP-DINOiser, saliency, metrics."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from golden_cases import CLIP_MEAN, CLIP_STD, Case, Tensors
from golden_papers import Given, naclip_of, read_by

from clipseg_cli.data.images import square_input
from clipseg_cli.methods import METHODS, clearclip, dinoiser
from clipseg_cli.models.auxiliary.dinoiser_head import DinoiserHead
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops.correlation import correlations, pool_by_correlation
from clipseg_cli.ops.metrics import confusion_matrix, score
from clipseg_cli.ops.pamr import pamr, pamr_affinity
from clipseg_cli.ops.patches import square_patches
from clipseg_cli.ops.reduce import Tile, reduce_layers, stretched, upsample
from clipseg_cli.ops.saliency import least_attended_background, qkv_maps, saliency_map
from clipseg_cli.ops.similarity import average_prompts, cosine_logits, merge_aliases
from clipseg_cli.ops.windows import Window, plan_windows, stitch, without_padding
from clipseg_cli.refinements.area_threshold import small_classes
from clipseg_cli.refinements.objectness import doubtful_patches
from clipseg_cli.refinements.pamr import PixelAdaptive
from clipseg_cli.refinements.saliency import SaliencyFusion
from clipseg_cli.types import Reading


def normalised(given: Tensors) -> torch.Tensor:
    return (given["image01"] - CLIP_MEAN.view(3, 1, 1)) / CLIP_STD.view(3, 1, 1)


BLACK = -CLIP_MEAN / CLIP_STD


def check_dinoiser_maskclip(case: Case, given: Tensors) -> Tensors:
    dense = read_by(case, dinoiser.METHOD, normalised(given), black=BLACK)
    logits = cosine_logits(dense.features, given["text"])
    return {"feat": dense.features, "logits": logits, "prob": (100 * logits).softmax(dim=1)}


def check_dinoiser_pool(case: Case, given: Tensors) -> Tensors:
    if "corr" in given:
        grid = (given["corr"].shape[2], given["corr"].shape[3])
        return {"pooled": pool_by_correlation(given["feat"], given["corr"].flatten(2), grid)}
    gamma, image = case.options["gamma"], normalised(given)
    plain = read_by(case, dinoiser.METHOD, image, black=BLACK).features
    grid = (plain.shape[2], plain.shape[3])
    found = {"feat": plain}
    for name, guide in zip("qkv", qkv_maps(given["qkv"], grid), strict=True):
        method = replace(dinoiser.METHOD, pool=partial(dinoiser.pool, gamma=gamma))
        pooled = read_by(case, method, image, black=BLACK, guide=Given(guide)).features
        logits = cosine_logits(pooled, given["text"])
        found |= {
            f"pooled.{name}": pooled,
            f"corr.{name}": correlations(guide, gamma).unflatten(2, grid),
            f"logits.{name}": logits,
            f"prob.{name}": (100 * logits).softmax(dim=1),
        }
    return found


def check_sliding_window(case: Case, given: Tensors) -> Tensors:
    """NACLIP through windows: cosines at window size, averaged, at the original size refined, decided."""
    o, image = case.options, given["image"]
    size = (image.shape[2], image.shape[3])
    method = naclip_of(o)
    windows = plan_windows(size, o["crop"], o["stride"])
    maps = []
    for window in windows:
        rows, columns = window.slices
        dense = read_by(case, method, image[:, :, rows, columns])
        maps.append(cosine_logits(dense.features, given["text"])[0])
    mean = stitch(maps, windows, size)
    original = tuple(o.get("original_size") or given["original"].shape[:2])
    full, refinement = upsample(mean[None], original)[0], None
    if o["pamr"]:
        steps, dilations = o["pamr"]["steps"], o["pamr"]["dilations"]
        pixels = stretched(image[0], original)
        affinity = pamr_affinity(upsample(image, original)[0], dilations)
        full = pamr(full, affinity, dilations, steps)
        refinement = PixelAdaptive(pixels, dilations, steps)
    mapping, classes = o["query_to_class"], max(o["query_to_class"]) + 1
    words = (o["logit_scale"] * full).softmax(dim=0)
    prob = merge_aliases(words, mapping, classes)
    # The pixels as the tool decides them, in tiles.
    layer = stretched(mean, original)
    scaled = refinement and Scaled(refinement, o["logit_scale"])
    layers = [layer if scaled else layer._replace(maps=layer.maps * o["logit_scale"])]
    reduced = reduce_layers(layers, refinement=scaled, tile_bytes=40_000)
    pred = torch.tensor(mapping)[reduced.winner.long()].masked_fill(reduced.score < o["prob_thd"], 0)
    return {"window_mean": mean[None], "pred": pred, "prob": prob / prob.sum(dim=0), "pamr": full[None]}


class Scaled:
    """A refinement, then the scale of the softmax."""

    def __init__(self, refinement: Any, scale: float) -> None:
        self.refinement, self.scale, self.margin = refinement, scale, refinement.margin

    def __call__(self, scores: torch.Tensor, tile: Any, words: Any) -> torch.Tensor:
        found: torch.Tensor = self.refinement(scores, tile, words) * self.scale
        return found


def check_sclip_postprocess(case: Case, given: Tensors) -> Tensors:
    o, logits = case.options, given["logits"][0]
    mapping, classes = o["query_to_class"], max(o["query_to_class"]) + 1
    prob = merge_aliases((o["logit_scale"] * logits).softmax(dim=0), mapping, classes)
    layer = stretched(o["logit_scale"] * logits, (logits.shape[1], logits.shape[2]))
    class_of = torch.tensor(mapping)

    def decide(excluded: torch.Tensor | None) -> torch.Tensor:
        reduced = reduce_layers([layer], excluded=None if excluded is None else excluded[class_of])
        return class_of[reduced.winner.long()].masked_fill(reduced.score < o["prob_thd"], 0)

    argmax = class_of[reduce_layers([layer]).winner.long()]
    small = small_classes(argmax, classes, o["area_thd"])
    area = prob.masked_fill(small[:, None, None], 0)
    return {"prob": prob, "pred": decide(None), "prob_area": area, "pred_area": decide(small)}


def check_clearclip_windows(case: Case, given: Tensors) -> Tensors:
    o, image = case.options, given["image"]
    size = (image.shape[2], image.shape[3])

    def window_map(window: Window) -> torch.Tensor:
        rows, columns = window.slices
        dense = read_by(case, clearclip.METHOD, image[:, :, rows, columns])
        return without_padding(cosine_logits(dense.features, given["text"])[0], window, dense.padding)

    whole = window_map(Window(0, 0, *size))
    windows = plan_windows(size, o["crop"], o["stride"])
    mean = stitch([window_map(window) for window in windows], windows, size)
    return {"whole": whole[None], "slide": upsample(mean[None], tuple(o["original_size"]))}


def check_clip_diy(case: Case, given: Tensors) -> Tensors:
    o, image = case.options, given["image"][0]
    size, side = (
        (image.shape[1], image.shape[2]),
        case.weights_entry["constructor_kwargs"]["image_size"],
    )
    net = dense_reader(
        case.tower(), METHODS.get("vanilla"), Reading(o["activation"], o["ln_eps"])
    ).tower.visual
    maps, found = [], {}
    for scale, (patch, stride) in enumerate(zip(o["patch_sizes"], strides_of(o), strict=True)):
        windows, grid = square_patches(size, patch, stride)
        crops = [image[:, w.slices[0], w.slices[1]].permute(1, 2, 0).numpy() for w in windows]
        pixels = torch.stack([torch.from_numpy(square_input(crop, side).copy()) for crop in crops])
        pixels = (pixels.permute(0, 3, 1, 2) / 255 - CLIP_MEAN.view(3, 1, 1)) / CLIP_STD.view(3, 1, 1)
        embeds = torch.nn.functional.normalize(net(pixels), dim=-1)
        sims = embeds @ given["text"].T
        maps.append(sims.T.unflatten(1, grid))
        found[f"sims.{patch}"] = sims
        if scale == 1:
            found |= {"pixels": pixels[:2], "embeds": embeds}
    full = [
        upsample(one[None], size)
        if o["interpolate_logits"]
        else torch.nn.functional.interpolate(one[None], size)
        for one in maps
    ]
    score = sum(weight * one[0] for weight, one in zip(o["patch_weights"], full, strict=True)) / len(maps)
    background = torch.arange(len(score)) == 0
    layer, everything = stretched(score, size), Tile(0, size[0], 0, size[1])
    saliency = given["saliency"][0]
    fusion = SaliencyFusion(stretched(saliency, size), background)
    fused = fusion(score, everything, range(len(score)))
    stored = re.search(r"every (\d+)th row", case.tensors["out.fused_prob"]["meaning"])
    every = int(stored[1]) if stored else 1
    binary = SaliencyFusion(stretched((saliency > 0.5).float(), size), background)
    return {
        **found,
        "score": score[None],
        "fused_prob": fused.softmax(dim=0)[None, :, ::every, ::every],
        "fused_pred": reduce_layers([layer], refinement=fusion, tile_bytes=9_000).winner,
        "plain_pred": reduce_layers([layer]).winner,
        "fused_pred_binary": reduce_layers([layer], refinement=binary).winner,
    }


def strides_of(options: dict[str, Any]) -> list[int]:
    """One for each scale; a single one holds for all."""
    strides = options["strides"]
    return strides * len(options["patch_sizes"]) if len(strides) == 1 else strides


def check_clip_dinoiser(case: Case, given: Tensors) -> Tensors:
    o, image = case.options, normalised(given)
    head = Watched.of(given, o["feats_idx"])
    plain = read_by(case, dinoiser.METHOD, image, black=BLACK)
    method = replace(dinoiser.METHOD, pool=partial(dinoiser.pool, gamma=o["gamma"]))
    dense = read_by(case, method, image, black=BLACK, guide=head)
    assert dense.objectness is not None
    prob = (100 * cosine_logits(dense.features, given["text"])).softmax(dim=1)
    grid = (dense.features.shape[2], dense.features.shape[3])
    doubtful = doubtful_patches(prob, dense.objectness, o["delta"])[:, None]
    return {
        "inter": head.seen,
        "bkg": dense.objectness,
        "feat": plain.features,
        "corr": correlations(head(head.seen), -2).unflatten(2, grid),  # all of them, before the threshold
        "pooled": dense.features,
        "prob": prob,
        "prob_found": torch.cat([torch.where(doubtful, 1.0, prob[:, :1]), prob[:, 1:]], dim=1),
    }


class Watched(DinoiserHead):
    """The head, and what it last saw."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return super().forward(x)


def check_found(case: Case, given: Tensors) -> Tensors:
    o = case.options
    height, width = o["image_size"]
    grid = (-(-height // o["patch_size"]), -(-width // o["patch_size"]))
    maps = dict(zip("qkv", qkv_maps(given["qkv"], grid), strict=True))
    feats, keys = maps[o["feature"]], maps["k"]
    logits = torch.nn.functional.conv2d(feats, given["decoder.weight"], given["decoder.bias"])
    saliency = saliency_map(logits, o["patch_size"], (height, width))
    background = least_attended_background(
        keys, given["cls_attention"][:, :, 0], o["num_heads"], threshold=o["bkg_th"]
    )
    return {
        "feats": feats,
        "logits": logits,
        "saliency": saliency,
        "mask": (saliency > 0.5).int(),
        "background": background.int(),
    }


def check_text_ensemble(case: Case, given: Tensors) -> Tensors:
    return {"text": average_prompts(given["prompt_embeddings"])}


def check_metrics(case: Case, given: Tensors) -> Tensors:
    """Labels are remapped here, as the data layer does: what is ignored becomes negative."""
    options = case.options
    total = torch.zeros(options["num_classes"], options["num_classes"] + 1, dtype=torch.long)
    for i in range(options["num_images"]):
        label = given[f"label.{i}"].long()
        label[label == options["ignore_index"]] = -1
        if options["reduce_zero_label"]:
            label = (label - 1).clamp(min=-1)
        total += confusion_matrix(given[f"pred.{i}"], label, options["num_classes"])
    found = score(total, options.get("unseen", ()))
    right = total.diagonal()
    values = {
        "intersect": right,
        "union": found.labelled + found.predicted - right,
        "pred_area": found.predicted,
        "label_area": found.labelled,
        "iou": found.iou,
        "acc": found.accuracy,
        "prec": found.precision,
        "dice": found.dice,
        "fscore": found.fscore,
        "aAcc": found.pixel_accuracy,
        "mIoU": found.miou,
        "mAcc": found.mean_accuracy,
    }
    if found.hiou is not None:
        values |= {"mIoU_seen": found.miou_seen, "mIoU_unseen": found.miou_unseen, "hIoU": found.hiou}
    return {key: torch.as_tensor(value, dtype=torch.float64) for key, value in values.items()}


CHECKS = {
    "text_ensemble": check_text_ensemble,
    "metrics": check_metrics,
    "dinoiser_maskclip": check_dinoiser_maskclip,
    "dinoiser_pool": check_dinoiser_pool,
    "found_saliency": check_found,
    "naclip_sliding_window": check_sliding_window,
    "sclip_postprocess": check_sclip_postprocess,
    "clearclip_sliding_window": check_clearclip_windows,
    "clip_diy": check_clip_diy,
    "clip_dinoiser": check_clip_dinoiser,
}
