from clipseg_cli.pipelines.segmenter import Segmenter as Segmenter
from clipseg_cli.types import Segmentation as Segmentation

__version__: str
__all__ = ["Segmentation", "Segmenter", "__version__"]
