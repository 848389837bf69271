"""`clipseg models`: everything is listed, what is readable and on this machine is said truly, and it is quick."""

import json

import pytest
import typer
from typer.testing import CliRunner

from clipseg_cli.cli.models import models
from clipseg_cli.errors import UsageError
from clipseg_cli.methods import METHODS
from clipseg_cli.regions import REGIONS


@pytest.fixture
def run():
    app = typer.Typer()
    app.command("models")(models)

    @app.command("other")
    def other() -> None: ...

    def invoke(*args):
        result = CliRunner().invoke(app, ["models", *args])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return invoke


@pytest.fixture(scope="module")
def listed():
    """What is listed, and of each image tower that was built to be counted whether the dense reader accepts it."""
    import open_clip.model

    from clipseg_cli.models.clip.catalogue import list_backbones
    from clipseg_cli.models.clip.towers import unreadable

    accepted, build = {}, open_clip.model._build_vision_tower

    def noted(embed_dim, vision):
        tower = build(embed_dim, vision)
        accepted[tower_key(embed_dim, vision)] = not unreadable(tower)
        return tower

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip.model, "_build_vision_tower", noted)
        return {info.name: info for info in list_backbones()}, accepted


def tower_key(embed_dim, vision):
    return json.dumps([embed_dim, vision], sort_keys=True)


@pytest.fixture(scope="module")
def rows(listed):
    return listed[0]


def test_every_architecture_is_listed_with_the_bundled_one_first(rows):
    import open_clip

    assert next(iter(rows)) == "emoji"
    assert set(open_clip.list_models()) <= set(rows)


def test_what_is_readable_is_what_the_dense_reader_accepts(listed):
    """The verdict from a configuration equals that on the tower itself."""
    import open_clip

    from clipseg_cli.models.clip.architectures import architecture_config

    rows, accepted = listed
    for name in open_clip.list_models():
        config = architecture_config(name)
        if config["vision_cfg"].get("timm_model_name"):
            config["vision_cfg"].pop("image_size", None)
        assert rows[name].dense == accepted[tower_key(config["embed_dim"], config["vision_cfg"])], name


@pytest.mark.parametrize(
    ("name", "dense"),
    [
        *[
            (name, True)
            for name in ("ViT-B-16", "RN50x64", "ViT-B-16-SigLIP", "coca_ViT-B-32", "PE-Core-L-14-336")
        ],
        *[
            (name, True)
            for name in ("EVA02-E-14", "ViTamin-L", "convnext_base_w", "MobileCLIP2-S0", "MobileCLIP-B")
        ],
        ("swin_base_patch4_window7_224", False),
        ("vit_relpos_medium_patch16_cls_224", False),
    ],
)
def test_known_verdicts(rows, name, dense):
    assert rows[name].dense is dense
    assert bool(rows[name].reason) is not dense


def test_parameters_are_those_of_the_papers(rows):
    assert rows["ViT-B-16"].total_params == 149_620_737
    assert rows["ViT-B-16"].image_params == 86_192_640
    assert rows["RN50"].total_params == 102_007_137
    assert rows["ViT-B-16-SigLIP"].image_params == pytest.approx(92.9e6, rel=0.01)


def test_json_is_machine_readable(run):
    found = json.loads(run("RN50x4", "--json"))
    assert [m["name"] for m in found] == ["RN50x4", "RN50x4-quickgelu"]
    assert found[0]["tags"] == [{"tag": "openai", "cached": False}]
    assert found[0]["dense"] is True
    assert found[0]["total_params"] > found[0]["image_params"] > 80e6


def test_the_slash_of_openai_finds_too(run):
    assert "ViT-B-16-quickgelu" in run("ViT-B/16-q")


def test_table_names_tags_and_reasons(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printed = run("ViT-L-16-SigLIP-256")
    assert "webli" in printed
    printed = run("swin")
    assert "attention bound to one grid of positions" in " ".join(printed.split())


def test_quiet_prints_nothing(run):
    assert run("RN50x4", "--quiet") == ""


def test_cached_lists_only_what_is_here(run, monkeypatch):
    from clipseg_cli.models.weights import hub

    def only_openai(config):
        return "x" if "resnet50x4_clip" in config.get("hf_hub", "") else None

    monkeypatch.setattr(hub, "cached_weights", only_openai)
    assert [m["name"] for m in json.loads(run("RN", "--cached", "--json"))] == ["RN50x4", "RN50x4-quickgelu"]
    assert "openai*" in run("RN50x4", "--cached")


def test_nothing_found_names_the_nearest(run):
    with pytest.raises(UsageError, match="'ViT-B-61'") as caught:
        run("ViT-B-61")
    assert "'ViT-B-16'" in caught.value.hint


def test_methods_are_those_of_the_registry(run):
    listed = json.loads(run("--methods", "--json"))
    assert [m["name"] for m in listed] == METHODS.names()
    assert all(m["summary"] for m in listed)
    known = {m["name"]: m for m in listed}
    assert known["maskclip"]["published"]["value"] == pytest.approx(
        30.25
    )  # not MaskCLIP+, which is a student
    assert known["naclip"]["published"]["method"] == "naclip+pamr"
    assert known["vanilla"]["published"] is None and known["vanilla"]["cost"] == 1
    assert (
        known["clip_diy"]["cost"] > 5 and known["proxyclip"]["guided"] and "kk" in known["naclip"]["variants"]
    )
    assert "maskclip" in run("--methods")


def test_sources_of_regions_are_those_of_the_registry(run, monkeypatch):
    listed = {row["name"]: row for row in json.loads(run("--regions", "--json"))}
    assert sorted(listed) == REGIONS.names()
    assert all(row["summary"] for row in listed.values())
    assert listed["eomt"]["weights"] == "tue-mps/coco_panoptic_eomt_large_640"
    assert [name for name, row in listed.items() if not row["weights"]] == ["folder", "superpixels"]
    assert "superpixels" in run("--regions") and "superpixels" in run("--methods")
    monkeypatch.setattr("clipseg_cli.cli.region_sources.find_spec", lambda name: None)
    monkeypatch.setenv("COLUMNS", "250")
    printed = " ".join(run("--regions").split())
    assert "clipseg-cli[regions]" in printed.replace(" ", "")
    with pytest.raises(UsageError, match="list different things"):
        run("--regions", "--methods")


def test_a_tower_that_cannot_be_read_is_refused_before_its_weights_are_fetched(cli, make_image, tmp_path):
    done = cli(
        "segment", make_image(tmp_path / "x.png"), "-c", "cat", "--model", "swin_base_patch4_window7_224"
    )
    assert done.code == 1
    assert "swin_base_patch4_window7_224 gives no dense features: attention bound to one grid" in done.err
    assert "clipseg models" in done.err
