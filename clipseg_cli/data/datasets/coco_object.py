"""COCO-Object: the 80 things of COCO-Stuff 164k, all the rest is background.

Source: GroupViT (arXiv:2202.11094), whose converter writes `*_instanceTrainIds.png` beside the labels of
COCO-Stuff; those files are taken as they are. Without them the same ids are made in memory of the COCO-Stuff
labels. As in the converter's files, and so in the published figures, pixels that nobody labelled (255) are
background too.
"""

from clipseg_cli.config import IGNORE_INDEX
from clipseg_cli.data.datasets._layout import LabelFiles, Layout
from clipseg_cli.data.datasets._values import identity, renamed
from clipseg_cli.data.datasets.coco_stuff import DATASET as COCO_STUFF
from clipseg_cli.data.datasets.coco_stuff import RAW_FOLDERS, RAW_IDS, TRAIN_IDS

# Things come first among the train ids of COCO-Stuff.
_THINGS = {i: i + 1 if i < 80 else 0 for i in range(171)}
_UNLABELLED = {IGNORE_INDEX: 0}
_OF_STUFF = {"coco-object": {**renamed(TRAIN_IDS, _THINGS), **_UNLABELLED}}
_OF_RAW = {"coco-object": {**renamed(RAW_IDS, _THINGS), **_UNLABELLED}}

DATASET = Layout(
    title="COCO-Object",
    images=COCO_STUFF.images,
    labels=(
        LabelFiles(
            "annotations/{split}/{name}_instanceTrainIds.png",
            {"coco-object": identity(81)},
            "instance train ids, 0 to 80",
        ),
        LabelFiles(
            "annotations/{split}/{name}_labelTrainIds.png",
            _OF_STUFF,
            "derived from COCO-Stuff train ids",
        ),
        *(
            LabelFiles(
                f"{folder}/{{split}}/{{name}}.png",
                _OF_RAW,
                "derived from COCO-Stuff raw ids",
            )
            for folder in RAW_FOLDERS
        ),
    ),
    benchmarks=("coco-object",),
    splits=COCO_STUFF.splits,
    marks=COCO_STUFF.marks,
    first=COCO_STUFF.first,
    gives_way_to=("coco_stuff",),
)
