"""The fingerprint of a protocol: equal for equal settings and nothing else."""

from __future__ import annotations

import dataclasses
import json

import pytest
from eval_trees import make_scored_voc, results_below

from clipseg_cli.config import PROTOCOLS, Brings, EvalConfig, Protocol
from clipseg_cli.evaluation.protocol_sheet import describe_protocol

OTHER = {
    "short_side": 400,
    "long_side": 1024,
    "keep_exact_size": False,
    "window": 112,
    "stride": 56,
    "stitch": "patch",
    "softmax_scale": 50.0,
    "key_norm": "position",
    "activation": "gelu",
    "ln_eps": 1e-6,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "templates": "single",
    "background_threshold": 0.2,
    "area_threshold": 0.1,
    "words": "maskclip_prompt_names",
    "square": True,
    "upsample": "labels",
    "score_short_side": 448,
}
FREE = {"name", "method", "source", "benchmarks", "from_benchmark", "exceptions"}
FREE |= {field.name for field in dataclasses.fields(Brings)}  # steps of the method


def fingerprint_of(**options):
    return describe_protocol(EvalConfig(**{"protocol": "sclip", "benchmark": "voc20", **options}))[
        "fingerprint"
    ]


def test_every_field_of_a_protocol_is_a_setting():
    assert {f.name for f in dataclasses.fields(Protocol)} == set(OTHER) | FREE


@pytest.mark.parametrize("field", OTHER)
def test_one_other_setting_is_another_fingerprint(monkeypatch, field):
    base = dataclasses.replace(PROTOCOLS["sclip"], from_benchmark=())
    monkeypatch.setitem(PROTOCOLS, "sclip", base)
    before = fingerprint_of()
    assert getattr(base, field) != OTHER[field]
    monkeypatch.setitem(PROTOCOLS, "sclip", dataclasses.replace(base, **{field: OTHER[field]}))
    assert fingerprint_of() != before


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (
            {"model": "RN50", "pretrained": "openai", "method": "vanilla", "device": "cpu", "batch_size": 3},
            True,
        ),
        ({"prompt_denoising": 0.5, "key_smoothing": 1.0}, True),  # they are part of the method
        ({"short_side": 336, "window": 224, "stride": 112, "templates": "imagenet"}, True),
        ({"background_threshold": 0}, True),
        ({"benchmark": "voc21"}, False),
        ({"short_side": 448}, False),
        ({"window": 0}, False),
        ({"stride": 56}, False),
        ({"templates": "single"}, False),
        ({"background_threshold": 0.3}, False),
    ],
)
def test_what_changes_the_fingerprint(options, same):
    assert (fingerprint_of(**options) == fingerprint_of()) is same


def test_processes_and_results_agree_on_it(cli, warm, tiny_clip, tmp_path):
    args = ("--protocol", "sclip", "--templates", "single", "--short-side", "64")
    document = json.loads(cli("eval", "--show-protocol", "--json", *args).out)
    assert document["changed"] == ["short side 64", "templates single"]
    elsewhere, _ = warm("-m", "clipseg_cli", "eval", "--show-protocol", "--json", *args).communicate()
    assert json.loads(elsewhere) == document
    voc = make_scored_voc(tmp_path / "VOC2012")
    done = cli("eval", "--dataset", voc, *args, *tiny_clip.options, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    found = results_below(tmp_path / "out")
    assert found["fingerprint"] == document["fingerprint"]
    assert found["protocol"]["name"] == "sclip, but short side 64, templates single"
    assert f"Protocol {found['protocol']['name']}, fingerprint {found['fingerprint']}" in done.err
