from clipseg_cli.api.segmentation import Segmentation as Segmentation
from clipseg_cli.api.segmenter import Segmenter as Segmenter

__version__: str
__all__ = ["Segmentation", "Segmenter", "__version__"]
