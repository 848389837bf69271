"""Every default, once. Frozen dataclasses without torch, so that `--help` can import them quickly."""

from clipseg_cli.config.annotations import ImportConfig
from clipseg_cli.config.best import BEST, NO_SALIENCY
from clipseg_cli.config.brings import OFF, Brings, model_brings
from clipseg_cli.config.constants import (
    BACKGROUND_WORDS,
    BUNDLED_BACKBONE,
    BUNDLED_MODEL,
    GRAPHS,
    IGNORE_INDEX,
    IGNORE_INDEX_16,
    PLAIN_BACKGROUND,
    SALIENCY_HEADS,
    UNLABELLED,
    ignore_value,
)
from clipseg_cli.config.convert import ConvertConfig
from clipseg_cli.config.data import DataConfig, EvalConfig, IndexConfig, PseudolabelConfig
from clipseg_cli.config.former import FORMER_NAMES, present_flag, with_present_names
from clipseg_cli.config.inference import (
    OF_A_CLIP,
    REFINEMENTS,
    TEACHING,
    InferenceConfig,
)
from clipseg_cli.config.options import (
    MAIN,
    OUTPUT,
    PANELS,
    SETTINGS,
    Option,
    check_options,
    option,
    options_of,
)
from clipseg_cli.config.protocols import (
    CLIP_DIY_PROTOCOL,
    DEFAULT_PROTOCOL,
    MASKCLIP_PROTOCOL,
    PROTOCOLS,
    SCLIP_PROTOCOL,
    KeyNorm,
    Protocol,
    Stitch,
)
from clipseg_cli.config.quality import QUALITIES, Quality, all_qualities, quality_for
from clipseg_cli.config.recipes import (
    EMOJI_RECIPE,
    RECIPES,
    VOC_RECIPE,
    BaseHyperparameters,
    Head,
    Recipe,
)
from clipseg_cli.config.review import ReviewConfig
from clipseg_cli.config.segment import SegmentConfig
from clipseg_cli.config.serve import LOOPBACK, ServeConfig
from clipseg_cli.config.training import AUTO, ExportConfig, Setting, TrainConfig
