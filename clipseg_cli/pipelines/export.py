"""From a student to one ONNX graph that needs nothing of this package: pictures in, logits and labels out.

The graph decides as the inference loop does: each word is brought to the size of the picture, then the best word of
each class counts. Labels can only be decided there, so the logits exist at that size whether or not they are handed
out; that is why they are, and not only a score for each pixel.
"""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from clipseg_cli import __version__
from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import ClipsegError, ModelError, OutputError, UsageError
from clipseg_cli.models.student_files import read_student
from clipseg_cli.models.student_model import StudentModel
from clipseg_cli.pipelines.about import model_notes
from clipseg_cli.pipelines.students import embed_for, find_student
from clipseg_cli.utils.files import check_writable, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from clipseg_cli.config import ExportConfig
    from clipseg_cli.models.student import Student
    from clipseg_cli.types import ClassList

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
NEWER_EXPORTER = "2.9"
"""The version of torch from which on the exporter by `torch.export` is its default."""
TOLERANCE = 1e-3
"""How far logits may differ from the student's, as a share of their range."""

_ODD = (2, 101, 67)  # B, H, W of the second check: no side fits the stride
_SUFFIX = ".onnx"
_ANOTHER_FILE = "choose another file with --onnx"


@dataclass(frozen=True)
class Port:
    """An input or output of the graph.

    Attributes:
        name: as in the graph.
        type: of its elements, as numpy calls it.
        shape: numbers, and names for what each call may choose.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Check:
    """The graph beside the student, on random pictures.

    Attributes:
        size: (B, H, W).
        difference: the largest between two logits.
        range: of the student's logits, from the least to the greatest.
        equal_labels: share of the pixels.
    """

    size: tuple[int, int, int]
    difference: float
    range: float
    equal_labels: float


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        path: of the file.
        size: bytes.
        opset: of ONNX.
        model: the student it was made from.
        classes: what the labels mean.
        inputs, outputs: of the graph.
        checks: what was compared before the file got its name.
        notes: what a user should be told once.
    """

    path: Path
    size: int
    opset: int
    model: StudentModel
    classes: ClassList
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]


class ExportedStudent(nn.Module):
    """What the graph computes.

    Args:
        student: in eval mode.
        queries: [Q, D] unit rows.
        query_to_class: [Q] ascending.
        mean, std: of pictures in [0, 1].
    """

    mean: Tensor
    std: Tensor
    queries: Tensor

    def __init__(
        self,
        student: Student,
        queries: Tensor,
        query_to_class: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.student = student
        self.words = [query_to_class.count(c) for c in sorted(set(query_to_class))]
        self.register_buffer("queries", queries)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """RGB [B, 3, H, W] in [0, 255] -> logits [B, C, H, W] and labels [B, H, W] int64."""
        features = self.student.head(self.student.backbone((image - self.mean) / self.std))
        logits = self.student.logits(features, self.queries)  # [B, Q, h, w]
        logits = F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)
        if max(self.words) > 1:
            parts = logits.split(self.words, dim=1)
            best = [p.amax(1, keepdim=True) if n > 1 else p for p, n in zip(parts, self.words, strict=True)]
            logits = torch.cat(best, dim=1)  # [B, C, H, W]
        return logits, logits.argmax(1)


def export_student(config: ExportConfig) -> Export:
    """Write a student as one ONNX file, once onnxruntime has computed with it what the student computes.

    Input `image`: float32 [batch, 3, height, width], RGB from 0 to 255, normalised inside. Outputs: `logits`
    float32 [batch, C, height, width], and `labels` int64 [batch, height, width], their best class. The metadata
    holds `classes` (names in label order, JSON), `short_side` (to which pictures were resized in training; 0: not
    at all) and `clipseg` (version).

    Raises:
        UsageError: the file's name does not end in .onnx.
        ModelError: no such student, damaged files, words that it cannot be given, or a graph that computes
            something else.
        OutputError: the file cannot be written.
        ClipsegError: a package is missing, or the class list is malformed.
    """
    _check_packages()
    _check_target(config.onnx)
    folder = find_student(config.student)
    classes = load_classes(config.classes, background=config.background) if config.classes.strip() else None
    device = torch.device("cpu")
    student, card = read_student(folder, device)
    model = StudentModel(student, card, str(folder))
    classes, queries = model.with_words(
        classes or card.classes, lambda words: embed_for(card.teacher, words, card.templates, device)
    )
    net = ExportedStudent(student, queries, classes.query_to_class, card.mean, card.std).eval()
    inputs = (Port("image", "float32", ("batch", 3, "height", "width")),)
    outputs = (
        Port("logits", "float32", ("batch", len(classes), "height", "width")),
        Port("labels", "int64", ("batch", "height", "width")),
    )
    facts = {
        "classes": json.dumps(classes.names, ensure_ascii=False),
        "short_side": str(card.short_side),
        "clipseg": __version__,
    }
    with torch.inference_mode(False), torch.no_grad():
        graph = _finished(_graph(net, inputs, outputs), inputs, outputs, facts)
        checks = _check_graph(graph, net, ((1, *config.size), _ODD))
    try:
        write_bytes(config.onnx, graph)
    except OutputError as error:
        raise type(error)(error.message, hint=_ANOTHER_FILE) from error
    notes = tuple(model_notes(model, classes))
    return Export(config.onnx, len(graph), OPSET, model, classes, inputs, outputs, checks, notes)


