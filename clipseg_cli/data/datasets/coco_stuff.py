"""COCO-Stuff 164k: 80 things and 91 stuff classes on the images of COCO 2017.

Source: Caesar et al., CVPR 2018. The raw pixel maps (stuffthingmaps_trainval2017) number 182 classes from 0, of
which 11 are never used; `*_labelTrainIds.png`, which mmsegmentation makes of them, leave those out: 0 to 170.
"""

from clipseg_cli.data.datasets._layout import LabelFiles, Layout
from clipseg_cli.data.datasets._values import identity, listed

UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Raw ids that no label file has; one that does follows another scheme, which is an error."""

TRAIN_IDS = identity(171)
RAW_IDS = listed(i for i in range(182) if i not in UNUSED)

RAW_FOLDERS = ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017")

_VALUES = {"coco-stuff": TRAIN_IDS}
_RAW_VALUES = {"coco-stuff": RAW_IDS}

DATASET = Layout(
    title="COCO-Stuff 164k",
    images="images/{split}/{name}.jpg",
    labels=(
        LabelFiles("annotations/{split}/{name}_labelTrainIds.png", _VALUES, "train ids, 0 to 170"),
        *(
            LabelFiles(f"{folder}/{{split}}/{{name}}.png", _RAW_VALUES, "raw ids, 0 to 181")
            for folder in RAW_FOLDERS
        ),
    ),
    benchmarks=("coco-stuff",),
    splits={"train": "train2017", "val": "val2017"},
    marks=(
        "images/val2017",
        "images/train2017",
        *(f"{folder}/{split}" for folder in RAW_FOLDERS for split in ("val2017", "train2017")),
    ),
    home="coco_stuff164k",
    first={"train": "000000000009", "val": "000000000139"},
)
