"""Weight files: every format gives the same weights, and each wrong file has a sentence of its own."""

import copy
import io
import logging
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import open_clip
import pytest
import torch
from clip_weights import (  # noqa: F401
    CPU,
    archive,
    assert_same_weights,
    message,
    registered,
    state_fixture,
    torchscript,
    variant,
    weights_fixture,
)
from safetensors.torch import save_file

from clipseg_cli.models.clip import architectures
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.weights.checkpoints import read_checkpoint

# ---- formats


def written(path: Path, state, layout: str) -> Path:
    wrapped = {f"module.{k}": v for k, v in state.items()}
    match layout:
        case "safetensors without suffix":
            save_file(state, path)
        case "state dict":
            torch.save(state, path)
        case "old torch.save":
            torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
        case "training checkpoint":
            torch.save({"epoch": 3, "name": "run", "state_dict": wrapped, "optimizer": {"lr": 1.0}}, path)
        case "compiled under 'model'":
            torch.save({"model": {f"module._orig_mod.{k}": v for k, v in state.items()}}, path)
        case "half precision":
            torch.save({k: v.half() for k, v in state.items()}, path)
        case "OpenAI archive of GELU":
            torchscript(path, state, quick_gelu=False)
    return path


@pytest.mark.parametrize(
    "layout",
    [
        "safetensors without suffix",
        "state dict",
        "old torch.save",
        "training checkpoint",
        "compiled under 'model'",
        "half precision",
        "OpenAI archive of GELU",
    ],
)
def test_every_format_gives_the_same_weights_and_fingerprint(layout, state, weights, tmp_path):
    reference = load_backbone("tiny", str(weights), CPU)
    backbone = load_backbone("tiny", str(written(tmp_path / "file", state, layout)), CPU)
    assert_same_weights(backbone, state)
    assert backbone.fingerprint == reference.fingerprint


def test_another_weight_gives_another_fingerprint(state, weights, tmp_path):
    changed = {**state, "ln_final.bias": state["ln_final.bias"] + 1e-6}
    save_file(changed, tmp_path / "changed.safetensors")
    one, two = (load_backbone("tiny", str(f), CPU) for f in (weights, tmp_path / "changed.safetensors"))
    assert one.fingerprint != two.fingerprint
    assert len(one.fingerprint) == 16


def test_a_custom_text_tower_takes_plain_clip_weights(weights):
    backbone = load_backbone("tiny-custom", str(weights), CPU)
    assert type(backbone.model).__name__ == "CustomTextCLIP"
    assert float(backbone.model.logit_bias) == 0.0


def test_a_resnet_loads(tmp_path):
    model = open_clip.CLIP(**copy.deepcopy(variant(layers=[1, 1, 1, 1], width=8, head_width=16)))
    plain = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(plain, tmp_path / "resnet.pt")
    backbone = load_backbone("tiny-resnet", str(tmp_path / "resnet.pt"), CPU)
    assert backbone.short_side == 64  # 1.5 x 32, in steps of 32


def test_positions_of_another_image_size_are_resized_and_it_is_said(weights, caplog):
    with caplog.at_level(logging.INFO, logger="clipseg_cli"):
        backbone = load_backbone("tiny-64", str(weights), CPU)
    assert backbone.model.visual.positional_embedding.shape[0] == 65
    assert "visual.positional_embedding resized from 17 to 65 positions" in caplog.text


# ---- files that are not what they should be


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(new, tmp_path, state):
    marker, path = tmp_path / "it-ran", tmp_path / "evil.pt"
    torch.save({"state_dict": state, "x": Evil(marker)}, path, _use_new_zipfile_serialization=new)
    said = message(load_backbone, "tiny", str(path), CPU)
    assert "wants to run code when opened" in said
    assert "system" in said
    assert not marker.exists()


def test_an_archive_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "it-ran"
    path = archive(tmp_path / "evil.pt", pickle.dumps({"visual": Evil(marker)}, protocol=2))
    said = message(read_checkpoint, path)
    assert "wants to run code when opened (posix.system)" in said
    assert not marker.exists()


@pytest.mark.parametrize("name", ["builtins getattr", "torch load", "torch.jit load", "functools partial"])
def test_an_archive_may_name_nothing_but_tensors(name, tmp_path):
    module, _, attribute = name.partition(" ")
    data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b")R."
    assert "wants to run code" in message(read_checkpoint, archive(tmp_path / "evil.pt", data))


