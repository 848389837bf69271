"""What a refinement is: one step between what a method reads and the labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from clipseg_cli.types.classes import ClassList
    from clipseg_cli.types.logits import LogitMaps, Tile
    from clipseg_cli.types.memory import Recall, RegionBank
    from clipseg_cli.types.reading import DenseFeatures

Scope = Literal["window", "graph", "grid", "region", "pixel", "image", "labels"]
"""What a step looks at: the windows of a batch right behind the network, the patches of all windows of an image before
they are merged, the map on the grid of patches, the regions of the image, pixels and their neighbours at full size, all
pixels of the image at once, or the labels of the image once all of them are decided."""


@dataclass(frozen=True)
class Words:
    """The words that compete, as tensors.

    Attributes:
        classes: what they stand for.
        class_of: [Q] class id of each word, in the type of the label map.
        scale: factor on cosines before a softmax inside a refinement.
        text_embeds: [Q, D] unit vectors of the words; of a student without words of its own, weights of its classes.
    """

    classes: ClassList
    class_of: Tensor
    scale: float
    text_embeds: Tensor

    def of(self, class_id: int) -> Tensor:
        """Bool [Q]: the words of a class."""
        found: Tensor = self.class_of == class_id
        return found


@dataclass(frozen=True)
class WindowBatch:
    """What the network says of windows of one shape.

    Attributes:
        logits: [B, Q, h, w] cosines.
        dense: the features that they come from.
        whole: [B, Q] cosines of the windows as wholes; None unless a refinement needs them.
        images: [B, 3, H, W] normalised.
        embed: images [n, 3, H, W] -> embeddings [n, D] as CLIP was trained to give them; None where there are none.
    """

    logits: Tensor
    dense: DenseFeatures
    whole: Tensor | None = None
    images: Tensor | None = None
    embed: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Context:
    """What the steps of one image may look at.

    Attributes:
        words: that compete.
        image: gives the image at network size, [3, h, w] normalised; made only for a step that looks at it.
        colours: the same as sRGB in [0, 1].
        size: (H, W) of the labels.
        softmax_scale: factor on cosines before the softmax that decides.
        key_norm: axis over which a protocol normalises keys.
        observed: name of a refinement -> what it noted of the windows, [P, ...].
        auxiliary: name of an auxiliary network -> what it says of the whole image; "regions" are its ids, int32
            [1, H, W] at the size of the image itself, 0 where there is none.
        windows: [P] where the parts that the network saw lie in the image at network size.
        paddings: [P] pixels added around each, to be cut off its maps: (top, bottom, left, right).
        guided: the auxiliary network of `--guide` saw the windows too.
        recall: what labelled images taught, for the step that asks it.
        bank: regions of unlabelled images, for the step that asks it.
    """

    words: Words
    image: Callable[[], Tensor]
    colours: Callable[[], Tensor]
    size: tuple[int, int]
    softmax_scale: float
    key_norm: Literal["token", "position"]
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    windows: Sequence[Tile] = ()
    paddings: Sequence[tuple[int, int, int, int]] = ()
    guided: bool = False
    recall: Recall | None = None
    bank: RegionBank | None = None


class RefineFn(Protocol):
    """The step itself; its further keyword arguments are the hyper-parameters, each with a default."""

    def __call__(self, maps: LogitMaps, context: Context, value: Any) -> LogitMaps:
        """Maps of an image, or of one of its windows, refined.

        Args:
            maps: as the step before left them.
            context: what else is known of the image.
            value: of the option that bears the name of the refinement.
        """


class RelabelFn(Protocol):
    """A step behind the decision; its further keyword arguments are the hyper-parameters, each with a default."""

    def __call__(
        self, labels: Tensor, confidence: Tensor, context: Context, value: Any
    ) -> tuple[Tensor, Tensor]:
        """Other labels for an image.

        Args:
            labels: [H, W] class ids.
            confidence: [H, W] in [0, 1], how sure each is.
            context, value: as for `RefineFn`.

        Returns:
            The same two, in the same types.
        """


@dataclass(frozen=True)
class Refinement:
    """One step; a file in `refinements/` that declares REFINEMENT is in the registry.

    Attributes:
        refine: the step; None for the scopes "window", "graph" and "labels".
        scope: what it looks at.
        order: steps of a scope run by ascending order.
        refine_windows: scope "window": (windows, words) -> logits [B, Q, h, w].
        spread: scope "graph": (maps of all windows of an image, context, value) -> the same, refined together.
        observe: what is noted of each window for later: (windows, words) -> [B, ...]; keyword arguments with defaults
            are hyper-parameters.
        relabel: scope "labels": the step behind the decision.
        together: it takes several images of one size at once, whose tensors have a dimension [B] in front, those of
            the context too.
        chosen_by: name of the option that turns it on, and the values that do; empty for an option of its own name.
        needs: of "keys", "values", "whole", "attention" and "levels", what the network has to hand out for it; of
            "background", that a class is it; any other name is a key of `Context.auxiliary`: "regions", "saliency".
        ranges: hyper-parameter -> (least, most), or all texts that it may be.
        summary: one line for help texts.
        paper: arXiv id.
        reference: file@commit of the authors' code.
    """

    refine: RefineFn | None
    scope: Scope
    order: int = 0
    refine_windows: Callable[..., Tensor] | None = None
    spread: Callable[..., list[LogitMaps]] | None = None
    observe: Callable[..., Tensor] | None = None
    relabel: RelabelFn | None = None
    together: bool = False
    chosen_by: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float] | tuple[str, ...]] = field(default_factory=dict)
    summary: str = ""
    paper: str = ""
    reference: str = ""
