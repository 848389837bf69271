"""First weights of a student's backbone: files of any layout, ImageNet's from the hub."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from student_nets import (
    _same_numbers,  # noqa: F401
    make,
    message,
)
from torch import nn

from clipseg_cli.models.student.backbones import OWN, backbone_names, initialise
from clipseg_cli.models.weights import hub

if TYPE_CHECKING:
    from clipseg_cli.models.student.network import Student


def refusal(student: Student, init: str) -> str:
    return message(initialise, student.backbone, student.shape.backbone, init)


# First weights


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def no_download(*_, **__):
        raise AssertionError("tried to download")

    monkeypatch.setattr(hub, "reachable", lambda *_: False)
    monkeypatch.setattr(hub, "download_pretrained", no_download)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture(scope="module")
def weights():
    """Of a whole classifier, as timm has them."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = timm.create_model("resnet10t", num_classes=7)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_()
    return net.state_dict()


def assert_begins_with(student, weights):
    for name, tensor in student.backbone.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_no_weights_leave_all_as_it_was():
    student = make()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    assert initialise(student.backbone, student.shape.backbone, "none") == "resnet10t with random weights"
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


WRAPPED = {
    "bare": lambda w: w,
    "without a classifier": lambda w: {k: v for k, v in w.items() if not k.startswith("fc.")},
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model": lambda w: {"model": w},
    "distributed": lambda w: {f"module.{k}": v for k, v in w.items()},
    "old": lambda w: {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")},
    "a segmenting network": lambda w: {
        "state_dict": {**{f"backbone.{k}": v for k, v in w.items()}, "decode_head.conv.weight": torch.ones(2)}
    },
    "mmsegmentation": lambda w: {
        k.replace("conv1.", "stem.", 1)
        if k.startswith("conv1.")
        else k.replace("bn1.", "stem.7.")
        if k.startswith("bn1.")
        else k: v
        for k, v in w.items()
    },
}


@pytest.mark.parametrize("layout", WRAPPED)
def test_a_file_of_any_layout_gives_the_first_weights(layout, tmp_path, weights):
    path = tmp_path / "weights.pth"
    torch.save(WRAPPED[layout](weights), path)
    student = make()
    head = student.head.branches[0][0].weight.clone()
    assert (
        initialise(student.backbone, student.shape.backbone, str(path)) == f"resnet10t with weights of {path}"
    )
    assert_begins_with(student, weights)
    assert torch.equal(student.head.branches[0][0].weight, head)


def test_safetensors_give_the_first_weights_to_either_head(tmp_path, weights):
    save_file(weights, tmp_path / "weights.safetensors")
    student = make("deeplabv3plus")
    initialise(student.backbone, student.shape.backbone, str(tmp_path / "weights.safetensors"))
    assert_begins_with(student, weights)


def test_half_precision_is_widened(tmp_path, weights):
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    save_file(half, tmp_path / "weights.safetensors")
    student = make()
    initialise(student.backbone, student.shape.backbone, str(tmp_path / "weights.safetensors"))
    assert_begins_with(student, {k: v.float() if v.is_floating_point() else v for k, v in half.items()})


@pytest.mark.parametrize(
    "other",
    ["resnet14t", "resnet18", "resnet18c", "resnet18d", "resnet34", "resnet50", "resnet50s", "resnet101c"],
)
def test_weights_of_another_resnet_say_of_which(other, tmp_path):
    original, variant = OWN.get(other, (other, {}))
    with torch.device("meta"):
        shapes = timm.create_model(original, num_classes=1, **variant).state_dict()
    state = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}  # one number each in the file
    torch.save(state, tmp_path / "other.pth")
    said = refusal(make(), str(tmp_path / "other.pth"))
    assert "other.pth does not fit resnet10t: " in said
    assert said.endswith(f"| it looks like {other}: --backbone {other}")


