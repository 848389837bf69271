"""SC-CLIP against a second implementation that goes patch by patch, and its parts by what they promise."""

from __future__ import annotations

import math

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.methods import METHODS, sc_clip
from clipseg_cli.models.clip.dense_transformer import dense_reader


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    net = open_clip.transformer.VisionTransformer(
        image_size=32, patch_size=4, width=32, layers=12, heads=2, mlp_ratio=2, output_dim=16
    )
    for parameter in net.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def cosine(a, b):
    return float((a @ b) / (a.norm() * b.norm()))


def slow(net, image):
    """The published forward pass of one picture [1, 3, H, W] of the native size, written out in loops: [n, D]."""
    x = net.conv1(image).flatten(2).transpose(1, 2)
    x = torch.cat([net.class_embedding.view(1, 1, -1), x], dim=1) + net.positional_embedding
    x = net.ln_pre(x)
    outputs = []
    for block in net.transformer.resblocks[:-1]:
        x = block(x)
        outputs.append(x[0])
    side = math.isqrt(x.shape[1] - 1)
    n = side * side
    last = x[0]
    # Local outlier factor of the patches in front of the last block.
    points = last[1:]
    squared = [[float((points[i] - points[j]).norm() ** 2) for j in range(n)] for i in range(n)]
    nearest = [sorted(range(n), key=lambda j, i=i: squared[i][j])[1:31] for i in range(n)]
    density = [30 / (sum([squared[i][nearest[i][-1]]] * 30) / 30) for i in range(n)]
    factor = [sum(density[j] for j in nearest[i]) / 30 / density[i] for i in range(n)]
    limit = torch.tensor(factor).quantile(0.95)
    odd = {i for i in range(n) if factor[i] > limit}
    assert odd

    def repaired(rows):
        rows = rows.clone()
        known = rows.clone()
        for i in odd:
            r, c = divmod(i, side)
            around = [
                known[a * side + b]
                for a in range(max(0, r - 1), min(side, r + 2))
                for b in range(max(0, c - 1), min(side, c + 2))
                if a * side + b not in odd
            ]
            if around:
                rows[i] = sum(around) / len(around)
        return rows

    def gather(rows, by):
        found = []
        for i in range(n):
            weights = [w if (w := cosine(by[i], by[j])) >= 0.4 else 0.0 for j in range(n)]
            total = sum(weights) + 1e-6
            found.append(sum(w / total * rows[j] for j, w in enumerate(weights)))
        return torch.stack(found)

    block = net.transformer.resblocks[-1]
    middle = repaired(outputs[8][1:])
    similar = torch.tensor([[cosine(middle[i], middle[j]) for j in range(n)] for i in range(n)])
    sharp = 3.0 * (similar - similar.mean())
    near = sharp.masked_fill(sharp < 0, -math.inf).softmax(dim=-1)

    def attend(rows, cls):
        normed = F.layer_norm(rows, (32,), block.ln_1.weight, block.ln_1.bias)
        joined = normed @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
        heads = []
        for head in range(2):
            key, value = (joined[:, 32 * part + 16 * head :][:, :16] for part in (1, 2))
            weights = (near + (key @ key.T / 4).softmax(dim=-1)) / 2
            heads.append(weights @ value)
        return block.attn.out_proj(torch.cat(heads, dim=1)) + 0.3 * cls

    early = outputs[3][1:]
    found = gather(attend(gather(repaired(last[1:]), middle), last[:1]), early)
    detail = sum(outputs[i] for i in range(3, 10))
    found = found + gather(attend(detail[1:], detail[:1]), early)
    return net.ln_post(found) @ net.proj


@torch.inference_mode()
def test_equals_the_published_computation_written_out_in_loops(tower):
    torch.manual_seed(1)
    images = torch.randn(2, 3, 32, 32)
    found = dense_reader(tower, METHODS.get("sc_clip"))(images).features  # [2, D, 8, 8]
    for i in range(2):  # pictures of a batch do not see each other
        expected = slow(tower, images[i : i + 1]).T.view(16, 8, 8)
        torch.testing.assert_close(found[i], expected, atol=2e-5, rtol=1e-4)


def test_planted_outliers_are_found_and_repaired():
    torch.manual_seed(2)
    features = torch.randn(1, 8, 10, 10) * 0.1 + 1
    planted = torch.zeros(1, 10, 10, dtype=torch.bool)
    for r, c in ((0, 0), (4, 5), (9, 3), (7, 7)):
        features[0, :, r, c] = 40 * torch.randn(8)
        planted[0, r, c] = True
    odd = sc_clip.outliers(features)
    assert bool(odd[planted].all()) and int(odd.sum()) == 5  # 5 %
    repaired = sc_clip.mended(features, planted)
    assert torch.equal(repaired[:, :, ~planted[0]], features[:, :, ~planted[0]])
    assert (repaired - 1).abs().max() < 1
    torch.testing.assert_close(
        repaired[0, :, 0, 0], (features[0, :, 0, 1] + features[0, :, 1, 0] + features[0, :, 1, 1]) / 3
    )


def test_an_outlier_among_outliers_stays():
    features = torch.randn(1, 4, 3, 3)
    everywhere = torch.ones(1, 3, 3, dtype=torch.bool)
    assert torch.equal(sc_clip.mended(features, everywhere), features)


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 3)])
def test_tiny_grids_have_few_neighbours(grid):
    assert sc_clip.outliers(torch.randn(2, 4, *grid)).shape == (2, *grid)


@pytest.mark.parametrize("layers", [2, 3, 6, 24])
@torch.inference_mode()
def test_other_depths(layers):
    torch.manual_seed(3)
    net = open_clip.transformer.VisionTransformer(
        image_size=16, patch_size=4, width=16, layers=layers, heads=2, mlp_ratio=2, output_dim=8
    ).eval()
    features = dense_reader(net, METHODS.get("sc_clip"))(torch.randn(1, 3, 16, 24)).features
    assert features.shape == (1, 8, 4, 6) and bool(features.isfinite().all())
