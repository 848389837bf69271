"""Steps of the engine: a folder is the registry, hyper-parameters are what functions take, order and scope are kept."""

from __future__ import annotations

import inspect

import pytest
import torch

from clipseg_cli.config import InferenceConfig, PseudolabelConfig, SegmentConfig
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.hyperparameters import (
    Hyperparameter,
    chosen_method,
    hyperparameters_of,
    read_settings,
)
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.steps import plan_steps, read_chosen
from clipseg_cli.methods import METHODS, naclip
from clipseg_cli.refinements import REFINEMENTS
from clipseg_cli.regions import REGIONS

DEFAULT = find_protocol("default")
ENTRIES = [(name, METHODS.get(name)) for name in METHODS.names()]
ENTRIES += [(name, REFINEMENTS.get(name)) for name in REFINEMENTS.names()]
ENTRIES += [(name, REGIONS.get(name)) for name in REGIONS.names()]
FUNCTIONS = ("attention", "read", "read_regions", "pool", "refine", "change", "observe", "relabel", "open")


def chosen(*texts: str, method: str = "maskclip", **options):
    return read_chosen(InferenceConfig(hyperparameters=texts, **options), DEFAULT, method)


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=[name for name, _ in ENTRIES])
def test_every_keyword_of_a_function_can_be_set_and_has_a_range(name, entry):
    functions = [getattr(entry, part, None) for part in FUNCTIONS]
    keywords = {
        p.name
        for function in functions
        if function is not None
        for p in inspect.signature(function).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    assert keywords <= set(entry.ranges), f"{name}: no range for {keywords - set(entry.ranges)}"
    for one in hyperparameters_of(entry).values():
        values = one.default if isinstance(one.default, tuple) else (one.default,)
        assert all(v is None or v in one.choices or one.low <= v <= one.high for v in values)


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (5.0, "3", 3.0),
        (2, "7", 7),
        ((8, 16), "1,2,3", (1, 2, 3)),
        (False, "True", True),
        (None, "auto", None),
        (None, "2.5", 2.5),
    ],
)
def test_a_text_becomes_the_type_of_the_default(default, text, value):
    assert Hyperparameter("x", default, 0, 100).read(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("naclip.std", "wanted NAME.HYPERPARAMETER=VALUE"),
        ("naclip.=3", "wanted NAME.HYPERPARAMETER=VALUE"),
        ("naclp.std=3", "no method, refinement, source of regions or format 'naclp'"),
        ("superpixels.algorithm=quick", "quick is not felzenszwalb or slic"),
        ("superpixels=1", "superpixels is a source of regions"),
        ("naclip.sdt=3", "naclip has no hyper-parameter 'sdt'"),
        ("naclip.std=0", "0 is not a number from 0.01 to 10000"),
        ("naclip.std=nan", "nan is not a number"),
        ("naclip.std=wide", "wide is not a number"),
        ("pamr.dilations=8,x", "8,x is not whole numbers from 1 to 256, by comma"),
        ("pamr.dilations=0", "0 is not whole numbers"),
        ("presence=maybe", "maybe is not true or false"),
        ("naclip=3", "naclip is a method"),
        ("saliency=clip", "it has an option of its own"),
    ],
)
def test_what_cannot_be_set_is_told_before_any_weights_are_asked_for(text, message):
    with pytest.raises(UsageError) as caught:
        chosen(text, method="naclip", pamr=1)
    assert message in caught.value.message


def test_what_would_change_nothing_is_refused():
    with pytest.raises(UsageError, match=r"naclip.std does nothing without --method naclip"):
        chosen("naclip.std=3", method="sclip")
    with pytest.raises(UsageError, match=r"pamr.dilations does nothing without --pamr"):
        chosen("pamr.dilations=4")
    with pytest.raises(UsageError, match=r"superpixels.scale does nothing without --regions superpixels"):
        chosen("superpixels.scale=4", "region_vote=true", regions="folder=.")
    with pytest.raises(UsageError, match=r"--set pamr=... and --pamr say the same"):
        chosen("pamr=3", pamr=2)


def test_a_format_is_set_only_where_formats_are_written():
    text = ("overlay.opacity=0.3",)
    for config in (PseudolabelConfig(hyperparameters=text), InferenceConfig(hyperparameters=text)):
        with pytest.raises(UsageError, match=r"overlay.opacity does nothing without --formats overlay"):
            read_chosen(config, DEFAULT, "maskclip")
    assert read_chosen(SegmentConfig(hyperparameters=text), DEFAULT, "maskclip").of("overlay") == {
        "opacity": 0.3
    }
    with pytest.raises(UsageError, match="does nothing without --formats"):
        read_chosen(SegmentConfig(formats="labels", hyperparameters=text), DEFAULT, "maskclip")


def test_a_method_is_read_with_the_hyperparameters_that_were_set():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 7, 4)
    method = chosen_method("naclip", read_settings(["naclip.std=1.5"], {}))
    assert torch.equal(method.attention(q, k, v, (2, 3)), naclip.attention(q, k, v, (2, 3), std=1.5))
    diy = chosen_method("clip-diy", read_settings(["clip-diy.parts=1,0.5", "clip_diy.weights=1,2"], {}))
    assert diy.pyramid.parts == (1.0, 0.5) and diy.pyramid.weights == (1.0, 2.0)
    assert chosen_method("gem", read_settings(["gem.blocks=3"], {})).blocks == 3


def test_a_variant_that_leaves_a_hyperparameter_out_does_not_take_it():
    with pytest.raises(UsageError, match="takes no 'std'"):
        chosen_method("naclip:kk", read_settings(["naclip.std=3"], {}))


@pytest.mark.parametrize("text", ["presence=true", "key_smoothing=1", "prompt_denoising=0.5"])
def test_a_student_takes_no_refinement_of_a_clip(text):
    with pytest.raises(UsageError, match="is about a CLIP"):
        chosen(text, method="")
    assert chosen("pamr=2", method="").values == {"pamr": 2}


def test_scales_need_as_many_weights():
    with pytest.raises(UsageError, match="another number of scales"):
        chosen_method("clip_diy", read_settings(["clip_diy.parts=1,0.5"], {}))


def test_steps_run_by_scope_and_order():
    values = {
        "pamr": 2,
        "presence": True,
        "area_threshold": 0.1,
        "key_smoothing": 1.0,
        "prompt_denoising": 0.5,
    }
    values |= {"saliency": "clip", "objectness": True}
    names = [step.name for step in plan_steps(values, {}, background=True)]
    assert names == [
        "objectness",
        "presence",
        "prompt_denoising",
        "key_smoothing",
        "pamr",
        "saliency",
        "area_threshold",
    ]
    without = [step.name for step in plan_steps(values, {}, background=False)]
    assert without == ["presence", "prompt_denoising", "key_smoothing", "pamr"]
