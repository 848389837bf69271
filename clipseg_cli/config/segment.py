"""`clipseg segment`: files in, label maps and images out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from clipseg_cli.config.inference import InferenceConfig
from clipseg_cli.config.options import OUTPUT, formats_option, option, out_option


@dataclass(frozen=True)
class SegmentConfig(InferenceConfig):
    """All that `clipseg segment` needs to know."""

    images: tuple[str, ...] = ()
    out: Path = out_option(Path("clipseg-out"), "Folder for everything written.")
    formats: str = formats_option(
        "labels,overlay",
        "What is written, by comma: labels (index PNG), overlay, coco, labelme, ...; clipseg models --formats lists "
        "all.",
        OUTPUT,
    )
    heatmaps: bool = option(
        False, "Also write a confidence map for each class.", panel=OUTPUT, flags=("--heatmaps",)
    )
    min_area: int = option(
        0,
        "Regions of less than N pixels go to what surrounds them; 0 keeps them all.",
        panel=OUTPUT,
        metavar="N",
        within=(0, 100_000_000),
    )
    every: int = option(
        1,
        "Of a video, label only every Nth frame.",
        panel=OUTPUT,
        metavar="N",
        within=(1, 1_000_000),
    )
    skip_existing: bool = option(
        False,
        "Leave out images whose files are all in --out already, unless an image is newer than they are.",
        panel=OUTPUT,
        flags=("--skip-existing",),
    )
    watch: bool = option(
        False,
        "Go on with images that arrive or change in the folders given, until Ctrl-C; implies --skip-existing.",
        panel=OUTPUT,
        flags=("--watch",),
    )
    full_names: bool = option(
        False,
        "Name outputs by the whole path of an image as it was given, suffix included.",
        panel=OUTPUT,
        flags=("--full-names",),
    )

    @property
    def format_texts(self) -> tuple[str, ...]:
        """What `--formats` and `--heatmaps` say together."""
        return (self.formats, "heatmaps") if self.heatmaps else (self.formats,)
