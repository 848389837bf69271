"""One file = one output format; the folder is the registry."""

from clipseg_cli.types import Writer
from clipseg_cli.utils.registry import Registry

WRITERS: Registry[Writer] = Registry(__name__, "WRITER", "output format")
