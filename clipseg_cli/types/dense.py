"""Dense features of images, and the methods that give them: B images, N tokens, W width, D embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor


Positions = Literal["size", "shape", "scale", "antialias"]


PaddingMode = Literal["corner", "black", "drop", "around"]


GuideReads = Literal["tokens", "values", "query+key"]


class AttentionFn(Protocol):
    """Mixes the values of the last block."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """q, k, v [B, Nh, N, Dh], class token first, and the patch grid (h, w) -> [B, Nh, N, Dh]."""


class Block(Protocol):
    """One pre-norm transformer block of an image tower, whatever library it comes from. Tokens are [B, N, W]."""

    def __call__(self, x: Tensor) -> Tensor:
        """The block as it was trained."""

    def norm1(self, x: Tensor) -> Tensor:
        """What the attention sees: the first LayerNorm."""

    def qkv(self, x: Tensor, *, placed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, Nh, N, Dh] of tokens that went through `norm1`.

        Args:
            x: all tokens of an image, or others.
            placed: they are all tokens of an image, and a tower that turns patches by where they stand does so; else
                they stand nowhere, like a class token.
        """

    def project(self, mixed: Tensor) -> Tensor:
        """Output projection of the attention: [B, Nh, N, Dh] -> [B, N, W]."""

    def layer_scale(self, x: Tensor) -> Tensor:
        """Layer scale of the attention, where the tower has one."""

    def mlp(self, x: Tensor) -> Tensor:
        """MLP with its LayerNorm and residual."""

    def pre_mlp(self, x: Tensor) -> Tensor:
        """What the MLP of the block sees: the second LayerNorm, behind the attention."""


class Tokens(NamedTuple):
    """What comes out of the last block, before the last LayerNorm.

    Attributes:
        patches: [B, h*w, W].
        grid: (h, w).
        cls: [B, 1, W], or None where the reading has no class token.
        weight: of the patches, where other readings of them are added.
        added: such readings, each [B, h*w, W] and its weight; they are added behind the last LayerNorm.
    """

    patches: Tensor
    grid: tuple[int, int]
    cls: Tensor | None = None
    weight: float = 1.0
    added: tuple[tuple[Tensor, float], ...] = ()


class Guide(Protocol):
    """Another network, or a head, that says which patches belong together."""

    @property
    def inner(self) -> int | None:
        """The block of CLIP that it looks into, from the end if below 0; None: it looks at the image itself."""

    @property
    def fingerprint(self) -> str:
        """Equal for equal weights."""

    def __call__(self, x: Tensor) -> Tensor:
        """Normalised image [B, 3, H, W], or patches of the inner block [B, W, h, w] -> [B, Dg, hg, wg]."""

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


class Scene(NamedTuple):
    """What a method knows that reads with the words in sight.

    Attributes:
        image: [B, 3, H, W] normalised.
        text_embeds: [Q, D] unit vectors of the words.
        embed: patches [B, n, W] behind the last block -> [B, n, D] in the space of the words.
    """

    image: Tensor
    text_embeds: Tensor
    embed: Callable[[Tensor], Tensor]


class ReadTwiceFn(Protocol):
    """Reads the last blocks with the words in sight, in several passes."""

    def __call__(self, blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], scene: Scene) -> Tokens:
        """What replaces the output of the blocks; the first three arguments are those of `ReadFn`."""


class ReadRegionsFn(Protocol):
    """Reads the last blocks in a way of its own, by the regions of the image."""

    def __call__(
        self, blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], guide: Tensor | None, regions: Tensor
    ) -> Tokens:
        """What replaces the output of the blocks.

        Args:
            blocks, x, grid, guide: as for `ReadFn`.
            regions: [B, H, W] id of the region of each pixel of what the tower sees; 0 where there is none.
        """


class PoolFn(Protocol):
    """Gathers features by what another network says of their patches."""

    def __call__(self, features: Tensor, guide: Tensor) -> Tensor:
        """Features [B, D, h, w] in the space of the words, guide [B, Dg, hg, wg] -> [B, D, hg, wg]."""


@dataclass(frozen=True)
class Pyramid:
    """How an image is cut into square patches that are classified as whole images, scale by scale.

    Attributes:
        parts: side of the patches of each scale, as a part of the short side of the image.
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
        attention: what replaces the attention of the last block; None where one of the three below reads.
        residual, mlp: keep the residual around the attention, and the MLP of the last block with its own.
        read: replaces the last blocks altogether.
        read_twice: the same with the words in sight.
        read_regions: the same, by regions of the image, which the user has to name a source for.
        blocks: how many of them these get, as far as the tower has them.
        pool: what becomes of the features after the projection.
        pointwise: towers without attention are read in this way too, position by position.
        pyramid: CLIP embeds whole crops of several sizes; no dense features are taken from its patches.
        guided: `read` or `pool` takes features of another network, of the user's choice; "optional": or does without.
        guide_reads: what it takes of a self-supervised network: the last tokens, or values, or queries plus keys of
            the last attention.
        positions: how position embeddings are brought to another grid; see `ops.positions`.
        padding: what happens to sides that are no multiple of the patch: zeros (after normalisation) at the "corner",
            right and bottom; "black" there; the rest "drop"ped; zeros "around". The result is stretched over the
            image, but cut to it where the padding is "around".
        ranges: hyper-parameter -> (least, most). They are keyword arguments of these functions with
            defaults, the fields of a pyramid, or "blocks".
        cost: time of an image relative to plain CLIP, other networks included (`python -m benchmarks.methods`,
            ViT-B-16, CPU).
        summary: one line for `clipseg models --methods` and help texts.
        paper: arXiv id.
        reference: file@commit of the authors' code.
    """

    attention: AttentionFn | None
    residual: bool = True
    mlp: bool = True
    read: ReadFn | None = None
    read_twice: ReadTwiceFn | None = None
    read_regions: ReadRegionsFn | None = None
    blocks: int = 1
    pool: PoolFn | None = None
    pointwise: bool = False
    pyramid: Pyramid | None = None
    guided: bool | Literal["optional"] = False
    guide_reads: GuideReads = "tokens"
    positions: Positions = "size"
    padding: PaddingMode = "corner"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    cost: float = 1.0
    summary: str = ""
    paper: str = ""
    reference: str = ""
