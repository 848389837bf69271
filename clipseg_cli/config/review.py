"""What `clipseg review` needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  (Typer needs it at run time)

from clipseg_cli.config.convert import ConvertConfig
from clipseg_cli.config.options import MAIN, OUTPUT, again, folder, option


@dataclass(frozen=True)
class ReviewConfig:
    """Label maps to be looked at, least trusted first.

    An `out` of None is the folder that holds them.
    """

    labels: str = again(ConvertConfig, "labels")
    images: str = again(ConvertConfig, "images")
    against: str = option(
        "",
        "A second run over the same images, of another method, model or wording: order by how far both agree.",
        panel=MAIN,
        metavar="RUN",
    )
    truth: str = option(
        "",
        "Folder of true label PNGs, shown beside. A run over a data set knows its own.",
        panel=MAIN,
        metavar="DIR",
    )
    out: Path | None = option(
        None,
        "Folder for everything written. Default: the run itself.",
        panel=MAIN,
        metavar="DIR",
        flags=("--out", "-o"),
        read=folder,
    )
    classes: str = again(ConvertConfig, "classes")
    min_area: int = again(ConvertConfig, "min_area")
    show: int = option(
        4000,
        "Images in the page at most, the least trusted ones; the tables hold all.",
        panel=OUTPUT,
        metavar="N",
        within=(1, 1_000_000),
    )
    side: int | None = option(
        None,
        "Longest side of the images in the page. Default: 640; 416 above 250 images, 288 above 1,000, so that it opens "
        "at once.",
        panel=OUTPUT,
        metavar="PIXELS",
        within=(64, 2048),
    )
    workers: int = again(ConvertConfig, "workers")

    def side_for(self, images: int) -> int:
        """Longest side of the images in a page of so many."""
        return self.side or (640 if images <= 250 else 416 if images <= 1000 else 288)
