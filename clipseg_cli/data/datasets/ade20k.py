"""ADE20K as in the scene parsing challenge of 2016: 150 classes.

Source: Zhou et al., CVPR 2017; ADEChallengeData2016. 0 in a label file is everything else and never counts.
"""

from clipseg_cli.data.datasets._layout import LabelFiles, Layout
from clipseg_cli.data.datasets._values import from_one

DATASET = Layout(
    title="ADE20K (SceneParse150)",
    images="images/{split}/{name}.jpg",
    labels=(
        LabelFiles("annotations/{split}/{name}.png", {"ade20k": from_one(150)}, "0 to 150, 0 is ignored"),
    ),
    benchmarks=("ade20k",),
    splits={"train": "training", "val": "validation"},
    marks=("images/training", "images/validation", "annotations/training", "annotations/validation"),
    home="ADEChallengeData2016",
    first={"train": "ADE_train_00000001", "val": "ADE_val_00000001"},
)
