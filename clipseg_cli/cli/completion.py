"""What a shell offers behind Tab: names that are known without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.config import BEST, BUNDLED_MODEL
from clipseg_cli.utils.imports import folder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def _begun(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Architectures of open_clip by the names of their files, and the bundled model."""
    names = {path.stem for path in (folder_of("open_clip") / "model_configs").glob("*.json")}
    return _begun([BUNDLED_MODEL, *sorted(names)], incomplete)


def methods(incomplete: str) -> list[str]:
    """The files in `methods/`."""
    from clipseg_cli.methods import METHODS

    return _begun([BEST, *METHODS.names()], incomplete)


def hyperparameters(incomplete: str) -> list[str]:
    """Methods, refinements and sources of regions that may have some."""
    from clipseg_cli.methods import METHODS
    from clipseg_cli.refinements import REFINEMENTS
    from clipseg_cli.regions import REGIONS

    owners = (*METHODS.names(), *REFINEMENTS.names(), *REGIONS.names())
    return _begun([f"{name}." for name in owners], incomplete)


def regions(incomplete: str) -> list[str]:
    """The files in `regions/`."""
    from clipseg_cli.regions import REGIONS

    return _begun(REGIONS.names(), incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """Class lists in the package."""
    from clipseg_cli.data.classes import benchmark_names

    return _begun(benchmark_names(), incomplete)


def formats(incomplete: str) -> list[str]:
    """The files in `outputs/`, behind those that stand there already."""
    from clipseg_cli.outputs import FORMATS, shown_name

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _begun(map(shown_name, FORMATS.names()), last)]


def annotation_formats(incomplete: str) -> list[str]:
    """The files in `data/annotations/`."""
    from clipseg_cli.data.annotations import FORMATS, shown_name

    return _begun(map(shown_name, FORMATS.names()), incomplete)


def devices(incomplete: str) -> list[str]:
    """Kinds of devices, whatever this machine has."""
    return _begun(("auto", "cpu", "cuda", "mps"), incomplete)


COMPLETIONS: dict[str, Callable[[str], list[str]]] = {
    "model": models,
    "method": methods,
    "hyper-parameter": hyperparameters,
    "benchmark": benchmarks,
    "classes": benchmarks,
    "device": devices,
    "format": formats,
    "annotation format": annotation_formats,
    "source of regions": regions,
}
"""Kind of an option -> what may stand there."""
