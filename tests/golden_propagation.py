"""What the cases in `golden-regions/` check of label propagation: LPOSS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli.ops.pixel_graph import PixelGraph
from clipseg_cli.ops.propagation import nearest_graph, patch_places, propagate
from clipseg_cli.ops.reduce import upsample
from clipseg_cli.ops.windows import Window, plan_windows, stitch
from clipseg_cli.types import Tile

if TYPE_CHECKING:
    from collections.abc import Callable

    from golden_cases import Case, Tensors


def check_lposs(case: Case, given: Tensors) -> Tensors:
    o = case.options
    size, original = tuple(o["input_size"]), tuple(o["original_size"])
    guide, clip = (given[name].movedim(-1, 1) for name in ("dino", "clip"))  # [P, C, h, w]
    windows = [Window(0, 0, *size)]
    if "crop" in o:
        windows = plan_windows(size, o["crop"], o["stride"])
    grid = (guide.shape[2], guide.shape[3])
    clip = F.normalize(clip, dim=1)
    if tuple(clip.shape[2:]) != grid:
        clip = F.normalize(upsample(clip, grid), dim=1)
    start = torch.einsum("pdhw,qd->phwq", clip, given["text"]).flatten(0, 2)  # [N, Q]
    places = patch_places([Tile(w.top, w.top + w.height, w.left, w.left + w.width) for w in windows], grid)
    graph = nearest_graph(
        F.normalize(guide, dim=1).movedim(1, -1).flatten(0, 2),
        places,
        neighbours=o["k"],
        gamma=o["gamma"],
        sigma=o["sigma"],
        power=o["pix_dist_pow"],
    )
    solve = {
        "alpha": o["alpha"],
        "steps": o["cg_max_iterations"],
        "tolerance": o["cg_relative_tolerance"],
    }
    patches = propagate(graph, start, **solve)
    maps = patches.view(len(windows), *grid, -1).permute(0, 3, 1, 2)  # [P, Q, h, w]
    background, refined = o.get("background_queries", 1), None

    def reduced(words: torch.Tensor) -> torch.Tensor:
        """The best of the words of the background speaks for it: [..., Q, h, w] -> [..., C, h, w]."""
        best = words[..., :background, :, :].amax(dim=-3, keepdim=True)
        return torch.cat([best, words[..., background:, :, :]], dim=-3)

    def merged(patch_maps: torch.Tensor) -> torch.Tensor:
        return stitch(
            [upsample(one[None], (w.height, w.width))[0] for one, w in zip(patch_maps, windows, strict=True)],
            windows,
            size,
        )

    if o["pixel_refine"]:
        pixels = PixelGraph(given["image"][0], tau=o["tau"], reach=o["r"] // 2)
        refined = pixels.propagate(merged(maps), **solve)
        scores = reduced(refined)
    else:
        scores = merged(reduced(maps))
    masks = upsample(scores[None], original)[0]
    return {
        "start": start,
        "patch_scores": patches,
        "weights": graph.to_dense() if graph.is_sparse else graph,
        "masks": masks[None],
        "label": masks.argmax(dim=0),
        **({} if refined is None else {"refined": refined.permute(1, 2, 0)}),
    }


CHECKS: dict[str, Callable[[Case, Tensors], Tensors]] = {"lposs": check_lposs}
