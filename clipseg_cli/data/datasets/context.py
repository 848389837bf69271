"""PASCAL Context: the images of VOC 2010 with 59 classes, with the background (context60) or without (context59).

Source: Mottaghi et al., CVPR 2014; SegmentationClassContext/ and its split files are what the converter of
mmsegmentation (tools/dataset_converters/pascal_context.py) writes into a VOC2010 folder.
"""

from clipseg_cli.data.datasets._layout import LabelFiles, Layout
from clipseg_cli.data.datasets._values import from_one, identity

_VALUES = {"context60": identity(60), "context59": from_one(59)}

DATASET = Layout(
    title="PASCAL Context",
    images="JPEGImages/{name}.jpg",
    labels=(LabelFiles("SegmentationClassContext/{name}.png", _VALUES, "SegmentationClassContext, 0 to 59"),),
    benchmarks=("context60", "context59"),
    splits={"train": "train", "val": "val"},
    split_file="ImageSets/SegmentationContext/{split}.txt",
    marks=("SegmentationClassContext", "ImageSets/SegmentationContext"),
    home="VOC2010",
    first={"train": "2008_000002", "val": "2008_000009"},
)
