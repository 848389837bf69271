"""Names, configurations and tags of CLIP architectures, and building one without making random numbers."""

from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from clipseg_cli.config import BUNDLED_MODEL
from clipseg_cli.errors import ModelError, UsageError, did_you_mean
from clipseg_cli.models.clip.vit import Clip, is_plain
from clipseg_cli.utils.imports import folder_of, module_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

BUNDLED = Path(__file__).parent.parent / "bundled"
BUNDLED_TAG = "bundled"
QUICK_GELU_SUFFIX = "-quickgelu"

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of images in [0, 1], per channel."""

    mean: Triple
    std: Triple

    @staticmethod
    def of(config: Mapping[str, Any]) -> Normalisation:
        """From a `preprocess_cfg`; what it leaves out is OpenAI's."""
        known = module_alone("open_clip", "constants")
        mean = config.get("mean") or known.OPENAI_DATASET_MEAN
        std = config.get("std") or known.OPENAI_DATASET_STD
        return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def list_architectures() -> list[str]:
    """The bundled model first, then every architecture of open_clip."""
    return [BUNDLED_MODEL, *_library_architectures()]


def _library_architectures() -> list[str]:
    """`open_clip.list_models()`, by the names of the files that it reads where it is not imported."""
    if "open_clip" in sys.modules:
        known: list[str] = sys.modules["open_clip"].list_models()
        return known
    names = [path.stem for path in (folder_of("open_clip") / "model_configs").glob("*.json")]
    return sorted(
        names,
        key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())],
    )


def _library_config(name: str) -> dict[str, Any]:
    """`open_clip.get_model_config(name)` of an architecture that exists."""
    if "open_clip" in sys.modules:
        known: dict[str, Any] = sys.modules["open_clip"].get_model_config(name)
        return known
    path = folder_of("open_clip") / "model_configs" / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def resolve_architecture(model: str) -> str:
    """The name as open_clip spells it; OpenAI's spelling with a slash is understood.

    Raises:
        UsageError: unknown; the hint names the nearest.
    """
    name = model.replace("/", "-")
    known = list_architectures()
    if name not in known:
        raise UsageError(
            f"unknown model '{model}'", hint=did_you_mean(name, known) or "'clipseg models' lists all"
        )
    return name


def bundled_file(name: str, model: str = BUNDLED_MODEL) -> Path:
    """A file of a bundled model; it need not exist."""
    return BUNDLED / model / name


def bundled_config() -> dict[str, Any]:
    """The configuration of the bundled model: `model_cfg` and `preprocess_cfg`.

    Raises:
        ModelError: this installation came without it.
    """
    path = bundled_file("config.json")
    if not path.is_file():
        raise missing_bundle(path)
    return load_config(path)


def missing_bundle(path: Path) -> ModelError:
    """What to say when a file of the bundled model is not there."""
    return ModelError(
        f"the bundled model is missing in this installation ({path})",
        hint="install the package again, or choose another --model",
    )


def load_config(path: Path) -> dict[str, Any]:
    """A configuration with `model_cfg` and `preprocess_cfg`, as open_clip pushes it to a hub.

    Raises:
        ModelError: missing or malformed.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ModelError(f"{path} has no 'model_cfg'")
    return config


def architecture_config(name: str) -> dict[str, Any]:
    """A fresh copy of the configuration of an architecture that exists.

    Raises:
        ModelError: the bundled model is missing in this installation.
    """
    if name == BUNDLED_MODEL:
        config: dict[str, Any] = bundled_config()["model_cfg"]
    else:
        config = _library_config(name)
    # Weights come from the checkpoint: the towers must not fetch their own ImageNet or text pretraining.
    if config["vision_cfg"].get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"]["hf_model_pretrained"] = False
    return config


def tags(name: str) -> list[str]:
    """Tags of weights that open_clip knows for an architecture."""
    return [BUNDLED_TAG] if name == BUNDLED_MODEL else list(_tags().list_pretrained_tags_by_model(name))


def default_tag(name: str) -> str:
    """`openai` where there is one, else the first.

    Raises:
        UsageError: nobody published weights for this architecture.
    """
    known = tags(name)
    if not known:
        raise UsageError(
            f"open_clip has no weights for {name}",
            hint="give your own with --pretrained FILE, or another --model",
        )
    return "openai" if "openai" in known else known[0]


def tag_config(name: str, tag: str) -> dict[str, Any] | None:
    """What open_clip knows about a tag: where it is, mean, std, quick_gelu; None: no such tag.

    As open_clip does, a dash counts as an underscore and case does not matter.
    """
    config = _tags().get_pretrained_cfg(name, tag)
    return dict(config) if config else None


def common_normalisation(name: str) -> Normalisation:
    """For a weight file: what all published weights of the architecture agree on, else OpenAI's."""
    known = _tags().list_pretrained_tags_by_model(name)
    found = {Normalisation.of(tag_config(name, tag) or {}) for tag in known}
    return found.pop() if len(found) == 1 else Normalisation.of({})


