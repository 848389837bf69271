"""Label propagation: what graphs and solvers promise, and the option that turns them on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clipseg_cli.config import InferenceConfig
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.steps import list_steps
from clipseg_cli.inference.tiling import SlidingWindows
from clipseg_cli.ops import pixel_graph, propagation
from clipseg_cli.ops.pixel_graph import PixelGraph, cie_lab
from clipseg_cli.ops.propagation import conjugate_gradients, nearest_graph, patch_places, propagate
from clipseg_cli.ops.reduce import stretched, upsample
from clipseg_cli.ops.text_laplacian import cell_size, text_laplacian
from clipseg_cli.refinements import lposs, tlp
from clipseg_cli.types import Context, LogitMaps, Tile

EXACT = {"steps": 500, "tolerance": 1e-7}


def unit(count: int, seed: int = 0, width: int = 8) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def places(count: int) -> torch.Tensor:
    return torch.arange(2.0 * count).view(count, 2)


def test_conjugate_gradients_solve_what_they_are_given():
    matrix = torch.randn(20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = matrix @ matrix.T + torch.eye(20, dtype=torch.float64)
    target = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = torch.linalg.solve(matrix, target.T).T
    for options in ({}, {"start": target}, {"shared": True}, {"tolerance": 1e-12}):
        found = conjugate_gradients(lambda x: x @ matrix, target, steps=200, **options)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_a_word_without_scores_stays_without_and_hinders_no_other():
    target = torch.stack([torch.zeros(4), torch.ones(4)])
    found = conjugate_gradients(lambda x: 2 * x, target, steps=10, tolerance=1e-6)
    assert torch.equal(found, target / 2)


@pytest.mark.parametrize("neighbours", [3, 12, 100])
def test_a_graph_is_symmetric_has_no_loops_and_does_not_grow(neighbours):
    graph = nearest_graph(unit(30), places(30), neighbours=neighbours)
    torch.testing.assert_close(graph, graph.T, atol=1e-7, rtol=0)
    assert (graph >= 0).all() and not graph.diagonal().any()
    assert torch.linalg.eigvalsh(graph).abs().max() <= 1 + 1e-5


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks_and_sparse_graphs_are_the_same_graph(rows, monkeypatch):
    whole = nearest_graph(unit(40), places(40), neighbours=6)
    monkeypatch.setattr(propagation, "ROWS_BYTES", 4 * 40 * rows)
    monkeypatch.setattr(propagation, "DENSE_NODES", 0)
    sparse = nearest_graph(unit(40), places(40), neighbours=6)
    assert sparse.is_sparse
    torch.testing.assert_close(sparse.to_dense(), whole, atol=1e-6, rtol=1e-5)
    scores = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(propagate(sparse, scores), propagate(whole, scores), atol=1e-4, rtol=1e-4)


def test_a_large_graph_has_fewer_neighbours(monkeypatch):
    monkeypatch.setattr(propagation, "GRAPH_ENTRIES", 2 * 40)
    graph = nearest_graph(unit(40).abs(), places(40), neighbours=30, sigma=0.0)
    assert (graph > 0).sum() <= 2 * 40  # one neighbour beside itself, both ways


def test_nothing_flows_between_parts_that_have_nothing_in_common():
    features = torch.cat([F.pad(unit(10).abs(), (0, 8)), F.pad(unit(12, 1).abs(), (8, 0))])
    graph = nearest_graph(F.normalize(features, dim=1), places(22), neighbours=22)
    scores = torch.zeros(22, 1)
    scores[:10] = 1
    found = propagate(graph, scores, **EXACT)
    assert (found[:10] > 1).all() and not found[10:].any()


def test_an_isolated_patch_keeps_its_scores():
    features = torch.eye(5)
    scores = torch.randn(5, 2)
    assert torch.allclose(propagate(nearest_graph(features, places(5)), scores), scores, atol=1e-6)


def test_the_order_of_patches_does_not_matter():
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    features, scores = unit(30), unit(30, 1, 4)
    one = propagate(nearest_graph(features, places(30), neighbours=9), scores)
    other = propagate(nearest_graph(features[order], places(30)[order], neighbours=9), scores[order])
    torch.testing.assert_close(other, one[order], atol=1e-4, rtol=1e-4)


def test_the_same_place_in_two_windows_is_the_same():
    found = patch_places([Tile(0, 16, 0, 16), Tile(0, 16, 8, 24)], (2, 2))
    assert found.tolist() == [[4, 4], [4, 12], [12, 4], [12, 12], [4, 12], [4, 20], [12, 12], [12, 20]]


def context_of(seen: torch.Tensor, windows: list[Tile], **others: object) -> Context:
    return Context(
        None, lambda: None, lambda: None, (32, 48), 40.0, "token", {"lposs": seen}, {}, windows, **others
    )


WINDOWS = [Tile(0, 32, 0, 32), Tile(0, 32, 16, 48)]


def seen_and_maps() -> tuple[torch.Tensor, list[LogitMaps]]:
    generator = torch.Generator().manual_seed(3)
    seen = F.normalize(torch.randn(2, 6, 4, 4, generator=generator).abs(), dim=1)
    return seen, [LogitMaps((torch.randn(3, 4, 4, generator=generator),)) for _ in range(2)]


def test_a_map_that_is_everywhere_the_same_stays_so_and_others_stay_between_their_ends():
    seen, maps = seen_and_maps()
    same = [LogitMaps((torch.full((1, 4, 4), 0.25),)) for _ in maps]
    for one in lposs.spread(same, context_of(seen, WINDOWS), "lposs", steps=500):
        torch.testing.assert_close(one.maps[0], same[0].maps[0], atol=1e-5, rtol=0)
        assert (one.mass >= 1).all()
    joined = torch.stack([one.maps[0] for one in maps])
    for one in lposs.spread(maps, context_of(seen, WINDOWS), "lposs", steps=500):
        assert (one.maps[0] <= joined.amax(dim=(0, 2, 3))[:, None, None] + 1e-4).all()
        assert (one.maps[0] >= joined.amin(dim=(0, 2, 3))[:, None, None] - 1e-4).all()


def test_a_guide_is_sharpened_less_than_the_tower_itself():
    seen, maps = seen_and_maps()
    for guided, gamma in ((True, 3.0), (False, 10.0)):
        auto = lposs.spread(maps, context_of(seen, WINDOWS, guided=guided), "lposs")
        fixed = lposs.spread(maps, context_of(seen, WINDOWS), "lposs", gamma=gamma)
        assert all(torch.equal(a.maps[0], b.maps[0]) for a, b in zip(auto, fixed, strict=True))


@pytest.mark.parametrize("cell", [1, 8])
def test_windows_are_averaged_as_published_by_the_sums_before_the_division(cell):
    """Scores over mass, each averaged by itself."""
    seen, maps = seen_and_maps()
    parts = lposs.spread(maps, context_of(seen, WINDOWS), "lposs")
    tiling = SlidingWindows(32, 16, cell)
    windows = tiling.windows((32, 48))

    def merged(values: list[torch.Tensor]) -> torch.Tensor:
        plain = [LogitMaps((value,)) for value in values]
        return tiling.merge(plain, windows, [(0, 0, 0, 0)] * 2, (32, 48)).maps[0]

    found = tiling.merge(parts, windows, [(0, 0, 0, 0)] * 2, (32, 48))
    above, below = merged([p.maps[0] * p.mass for p in parts]), merged([p.mass[None] for p in parts])
    torch.testing.assert_close(found.maps[0], above / below, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.mass, below[0], atol=1e-5, rtol=1e-5)


def test_lab_of_known_colours():
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0.5, 0.5, 0.5]]).T[:, None]
    wanted = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [53.39, 0, 0]]
    torch.testing.assert_close(cie_lab(colours)[:, 0].T, torch.tensor(wanted), atol=0.05, rtol=0)


def random_image(height: int = 12, width: int = 10) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(5)) * 0.02 + 0.4


def dense_matrix(image: torch.Tensor, tau: float, reach: int) -> torch.Tensor:
    """The graph of pixels, pair by pair."""
    height, width = image.shape[1:]
    lab = (cie_lab(image) / torch.tensor([100.0, 128, 128])[:, None, None]).flatten(1).T
    row, column = (torch.arange(height * width) // width, torch.arange(height * width) % width)
    near = ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)
    weights = torch.exp(-torch.cdist(lab, lab) / tau) * near
    weights.fill_diagonal_(0)
    inverse = weights.sum(dim=1).rsqrt()
    return weights * inverse[:, None] * inverse


@pytest.mark.parametrize(("strip", "kept"), [(1, 1 << 30), (4 * 32 * 10 * 5, 0), (1 << 30, 0)])
def test_the_graph_of_pixels_is_that_of_all_pairs_strip_by_strip(strip, kept, monkeypatch):
    monkeypatch.setattr(pixel_graph, "STRIP_BYTES", strip)
    monkeypatch.setattr(pixel_graph, "KEPT_BYTES", kept)
    image, x = random_image(), torch.randn(3, 12, 10)
    graph = PixelGraph(image, tau=0.02, reach=3)
    wanted = (x.flatten(1) @ dense_matrix(image, 0.02, 3)).view_as(x)
    torch.testing.assert_close(graph(x), wanted, atol=1e-4, rtol=1e-3)


def test_words_of_pixels_are_solved_for_some_at_a_time(monkeypatch):
    graph, scores = PixelGraph(random_image()), torch.randn(5, 12, 10)
    together = graph.propagate(scores)
    monkeypatch.setattr(pixel_graph, "WORDS_BYTES", 4 * 12 * 10 * 2)
    torch.testing.assert_close(graph.propagate(scores), together, atol=1e-4, rtol=1e-4)


def test_pixels_of_another_colour_take_nothing_over():
    image = torch.zeros(3, 8, 8)
    image[:, :, 4:] = 1.0
    scores = torch.zeros(1, 8, 8)
    scores[..., :4] = 1
    found = PixelGraph(image).propagate(scores, **EXACT)
    assert (found[..., :4] > 1).all() and found[..., 4:].abs().max() < 1e-6


def test_cells_are_about_as_many_as_asked_for():
    assert cell_size((480, 640), 80) == (6, 8)
    assert cell_size((30, 50), 80) == (1, 1)
    assert cell_size((3000, 4000), 80) == (38, 50)


def test_propagation_over_the_image_leaves_what_is_everywhere_the_same():
    same = torch.tensor([0.2, 0.3])[:, None, None].expand(2, 9, 7).contiguous()
    found = text_laplacian(same, torch.randn(3, 9, 7), unit(2))
    torch.testing.assert_close(found, same, atol=1e-6, rtol=0)


def test_scores_do_not_cross_an_edge_and_cross_what_has_none():
    image = torch.zeros(3, 8, 12)
    image[:, :, 6:] = 5.0
    logits = torch.zeros(2, 8, 12)
    logits[0, 4, 2] = 1.0
    found = text_laplacian(logits, image, unit(2), steps=100, sharpness=50.0)[0]
    assert found[4, 5] > 0.01 and found[:, 6:].abs().max() < 1e-4


def test_cells_are_those_of_maps_at_full_size():
    """The product never makes these."""
    maps, image, text = torch.randn(3, 5, 6), torch.randn(3, 40, 50), unit(3)
    size = (61, 83)
    full, pixels = upsample(maps[None], size)[0], upsample(image[None], size)[0]
    cell = cell_size(size, 20)
    pooled = [F.avg_pool2d(one[None], cell)[0] for one in (full, pixels)]
    found = tlp.spread([stretched(maps, size)], stretched(image, size), text, 20)
    torch.testing.assert_close(found, text_laplacian(*pooled, text), atol=2e-4, rtol=1e-3)


@pytest.fixture
def drawing(tmp_path):
    image = np.full((64, 96, 3), (120, 180, 240), np.uint8)
    image[40:] = (90, 160, 60)
    image[20:44, 30:60] = (200, 30, 30)
    Image.fromarray(image).save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png"


@pytest.mark.parametrize("kind", ["lposs", "lposs+", "pearl"])
@pytest.mark.parametrize("method", ["vanilla", "sc_clip"])
def test_it_changes_what_comes_out(cli, drawing, tiny_clip, kind, method):
    out = drawing.parent / "out"
    options = (*tiny_clip.options, "-c", "cat,dog,car", "--method", method, "--short-side", "64")
    found = []
    for extra in ((), ("--propagate", kind)):
        done = cli("segment", drawing, *options, "--out", out, *extra, "--json")
        assert done.code == 0, done.err
        found.append(json.loads(done.stdout)["images"][0])
    plain, flowed = ([one["confidence"] for one in image["classes"]] for image in found)
    assert plain != flowed
    assert np.asarray(Image.open(found[1]["labels"])).shape == (64, 96)


@pytest.mark.parametrize(
    ("kind", "names"), [("lposs", ["lposs"]), ("lposs+", ["lposs", "lposs_plus"]), ("pearl", ["tlp"])]
)
def test_the_option_turns_on_its_steps_before_those_of_pixels(kind, names):
    rows = list_steps(InferenceConfig(propagate=kind, pamr=1), find_protocol("default"), background=False)
    order = [row["name"] for row in rows]
    assert [name for name in order if name in ("lposs", "lposs_plus", "tlp")] == names
    assert order.index("pamr") > order.index(names[-1])
    assert ("lposs" in names) == (order.index(names[0]) < order.index("merge"))


def test_bundled_model_at_its_own_sizes(cli, drawing):
    options = ("--model", "emoji", "-c", "sky,grass,car", "--background", "none", "--propagate", "lposs+")
    done = cli(
        "segment",
        drawing,
        *options,
        "--set",
        "lposs.steps=3",
        "--set",
        "lposs_plus.reach=2",
        "--json",
        "--out",
        drawing.parent / "out",
        "--short-side",
        "64",
    )
    assert done.code == 0, done.err
    shares = {one["name"]: one for one in json.loads(done.stdout)["images"][0]["classes"]}
    assert all(0 <= one["confidence"] <= 1 for one in shares.values() if one["confidence"] is not None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--propagate", "lposs++"), "unknown propagation 'lposs++'"),
        (("--propagate", "lposs", "--method", "clip_diy"), "has no patches for --propagate lposs"),
        (("--propagate", "pearl", "--guide", "dino"), "asks no other network"),
        (("--set", "lposs.alpha=0.5"), "lposs.alpha does nothing without --propagate lposs"),
        (("--set", "tlp.grid=20", "--propagate", "lposs"), "tlp.grid does nothing without --propagate pearl"),
        (("--set", "lposs=1"), "it has an option of its own"),
        (("--set", "lposs.alpha=1", "--propagate", "lposs"), "1 is not a number from 0 to 0.999"),
    ],
)
def test_what_does_not_go_together_is_told(cli, drawing, options, message):
    done = cli("segment", drawing, "--model", "emoji", "-c", "cat", "--out", drawing.parent / "out", *options)
    assert done.code in (1, 2)
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not (drawing.parent / "out").exists()
