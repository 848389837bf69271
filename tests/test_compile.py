"""`--compile`: the labels of the same model, whatever the size of a batch; refused where there is no compiler."""

import copy
import shutil

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

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")


@pytest.fixture
def counted(monkeypatch):
    """Graphs that were handed to the backend, none of which is compiled: that takes long, and is torch's business."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "_compiled", lambda: function)
    function = torch.compile(compiled._as_trained, backend=backend)
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
    assert 1 <= len(counted) <= 3  # one size, any size, one image


@pytest.fixture
def quick_compiler(monkeypatch):
    """In this process, and without vectors: which of them a processor has is told by compiling for each of them."""
    from torch._inductor import config

    monkeypatch.setattr(config, "compile_threads", 1)
    monkeypatch.setattr(config.cpp, "vec_isa_ok", False)


@needs_compiler
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_labels_are_those_of_the_model_as_it_is(tiny_clip, make_image, tmp_path, cli, quick_compiler):
    words = ("segment", make_image(tmp_path / "a.png"), "--classes", "cat,dog,grass", *tiny_clip.options)
    for name, more in (("eager", ()), ("compiled", ("--compile",))):
        done = cli(*words, "--formats", "labels", "--precision", "fp32", "--out", tmp_path / name, *more)
        assert done.code == 0, done.err
    eager, found = (next((tmp_path / name).glob("*.png")).read_bytes() for name in ("eager", "compiled"))
    assert found == eager


def test_without_a_compiler_it_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(
        UsageError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler"
    ) as error:
        check_compiler(torch.device("cpu"))
    assert error.value.hint.endswith("leave out --compile")
    with pytest.raises(UsageError, match="not for mps"):
        check_compiler(torch.device("mps"))


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
