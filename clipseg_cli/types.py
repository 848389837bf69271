"""The values that travel through the whole program. No torch at import time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path, PurePosixPath

    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class ClassList:
    """Names of the labels, in label order, each with the words that stand for it.

    Attributes:
        names: [C] display names; the label id is the position.
        aliases: [C] words of each class; the best of them scores for the class.
        background: id of the background class, or None for a closed set.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    background: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def queries(self) -> tuple[str, ...]:
        """All words of all classes, class by class: [Q]."""
        return tuple(word for words in self.aliases for word in words)

    @property
    def query_to_class(self) -> tuple[int, ...]:
        """For each query the id of its class: [Q], ascending."""
        return tuple(c for c, words in enumerate(self.aliases) for _ in words)

    def with_background_word(self, word: str) -> ClassList:
        """The same classes with this one word for the background, if there is one."""
        if self.background is None:
            return self
        aliases = tuple((word,) if c == self.background else words for c, words in enumerate(self.aliases))
        return ClassList(self.names, aliases, self.background)


Positions = Literal["size", "shape", "scale", "antialias"]
Padding = Literal["corner", "black", "drop", "around"]


class AttentionFn(Protocol):
    """Mixes the values of the last block."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """q, k, v [B, Nh, N, Dh], class token first, and the patch grid (h, w) -> [B, Nh, N, Dh]."""


class Block(Protocol):
    """One pre-norm transformer block of an image tower, whatever library it comes from. Tokens are [B, N, W]."""

    def __call__(self, x: Tensor) -> Tensor:
        """The block as it was trained."""

    def normed(self, x: Tensor) -> Tensor:
        """What the attention sees: the first LayerNorm."""

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, Nh, N, Dh] of tokens that went through `normed`."""

    def project(self, mixed: Tensor) -> Tensor:
        """Output projection of the attention: [B, Nh, N, Dh] -> [B, N, W]."""

    def scaled(self, x: Tensor) -> Tensor:
        """Layer scale of the attention, where the tower has one."""

    def feed(self, x: Tensor) -> Tensor:
        """MLP with its LayerNorm and residual."""

    def inner(self, x: Tensor) -> Tensor:
        """What the MLP of the block sees: the second LayerNorm, behind the attention."""


class Tokens(NamedTuple):
    """What comes out of the last block, before the last LayerNorm.

    Attributes:
        patches: [B, h*w, W].
        grid: (h, w).
        cls: [B, 1, W], or None where the reading has no class token.
    """

    patches: Tensor
    grid: tuple[int, int]
    cls: Tensor | None = None


