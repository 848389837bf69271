"""The weights of the bundled CLIP between training and open_clip: written, read back, taken over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from recipes.emoji.fast_tower import GRID, PATCH, SHARPNESS
from recipes.emoji.net import MODEL_CFG, TinyClip

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PREPROCESS_CFG: dict[str, Any] = {
    "size": [PATCH * GRID, PATCH * GRID],
    "mode": "RGB",
    "mean": list(OPENAI_DATASET_MEAN),
    "std": list(OPENAI_DATASET_STD),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def full_state(model: TinyClip, values: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """open_clip's state dict, with zero rows for tokens that never occurred."""
    values = values or dict(model.state_dict())
    state = {
        key.removeprefix("clip."): value.detach().cpu() for key, value in values.items() if key != "tokens"
    }
    tokens = values["tokens"].detach().cpu()
    table = torch.zeros(len(model.row), tokens.shape[1])
    table[model.token_ids] = tokens.float()
    return state | {"token_embedding.weight": table}


def export(model: TinyClip, values: dict[str, Tensor], folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (fp16) as open_clip reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    state = sharpened(full_state(model, values), SHARPNESS)
    half = {key: value.half().contiguous() for key, value in state.items()}
    half["logit_scale"] = model.clip.logit_scale.detach().float().cpu()
    temporary = folder / "model.safetensors.part"
    save_file(half, temporary, metadata={"format": "pt", "sharpness": f"{SHARPNESS:g}"})
    temporary.chmod(0o644)
    temporary.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def sharpened(state: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    """The same network with the first norm of each image block so many times as long; see `SHARPNESS`."""
    found = dict(state)
    for key in state:
        if key.startswith("visual.transformer.resblocks"):
            if ".ln_1." in key:
                found[key] = state[key] * factor
            elif key.endswith("in_proj_weight"):
                found[key] = state[key] / factor
    return found


def read_exported(folder: Path) -> dict[str, Tensor]:
    """open_clip's state dict of an exported model, in fp32, as it is trained."""
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        factor = float((file.metadata() or {}).get("sharpness", 1))
    return sharpened({key: value.float() for key, value in load_file(path).items()}, 1 / factor)


@torch.no_grad()
def begin_with(model: TinyClip, folder: Path) -> None:
    """Take over the weights of an exported model; tokens that it never saw keep their random rows."""
    state = read_exported(folder)
    table = state.pop("token_embedding.weight")[model.token_ids]
    seen = table.abs().sum(1) > 0
    own = {f"clip.{key}": value for key, value in state.items()}
    own["tokens"] = torch.where(seen[:, None], table, model.tokens.detach())
    model.load_state_dict(own, strict=True)


def load_exported(folder: Path) -> TinyClip:
    """The exported model in our own faster form."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_cfg"]
    state = read_exported(folder)
    tokens = state.pop("token_embedding.weight")
    model = TinyClip(list(range(len(tokens))), config)
    model.load_state_dict({f"clip.{key}": value for key, value in state.items()} | {"tokens": tokens})
    return model.eval()
