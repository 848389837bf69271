"""Cases of the authors' own code on random weights: tensors in, tensors out, options. See the README in each folder.

Another folder of the same layout (other seeds, sizes, options) is checked with CLIPSEG_GOLDEN_DIR=DIR.
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from safetensors.torch import load_file

Tensors = dict[str, torch.Tensor]

HERE = Path(__file__).parent
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


@dataclass(frozen=True)
class Case:
    """One case of a manifest.

    Attributes:
        name, method: of the case.
        options: of the method.
        tensors: "in.NAME" and "out.NAME" -> shape, meaning and tolerance.
        folder, manifest: where it comes from.
        entry: all that the manifest says of it.
    """

    folder: Path
    manifest: dict[str, Any]
    entry: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def method(self) -> str:
        return str(self.entry["method"])

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.entry["options"])

    @property
    def tensors(self) -> dict[str, dict[str, Any]]:
        return dict(self.entry["tensors"])

    def with_options(self, **options: Any) -> Case:
        """The same with other options."""
        return Case(self.folder, self.manifest, {**self.entry, "options": {**self.options, **options}})

    def load(self) -> tuple[Tensors, Tensors]:
        """The given and the expected tensors."""
        own, shared = _load(self.folder / self.entry["file"]), {}
        if self.manifest.get("shared_inputs"):
            shared = _load(self.folder / self.manifest["shared_inputs"])
        given, expected = {}, {}
        for key, entry in self.tensors.items():
            side, name = key.split(".", 1)
            tensor = shared[entry["shared_key"]] if "shared_key" in entry else own[key]
            (given if side == "in" else expected)[name] = tensor
        return given, expected

    def weights(self) -> Tensors:
        """The random weights that it names, by their names in the file."""
        return _load(self.folder / self.weights_entry["file"])

    @property
    def weights_entry(self) -> dict[str, Any]:
        """What the manifest says of its weights."""
        return dict(self.manifest["weights"][self.entry["weights"]])

    def tower(self) -> Any:
        """The random-weight image tower of open_clip that it names; of `options.blocks` only these, in order."""
        spec, weights = self.weights_entry, self.weights()
        build = ModifiedResNet if self.entry["weights"] == "rn" else VisionTransformer
        visual = build(**spec["constructor_kwargs"])
        visual.load_state_dict({k.removeprefix("visual."): v for k, v in weights.items()}, strict=True)
        if "blocks" in self.options:
            blocks = visual.transformer.resblocks
            visual.transformer.resblocks = torch.nn.ModuleList(blocks[i] for i in self.options["blocks"])
            visual.transformer.layers = len(visual.transformer.resblocks)
        return visual.eval()


@functools.lru_cache(maxsize=8)
def _load(path: Path) -> Tensors:
    return load_file(path)


def all_cases() -> dict[str, Case]:
    """Name -> case, of all folders here, or of the one that CLIPSEG_GOLDEN_DIR names."""
    other = os.environ.get("CLIPSEG_GOLDEN_DIR")
    folders = [Path(other)] if other else sorted(path.parent for path in HERE.glob("golden*/manifest.json"))
    cases: dict[str, Case] = {}
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        for entry in manifest["cases"]:
            assert entry["name"] not in cases, f"two cases are called {entry['name']}"
            cases[entry["name"]] = Case(folder, manifest, entry)
    return cases


CASES = all_cases()


def cases_of(method: str) -> list[str]:
    """Names of the cases of a method."""
    return [name for name, case in CASES.items() if case.method == method]


def compare(what: str, found: torch.Tensor, reference: torch.Tensor, entry: dict[str, Any]) -> None:
    assert found.numel() == reference.numel(), f"{what}: {tuple(found.shape)} for {tuple(reference.shape)}"
    found = found.reshape(reference.shape)
    if "atol" in entry:
        assert found.isnan().equal(reference.isnan()), f"{what}: other values are undefined"
        difference = (found.double() - reference.double()).nan_to_num().abs().max().item()
        assert difference <= entry["atol"], f"{what} differs by {difference:.2e}, allowed {entry['atol']:.0e}"
    else:
        share = (found.long() != reference.long()).double().mean().item()
        assert share <= entry["max_mismatch_fraction"], f"{what}: {share:.2%} of the labels differ"
