"""clipseg: open-vocabulary segmentation with frozen CLIP models, from the command line or from Python."""

__version__ = "0.1.0"
