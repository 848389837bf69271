"""A protocol spelt out: every setting that two results must share to be compared, and a fingerprint of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from clipseg_cli.data.classes import benchmark_names, load_classes
from clipseg_cli.data.prompts import load_templates
from clipseg_cli.errors import UsageError, did_you_mean
from clipseg_cli.inference.dataset import open_data
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.steps import list_steps
from clipseg_cli.outputs import json_safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clipseg_cli.config import EvalConfig, InferenceConfig, Protocol
    from clipseg_cli.types import ClassList

MODEL = "the model's own"

Setting = tuple[str, Any, str]
"""Name, value, what it means."""


def protocol_settings(
    protocol: Protocol, config: InferenceConfig, classes: ClassList, templates: Sequence[str]
) -> list[Setting]:
    """Every setting in force, the user's options included.

    Args:
        protocol: as it is on the benchmark.
        config: options that may overrule it.
        classes: with the words that stand for them.
        templates: sentences around each word.
    """

    def chosen(option: Any, own: Any, otherwise: Any = MODEL) -> Any:
        return next((value for value in (option, own) if value is not None), otherwise)

    window = chosen(config.window, protocol.window)
    stride: Any = chosen(config.stride, protocol.stride, "half the window") if window != 0 else "-"
    threshold = float(chosen(config.background_threshold, protocol.background_threshold, 0.0))
    words = [list(aliases) for aliases in classes.aliases]
    count = "1 sentence" if len(templates) == 1 else f"{len(templates)} sentences"
    exact = protocol.keep_exact_size
    return [
        ("classes", list(classes.names), f"{len(classes)} class names"),
        ("words", words, f"{len(classes.queries)} words; a class scores by its best"),
        ("templates", list(templates), f"{count} around each word, averaged"),
        ("short side", chosen(config.short_side, protocol.short_side) or "own size", "pixels"),
        ("long side", protocol.long_side, "pixels, at most"),
        ("aspect", "square" if protocol.square else "kept", "of the resized image"),
        ("rounded to", "pixels" if exact else "whole patches", "what both sides become"),
        ("resize", "linear" if exact else "linear, areas averaged", "of 8-bit pixels"),
        ("mean", _numbers(protocol.mean), "subtracted from RGB in [0, 1]"),
        ("std", _numbers(protocol.std), "by which RGB is divided then"),
        ("window", "whole image" if window == 0 else window, "pixels"),
        ("stride", stride, "pixels between windows"),
        ("stitch", protocol.stitch, "where windows are averaged: at pixels, or on the grid of patches"),
        ("upsample", protocol.upsample, "logits before the decision, or the labels after it"),
        ("softmax scale", protocol.softmax_scale or MODEL, "factor on cosines"),
        ("activation", protocol.activation or MODEL, "of the image tower"),
        ("layer norm eps", protocol.ln_eps or MODEL, "of the image tower"),
        ("key norm", protocol.key_norm, "axis over which key smoothing normalises"),
        ("background below", threshold, "probability under which the background wins, if there is one"),
        ("area above", protocol.area_threshold or "-", "share of the foreground that a class needs"),
        ("scored at", protocol.score_short_side or "own size", "short side of the ground truth, nearest"),
    ]


def fingerprint(benchmark: str | None, settings: Sequence[Setting]) -> str:
    """12 hexadecimal digits that two results share if they can be compared; the method and the model are free."""
    content = json_safe({"benchmark": benchmark, **{name: value for name, value, _ in settings}})
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def overruled(protocol: Protocol, config: InferenceConfig) -> list[str]:
    """Settings of a published protocol that the user's options change, as in "short side 448"."""
    if protocol.name == "default":
        return []
    options = {
        "short side": (config.short_side, protocol.short_side),
        "window": (config.window, protocol.window),
        "stride": (config.stride, protocol.stride),
        "background below": (config.background_threshold, protocol.background_threshold or 0.0),
        "templates": (config.templates, protocol.templates),
    }
    return [f"{name} {new}" for name, (new, own) in options.items() if new is not None and new != own]


def protocol_title(protocol: Protocol, config: InferenceConfig) -> str:
    """Its name and what the user changed of it, as in "sclip, but short side 448"."""
    changed = overruled(protocol, config)
    return protocol.name + (f", but {', '.join(changed)}" if changed else "")


def _numbers(values: tuple[float, ...] | None) -> Any:
    return MODEL if values is None else [round(value, 6) for value in values]


def describe_protocol(config: EvalConfig) -> dict[str, Any]:
    """Every setting of a protocol on a benchmark, without data or model.

    Args:
        config: its data set, or its benchmark, or else the protocol's first.

    Raises:
        ClipsegError: an unknown protocol or benchmark, or a data set that is none.
    """
    if config.dataset:
        dataset, protocol = open_data(config, "score")
        benchmark, classes = dataset.benchmark, dataset.classes
    else:
        benchmark = config.benchmark or next(iter(find_protocol(config.protocol).benchmarks), "voc21")
        if benchmark not in benchmark_names():
            raise UsageError(
                f"unknown benchmark '{benchmark}'", hint=did_you_mean(benchmark, benchmark_names())
            )
        protocol = find_protocol(config.protocol, benchmark)
        classes = load_classes(benchmark, words=protocol.words)
    templates = load_templates(protocol.templates if config.templates is None else config.templates)
    settings = protocol_settings(protocol, config, classes, templates)
    return {
        "protocol": protocol.name,
        "changed": overruled(protocol, config),
        "benchmark": benchmark,
        "source": protocol.source,
        "fingerprint": fingerprint(benchmark, settings),
        "steps": list_steps(config, protocol, background=classes.background is not None),
        "settings": [{"name": name, "value": value, "meaning": meaning} for name, value, meaning in settings],
    }
