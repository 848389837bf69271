"""What the cases in `golden/` check of attention: MaskCLIP, its successors, GEM, ProxyCLIP."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from clipseg_cli.data.images import resize_image, target_size
from clipseg_cli.methods import METHODS, clearclip, gem, naclip, proxyclip
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.ops.pseudo import fill_unlabelled
from clipseg_cli.ops.reduce import reduce_maps, upsample
from clipseg_cli.ops.similarity import cosine_logits, remove_classes
from clipseg_cli.ops.windows import Window, stitch
from clipseg_cli.refinements.key_smoothing import smooth_by_keys
from clipseg_cli.refinements.prompt_denoising import absent_classes
from clipseg_cli.types import Reading

if TYPE_CHECKING:
    from golden_cases import Case, Tensors

    from clipseg_cli.types import DenseFeatures, Method, Tokens


def read(case: Case, image: torch.Tensor) -> DenseFeatures:
    options = case.options
    method = METHODS.get("vanilla" if options.get("attn_pooling") else "maskclip")
    reader = dense_reader(
        case.tower(),
        method,
        Reading(options.get("activation"), options.get("ln_eps"), keys=True),
    )
    return reader(image)


def refine(case: Case, logits: torch.Tensor, keys: torch.Tensor | None) -> Tensors:
    """Prompt denoising, then key smoothing, as the published code orders them: [1, C, h, w]."""
    options, found = case.options, {}
    refined = logits[0]
    if options.get("pd_thresh"):
        absent = absent_classes(refined, options["pd_thresh"])
        refined = remove_classes(refined, absent)
        found["removed"] = absent
    if options.get("ks_thresh"):
        assert keys is not None
        refined, found["smoothed"] = smooth_by_keys(refined, keys[0], options["ks_thresh"], norm="position")
    return {**found, "refined": refined[None]}


def check_maskclip(case: Case, given: Tensors) -> Tensors:
    dense = read(case, given["image"])
    logits = cosine_logits(dense.features, given["text"])
    found = {"v": dense.tokens, "backbone": dense.tokens, "feat": dense.features, "logits": logits}
    if dense.keys is not None:
        found["k"] = dense.keys.flatten(2).transpose(1, 2)
    found |= refine(case, logits, dense.keys)
    size = tuple(given["image"].shape[2:])
    found["upsampled"] = stitch([found["refined"][0]], [Window(0, 0, *size)], size)[None]
    return found


def check_end_to_end(case: Case, given: Tensors) -> Tensors:
    options, original = case.options, given["original"].numpy()
    short, long = map(int, re.findall(r"side (?:at most )?(\d+)", options["resize"]))
    size = target_size(*original.shape[:2], short_side=short, long_side=long)
    resized = torch.from_numpy(resize_image(original, size, antialias=False))
    mean, std = (torch.tensor(options[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    image = (resized.permute(2, 0, 1)[None] - mean) / std
    dense = read(case, image)
    logits = refine(case, cosine_logits(dense.features, given["text"]), dense.keys)["refined"]
    at_input = stitch([logits[0]], [Window(0, 0, *size)], size)
    pred = reduce_maps(at_input, original.shape[:2]).winner
    return {"resized": resized, "image": image, "logits_at_input_size": at_input[None], "pred": pred}


def check_pseudo_label(case: Case, given: Tensors) -> Tensors:
    ids = given["unlabelled_classes"].tolist()
    dense = read(case, given["image"])
    logits = cosine_logits(dense.features, given["text"][ids])
    found = {"logits": logits, **refine(case, logits, dense.keys)}
    labels = fill_unlabelled(given["gt"][0, 0].long(), found["refined"][0], ids)
    return {**found, "labels": labels[None, None]}


def read_by(case: Case, method: Method, image: torch.Tensor, **options: Any) -> DenseFeatures:
    known = case.options
    return dense_reader(
        case.tower(), method, Reading(known.get("activation"), known.get("ln_eps"), **options)
    )(image)


def size_of(maps: torch.Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def upsampled(logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return upsample(logits, (image.shape[2], image.shape[3]))


def check_attention(case: Case, given: Tensors) -> Tensors:
    """SCLIP, NACLIP and ClearCLIP, as the files of these methods declare them."""
    options = case.options
    if case.method == "naclip":
        method = naclip_of(options)
    elif case.method == "clearclip":
        method = clearclip_of(options["model_type"], whole=not options["ignore_residual"])
    else:
        method = METHODS.get(case.method)
    dense = read_by(case, method, given["image"])
    logits = cosine_logits(dense.features, given["text"])
    found = {"feat": dense.features, "logits": logits, "upsampled": upsampled(logits, given["image"])}
    return found if dense.cls is None else {**found, "cls": dense.cls}


def naclip_of(options: dict[str, Any]) -> Method:
    """NACLIP or one of its ablations, with a Gaussian of any width."""
    strategy = options["attn_strategy"]
    variant = strategy if options["arch"] == "reduced" else f"block.{strategy}"
    method = naclip.METHOD if variant == "naclip" else naclip.VARIANTS[variant]
    if strategy in ("naclip", "nonly"):  # the others do not look at neighbours
        method = replace(method, attention=partial(method.attention, std=options["gaussian_std"]))
    return method


def clearclip_of(model_type: str, *, whole: bool) -> Method:
    """One of the attentions that ClearCLIP compares, with residual and MLP or without."""
    names = {"vanilla": "vanilla", "MaskCLIP": "maskclip", "SCLIP": "sclip", "ClearCLIP": "clearclip"}
    attention = METHODS.get(names[model_type]).attention
    return replace(clearclip.METHOD, attention=attention, residual=whole, mlp=whole)


def check_naclip_strategies(case: Case, given: Tensors) -> Tensors:
    found = {}
    for name in case.options["variants"]:
        arch, strategy = name.split(".")
        method = naclip_of({**case.options, "arch": arch, "attn_strategy": strategy})
        found[f"feat.{name}"] = read_by(case, method, given["image"]).features
    return found


def check_gaussian(case: Case, given: Tensors) -> Tensors:
    rows, columns = case.options["grid"]
    return {"addition": naclip.neighbourhood((rows, columns), case.options["gaussian_std"])}


def check_clearclip_variants(case: Case, given: Tensors) -> Tensors:
    found = {}
    for key in case.tensors:
        if key.startswith("out.feat."):
            name, part = key.removeprefix("out.feat.").split(".")
            method = clearclip_of(name, whole=part == "full_block")
            found[f"feat.{name}.{part}"] = read_by(case, method, given["image"]).features
    return found


def check_gem(case: Case, given: Tensors) -> Tensors:
    o = case.options
    read = partial(gem.read, iterations=o["ss_attn_iter"], temperature=o["ss_attn_temp"])
    dense = read_by(case, replace(gem.METHOD, read=read, blocks=o["modified_blocks"]), given["image"])
    plain = replace(METHODS.get("vanilla"), positions=gem.METHOD.positions)
    logits = cosine_logits(dense.features, given["text"])
    full = upsampled(logits, given["image"])
    low, high = full.amin(dim=(2, 3), keepdim=True), full.amax(dim=(2, 3), keepdim=True)
    return {
        "feat": dense.features,
        "feat_ori": read_by(case, plain, given["image"]).features,
        "logits": logits,
        "heat": (full - low) / (high - low),
    }


class Given:
    """A guide whose features are known."""

    inner = None

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.features

    def objectness(self, x: torch.Tensor) -> None:
        return None


def check_proxyclip(case: Case, given: Tensors) -> Tensors:
    o = case.options
    if o.get("proxy", given) is None:
        plain = replace(METHODS.get("vanilla"), positions=proxyclip.METHOD.positions)
        return {"feat": read_by(case, plain, given["image"]).features}
    read = partial(proxyclip.read, beta=o["beta"], gamma=o["gamma"])
    method = replace(proxyclip.METHOD, read=read)

    guide = Given(given["proxy"])
    dense = read_by(case, method, given["image"], guide=guide)
    logits = cosine_logits(dense.features, given["text"])

    def exchanged(blocks: Any, x: torch.Tensor, grid: tuple[int, int], guide: torch.Tensor) -> Tokens:
        return read(blocks, x, (grid[1], grid[0]), guide)

    quirk = read_by(case, replace(method, read=exchanged), given["image"], guide=guide)
    return {
        **dict.fromkeys(("feat", "feat_corrected"), dense.features),
        **dict.fromkeys(("logits", "logits_corrected"), logits),
        "feat_reference_quirk": quirk.features,
    }


CHECKS = {
    "maskclip_vit": check_maskclip,
    "maskclip_rn": check_maskclip,
    "maskclip_vit_end_to_end": check_end_to_end,
    "maskclip_plus_pseudo_label": check_pseudo_label,
    "sclip": check_attention,
    "naclip": check_attention,
    "clearclip": check_attention,
    "naclip_strategies": check_naclip_strategies,
    "naclip_gaussian_prior": check_gaussian,
    "clearclip_variants": check_clearclip_variants,
    "gem": check_gem,
    "proxyclip": check_proxyclip,
}
