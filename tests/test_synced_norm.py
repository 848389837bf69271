"""Batch norm over two real processes against one process with all the crops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from clipseg_cli.models.student.heads import DeepLabV3PlusHead
from clipseg_cli.models.student.synced_norm import SyncedBatchNorm2d, joins_ranks, synchronise

RANKS = 2
SPLIT = (3, 1)
"""Crops on each rank; unequal, so that a mean of means would show."""

FAR = "far from zero"

NETS = {
    "usual": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.BatchNorm2d(4),
    ),
    "cumulative": lambda: nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, momentum=None)),
    "plain": lambda: nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 1)),
    "untracked": lambda: nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Conv2d(3, 2, 1)),
    FAR: lambda: nn.BatchNorm2d(3),
}

RANK = """
import sys, torch, torch.distributed as dist
from clipseg_cli.models.student.heads import DeepLabV3PlusHead
from clipseg_cli.models.student.synced_norm import joins_ranks, synchronise

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
results = {}
for name, case in torch.load(f"{folder}/cases.pt", weights_only=False).items():
    net = synchronise(case["net"]).train()
    runs = []
    for x, target in zip(case["x"], case["target"]):
        x, target = x.split(case["split"])[rank].requires_grad_(), target.split(case["split"])[rank]
        net.zero_grad()
        out = net(x)
        (out * target).sum().backward()
        runs.append((out.detach(), x.grad, {k: p.grad for k, p in net.named_parameters()}))
    buffers = {k: b.clone() for k, b in net.named_buffers()}
    later = net.eval()(case["x"][0]).detach()
    results[name] = runs, buffers, later
torch.manual_seed(0)
head = synchronise(DeepLabV3PlusHead(4, 6, 8)).train()
results["one crop"] = head((torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4))).shape, joins_ranks(head.pool[1])
torch.save(results, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def cases():
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, build in NETS.items():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net = build()
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.affine:
                norm.weight.data.uniform_(0.5, 1.5, generator=generator)
                norm.bias.data.uniform_(-1, 1, generator=generator)
        shift = torch.tensor([[[[300.0]], [[-200.0]], [[0.0]]]]) if name == FAR else 0.5
        # In doubles whatever differs is a mistake; only there the precision itself is looked at.
        dtype = torch.float32 if name == FAR else torch.float64
        net.to(dtype)
        x = [torch.randn(sum(SPLIT), 3, 5, 6, generator=generator, dtype=dtype) + shift for _ in range(2)]
        target = [torch.randn(net(x[0]).shape, generator=generator, dtype=dtype) for _ in x]
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.reset_running_stats()
        made[name] = {"net": net, "x": x, "target": target, "split": SPLIT}
    return made


@pytest.fixture(scope="module")
def ranks(cases, tmp_path_factory, start_warm):
    """What each of two processes computed on its own crops."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.save(cases, folder / "cases.pt")
    (folder / "rank.py").write_text(RANK)
    running = [start_warm(folder / "rank.py", folder, r, cwd=folder) for r in range(RANKS)]
    try:
        said = [process.communicate(timeout=60)[1].decode() for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0, 0], said
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(RANKS)]


@pytest.mark.parametrize("name", NETS)
def test_two_processes_equal_one_with_all_the_crops(name, cases, ranks):
    def equal(one, other):
        tolerance = 1e-3 if name == FAR else 1e-10
        torch.testing.assert_close(one.double(), other.double(), atol=tolerance, rtol=tolerance)

    case = cases[name]
    net = case["net"].double().train()
    for step, (x, target) in enumerate(zip(case["x"], case["target"], strict=True)):
        x = x.double().requires_grad_()
        net.zero_grad()
        out = net(x)
        (out * target).sum().backward()
        parts = [rank[name][0][step] for rank in ranks]
        equal(torch.cat([part[0] for part in parts]), out)
        equal(torch.cat([part[1] for part in parts]), x.grad)
        for key, weight in net.named_parameters():
            equal(sum(part[2][key] for part in parts), weight.grad)
    for key, buffer in net.named_buffers():
        equal(ranks[0][name][1][key], buffer)
        assert torch.equal(ranks[0][name][1][key], ranks[1][name][1][key])
    equal(ranks[1][name][2], net.eval()(case["x"][0].double()))


def test_one_crop_on_each_rank_is_enough_behind_image_pooling(ranks):
    assert all(rank["one crop"] == (torch.Size([1, 8, 8, 8]), True) for rank in ranks)


def test_alone_it_is_batch_norm():
    torch.manual_seed(0)
    plain, synced = nn.BatchNorm2d(4), SyncedBatchNorm2d(4)
    x = torch.randn(2, 4, 3, 3)
    for mode in (True, False):
        assert torch.equal(plain.train(mode)(x), synced.train(mode)(x))
    assert torch.equal(plain.running_var, synced.running_var)
    assert not joins_ranks(synced)


def test_synchronising_keeps_names_weights_and_the_network():
    head = DeepLabV3PlusHead(4, 6, 8)
    before = {k: v.clone() for k, v in head.state_dict().items()}
    weights = list(head.parameters())
    assert synchronise(head) is head
    assert not [m for m in head.modules() if type(m) is nn.BatchNorm2d]
    assert list(before) == list(head.state_dict())
    assert all(torch.equal(before[k], v) for k, v in head.state_dict().items())
    assert all(a is b for a, b in zip(weights, head.parameters(), strict=True))


def test_a_lone_batch_norm_is_synchronised_too():
    assert type(synchronise(nn.BatchNorm2d(3))) is SyncedBatchNorm2d
