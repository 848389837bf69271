"""A folder of the user's own: images/, masks/ with the same names, and classes.txt, one class a line.

A number in a mask is the line of its class, counted from 0; 255 (65535 in 16 bits) is ignored. Lists of names,
train.txt and val.txt, may lie beside. A bare folder of images is one too, with classes named by the user.
"""

from clipseg_cli.data.datasets._layout import LabelFiles, Layout

DATASET = Layout(
    title="a folder of pictures",
    images="images/{name}.*",
    labels=(LabelFiles("masks/{name}.*", {}, "line numbers of classes.txt, from 0"),),
    benchmarks=(),
    splits={"train": "train", "val": "val"},
    split_file="{split}.txt",
    marks=("masks", "classes.txt", "train.txt", "val.txt"),
)
