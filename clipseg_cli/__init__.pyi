from clipseg_cli.api.segmenter import Segmenter as Segmenter
from clipseg_cli.types import Segmentation as Segmentation

__version__: str
__all__ = ["Segmentation", "Segmenter", "__version__"]
