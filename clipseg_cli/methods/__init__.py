"""One file = one way to read dense labels from CLIP; the folder is the registry."""

from clipseg_cli.types import Method
from clipseg_cli.utils.registry import Registry

METHODS: Registry[Method] = Registry(__name__, "METHOD", "method")