def tensor_stream(size: int, stride: int, offset: int, key: str = "0") -> bytes:
    """`data.pkl` of a module `m` with one tensor `w`, written by hand."""

    class Rebuild:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (Storage(), offset, (size,), (stride,), False, {}))

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return ("storage", torch.FloatStorage, key, "cpu", 4) if isinstance(item, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(Rebuild())
    tensor = buffer.getvalue()[2:-1]
    return b"\x80\x02c__torch__\nM\n)\x81}(X\x01\x00\x00\x00w" + tensor + b"ub."


def test_a_tensor_written_by_hand_reads(tmp_path):
    content = torch.arange(4, dtype=torch.float32).numpy().tobytes()
    path = archive(tmp_path / "m.pt", tensor_stream(2, 2, 1), **{"0": content})
    assert read_checkpoint(path).tensors["w"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("size", "stride", "offset", "key"), [(5, 1, 0, "0"), (2, 4, 0, "0"), (1, 1, -1, "0"), (1, 1, 0, "../0")]
)
def test_a_tensor_cannot_reach_beyond_its_data(size, stride, offset, key, tmp_path):
    path = archive(tmp_path / "m.pt", tensor_stream(size, stride, offset, key), **{"0": bytes(16)})
    assert "m.pt" in message(read_checkpoint, path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>Not Found</html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (b"just some text", "is not a weight file"),
        (b"\x80\x02garbage", "is damaged or cut short"),
        (b"PK\x03\x04garbage", "is damaged or cut short"),
        ((64).to_bytes(8, "little") + b'{"a": {"dtype"', "is damaged or cut short"),
    ],
)
def test_every_wrong_file_has_its_own_sentence(content, said, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    assert said in message(load_backbone, "tiny", str(tmp_path / "weights.pt"), CPU)


@pytest.mark.parametrize("layout", ["safetensors without suffix", "state dict", "OpenAI archive of GELU"])
@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_file_that_is_cut_short_is_said_so(layout, share, state, tmp_path):
    path = written(tmp_path / "weights.pt", state, layout)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "is damaged or cut short" in message(load_backbone, "tiny", str(path), CPU)


def test_an_old_file_that_is_cut_short_anywhere_is_said_so(tmp_path):
    path = tmp_path / "old.pth"
    weights = {"weight": torch.zeros(3), "bias": torch.ones(2)}
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert read_checkpoint(path).tensors.keys() == weights.keys()
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        said = message(read_checkpoint, path)
        assert "is damaged or cut short" in said or "wants to run code" in said, length  # half a known name


def test_a_zip_whose_names_are_no_text_is_said_to_be_damaged(tmp_path):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("é/data.pkl", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert "is damaged or cut short" in message(read_checkpoint, path)


def test_a_folder_a_missing_file_and_a_zip_are_named(tmp_path):
    assert "is a folder" in message(load_backbone, "tiny", str(tmp_path), CPU)
    assert "no such weight file" in message(load_backbone, "tiny", str(tmp_path / "none.pt"), CPU)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("photo.jpg", b"")
    assert "zip archive without PyTorch weights" in message(read_checkpoint, tmp_path / "photos.zip")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], torch.zeros(3)])
def test_a_file_without_a_table_of_weights_is_said_so(content, tmp_path):
    torch.save(content, tmp_path / "odd.pt")
    assert "not a table of weights" in (said := message(read_checkpoint, tmp_path / "odd.pt")) or (
        "holds no weights" in said
    )


# ---- weights of another architecture


def test_other_shapes_name_the_first_and_the_architecture_that_fits(weights):
    said = message(load_backbone, "tiny-wide", str(weights), CPU)
    assert "does not fit tiny-wide" in said
    assert "visual.class_embedding is [32] where [48] is expected (and " in said
    assert "--model tiny" in said


def test_missing_and_unexpected_names_are_counted(state, tmp_path):
    odd = {k: v for k, v in state.items() if "visual.transformer.resblocks.1" not in k}
    torch.save({**odd, "head.weight": torch.zeros(2)}, tmp_path / "odd.pt")
    said = message(load_backbone, "tiny", str(tmp_path / "odd.pt"), CPU)
    assert "missing 12 keys (visual.transformer.resblocks.1.ln_1.weight, " in said
    assert ", ...)" in said
    assert "unexpected 1 key (head.weight)" in said


def test_weights_for_transformers_are_recognised(tmp_path):
    torch.save({"vision_model.embeddings.class_embedding": torch.zeros(3)}, tmp_path / "hf.bin")
    assert "laid out for 'transformers'" in message(load_backbone, "tiny", str(tmp_path / "hf.bin"), CPU)


def test_published_shapes_are_guessed():
    for name in ("ViT-B-16", "ViT-L-14-336", "RN50", "RN101"):
        with torch.device("meta"):
            net = architectures.build_model(architectures.architecture_config(name))
        assert architectures.guess_architecture(net.state_dict()) == name
