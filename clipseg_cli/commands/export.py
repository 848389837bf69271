"""`clipseg export`: a student becomes one file, which is compared with it before it gets its name."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clipseg_cli import __version__
from clipseg_cli.data.classes import load_classes
from clipseg_cli.errors import ClipsegError, ModelError, OutputError, UsageError, hinting
from clipseg_cli.inference.students import embed_for, find_student
from clipseg_cli.models.student.adapter import StudentModel
from clipseg_cli.models.student.files import read_student
from clipseg_cli.models.student.onnx import OPSET, ExportedStudent, student_graph
from clipseg_cli.runs.provenance import model_notes
from clipseg_cli.utils.files import check_writable, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from clipseg_cli.config import ExportConfig
    from clipseg_cli.models.student.onnx import Port
    from clipseg_cli.types import ClassList

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-3
"""How far logits may differ from the student's, as a share of their range."""

_ODD = (2, 101, 67)  # B, H, W of the second check: no side fits the stride
_SUFFIX = ".onnx"
_ANOTHER_FILE = "choose another file with --onnx"


@dataclass(frozen=True)
class Check:
    """The graph beside the student, on random images.

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


def export_student(config: ExportConfig) -> Export:
    """Write a student as one ONNX file, once onnxruntime has computed with it what the student computes.

    Input `image`: float32 [batch, 3, height, width], RGB from 0 to 255, normalised inside. Outputs: `logits`
    float32 [batch, C, height, width], and `labels` int64 [batch, height, width], their best class. The metadata
    holds `classes` (names in label order, JSON), `short_side` (to which images were resized in training; 0: not
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
    facts = {
        "classes": json.dumps(classes.names, ensure_ascii=False),
        "short_side": str(card.short_side),
        "clipseg": __version__,
    }
    graph = student_graph(net, facts)
    checks = _check_graph(graph, net, ((1, *config.size), _ODD))
    with hinting(_ANOTHER_FILE):
        write_bytes(config.onnx, graph)
    notes = tuple(model_notes(model, classes))
    return Export(config.onnx, len(graph), OPSET, model, classes, net.inputs, net.outputs, checks, notes)


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
    if os.path.isdir(path):  # noqa: PTH112  (which takes any text: an over-long name, too)
        raise OutputError(f"{path} is a folder", hint=_ANOTHER_FILE)
    with hinting(_ANOTHER_FILE):
        check_writable(path.parent)


@torch.no_grad()
def _check_graph(
    graph: bytes, net: ExportedStudent, sizes: Sequence[tuple[int, int, int]]
) -> tuple[Check, ...]:
    """Run the graph beside the network on random images of (B, H, W).

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
        image = _random_images(*size)
        logits, labels = map(torch.from_numpy, session.run(["logits", "labels"], {"image": image.numpy()}))
        checks.append(_compare(net(image), (logits, labels)))
    return tuple(checks)


def _compare(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> Check:
    """Logits [B, C, H, W] and labels [B, H, W] of the student and of the graph.

    Raises:
        ModelError: logits beyond the tolerance, other labels where it is no near tie, or NaN.
    """
    (logits, labels), (found, found_labels) = ours, theirs
    size = (labels.shape[0], labels.shape[1], labels.shape[2])
    range_ = float(logits.max() - logits.min())
    difference = float((found - logits).abs().max())
    lost = logits.amax(1) - logits.gather(1, found_labels[:, None])[:, 0]  # by choosing the graph's label
    check = Check(size, difference, range_, float((labels == found_labels).float().mean()))
    # Written so that NaN is beyond the tolerance too.
    if not (difference <= TOLERANCE * range_ and float(lost.max()) <= 2 * TOLERANCE * range_):
        raise ModelError(
            f"the exported graph computes something else than the student: on {size[1]} x {size[2]} pixels logits "
            f"differ by up to {difference:.2g} (their range is {range_:.2g}), and {check.equal_labels:.2%} of the "
            "labels are equal; nothing was written",
            hint="try other versions of torch, onnxscript and onnxruntime",
        )
    return check


def _random_images(batch: int, height: int, width: int) -> Tensor:
    """[B, 3, H, W] in [0, 255]: patches of colour under noise, the same every time."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 5, 5, generator=random) * 255
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (smooth + 20 * torch.randn(smooth.shape, generator=random)).clamp(0, 255).round()
