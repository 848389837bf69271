"""What a protocol or a quality chooses for its user: where nothing was chosen, said, and never silently less."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clipseg_cli.config import (
    PROTOCOLS,
    QUALITIES,
    EvalConfig,
    InferenceConfig,
    all_qualities,
    quality_for,
)
from clipseg_cli.data.published import average_of
from clipseg_cli.errors import UsageError
from clipseg_cli.inference import complete as module
from clipseg_cli.inference.complete import complete
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.settings import find_protocol
from clipseg_cli.inference.steps import list_steps, read_chosen
from clipseg_cli.methods import METHODS, find_method
from clipseg_cli.regions import REGIONS
from clipseg_cli.runs.find import evaluation_name

BROUGHT = ("guide", "regions", "region_vote", "propagate")


@pytest.fixture(autouse=True)
def with_network(monkeypatch) -> None:
    """As if everything could be fetched, so that nothing has to be looked for."""
    monkeypatch.setattr(module.hub, "online", lambda: True)


def brought(benchmark: str | None = None, **options: Any) -> dict[str, Any]:
    """What is in force of the options that a whole may bring."""
    config = InferenceConfig(**options)
    whole = complete(config, find_protocol(config.protocol, benchmark))
    return {name: getattr(whole.config, name) for name in BROUGHT}


def chosen_on(benchmark: str, **options: Any) -> dict[str, Any]:
    """Hyper-parameters in force on a benchmark."""
    config = InferenceConfig(device="cpu", **options)
    return dict(plan_clip(config, find_protocol(config.protocol, benchmark)).chosen.hyperparameters)


# Protocols


@pytest.mark.parametrize(
    ("protocol", "method", "expected"),
    [
        (
            "corrclip",
            "corrclip",
            {"guide": "dino-b8", "regions": "sam2", "region_vote": True, "propagate": ""},
        ),
        (
            "lposs",
            "maskclip",
            {"guide": "dino-b16", "regions": "", "region_vote": None, "propagate": "lposs"},
        ),
        ("pearl", "pearl", {"guide": "", "regions": "", "region_vote": None, "propagate": "pearl"}),
        ("resclip", "resclip", {"guide": "", "regions": "", "region_vote": None, "propagate": ""}),
        ("sc-clip", "sc_clip", {"guide": "", "regions": "", "region_vote": None, "propagate": ""}),
    ],
)
def test_a_protocol_brings_its_steps(protocol, method, expected) -> None:
    assert InferenceConfig(protocol=protocol).method_name == method
    assert brought(protocol=protocol) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"protocol": "corrclip", "regions": "superpixels"}, {"regions": "superpixels", "region_vote": True}),
        ({"protocol": "corrclip", "region_vote": False}, {"regions": "sam2", "region_vote": False}),
        ({"protocol": "corrclip", "guide": "none"}, {"guide": "", "regions": "sam2"}),
        # Nobody is left who asks for regions, or for a guide.
        ({"protocol": "corrclip", "region_vote": False, "method": "naclip"}, {"regions": "", "guide": ""}),
        ({"protocol": "lposs", "propagate": "none"}, {"propagate": "", "guide": ""}),
        ({"protocol": "lposs", "propagate": "pearl"}, {"propagate": "pearl", "guide": ""}),
        ({"protocol": "lposs", "guide": "dino"}, {"propagate": "lposs", "guide": "dino"}),
        ({"quality": "best", "regions": "superpixels"}, {"regions": "superpixels", "guide": "dino-b8"}),
        ({"quality": "best", "method": "naclip"}, {"regions": "eomt", "region_vote": True, "guide": ""}),
        (
            {"quality": "balanced", "model": "emoji", "propagate": "none"},
            {"propagate": "", "regions": ""},
        ),
        ({"quality": "balanced", "regions": "none"}, {"regions": "", "region_vote": None}),
    ],
)
def test_what_the_user_chose_wins(options, expected) -> None:
    found = brought(**options)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "emoji"}, {"cls_share": 0.0, "alike": 0.75}),
        ({"model": "emoji", "hyperparameters": ("sc_clip.alike=0.5",)}, {"cls_share": 0.0, "alike": 0.5}),
        # Other weights, another model, and what a publication says.
        ({"model": "ViT-B-16"}, {}),
        ({"model": "emoji", "pretrained": "other.pt"}, {}),
        ({"model": "emoji", "protocol": "sc-clip"}, {}),
    ],
)
def test_the_bundled_model_brings_what_suits_it(options, expected) -> None:
    config = InferenceConfig(method="sc_clip", **options)
    protocol = find_protocol(config.protocol)
    whole = complete(config, protocol)
    assert read_chosen(whole.config, protocol, "sc_clip", whole.hyperparameters).of("sc_clip") == expected


@pytest.mark.parametrize(
    ("protocol", "benchmark", "settings", "hyperparameters"),
    [
        ("corrclip", "voc21", (336, 336, 112, 40, 0.2), {}),
        ("corrclip", "context60", (336, 336, 112, 40, 0.15), {}),
        ("corrclip", "coco-object", (336, 336, 112, 40, 0.25), {}),
        ("corrclip", "ade20k", (448, 336, 112, 40, 0), {}),
        ("corrclip", "cityscapes", (448, 224, 112, 40, 0), {}),
        ("lposs", "voc21", (448, 224, 112, 100, 0), {}),
        ("lposs", "cityscapes", (448, 224, 112, 100, 0), {}),
        ("pearl", "voc20", (336, 0, 112, 40, 0), {}),
        ("pearl", "context60", (336, 224, 112, 40, 0.1), {}),
        ("pearl", "ade20k", (336, 224, 112, 40, 0), {"pearl": {"alpha_kk": 0.3}}),
        ("pearl", "cityscapes", (560, 224, 112, 40, 0), {"pearl": {"alpha_kk": 0.3}, "tlp": {"grid": 224}}),
        (
            "resclip",
            "voc21",
            (336, 0, 112, 40, 0.1),
            {
                "resclip": {
                    "threshold": 0.5,
                    "rcs_scale": 2,
                    "rcs_share": 0.3,
                    "sfr_scale": 2.2,
                    "sfr_share": 0.7,
                }
            },
        ),
        (
            "resclip",
            "cityscapes",
            (560, 224, 112, 40, 0),
            {
                "resclip": {
                    "threshold": 0.1,
                    "rcs_scale": 2,
                    "rcs_share": 0.2,
                    "sfr_scale": 2.1,
                    "sfr_share": 0.6,
                }
            },
        ),
    ],
)
def test_values_of_the_publications(protocol, benchmark, settings, hyperparameters) -> None:
    """Short side, window, stride, scale, threshold: the authors' configurations at the commits that they name."""
    own = find_protocol(protocol, benchmark)
    found = (own.short_side, own.window, own.stride, own.softmax_scale, own.background_threshold or 0)
    assert found == settings
    assert chosen_on(benchmark, protocol=protocol) == hyperparameters


