"""FreeCP's purification and FLOSS's experts: what their parts promise, and `--presence KIND` on the command line."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from clipseg_cli.cli.options import with_values
from clipseg_cli.models.clip.text_classifier import cache_folder
from clipseg_cli.ops.experts import choose_experts, chosen_of, expert_embeddings, fuse_experts, surprise
from clipseg_cli.ops.purify import affinity, boxes_of, components, consistency, settled
from clipseg_cli.ops.similarity import average_prompts

MODEL = ("--model", "emoji")


def test_affinity_is_symmetric_and_keeps_what_is_everywhere_the_same():
    attention = torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) + 0.1
    graph = affinity(attention)
    torch.testing.assert_close(graph, graph.T)
    torch.testing.assert_close(graph.sum(dim=1), torch.ones(9), atol=0.02, rtol=0)


def test_boxes_are_around_what_is_high_and_lose_the_last_row_at_the_border():
    values = torch.zeros(8, 10)
    values[1:4, 2:6] = 1.0
    values[6:, 8:] = 0.9
    assert sorted(boxes_of(values)) == [(1, 4, 2, 6), (6, 7, 8, 9)]
    assert boxes_of(torch.zeros(4, 4)) == []


def test_a_map_agrees_most_with_itself():
    one = torch.rand(1, 4, 4)
    assert consistency(one, one) > consistency(one, one.flip(1, 2) * 0.1)


def test_groups_are_linked_through_others():
    linked = torch.eye(5, dtype=torch.bool)
    for a, b in ((0, 3), (3, 4)):
        linked[a, b] = linked[b, a] = True
    assert components(linked) == [[0, 3, 4], [1], [2]]


def test_of_classes_in_one_place_the_judge_keeps_one_and_others_stay():
    maps = torch.zeros(3, 8, 8)
    maps[0, :4, :4] = maps[1, :4, :4] = maps[2, 4:7, 4:7] = 1.0
    asked = []

    def judge(box, classes):
        asked.append((box, list(classes)))
        return 1

    assert settled(maps, [0, 1, 2], 0.7, judge) == [1, 2]
    assert asked == [((0, 4, 0, 4), [0, 1])]


def test_the_templates_that_are_surest_of_a_class_are_its_experts():
    sure, unsure = torch.tensor([0.9, 0.1]), torch.tensor([0.6, 0.4])
    prob = torch.stack([sure, unsure, sure.flip(0), unsure.flip(0)])[:, :, None, None].expand(4, 2, 3, 5)
    found = surprise(prob) + surprise(prob)
    assert found.seen == 30 and found.pixels.sum() == 4 * 30
    assert choose_experts(found, 3).tolist() == [[0, 1, -1], [2, 3, -1]]


def test_a_class_without_experts_has_the_usual_classifier():
    prompts = torch.randn(3, 5, 4)
    found = expert_embeddings(prompts, torch.tensor([[0, 2], [-1, -1], [4, -1]]))
    usual = average_prompts(prompts)
    assert torch.equal(found[1], usual) and torch.equal(found[-1], usual)
    torch.testing.assert_close(found[2], F.normalize(prompts[:, 4], dim=1))


def test_an_expert_speaks_where_it_claims_and_the_usual_classifier_elsewhere():
    usual = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]])
    first = torch.tensor([[0.9, 0.2, 0.6, 0.3], [0.1, 0.8, 0.4, 0.7]])  # claims pixels 0 and 2
    second = torch.tensor([[0.7, 0.9, 0.1, 0.8], [0.3, 0.1, 0.9, 0.2]])  # claims pixel 2, more surely
    expert = fuse_experts(torch.stack([first, second]))
    assert expert.tolist() == [0, 2, 1, 2]
    fused = chosen_of(torch.stack([first, second]), usual, expert)
    assert torch.equal(fused, torch.stack([first[:, 0], usual[:, 1], second[:, 2], usual[:, 3]], dim=1))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        (["--presence"], ["--presence=evidence"]),
        (["--presence", "freecp", "x.png"], ["--presence=freecp", "x.png"]),
        (["--presence", "x.png"], ["--presence=evidence", "x.png"]),
        (["--presence=freecp"], ["--presence=freecp"]),
        (["--", "--presence"], ["--", "--presence"]),
    ],
)
def test_an_option_may_stand_without_its_value(typed, read):
    assert with_values(typed) == read


def test_freecp_drops_words_that_are_not_there(cli, tmp_path):
    words = "cow,sheep,horse,tractor,tree,house,sofa,boat,bottle,pizza"
    args = ("segment", "--presence", "freecp", "samples/farm_large.jpg", "-c", words, "--model", "emoji")
    options = ("--short-side", "112", "--set", "freecp.redundancy=0.2", "--json", "--out", tmp_path)
    done = cli(*args, *options)
    assert done.code == 0, done.err
    there = {one["name"] for one in json.loads(done.stdout)["images"][0]["classes"] if one["pixels"]}
    assert "background" in there and len(there) < 10
    settings = json.loads((tmp_path / "classes.json").read_text("utf-8"))["model"]["settings"]
    assert [step["name"] for step in settings["refinements"]] == ["freecp"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--presence=maybe",), "unknown kind of presence 'maybe'"),
        (("--presence", "freecp", "--method", "clip_diy"), "no patches of its own for --presence freecp"),
        (("--set", "freecp.crop=64", "--presence"), "freecp.crop does nothing without --presence freecp"),
        (("--presence", "freecp", "--student", "x"), "--presence is about a CLIP"),
    ],
)
def test_what_does_not_go_together_is_told(cli, make_image, tmp_path, options, message):
    done = cli(
        "segment",
        make_image(tmp_path / "x.png"),
        "-c",
        "cat",
        *(() if "--student" in options else MODEL),
        *options,
    )
    assert done.code in (1, 2)
    assert message in " ".join(done.err.replace("│", " ").split())


@pytest.fixture
def images(make_image, tmp_path):
    for seed in range(3):
        make_image(tmp_path / "few" / f"{seed}.png", seed=seed)
    return tmp_path / "few"


def test_templates_are_chosen_on_images_kept_and_recorded(cli, tiny_clip, make_image, images, tmp_path):
    image = make_image(tmp_path / "x.png", 72, 88, seed=9)
    args = ("segment", image, "-c", "cat,dog", *tiny_clip.options, "--background", "none", "--json")

    def confidences(*options):
        done = cli(*args, *options, "--out", tmp_path / "out")
        assert done.code == 0, done.err
        record = json.loads((tmp_path / "out" / "classes.json").read_text("utf-8"))["model"]["settings"]
        return [one["confidence"] for one in json.loads(done.stdout)["images"][0]["classes"]], record

    usual, record = confidences()
    assert "experts" not in record
    floss, record = confidences("--templates", f"floss:{images}")
    assert floss != usual
    assert record["experts"]["images"] == 3
    assert all(len(own) <= 4 for own in record["experts"]["templates"])
    assert any(record["experts"]["templates"])
    (kept,) = (cache_folder() / "experts").glob("*.safetensors")
    again, _ = confidences("--templates", f"floss:{images}")
    assert again == floss
    make_image(images / "more.png", seed=7)  # another choice, since there is more to choose on
    confidences("--templates", f"floss:{images}")
    assert len(list(kept.parent.glob("*.safetensors"))) == 2


@pytest.mark.parametrize("damage", [b"", b"no tensors"])
def test_a_damaged_choice_is_made_anew(cli, tiny_clip, make_image, images, tmp_path, damage, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    args = ("segment", make_image(tmp_path / "x.png"), "-c", "cat,dog", *tiny_clip.options)
    options = ("--templates", f"floss:{images}", "--quiet", "--out", tmp_path / "out")
    assert cli(*args, *options).code == 0
    (kept,) = (cache_folder() / "experts").glob("*.safetensors")
    kept.write_bytes(damage)
    assert cli(*args, *options).code == 0
    assert len(kept.read_bytes()) > len(damage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--templates", "floss:nowhere"), "no such folder"),
        (("--templates", "floss:.", "--method", "clip_diy"), "which this method does not work with"),
        (("--templates", "floss:.", "--method", "resclip"), "which this method does not work with"),
    ],
)
def test_what_experts_do_not_go_with_is_told(cli, make_image, tmp_path, options, message):
    done = cli("segment", make_image(tmp_path / "x.png"), "-c", "cat", *MODEL, *options)
    assert done.code == 2
    assert message in done.err and "Hint:" in done.err


def test_a_folder_without_images_is_told(cli, tiny_clip, make_image, tmp_path):
    (tmp_path / "none").mkdir()
    args = ("segment", make_image(tmp_path / "x.png"), "-c", "cat", *tiny_clip.options)
    done = cli(*args, "--templates", f"floss:{tmp_path / 'none'}", "--out", tmp_path / "out")
    assert done.code == 1 and "none" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [
        ("--presence", "freecp", "--set", "freecp.redundancy=0", "--set", "freecp.overlap=0"),
        ("--method", "pearl:svd"),
        ("--method", "pearl", "--propagate", "lposs+"),
        ("--method", "resclip", "--propagate", "pearl"),
    ],
)
def test_either_precision(cli, make_image, tmp_path, tiny_clip, options, precision):
    """With so low limits every class is kept and lies where the others do, so that crops are embedded."""
    args = ("segment", make_image(tmp_path / "x.png"), "-c", "cat,dog,car", *tiny_clip.options)
    done = cli(*args, *options, "--precision", precision, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    shares = json.loads(done.stdout)["images"][0]["classes"]
    assert sum(one["pixels"] for one in shares) == 48 * 64