def _tags() -> Any:
    """What open_clip knows of published weights."""
    return module_alone("open_clip", "pretrained")


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """The untrained architecture on the CPU; its weights hold no meaning until they are loaded.

    Args:
        config: a `model_cfg` of open_clip. What is not a plain `Clip` is built by open_clip, of the class that
            `open_clip.create_model` chooses.
    """
    if is_plain(config):
        with SkipInit():
            return Clip(config).eval().requires_grad_(False)
    import open_clip  # brings all that its other towers need
    from open_clip.coca_model import CoCa

    settings = copy.deepcopy(dict(config))
    custom = settings.pop("custom_text", False) or bool(settings["text_cfg"].get("hf_model_name"))
    kind = (CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP) if custom else open_clip.CLIP
    with SkipInit():
        model: nn.Module = kind(**settings)
    return model.eval().requires_grad_(False)


class SkipInit(TorchFunctionMode):
    """Leaves weights uninitialised in its block: they are about to be overwritten.

    On the meta device every in-place function is skipped too, since there is nothing to write to.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if getattr(func, "__module__", "") == "torch.nn.init" and isinstance(target, torch.Tensor):
            return target
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.startswith("__") and name != "requires_grad_"
        if (
            in_place
            and isinstance(target, torch.Tensor)
            and type(target).device.__get__(target).type == "meta"
        ):
            return target
        return func(*args, **kwargs)


def guess_architecture(tensors: Mapping[str, Tensor], known: Iterable[str] | None = None) -> str | None:
    """The architecture whose widths, depths and patch size equal those of some weights; None if none does."""
    try:
        wanted = _traits_of_weights(tensors)
    except (KeyError, IndexError):
        return None
    for name in known if known is not None else _library_architectures():
        config = _library_config(name)
        if name.endswith(QUICK_GELU_SUFFIX) or config["vision_cfg"].get("timm_model_name"):
            continue
        if _traits_of_config(config) == wanted:
            return name
    return None


def _traits_of_config(config: Mapping[str, Any]) -> tuple[Any, ...]:
    vision, text = config["vision_cfg"], config["text_cfg"]
    layers, size = vision.get("layers", 12), vision.get("image_size", 224)
    patch = 32 if isinstance(layers, list) else vision.get("patch_size", 16)
    return (
        tuple(layers) if isinstance(layers, list) else layers,
        vision.get("width", 768),
        patch,
        (size // patch) ** 2 if isinstance(size, int) else None,
        config["embed_dim"],
        text.get("width", 512),
        text.get("layers", 12),
    )


def _traits_of_weights(tensors: Mapping[str, Tensor]) -> tuple[Any, ...]:
    shapes = {k.removeprefix("text."): tuple(v.shape) for k, v in tensors.items()}

    def depth(pattern: str) -> int:
        return len({m[1] for k in shapes if (m := re.match(pattern, k))})

    layers: Any = depth(r"visual\.transformer\.resblocks\.(\d+)\.")
    if layers:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        positions = shapes["visual.positional_embedding"][0]
    else:
        layers = tuple(depth(rf"visual\.layer{i}\.(\d+)\.") for i in range(1, 5))
        width, patch = shapes["visual.layer1.0.conv1.weight"][0], 32
        positions = shapes["visual.attnpool.positional_embedding"][0]
    text_layers = depth(r"transformer\.resblocks\.(\d+)\.")
    embed, text_width = shapes["text_projection"][1], shapes["token_embedding.weight"][1]
    return layers, width, patch, positions - 1, embed, text_width, text_layers
