"""What `clipseg import` needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from clipseg_cli.config.options import MAIN, OUTPUT, option


@dataclass(frozen=True)
class ImportConfig:
    """Corrections for the labels of a folder.

    Attributes:
        run: a run of `pseudolabel` or a folder of `segment`.
        files: files and folders of corrections.
    """

    run: str = ""
    files: tuple[str, ...] = ()
    format: str = option(
        "",
        "Of all FILES: coco, labelme, label-studio, cvat, ... Default: as each file shows.",
        panel=MAIN,
        metavar="NAME",
        kind="annotation format",
    )
    by: str = option(
        "", "Who answers for the labels. Default: the user's name here.", panel=MAIN, metavar="NAME"
    )
    checked: bool = option(
        False,
        "Somebody has looked at every image of FILES: those that are as before count as checked. Default: only what "
        "was changed is taken.",
        panel=MAIN,
        flags=("--checked",),
    )
    hold_out: bool = option(
        False,
        "Keep these images out of training, as a test set.",
        panel=MAIN,
        flags=("--hold-out",),
    )
    on_top: bool = option(
        False,
        "Where regions of two classes overlap the later one holds. Default: that is an error.",
        panel=OUTPUT,
        flags=("--on-top",),
    )
    empty: bool = option(
        False,
        "An image without a region in its file becomes background. Default: it is left as it is.",
        panel=OUTPUT,
        flags=("--empty",),
    )
    undo: bool = option(
        False,
        "Take the last import back, to the very bytes that were there before.",
        panel=MAIN,
        flags=("--undo",),
    )