class Guide(Protocol):
    """Another network, or a head, that says which patches belong together."""

    @property
    def inner(self) -> int | None:
        """The block of CLIP that it looks into, from the end if below 0; None: it looks at the picture itself."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights."""

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised picture [B, 3, H, W], or patches of the inner block [B, W, h, w] -> [B, Dg, hg, wg]."""

    def objectness(self, x: Tensor) -> Tensor | None:
        """The same -> logits [B, 1, hg, wg] of being an object; None where it does not know."""


class ReadFn(Protocol):
    """Reads the last blocks in a way of its own."""

    def __call__(
        self, blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], guide: Tensor | None
    ) -> Tokens:
        """What replaces the output of the blocks.

        Args:
            blocks: the last of the tower.
            x: [B, N, W] what goes into the first of them, class token first.
            grid: (h, w), in patches.
            guide: [B, Dg, hg, wg] features of another network, where the method asks for one.
        """


class PoolFn(Protocol):
    """Gathers features by what another network says of their patches."""

    def __call__(self, features: Tensor, guide: Tensor) -> Tensor:
        """Features [B, D, h, w] in the space of the words, guide [B, Dg, hg, wg] -> [B, D, hg, wg]."""


@dataclass(frozen=True)
class Pyramid:
    """How a picture is cut into square patches that are classified as whole pictures, scale by scale.

    Attributes:
        parts: side of the patches of each scale, as a part of the short side of the picture.
        weights: of the scales.
        stride: patches follow each other by a side divided by this; 2 overlaps them by half.
        nearest: where grids are stretched as published, repeat their cells instead of interpolating.
    """

    parts: tuple[float, ...] = (1.0, 0.5, 0.25)
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    stride: int = 2
    nearest: bool = False


@dataclass(frozen=True)
class Method:
    """One way to read dense features from the last blocks of a frozen tower.

    Attributes:
        attention: what replaces the attention of the last block; None with `read`.
        residual: keep the residual around the attention.
        mlp: keep the MLP of the last block with its residual.
        read: replaces the last blocks altogether.
        blocks: how many of them `read` gets, as far as the tower has them.
        pool: what becomes of the features after the projection.
        pointwise: towers without attention are read in this way too, position by position.
        pyramid: the picture is not read densely, but patch by patch with whole-image CLIP.
        guided: `read` or `pool` takes features of another network, of the user's choice.
        positions: how position embeddings are brought to another grid; see `ops.positions`.
        padding: what happens to sides that are no multiple of the patch: zeros (after normalisation) at the "corner",
            right and bottom; "black" there; the rest "drop"ped; zeros "around". The result is stretched over the
            picture, but cut to it where the padding is "around".
        cost: time of a picture relative to plain CLIP, other networks included (`python -m benchmarks.methods`,
            ViT-B-16, CPU).
        summary: one line for `clipseg models --methods` and help texts.
        paper: arXiv id.
        reference: file@commit of the authors' code.
    """

    attention: AttentionFn | None
    residual: bool = True
    mlp: bool = True
    read: ReadFn | None = None
    blocks: int = 1
    pool: PoolFn | None = None
    pointwise: bool = False
    pyramid: Pyramid | None = None
    guided: bool = False
    positions: Positions = "size"
    padding: Padding = "corner"
    cost: float = 1.0
    summary: str = ""
    paper: str = ""
    reference: str = ""


class DenseFeatures(NamedTuple):
    """What one pass through a network gives.

    Attributes:
        features: [B, D, h, w] in the space of the words, not normalised.
        keys: [B, K, h, w] key features for key smoothing, or None where there are none.
        tokens: [B, W, h, w] after the last LayerNorm, before the projection (ResNet: last stage).
        cls: [B, D] the class token, read like the patches; None where there is none.
        overhang: pixels by which the grid reaches over the image: (top, bottom, left, right).
        objectness: [B, 1, h, w] logits of being an object, from a guide that knows.
        whole: [B, D] embedding of the picture as CLIP was trained to give it; None unless asked for.
    """

    features: Tensor
    keys: Tensor | None
    tokens: Tensor
    cls: Tensor | None = None
    overhang: tuple[int, int, int, int] = (0, 0, 0, 0)
    objectness: Tensor | None = None
    whole: Tensor | None = None


class Reader(Protocol):
    """A network that is read densely."""

    @property
    def patch(self) -> int:
        """Pixels between two features: the patch of a ViT, the output stride of a ResNet."""

    def __call__(self, image: Tensor) -> DenseFeatures:
        """Normalised image [B, 3, H, W] -> one feature for each patch, ceil(H / patch) x ceil(W / patch)."""

    def logits(self, features: Tensor, text_embeds: Tensor) -> Tensor:
        """Features [B, D, h, w] and words [Q, D] -> scores [B, Q, h, w], before the softmax scale, in float32."""


class DenseModel(Protocol):
    """A network whose features live in the space of words: a frozen CLIP, or a student of one.

    Attributes:
        name: architecture, for people and for records.
        pretrained: which weights.
        fingerprint: equal for equal weights.
        mean, std: of pictures in [0, 1].
        image_size: side of the windows by default; 0 for the whole picture.
        short_side: side to which pictures are resized by default; 0 keeps their own size.
        logit_scale: factor on scores before the softmax.
        words: what it was taught, where it knows nothing else; else None.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def pretrained(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def mean(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def std(self) -> tuple[float, float, float]: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def short_side(self) -> int: ...  # noqa: D102
    @property
    def logit_scale(self) -> float: ...  # noqa: D102
    @property
    def words(self) -> frozenset[str] | None: ...  # noqa: D102

    def reader(
        self,
        method: Method | None,
        *,
        activation: str | None,
        ln_eps: float | None,
        keys: bool,
        guide: Guide | None = None,
        black: Tensor | None = None,
        whole: bool = False,
    ) -> Reader:
        """How its features are read; the arguments concern a CLIP and are refused by a student.

        Args:
            method: what replaces the attention of the last block.
            activation, ln_eps: forced on the image tower; None keeps its own.
            keys: hand out keys.
            guide: the other network, for a method that asks for one.
            black: [3] what a black pixel becomes by normalisation.
            whole: hand out the embedding of the picture as well.
        """


@dataclass(frozen=True)
class ImageSource:
    """One input picture before it is read.

    Attributes:
        path: the file, or None for standard input.
        relative: where its outputs go below the output folder, without suffix; unique within a run.
    """

    path: Path | None
    relative: PurePosixPath

    def __str__(self) -> str:
        return "standard input" if self.path is None else str(self.path)


@dataclass(frozen=True)
class DecodedImage:
    """A picture as 8-bit RGB, upright.

    Attributes:
        source: where it came from.
        pixels: uint8 RGB [H, W, 3].
        notes: what a user should know about the decoding ("animation: first of 12 frames").
    """

    source: ImageSource
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One picture of a data set.

    Attributes:
        source: the picture; `source.relative` is its name within the data set, without suffix.
        label: the file with its ground truth, or None where there is none.
    """

    source: ImageSource
    label: Path | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set that was recognised on the disk, one split of it, under one class list.

    Attributes:
        name: of its file in `data/datasets/`.
        title: for people ("PASCAL VOC 2012").
        root: the folder that has the layout; not always the one that was given.
        benchmark: the class list ("voc21"), or None for a folder of the user's own.
        split: its name ("val"), or the path of the user's list; "" where there are no splits.
        classes: what label ids mean, with the words of each.
        samples: in the order of the split file, or sorted.
        label_ids: [65536] int32: value in a label file -> class id, or -1 for "ignore", or -2 where no label
            file may have that value. None where no picture has ground truth.
        labels_are: how the label files count, for people ("train ids", "raw ids 0 to 181").
        unseen: names of the classes of the published zero-shot split; may be empty.
        notes: what a user should be told once ("also holds the labels of context60").
    """

    name: str
    title: str
    root: Path
    benchmark: str | None
    split: str
    classes: ClassList
    samples: tuple[Sample, ...]
    label_ids: NDArray[np.int32] | None = None
    labels_are: str = ""
    unseen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelFiles:
    """One form in which the ground truth of a data set lies on the disk.

    Attributes:
        path: of the file of one picture, below the root, with the fields of `Layout.images`.
        values: benchmark -> value in the file -> class id, or -1 for "ignore". Any other value is an error.
        are: how they count, for people ("train ids").
    """

    path: str
    values: Mapping[str, Mapping[int, int]]
    are: str = ""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on the disk; a file in `data/datasets/` that declares DATASET is in the registry.

    Attributes:
        title: for people ("PASCAL VOC 2012").
        images: the file of one picture, below the root ("images/{split}/{name}.jpg"). `{split}` is the folder
            of a split, `{name}` the picture's name in the data set and may hold slashes; the ending `.*`
            means any kind of picture.
        labels: forms of the ground truth; the first that is complete counts.
        benchmarks: names of class lists, the default first; none for classes of the user's own.
        splits: name -> what `{split}` stands for.
        split_file: the list of a split's pictures, below the root; "" where the folders tell.
        marks: paths below a root; any of them shows that it is one.
        home: what the root is usually called, which decides between two of the same kind.
        first: split -> name of a picture, to say which files are expected.
        gives_way_to: data sets that a root is taken for rather than for this one, if it has all of both.
        label_split, score_split: the defaults for labelling and for scoring.
    """

    title: str
    images: str
    labels: tuple[LabelFiles, ...]
    benchmarks: tuple[str, ...]
    splits: Mapping[str, str]
    split_file: str = ""
    marks: tuple[str, ...] = ()
    home: str = ""
    first: Mapping[str, str] = field(default_factory=dict)
    gives_way_to: tuple[str, ...] = ()
    label_split: str = "train"
    score_split: str = "val"


@dataclass(frozen=True)
class Segmentation:
    """An exclusive label map with its confidence, at the picture's own size.

    Attributes:
        labels: [H, W] class ids; uint8 up to 255 classes, uint16 beyond.
        scores: [H, W] float32 in [0, 1], probability of the label that won.
        classes: what the ids mean.
        image: the picture that was segmented.
        class_scores: class id -> [H, W] float32 probability of that class, made when asked for, one at a
            time; None unless asked for.
    """

    labels: NDArray[np.uint8] | NDArray[np.uint16]
    scores: NDArray[np.float32]
    classes: ClassList
    image: DecodedImage
    class_scores: Callable[[int], NDArray[np.float32]] | None = None

    def shares(self) -> list[ClassShare]:
        """Share of pixels and mean confidence of every class, in label order; counted once."""
        return self._shares

    @cached_property
    def _shares(self) -> list[ClassShare]:
        classes, size = len(self.classes), self.labels.size
        counts, sums = np.zeros(classes, dtype=np.int64), np.zeros(classes)
        step = max(1, (1 << 20) // max(self.labels.shape[1], 1))
        for top in range(0, self.labels.shape[0], step):  # bincount widens what it gets to 8 bytes
            labels = self.labels[top : top + step].ravel()
            counts += np.bincount(labels, minlength=classes)
            sums += np.bincount(labels, weights=self.scores[top : top + step].ravel(), minlength=classes)
        return [
            ClassShare(i, name, int(n), float(n / size), float(total / n) if n else None)
            for i, (name, n, total) in enumerate(zip(self.classes.names, counts, sums, strict=True))
        ]


@dataclass(frozen=True)
class ClassShare:
    """How much of one picture one class took: pixel count, share in [0, 1], mean confidence or None."""

    id: int
    name: str
    pixels: int
    share: float
    confidence: float | None


class WriteFn(Protocol):
    """Writes one result in one format."""

    def __call__(self, result: Segmentation, stem: Path) -> Sequence[Path]:
        """Write below `stem`, a path without suffix, and return the files made."""


@dataclass(frozen=True)
class Writer:
    """One output format for one picture; a file in `outputs/` that declares WRITER is in the registry.

    Attributes:
        write: (result, stem) -> files written. Must go through `utils.files` so that no half file exists.
        ending: what the name of its file, or of the folder for its files, adds to the stem.
        default: written without being asked for.
        summary: one line for help texts.
    """

    write: WriteFn
    ending: str
    default: bool = True
    summary: str = ""


@dataclass(frozen=True)
class RunInfo:
    """With what a folder of results was made: goes into its `classes.json`."""

    classes: ClassList
    options: Mapping[str, Any]
    model: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