def test_a_hyperparameter_of_the_user_stands_beside_those_of_the_protocol() -> None:
    found = chosen_on("cityscapes", protocol="pearl", hyperparameters=("tlp.grid=100",))
    assert found == {"pearl": {"alpha_kk": 0.3}, "tlp": {"grid": 100}}
    assert chosen_on("cityscapes", protocol="pearl", method="naclip", propagate="none") == {}


def test_steps_of_a_protocol_are_shown(cli) -> None:
    done = cli("eval", "--show-protocol", "--protocol", "pearl", "--benchmark", "cityscapes", "--json")
    assert done.code == 0, done.err
    steps = {row["name"]: row["settings"] for row in json.loads(done.out)["steps"]}
    assert steps["tlp"]["grid"] == 224 and steps["pearl"] == {"alpha_kk": 0.3}
    under = cli("eval", "--show-protocol", "--protocol", "sc_clip", "--json")
    assert json.loads(under.out)["protocol"] == "sc-clip"


# Qualities


@pytest.mark.parametrize("quality", all_qualities(), ids=lambda q: f"{q.name}-{q.kind}")
def test_every_quality_names_what_there_is_and_says_what_it_needs(quality) -> None:
    model = {"clip": "ViT-B-16", "bundled": "emoji", "other": "RN50"}[quality.kind]
    assert quality_for(quality.name, model) == quality
    method = find_method(quality.method)
    source = REGIONS.get(quality.regions) if quality.regions else None
    needs = " ".join(quality.needs)
    assert (source is None or source.weights in needs) and bool(source and source.packages) == (
        "pip" in needs
    )
    assert bool(quality.guide) == ("DINO" in needs)
    assert source is not None or method.read_regions is None
    assert all(average_of(*one) is not None for one in quality.published)
    config = InferenceConfig(model=model, quality=quality.name)
    assert config.method_name == quality.method
    found = brought(model=model, quality=quality.name)
    assert found == {
        "guide": quality.guide,
        "regions": quality.regions,
        "region_vote": quality.region_vote or None,
        "propagate": quality.propagate,
    }
    plan_clip(InferenceConfig(model=model, quality=quality.name, device="cpu"), find_protocol("default"))


def test_the_fastest_is_what_is_done_without_a_word() -> None:
    for model in ("ViT-B-16", "emoji", "RN50", "ViT-B-16-SigLIP"):
        plain, fast = InferenceConfig(model=model), InferenceConfig(model=model, quality=QUALITIES[0])
        default = find_protocol("default")
        assert list_steps(plain, default, background=True) == list_steps(fast, default, background=True)


