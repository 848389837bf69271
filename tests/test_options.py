"""Options are said once, on the fields of the configs; commands, Python API, checks and completion follow."""

from __future__ import annotations

import dataclasses
import inspect
import os
import subprocess
import sys

import pytest

from clipseg_cli import Segmenter
from clipseg_cli.api.keywords import ClipKeywords, StudentKeywords
from clipseg_cli.config import (
    OF_A_CLIP,
    PANELS,
    ConvertConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    IndexConfig,
    InferenceConfig,
    PseudolabelConfig,
    SegmentConfig,
    TrainConfig,
    check_options,
    options_of,
)
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.settings import find_protocol

COMMANDS = {
    "segment": SegmentConfig,
    "pseudolabel": PseudolabelConfig,
    "eval": EvalConfig,
    "index": IndexConfig,
    "train": TrainConfig,
    "export": ExportConfig,
    "convert": ConvertConfig,
}
PER_CALL = {"classes", "background"}
"""What the Python API takes with each picture."""

ELSEWHERE = {"student", "workers"}
"""What it takes by another name, or not at all."""


@pytest.mark.parametrize("config", [*COMMANDS.values(), ImportConfig], ids=[*COMMANDS, "import"])
def test_every_field_says_what_it_is_and_has_a_possible_default(config):
    for name, one in options_of(config).items():
        assert one.panel in PANELS, name
        assert one.help[:1].isupper() or one.help.split()[0].rstrip(",") in (*one.choices, "auto", "train"), (
            name
        )
        assert one.help.endswith("."), name
    check_options(config())


def test_the_python_api_takes_the_options_of_the_command():
    parameters = inspect.signature(Segmenter.from_pretrained).parameters
    wanted = set(options_of(InferenceConfig)) - PER_CALL - ELSEWHERE
    assert set(parameters) == wanted
    for field in dataclasses.fields(InferenceConfig):
        if field.name in wanted - {"model", "hyperparameters"}:
            assert parameters[field.name].default == field.default, field.name
            assert f"{field.name}: " in Segmenter.from_pretrained.__doc__, field.name
    of_a_student = set(inspect.signature(Segmenter.from_run).parameters)
    assert {"path", "device", "window"} <= of_a_student <= {"path", *wanted} - set(OF_A_CLIP)


@pytest.mark.parametrize(
    ("load", "keywords"), [(Segmenter.from_pretrained, ClipKeywords), (Segmenter.from_run, StudentKeywords)]
)
def test_editors_know_the_keywords_and_their_types(load, keywords):
    own = {"model", "pretrained", "hyperparameters", "path"}  # in the signature itself
    parameters = {
        name: one.annotation for name, one in inspect.signature(load).parameters.items() if name not in own
    }
    told = {name: kind.__forward_arg__ for name, kind in keywords.__annotations__.items()}
    assert told.keys() == parameters.keys()
    for name, kind in parameters.items():  # the API may take more kinds than a command line can say
        assert told[name] == kind or told[name].startswith(f"{kind} | "), name


def test_an_argument_that_does_not_exist_is_a_type_error():
    for load in (Segmenter.from_pretrained, Segmenter.from_run):
        with pytest.raises(TypeError, match="unexpected keyword argument 'windows'"):
            load("emoji", windows=64)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_a_beginner_needs_first(cli, command):
    text = cli(command, "--help").out
    first = [option for option in ("--out", "--model", "--preset", "--onnx") if option in text]
    later = text.find("--workers") if "--workers" in text else len(text)
    assert first and all(text.index(option) < later for option in first)
    assert "PosixPath" not in text and "('" not in text


def test_defaults_are_printed_as_they_would_be_typed(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(cli("segment", "--help").out.split())
    assert "[default: building,ground,grass,tree,sky,background]" in text
    assert "[default: 100]" in text and "[default: clipseg-out]" in text
    assert "[default: 1..5]" in " ".join(cli("eval", "--help").out.split())


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            {"protocol": "sclip", "window": 100},
            "--window 100 is smaller than the stride of 112 pixels of --protocol sclip",
        ),
        ({"protocol": "sclip", "stride": 300}, "--stride 300 does not fit the window of 224 pixels"),
        ({"window": 64, "stride": 65}, "--stride 65 does not fit --window 64"),
    ],
)
def test_a_conflict_names_only_what_was_typed_and_costs_no_download(typed, message):
    config = InferenceConfig(model="no-such-model", **typed)
    with pytest.raises(UsageError) as caught:
        plan_clip(config, find_protocol(config.protocol))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("clipseg segment --model emo", "emoji", "ViT-B-16"),
        ("clipseg segment --model ViT-B-1", "ViT-B-16", "emoji"),
        ("clipseg segment --method sc", "sc_clip", "gem"),
        ("clipseg segment --set nac", "naclip.", "pamr."),
        ("clipseg segment --protocol sc", "sclip-paper", "maskclip"),
        ("clipseg eval --benchmark voc", "voc21", "coco-stuff"),
        ("clipseg import x --format lab", "label-studio", "coco"),
        ("clipseg tr", "train", "eval"),
    ],
)
def test_a_shell_completes_names(line, offered, not_offered):
    words = line.split()
    env = {
        **os.environ,
        "_CLIPSEG_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "import sys; from clipseg_cli.__main__ import main; main(); "
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    found = done.stdout.split()
    assert offered in found and not_offered not in found, done.stderr
