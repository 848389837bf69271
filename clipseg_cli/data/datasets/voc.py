"""PASCAL VOC 2012 segmentation: 20 objects, with the background (voc21) or without (voc20).

Source: VOCdevkit, VOC2012; SegmentationClassAug and trainaug.txt hold the labels of SBD (Hariharan et al., ICCV
2011), as the DeepLab code bases lay them out. The border between objects is 255 and never counts.
"""

from clipseg_cli.data.datasets._layout import LabelFiles, Layout
from clipseg_cli.data.datasets._values import from_one, identity

_VALUES = {"voc21": identity(21), "voc20": from_one(20)}

DATASET = Layout(
    title="PASCAL VOC 2012",
    images="JPEGImages/{name}.jpg",
    labels=(
        LabelFiles("SegmentationClass/{name}.png", _VALUES, "SegmentationClass, 0 to 20"),
        LabelFiles("SegmentationClassAug/{name}.png", _VALUES, "SegmentationClassAug, 0 to 20"),
    ),
    benchmarks=("voc21", "voc20"),
    splits={name: name for name in ("train", "val", "trainval", "trainaug")},
    split_file="ImageSets/Segmentation/{split}.txt",
    marks=("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"),
    home="VOC2012",
    first={"train": "2007_000032", "val": "2007_000033"},
    gives_way_to=("context",),
)
