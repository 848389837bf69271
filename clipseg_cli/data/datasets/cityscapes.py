"""Cityscapes with fine labels: 19 classes of street scenes.

Source: Cordts et al., CVPR 2016; cityscapesScripts, helpers/labels.py. Its `labelIds` are 0 to 33, of which 19
are scored; `labelTrainIds` number those from 0.
"""

from clipseg_cli.data.datasets._layout import LabelFiles, Layout
from clipseg_cli.data.datasets._values import identity, listed

SCORED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each class; the licence plate, -1, is stored nowhere."""

DATASET = Layout(
    title="Cityscapes",
    images="leftImg8bit/{split}/{name}_leftImg8bit.png",
    labels=(
        LabelFiles(
            "gtFine/{split}/{name}_gtFine_labelTrainIds.png",
            {"cityscapes": identity(19)},
            "train ids, 0 to 18",
        ),
        LabelFiles(
            "gtFine/{split}/{name}_gtFine_labelIds.png",
            {"cityscapes": listed(SCORED, ignored=range(34))},
            "label ids, 0 to 33",
        ),
    ),
    benchmarks=("cityscapes",),
    splits={"train": "train", "val": "val", "test": "test"},
    marks=("leftImg8bit", "gtFine"),
    home="cityscapes",
    first={
        "train": "aachen/aachen_000000_000019",
        "val": "frankfurt/frankfurt_000000_000294",
        "test": "berlin/berlin_000000_000019",
    },
)