def test_without_network_it_takes_what_is_there_and_says_so(monkeypatch) -> None:
    monkeypatch.setattr(module.hub, "online", lambda: False)
    monkeypatch.setattr(module, "is_here", lambda name: name == "superpixels")
    monkeypatch.setattr(module, "self_supervised_is_here", lambda _: False)
    whole = complete(InferenceConfig(quality="best"), find_protocol("default"))
    assert (whole.config.regions, whole.config.guide, whole.config.region_vote) == ("superpixels", "", True)
    assert "would take --regions eomt" in whole.notes[0] and "superpixels instead" in whole.notes[0]
    assert "would take --guide dino-b8" in whole.notes[1] and "the tower itself instead" in whole.notes[1]
    # What was chosen by name is not replaced by anything.
    typed = complete(InferenceConfig(quality="best", regions="sam2", guide="dino"), find_protocol("default"))
    assert (typed.config.regions, typed.config.guide, typed.notes) == ("sam2", "dino", ())
    # Nor by a publication's name.
    published = complete(InferenceConfig(protocol="corrclip"), find_protocol("corrclip"))
    assert (published.config.regions, published.notes) == ("sam2", ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "best", "protocol": "pearl"}, "both choose how images are read"),
        (
            {"quality": "balanced", "method": "clip_diy", "model": "emoji"},
            "has no patches for --propagate lposs",
        ),
        ({"guide": "dinox", "method": "proxyclip"}, "unknown network 'dinox'"),
        ({"guide": "dino", "method": "naclip"}, "asks no other network"),
        ({"regions": "superpixels"}, "does nothing by itself"),
        ({"protocol": "lposs", "method": "clip_diy"}, "has no patches for --propagate lposs"),
        (
            {"propagate": "none", "hyperparameters": ("lposs.gamma=3",)},
            "does nothing without --propagate lposs",
        ),
    ],
)
def test_conflicts_are_found_before_weights_are_loaded(options, message) -> None:
    config = InferenceConfig(**{"model": "no-such-model", "device": "cpu", **options})
    with pytest.raises(UsageError) as caught:
        plan_clip(config, find_protocol(config.protocol))
    assert message in caught.value.message


def test_what_it_needs_is_said_before_anything_is_fetched(cli, make_image, tmp_path) -> None:
    image = make_image(tmp_path / "a.png")
    found = cli("segment", image, "-c", "cat", "--quality", "best", "--pretrained", tmp_path / "none.pt")
    assert found.code == 1 and "none.pt" in found.err
    assert found.err.index("tue-mps/coco_panoptic_eomt_large_640 (MIT)") < found.err.index("none.pt")
    assert "--method corrclip --guide dino-b8 --regions eomt --region-vote" in found.err.replace("\n", " ")


def test_a_quality_labels_offline_with_the_bundled_model(cli, make_image, tmp_path) -> None:
    options = ("-c", "cat,sky", "--model", "emoji", "--quality", "balanced", "--short-side", "64")
    image = make_image(tmp_path / "a.png")
    found = cli("segment", image, *options, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    told = json.loads((tmp_path / "out" / "classes.json").read_text())
    names = [step["name"] for step in told["model"]["settings"]["refinements"]]
    assert names == ["lposs", "saliency"] and told["options"]["quality"] == "balanced"
    assert "--saliency none leaves that out" in found.err
    closed = cli("segment", image, *options, "--background", "none", "--out", tmp_path / "closed")
    assert closed.code == 0 and "saliency" not in closed.err.replace(
        "--saliency found", ""
    )  # nothing is background
    without = cli("segment", image, *options, "--saliency", "none", "--out", tmp_path / "without")
    told = json.loads((tmp_path / "without" / "classes.json").read_text())
    assert without.code == 0 and told["options"]["saliency"] == "none"


def test_recipes_are_listed(cli) -> None:
    found = cli("models", "--recipes", "--json")
    assert found.code == 0, found.err
    rows = json.loads(found.out)
    assert len(rows) == len(all_qualities())
    best = next(row for row in rows if (row["name"], row["model"]) == ("best", "the ViTs of CLIP"))
    assert best["cost"] == METHODS.get("corrclip").cost
    assert [round(one["value"], 1) for one in best["published"]] == [48.7, 52.3]
    table = cli("models", "--recipes")
    assert "clipseg-cli[" in table.out
    assert cli("models", "--recipes", "--methods").code == 2


def test_results_of_another_quality_get_another_folder(tmp_path) -> None:
    class Data:
        root, benchmark, split = tmp_path, "voc21", "val"
        classes = type("Classes", (), {"background": None})

    names = {evaluation_name(Data, EvalConfig(model="emoji", quality=q)) for q in ("", *QUALITIES)}  # type: ignore[arg-type]
    assert len(names) == 4


def test_every_protocol_names_methods_that_there_are() -> None:
    for name, protocol in PROTOCOLS.items():
        if protocol.method:
            assert find_method(protocol.method) is not None, name
