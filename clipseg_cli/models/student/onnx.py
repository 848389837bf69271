"""A student as an ONNX graph that needs nothing of this package: images in, logits and labels out.

It decides as the inference loop does: each word is brought to the size of the image, then the best word of each
class counts. Labels can only be decided there, so the logits exist at that size whether or not they are handed out;
that is why they are, and not only a score for each pixel.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from clipseg_cli.models.student.network import Student

OPSET = 18
NEWER_EXPORTER = "2.9"
"""The version of torch from which on the exporter by `torch.export` is its default."""

_TYPES = {"float32": "FLOAT", "int64": "INT64"}


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

    @property
    def free(self) -> dict[int, str]:
        """The dimensions that each call may choose, and their names."""
        return {i: side for i, side in enumerate(self.shape) if isinstance(side, str)}


class ExportedStudent(nn.Module):
    """What the graph computes.

    Args:
        student: in eval mode.
        queries: [Q, D] unit rows.
        query_to_class: [Q] ascending.
        mean, std: of images in [0, 1].

    Attributes:
        inputs, outputs: how the graph is called.
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
        self.inputs = (Port("image", "float32", ("batch", 3, "height", "width")),)
        self.outputs = (
            Port("logits", "float32", ("batch", len(self.words), "height", "width")),
            Port("labels", "int64", ("batch", "height", "width")),
        )
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


def student_graph(net: ExportedStudent, facts: Mapping[str, str]) -> bytes:
    """An ONNX file with all weights within; the packages onnx and onnxscript must be there.

    Args:
        net: on the CPU, in eval mode.
        facts: its metadata.
    """
    # Before it became the default, the newer exporter could not resize to a size that is free.
    make = _traced if torch.__version__ < NEWER_EXPORTER else _captured
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return _finished(make(net, torch.zeros(2, 3, 64, 96)), net, facts)


def _captured(net: ExportedStudent, image: Tensor) -> Any:
    """By `torch.export`: an `onnx.ModelProto`."""
    free = {i: torch.export.Dim(name) for i, name in net.inputs[0].free.items()}
    program = torch.onnx.export(net, (image,), dynamo=True, dynamic_shapes=(free,), **_options(net))
    return program.model_proto  # type: ignore[union-attr]


def _traced(net: ExportedStudent, image: Tensor) -> Any:
    """By TorchScript: an `onnx.ModelProto`."""
    import onnx

    buffer: Any = io.BytesIO()  # allowed here, though the annotation knows only of paths
    axes = {port.name: port.free for port in (*net.inputs, *net.outputs)}
    torch.onnx.export(net, (image,), buffer, dynamo=False, dynamic_axes=axes, **_options(net))
    return onnx.load_from_string(buffer.getvalue())


def _options(net: ExportedStudent) -> dict[str, Any]:
    return {
        "input_names": [port.name for port in net.inputs],
        "output_names": [port.name for port in net.outputs],
        "opset_version": OPSET,
        "verbose": False,
    }


def _finished(proto: Any, net: ExportedStudent, facts: Mapping[str, str]) -> bytes:
    """The graph with its facts, and without traces of the code and the machine that it was made from."""
    import onnx

    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for found, port in zip((*graph.input, *graph.output), (*net.inputs, *net.outputs), strict=True):
        type_ = onnx.TensorProto.DataType.Value(_TYPES[port.type])
        found.CopyFrom(onnx.helper.make_tensor_value_info(port.name, type_, port.shape))
    onnx.helper.set_model_props(proto, dict(facts))
    data: bytes = proto.SerializeToString()
    return data
