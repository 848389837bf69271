"""One file = one output format; the folder is the registry. Files with an underscore serve them."""

from clipseg_cli.outputs._colors import class_colors, hex_color, voc_palette
from clipseg_cli.outputs._run import class_table_rows, write_run_info
from clipseg_cli.types import Writer
from clipseg_cli.utils.registry import Registry

__all__ = ["WRITERS", "class_colors", "class_table_rows", "hex_color", "voc_palette", "write_run_info"]

WRITERS: Registry[Writer] = Registry(__name__, "WRITER", "output format")
