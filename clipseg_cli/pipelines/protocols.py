"""A protocol spelt out: every setting that two results must share to be compared, and a fingerprint of them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from clipseg_cli.data.classes import load_benchmark, load_classes
from clipseg_cli.data.prompts import load_templates
from clipseg_cli.outputs import json_safe
from clipseg_cli.pipelines.data import open_data
from clipseg_cli.pipelines.predict import find_protocol

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
    threshold = chosen(config.background_threshold, protocol.background_threshold, 0.0)
    score_at = protocol.score_short_side
    words = [list(aliases) for aliases in classes.aliases]
    resize = "both sides" if protocol.square else "short side, aspect kept"
    if not protocol.keep_exact_size:
        resize += ", both rounded to whole patches"
    if window == 0:
        window, stride = "whole image", "-"
    else:
        stride = chosen(config.stride, protocol.stride, "half the window")
    return [
        ("classes", list(classes.names), f"{len(classes)} class names"),
        ("words", words, f"{len(classes.queries)} words; a class scores by its best"),
        ("templates", list(templates), f"{len(templates)} sentences around each word, averaged"),
        ("short side", chosen(config.short_side, protocol.short_side), f"pixels; {resize}"),
        ("long side", protocol.long_side, "pixels, at most"),
        ("resize", "linear" if protocol.keep_exact_size else "linear, areas averaged", "of 8-bit pixels"),
        ("mean", _numbers(protocol.mean), "subtracted from RGB in [0, 1]"),
        ("std", _numbers(protocol.std), "divided by"),
        ("window", window, "pixels"),
        ("stride", stride, "pixels between windows"),
        ("stitch", protocol.stitch, "windows averaged at pixels, or on the grid of patches"),
        ("upsample", protocol.upsample, "scores and then the decision, or the decision itself"),
        ("softmax scale", protocol.softmax_scale or MODEL, "factor on cosines"),
        ("activation", protocol.activation or MODEL, "of the image tower"),
        ("layer norm eps", protocol.ln_eps or MODEL, "of the image tower"),
        ("key norm", protocol.key_norm, "axis over which key smoothing normalises"),
        ("background below", threshold, "probability under which the background wins"),
        ("scored at", score_at or "own size", "short side of the labels in pixels, nearest"),
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


def _numbers(values: tuple[float, ...] | None) -> Any:
    return MODEL if values is None else [round(value, 6) for value in values]


def describe_protocol(config: EvalConfig) -> dict[str, Any]:
    """Every setting of a protocol on a benchmark, without data or model.

    Args:
        config: its benchmark, or that of its data set, or the protocol's first.

    Raises:
        ClipsegError: an unknown protocol or benchmark, or a data set that is none.
    """
    benchmark = config.benchmark
    if benchmark is None and config.dataset:
        benchmark = open_data(config, "score")[0].benchmark
    benchmark = benchmark or next(iter(find_protocol(config.protocol).benchmarks), "voc21")
    load_benchmark(benchmark)
    protocol = find_protocol(config.protocol, benchmark)
    classes = load_classes(benchmark, words=protocol.words)
    templates = load_templates(protocol.templates if config.templates is None else config.templates)
    settings = protocol_settings(protocol, config, classes, templates)
    changed = overruled(protocol, config)
    return {
        "protocol": protocol.name,
        "changed": changed,
        "benchmark": benchmark,
        "source": protocol.source,
        "fingerprint": fingerprint(benchmark, settings),
        "settings": [{"name": name, "value": value, "meaning": meaning} for name, value, meaning in settings],
    }
