"""Networks of the library transformers: from a folder, else from the hub's cache, else from the hub."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.errors import ModelError, hinting
from clipseg_cli.models.weights import hub

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS_OUT = (
    "name a folder with the files of the model (config.json, preprocessor_config.json, model.safetensors), as in "
    "--regions eomt=FOLDER; or take --regions superpixels, which needs no weights"
)


def load_pretrained(kind: Any, name: str) -> Any:
    """What a class of transformers makes of a model's files.

    Args:
        kind: a class with `from_pretrained`: of a network, or of what prepares its images.
        name: on the hub, or a folder.

    Raises:
        ModelError: the files are missing, damaged or of another model, or the hub cannot be reached, or asks for a
            login; comes within 10 s without network.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111  (leaves the home of an unknown user as it is written)
    with _no_bars():
        if path.is_dir():
            return _of_folder(kind, path)
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
            raise ModelError(f"{name}: no such folder of weights", hint=WAYS_OUT)
        with hinting(WAYS_OUT):
            return hub.with_cache_first(lambda local: _made(kind, name, local_files_only=local), name)


def _of_folder(kind: Any, path: Path) -> Any:
    try:
        with hub.quiet():
            return _made(kind, str(path), local_files_only=True)
    except Exception as error:  # whatever the library makes of files that are not what they should be
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise ModelError(f"cannot read {path} as a {kind.__name__}: {reason[:200]}", hint=WAYS_OUT) from error


def _made(kind: Any, name: str, **options: Any) -> Any:
    """Whole weights, or an error: transformers itself fills what is missing with random numbers."""
    if not hasattr(kind, "_load_pretrained_model"):  # prepares images, and has no weights
        return kind.from_pretrained(name, **options)
    net, report = kind.from_pretrained(name, output_loading_info=True, **options)
    lacking = sorted(report["missing_keys"])
    if lacking or report["mismatched_keys"]:
        what = f"lack {lacking[0]}" if lacking else "have other shapes"
        raise ModelError(
            f"the weights in {name} {what}: they are not those of a {kind.__name__}", hint=WAYS_OUT
        )
    return net.eval().requires_grad_(False)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which would go to stderr."""
    import transformers

    logging: Any = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
