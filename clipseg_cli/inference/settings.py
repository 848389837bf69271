"""What holds for one run: the user's options, else the protocol's, else the model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from clipseg_cli.config import DEFAULT_PROTOCOL, PROTOCOLS, Protocol
from clipseg_cli.data.classes import benchmark_names, load_benchmark
from clipseg_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from clipseg_cli.config import InferenceConfig
    from clipseg_cli.types import DenseModel, Pyramid

Number = TypeVar("Number", int, float)

STUDENT_PROTOCOL = "student"
"""Name of the settings that a student brings."""


@dataclass(frozen=True)
class Settings:
    """A protocol with nothing left open: every number is the one in force.

    Attributes:
        short_side, long_side: pixels after the resize; a short side of 0 keeps the image's own size, and a long side
            of None has no limit.
        multiple: sides are rounded to this many pixels; 1 keeps the exact size.
        window, stride: pixels; window 0 is the whole image.
        cell: pixels in a cell of the stitched map: the patch, or 1.
        softmax_scale: factor on cosines before the softmax that gives labels and scores.
        refine_scale: the same inside refinements, where MaskCLIP fixes 100.
        background_threshold: winners less probable than this become background.
        protocol: where the rest comes from.
    """

    protocol: Protocol
    short_side: int
    long_side: int | None
    multiple: int
    window: int
    stride: int
    cell: int
    softmax_scale: float
    refine_scale: float
    background_threshold: float


def resolve_settings(
    config: InferenceConfig,
    protocol: Protocol,
    backbone: DenseModel,
    patch: int,
    pyramid: Pyramid | None = None,
) -> Settings:
    """What holds for this model: the user's option, else the protocol's, else the model's own.

    Args:
        config: the user's options.
        protocol: as it is on the benchmark.
        backbone: the model.
        patch: pixels between two of its features.
        pyramid: of a method that classifies patches of images, so that there are neither windows nor a grid.

    Raises:
        UsageError: options that exclude each other.
    """

    def first(*options: Number | None) -> Number:
        return next(option for option in options if option is not None)

    if pyramid is not None and (config.window or config.stride):
        raise UsageError(
            "--window and --stride are about dense reading; this method cuts images in its own way",
            hint="leave them out, or choose another --method",
        )
    by_patch = protocol.stitch == "patch" and pyramid is None
    window = first(config.window, protocol.window, backbone.image_size)
    stride = first(config.stride, protocol.stride, max(1, window // 2))
    if window and not 0 < stride <= window:
        raise _misfit(config, protocol, window, stride)
    if by_patch and window:
        # On one patch grid windows must start and end at patches.
        window = max(patch, round(window / patch) * patch)
        stride = min(window, max(patch, round(stride / patch) * patch))
    own_limit = protocol.name in (DEFAULT_PROTOCOL.name, STUDENT_PROTOCOL)
    return Settings(
        protocol=protocol,
        short_side=first(
            config.short_side,
            protocol.short_side,
            backbone.short_side if pyramid is None else round(backbone.image_size / min(pyramid.parts) / 2),
        ),
        # Our own limit gives way to a size that was asked for; that of a publication belongs to it.
        long_side=None if own_limit and config.short_side else first(protocol.long_side, 2048),
        multiple=1 if protocol.keep_exact_size or pyramid is not None else patch,
        window=window,
        stride=stride,
        cell=patch if by_patch else 1,
        softmax_scale=protocol.softmax_scale or backbone.logit_scale,
        refine_scale=100.0,
        background_threshold=first(config.background_threshold, protocol.background_threshold, 0.0),
    )


def check_window(config: InferenceConfig, protocol: Protocol) -> None:
    """What can be said of window and stride without a model.

    Raises:
        UsageError: steps would leave pixels out.
    """
    window = protocol.window if config.window is None else config.window
    stride = protocol.stride if config.stride is None else config.stride
    if window and stride and stride > window:
        raise _misfit(config, protocol, window, stride)


def _misfit(config: InferenceConfig, protocol: Protocol, window: int, stride: int) -> UsageError:
    """The error about a stride that is larger than the window; it names only what was typed."""
    if config.stride is None:
        return UsageError(
            f"--window {window} is smaller than the stride of {stride} pixels of --protocol {protocol.name}",
            hint=f"add --stride {max(1, window // 2)}",
        )
    own = f"--window {window}" if config.window is not None else f"the window of {window} pixels"
    return UsageError(f"--stride {stride} does not fit {own}", hint="use 1 to the window's side")


def find_protocol(name: str, benchmark: str | None = None) -> Protocol:
    """The protocol of that name, as it is on a benchmark.

    Args:
        name: of the protocol.
        benchmark: name of a class list; any other text, or None, is data of the user's own.

    Raises:
        UsageError: there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"unknown protocol '{name}'", hint=did_you_mean(name, PROTOCOLS))
    known = benchmark is not None and benchmark in benchmark_names()
    return PROTOCOLS[name].on(benchmark, load_benchmark(benchmark) if benchmark and known else {})
