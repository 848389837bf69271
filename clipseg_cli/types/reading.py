"""What one pass through a network gives, and how it is asked for: B images, D embedding, W width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from clipseg_cli.types.dense import Guide, Method


class Levels(Protocol):
    """Features of several depths, F in all, at each place of a grid; see `ops.levels`."""

    def stacked(self) -> Tensor:
        """All of them: [B, F, h, w] float32."""
        ...

    def projected(self, weight: Tensor) -> Tensor:
        """Sums of them by the columns of [F, d]: [B, d, h, w] float32, without all of them being made."""
        ...

    def last(self) -> Tensor:
        """Those in the space of the words, which come last: [B, D, h, w] float32."""
        ...

    def above(self, maps: Sequence[Tensor]) -> Levels:
        """These behind those of other maps [B, W, h, w] of any grids."""
        ...

    def of(self, rows: slice) -> Levels:
        """Those of some images of the batch."""
        ...


class DenseFeatures(NamedTuple):
    """What one pass through a network gives.

    Attributes:
        features: [B, D, h, w] in the space of the words, not normalised.
        keys: [B, K, h, w] key features for key smoothing, or None where there are none.
        tokens: [B, W, h, w] after the last LayerNorm, before the projection (ResNet: last stage).
        cls: [B, D] the class token, read like the patches; None where there is none.
        padding: pixels added around the image, to be cut off its maps: (top, bottom, left, right).
        objectness: [B, 1, h, w] logits of being an object, from a guide that knows.
        whole: [B, D] embedding of the image as CLIP was trained to give it; None unless asked for.
        levels: features of several depths; None unless asked for.
        values: [B, W, h, w] values of the last block as it was trained, of a tower without attention its last map;
            None unless asked for.
        guide: [B, Dg, hg, wg] what a guide says of the image; None without one.
        attention: [B, Nh, n, n] of patches, the mean of all blocks but the last as trained; None unless asked for.
    """

    features: Tensor
    keys: Tensor | None
    tokens: Tensor
    cls: Tensor | None = None
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    objectness: Tensor | None = None
    whole: Tensor | None = None
    levels: Levels | None = None
    values: Tensor | None = None
    guide: Tensor | None = None
    attention: Tensor | None = None


@dataclass(frozen=True)
class Reading:
    """How an image tower is read, beside the method.

    Attributes:
        activation, ln_eps: forced on the tower, weights still shared; None keeps its own. A ResNet has neither.
        keys: hand out keys, where the tower has any.
        guide: the other network, for a method that asks for one.
        black: [3] what a black pixel becomes by normalisation, for methods that pad with black.
        whole: hand out the embedding of the image as well; costs the replaced blocks once more.
        levels: hand out features of several depths as well.
        values: hand out the values of the last block; of a tower without attention its last map.
        attention: hand out what patches attend to in all blocks but the last.
        text_embeds: [Q, D] the words, for a method that reads with them in sight.
        compiled: let torch compile the blocks that are read as they were trained.
    """

    activation: str | None = None
    ln_eps: float | None = None
    keys: bool = False
    guide: Guide | None = None
    black: Tensor | None = None
    whole: bool = False
    levels: bool = False
    values: bool = False
    attention: bool = False
    text_embeds: Tensor | None = None
    compiled: bool = False


class Reader(Protocol):
    """A network that gives dense features."""

    @property
    def patch(self) -> int:
        """Pixels between two features: the patch of a ViT, the output stride of a ResNet."""

    def __call__(self, image: Tensor, regions: Tensor | None = None) -> DenseFeatures:
        """One feature for each patch, ceil(H / patch) x ceil(W / patch).

        Args:
            image: normalised [B, 3, H, W].
            regions: [B, H, W] numbers of regions, 0 for none; for a method that asks for them, and else left out.
        """

    def logits(self, features: Tensor, text_embeds: Tensor) -> Tensor:
        """Features [B, D, h, w] and words [Q, D] -> scores [B, Q, h, w], before the softmax scale, in float32."""


class DenseModel(Protocol):
    """A network whose features live in the space of words: a frozen CLIP, or a student of one.

    Attributes:
        name: architecture, for people and for records.
        pretrained: which weights.
        fingerprint: equal for equal weights.
        mean, std: of images in [0, 1].
        image_size: side of the windows by default; 0 for the whole image.
        short_side: side to which images are resized by default; 0 keeps their own size.
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

    def reader(self, method: Method | None, how: Reading) -> Reader:
        """How its features are read; both concern a CLIP, and a student refuses them."""
