"""The values that travel through the whole program. No torch at import time."""

from clipseg_cli.types.annotations import (
    NO_CLASS,
    UNTOLD,
    Annotation,
    AnnotationFormat,
    ReadOptions,
    Told,
)
from clipseg_cli.types.classes import ClassList
from clipseg_cli.types.data import Dataset, Sample
from clipseg_cli.types.dense import (
    AttentionFn,
    Block,
    Guide,
    GuideReads,
    Method,
    PaddingMode,
    PoolFn,
    Positions,
    Pyramid,
    ReadFn,
    ReadRegionsFn,
    ReadTwiceFn,
    Scene,
    Tokens,
)
from clipseg_cli.types.images import (
    DecodedImage,
    FrameSource,
    ImageSource,
    MemberSource,
    MemorySource,
    RemoteSource,
)
from clipseg_cli.types.logits import LogitMaps, PixelRefinement, Tile
from clipseg_cli.types.memory import Recall, RegionBank
from clipseg_cli.types.reading import DenseFeatures, DenseModel, Levels, Reader, Reading
from clipseg_cli.types.refinements import Context, Refinement, Scope, WindowBatch, Words
from clipseg_cli.types.regions import RegionMaker, RegionMap, RegionSource, RegionTools
from clipseg_cli.types.results import ClassShare, Format, RunInfo, Segmentation, Writer
