"""`clipseg pseudolabel --keep-features`: what the network says of images is kept, and more words need it no more."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipseg_cli.data.images import image_size
from clipseg_cli.errors import ClipsegError, OutputError
from clipseg_cli.inference.kept import Keeper
from clipseg_cli.runs.features import FOLDER, FeatureStore, feature_path, made_with
from clipseg_cli.utils.text import file_size, format_seconds, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set
    from pathlib import Path

    from clipseg_cli.inference.predictor import Predictor
    from clipseg_cli.inference.prepare import Prepared
    from clipseg_cli.types import Sample, Segmentation

MEASURED = 32
"""Images whose headers say how much the features of all of them will take, evenly spread over the list."""

SHOWN = 3
"""Names in a sentence."""


@dataclass(eq=False)
class FeatureKeeping:
    """The features of one run: read where they are there and fit, written where the network was asked.

    Attributes:
        store: where they lie.
        expected: images that should have some.
        reused: how many images were labelled from their features.
        fresh: how many the network was asked for.
        unusable: image -> why what is there, or should be, could not be used.
    """

    store: FeatureStore
    expected: Set[str] = frozenset()
    reused: int = 0
    fresh: int = 0
    unusable: dict[str, str] = field(default_factory=dict)

    def prepared(self, one: Prepared, sample: Sample, content: str) -> Prepared:
        """An image with its features, if they can be used; may be called from several threads at once."""
        name = sample.source.name
        windows = len(one.windows) if one.crops is None else len(one.crops)
        stored, reason = self.store.read(name, content, windows)
        if reason and (reason != "missing" or name in self.expected):
            self.unusable[name] = reason
        return dataclasses.replace(one, stored=stored)

    def labelled(self, result: Segmentation, sample: Sample, content: str) -> None:
        """Keep the features of an image that the network was asked for.

        Raises:
            OutputError: they cannot be written.
        """
        if result.features is None:
            self.reused += 1
            return
        self.fresh += 1
        self.store.write(sample.source.name, content, result.features)

    def end(self, seconds: float) -> None:
        """Note how long the network took, for later runs that do without it.

        Raises:
            OutputError: it cannot be written.
        """
        if self.fresh and not self.reused:
            self.store.add_cost(self.fresh, seconds)

    def sentences(self, seconds: float) -> Iterator[str]:
        """What a user should be told once labelling is over, by how long it took."""
        if self.reused:
            each = self.store.seconds_each()
            instead = (
                ""
                if each is None
                else f" instead of about {format_seconds(each * (self.reused + self.fresh))}"
            )
            images = "1 image was" if self.reused == 1 else f"{self.reused:,} images were"
            yield f"{images} labelled from kept features, without the image tower: {format_seconds(seconds)}{instead}"
        if self.unusable:
            told = listed((f"{name}: {why}" for name, why in sorted(self.unusable.items())), SHOWN)
            images = "1 image" if len(self.unusable) == 1 else f"{len(self.unusable):,} images"
            yield f"the features of {images} could not be used ({told}); they are computed anew, with their batch"


def keep_features(
    predictor: Predictor,
    samples: Sequence[Sample],
    folder: Path,
    identity: Mapping[str, object],
    expected: Set[str],
) -> tuple[FeatureKeeping, list[str]]:
    """Have a predictor hand out its features, and say how much they will take.

    Args:
        predictor: of the run.
        samples: all images of the run.
        folder: of the run.
        identity: of the run.
        expected: images that should have features.

    Returns:
        The features, and what a user should be told.

    Raises:
        OutputError: there is not enough room for them on the disk.
    """
    predictor.keeper = Keeper.of(predictor.steps)
    keeping = FeatureKeeping(FeatureStore(folder, made_with(identity)), expected)
    lacking = [sample for sample in samples if not feature_path(folder, sample.source.name).is_file()]
    each = _bytes_each(predictor, predictor.keeper, lacking)
    if each is None:
        return keeping, []
    need, free = each * len(lacking), shutil.disk_usage(folder).free
    images = "1 image" if len(lacking) == 1 else f"{len(lacking):,} images"
    said = f"the features of {images} take about {file_size(need)} in {folder / FOLDER}"
    if need > free:
        raise OutputError(
            f"{said}, and {file_size(free)} are free",
            hint="choose another --out, or leave out --keep-features",
        )
    return keeping, [f"{said} ({file_size(each)} each), float16"]


def _bytes_each(predictor: Predictor, keeper: Keeper, samples: Sequence[Sample]) -> int | None:
    """About how much is kept of an image, by the sizes of some; None where none can be read."""
    sizes = []
    step = max(1, len(samples) // MEASURED)
    for sample in samples[::step]:
        try:
            if sample.source.path is not None:
                sizes.append(image_size(sample.source.path))
        except ClipsegError:  # named when its turn comes
            continue
    patch, width = predictor.reader.patch, predictor.text_embeds.shape[1]
    found = [keeper.size_of(size, predictor.settings, predictor.tiling, patch, width) for size in sizes]
    return round(sum(found) / len(found)) if found else None