def _check_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ClipsegError(
            f"exporting needs the packages {', '.join(PACKAGES)}; not installed: {', '.join(missing)}",
            hint='pip install "clipseg-cli[onnx]"',
        )


def _check_target(path: Path) -> None:
    """Refuse a file that cannot be written, or was hardly meant, before the long work starts."""
    # Any other name may be that of a file of weights that would be written over.
    if path.suffix.lower() != _SUFFIX:
        raise UsageError(f"--onnx {path}: the name of the file must end in {_SUFFIX}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder", hint=_ANOTHER_FILE)
    try:
        check_writable(path.parent)
    except OutputError as error:
        raise type(error)(error.message, hint=_ANOTHER_FILE) from error


def _graph(net: nn.Module, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    """The network as an `onnx.ModelProto`, weights within."""
    # Before it became the default, the newer exporter could not resize to a size that is free.
    make = _traced if torch.__version__ < NEWER_EXPORTER else _captured
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(net, torch.zeros(2, 3, 64, 96), inputs, outputs)


def _captured(net: nn.Module, image: Tensor, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    """By `torch.export`."""
    free = {i: torch.export.Dim(name) for i, name in _free(inputs[0]).items()}
    program = torch.onnx.export(
        net,
        (image,),
        dynamo=True,
        dynamic_shapes=(free,),
        input_names=[port.name for port in inputs],
        output_names=[port.name for port in outputs],
        opset_version=OPSET,
        verbose=False,
    )
    return program.model_proto  # type: ignore[union-attr]


def _traced(net: nn.Module, image: Tensor, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    """By TorchScript."""
    import onnx

    buffer: Any = io.BytesIO()  # allowed here, though the annotation knows only of paths
    torch.onnx.export(
        net,
        (image,),
        buffer,
        dynamo=False,
        dynamic_axes={port.name: _free(port) for port in (*inputs, *outputs)},
        input_names=[port.name for port in inputs],
        output_names=[port.name for port in outputs],
        opset_version=OPSET,
        verbose=False,
    )
    return onnx.load_from_string(buffer.getvalue())


def _free(port: Port) -> dict[int, str]:
    """The dimensions that each call may choose, and their names."""
    return {i: side for i, side in enumerate(port.shape) if isinstance(side, str)}


def _finished(proto: Any, inputs: Sequence[Port], outputs: Sequence[Port], facts: dict[str, str]) -> bytes:
    """The graph with its facts, and without what only says where on this machine it came from."""
    import onnx

    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    for found, port in zip((*graph.input, *graph.output), (*inputs, *outputs), strict=True):
        type_ = onnx.helper.np_dtype_to_tensor_dtype(
            torch.empty(0, dtype=getattr(torch, port.type)).numpy().dtype
        )
        found.CopyFrom(onnx.helper.make_tensor_value_info(port.name, type_, port.shape))
    onnx.helper.set_model_props(proto, facts)
    data: bytes = proto.SerializeToString()
    return data


def _check_graph(
    graph: bytes, net: ExportedStudent, sizes: Sequence[tuple[int, int, int]]
) -> tuple[Check, ...]:
    """Run the graph beside the network on random pictures of (B, H, W).

    Raises:
        ModelError: they differ.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    checks = []
    for size in sizes:
        image = _random_pictures(*size)
        logits, labels = map(torch.from_numpy, session.run(["logits", "labels"], {"image": image.numpy()}))
        checks.append(_compare(net(image), (logits, labels)))
    return tuple(checks)


def _compare(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Check:
    """Logits [B, C, H, W] and labels [B, H, W] of the student and of the graph.

    Raises:
        ModelError: logits beyond the tolerance, or other labels where it is no near tie.
    """
    (logits, labels), (found, found_labels) = ours, theirs
    size = (labels.shape[0], labels.shape[1], labels.shape[2])
    range_ = float(logits.max() - logits.min())
    difference = float((found - logits).abs().max())
    lost = logits.amax(1) - logits.gather(1, found_labels[:, None])[:, 0]  # by choosing the graph's label
    check = Check(size, difference, range_, float((labels == found_labels).float().mean()))
    # So that NaN is beyond the tolerance too.
    if not (difference <= TOLERANCE * range_ and float(lost.max()) <= 2 * TOLERANCE * range_):
        raise ModelError(
            f"the exported graph computes something else than the student: on {size[1]} x {size[2]} pixels logits "
            f"differ by up to {difference:.2g} (their range is {range_:.2g}), and {check.equal_labels:.2%} of the "
            "labels are equal; nothing was written",
            hint="try other versions of torch, onnxscript and onnxruntime",
        )
    return check


def _random_pictures(batch: int, height: int, width: int) -> Tensor:
    """[B, 3, H, W] in [0, 255]: patches of colour under noise, the same every time."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 5, 5, generator=random) * 255
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (smooth + 20 * torch.randn(smooth.shape, generator=random)).clamp(0, 255).round()
