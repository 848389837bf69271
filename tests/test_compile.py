"""`--compile`: the features of the same model, whatever the size of a batch; refused where it is of no use."""

import copy

import pytest
import torch
import torch._dynamo

from clipseg_cli.errors import ModelError, UsageError
from clipseg_cli.methods import find_method
from clipseg_cli.models.clip import compiled
from clipseg_cli.models.clip.compiled import check_compiler
from clipseg_cli.models.clip.dense_transformer import dense_reader
from clipseg_cli.models.weights.precision import hold_weights_in
from clipseg_cli.types import Reading


@pytest.fixture
def counted(monkeypatch):
    """Graphs that were handed to the backend, none of which is compiled: that takes long, and is torch's business."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "_compiled", lambda: function)
    function = torch.compile(compiled._as_trained, backend=backend, dynamic=True)
    yield graphs
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_blocks_share_what_is_compiled_and_any_batch_fits(tiny_clip, counted, dtype):
    visual = copy.deepcopy(tiny_clip.model.visual)
    hold_weights_in(visual, dtype)
    method = find_method("maskclip")
    eager, read = dense_reader(visual, method), dense_reader(visual, method, Reading(compiled=True))
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for count in (4, 3, 1, 7):
            images = torch.randn(count, 3, 32, 32)
            torch.testing.assert_close(read(images).features, eager(images).features)
    assert 1 <= len(counted) <= 2  # any size, and one image


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_it_is_for_cuda(device):
    with pytest.raises(UsageError, match=f"--compile is for CUDA: on {device} it takes longer") as error:
        check_compiler(torch.device(device))
    assert error.value.hint == "leave out --compile"


def test_without_triton_it_is_refused(monkeypatch):
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs triton, which is not installed"):
        check_compiler(torch.device("cuda"))


def test_it_is_refused_before_weights_are_read(cli, make_image, tmp_path):
    done = cli("segment", make_image(tmp_path / "a.png"), "--classes", "cat", "--device", "cpu", "--compile")
    assert done.code == 2
    assert "--compile is for CUDA" in done.err


@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_a_compiler_that_fails_is_said_in_a_sentence(tiny_clip, monkeypatch):
    def broken(graph, _):
        raise RuntimeError("no space for kernels")

    torch._dynamo.reset()
    function = torch.compile(compiled._as_trained, backend=broken)
    monkeypatch.setattr(compiled, "_compiled", lambda: function)
    read = dense_reader(tiny_clip.model.visual, find_method("maskclip"), Reading(compiled=True))
    with (
        pytest.raises(ModelError, match=r"could not compile this model: .*no space for kernels"),
        torch.inference_mode(),
    ):
        read(torch.randn(1, 3, 32, 32))


def test_a_tower_without_blocks_is_refused():
    tower = type("ModifiedResNet", (torch.nn.Module,), {})()
    with pytest.raises(ModelError, match="this tower has none"):
        dense_reader(tower, find_method("maskclip"), Reading(compiled=True))


def test_a_student_is_not_compiled(cli, tmp_path):
    done = cli("segment", tmp_path, "--student", tmp_path, "--compile")
    assert done.code == 2
    assert "--compile is about a CLIP" in done.err