def test_weights_that_do_not_fit_are_named_and_counted(tmp_path, weights):
    state = {k: v for k, v in weights.items() if not k.startswith("layer4.0.conv")}
    state["layer1.0.conv1.weight"] = torch.ones(2, 2)
    state["extra"] = torch.ones(1)
    torch.save(state, tmp_path / "bad.pth")
    student = make()
    before = student.backbone.conv1[0].weight.clone()
    said = refusal(student, str(tmp_path / "bad.pth"))
    assert "layer1.0.conv1.weight is [2, 2] where [64, 64, 3, 3] is expected" in said
    assert "missing 2 keys (layer4.0.conv1.weight, layer4.0.conv2.weight)" in said
    assert "unexpected 1 key (extra)" in said
    assert torch.equal(student.backbone.conv1[0].weight, before)


def test_weights_with_nan_are_refused(tmp_path, weights):
    torch.save({**weights, "bn1.bias": weights["bn1.bias"] * torch.nan}, tmp_path / "bad.pth")
    assert "holds NaN or infinity in bn1.bias" in refusal(make(), str(tmp_path / "bad.pth"))


def test_all_names_are_resnets_that_can_be_built():
    assert {
        "resnet10t",
        "resnet18c",
        "resnet50",
        "resnet50c",
        "resnet101",
        "resnet101c",
        "resnet101d",
    } <= set(backbone_names())
    assert all(name.startswith("resnet") for name in backbone_names())


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    student = make()
    (tmp_path / "text.pth").write_text("hello")
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    assert "is not a weight file" in refusal(student, str(tmp_path / "text.pth"))
    assert "holds a list, not a table" in refusal(student, str(tmp_path / "list.pth"))
    assert "wants to run code" in refusal(student, str(tmp_path / "module.pth"))
    assert "is a folder" in refusal(student, str(tmp_path))
    assert "no such weight file" in refusal(student, "nowhere.pth")
    assert "no such weight file" in refusal(student, "x" * 5000 + "/y")
    assert "did you mean 'imagenet'" in refusal(student, "imagnet")
    assert "known: auto, emoji, imagenet, none" in refusal(student, "")


def test_imagenet_weights_come_from_the_cache_without_network(no_network, weights):
    folder = no_network / "models--timm--resnet10t.c3_in1k"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    save_file(weights, folder / "snapshots/abc/model.safetensors")
    student = make()
    assert (
        initialise(student.backbone, student.shape.backbone, "imagenet")
        == "resnet10t with weights of timm/resnet10t.c3_in1k"
    )
    assert_begins_with(student, weights)


def test_imagenet_weights_are_fetched_when_the_hub_answers(no_network, monkeypatch, tmp_path, weights):
    asked = []

    def download(config):
        asked.append(config["hf_hub"])
        save_file(weights, tmp_path / "fetched.safetensors")
        return str(tmp_path / "fetched.safetensors")

    monkeypatch.setattr(hub, "reachable", lambda *_: True)
    monkeypatch.setattr(hub, "download_pretrained", download)
    student = make()
    initialise(student.backbone, student.shape.backbone, "imagenet")
    assert asked == ["timm/resnet10t.c3_in1k/model.safetensors"]
    assert_begins_with(student, weights)


def test_without_network_one_sentence_names_two_ways_out(no_network):
    student = make()
    before = student.backbone.conv1[0].weight.clone()
    start = time.monotonic()
    said = refusal(student, "imagenet")
    assert time.monotonic() - start < 5
    assert said.startswith("the file with the ImageNet weights of resnet10t is not on this machine")
    assert " cannot be reached | " in said
    assert "--init FILE" in said
    assert "--init none" in said
    assert "--pretrained" not in said
    assert torch.equal(student.backbone.conv1[0].weight, before)


@pytest.mark.parametrize(("name", "near"), [("resnet18c", "resnet18d"), ("resnetblur18", "resnet18")])
def test_a_backbone_without_imagenet_weights_names_near_ones(name, near, no_network):
    said = refusal(make(backbone=name), "imagenet")
    assert said.startswith(f"there are no ImageNet weights of {name} | --backbone ")
    assert near in said
    assert "--init none" in said
