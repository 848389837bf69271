"""From options to a model that is ready to label images; cheap checks first, so that a typo costs no download."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from clipseg_cli.config import OFF
from clipseg_cli.data.prompts import build_prompts, experts_folder, load_templates
from clipseg_cli.errors import UsageError
from clipseg_cli.inference.auxiliary import (
    check_guides,
    load_guide,
    load_key_encoder,
    load_saliency,
    load_stages,
    require_background,
)
from clipseg_cli.inference.banks import memory_kind
from clipseg_cli.inference.complete import complete
from clipseg_cli.inference.experts import check_experts, find_experts
from clipseg_cli.inference.hyperparameters import Chosen, chosen_method
from clipseg_cli.inference.memory import Bank, load_memory, memory_notes, recall_from, require_stages
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.inference.regions import load_regions
from clipseg_cli.inference.settings import check_window
from clipseg_cli.inference.steps import read_chosen
from clipseg_cli.inference.students import StudentPlan, plan_student
from clipseg_cli.memory.files import REGIONS
from clipseg_cli.methods import find_method
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.catalogue import require_readable
from clipseg_cli.models.clip.compiled import check_compiler
from clipseg_cli.models.clip.text_classifier import embed_words
from clipseg_cli.models.weights.precision import hold_weights_in
from clipseg_cli.types import RegionBank
from clipseg_cli.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from collections.abc import Collection

    import torch

    from clipseg_cli.config import InferenceConfig, Protocol
    from clipseg_cli.inference.regions import Regions
    from clipseg_cli.models.auxiliary.saliency import Saliency
    from clipseg_cli.models.auxiliary.stages import Stages
    from clipseg_cli.models.clip.backbones import Backbone
    from clipseg_cli.types import ClassList, Guide, Method


class AuxiliaryNetworks(NamedTuple):
    """Beside CLIP: what a method asks, what finds the foreground, where regions come from, and what is remembered.

    Attributes:
        key_encoder: embeds regions as the keys of a bank.
        stages: of a network beside the tower, for a bank of labelled images.
    """

    guide: Guide | None
    saliency: Saliency | None
    regions: Regions | None
    key_encoder: Guide | None = None
    bank: Bank | RegionBank | None = None
    stages: Stages | None = None


@dataclass(frozen=True)
class ModelPlan:
    """Options that have been checked, before anything is loaded.

    Attributes:
        templates: sentences around each word, each with one `{}`.
        chosen: what `--set` says.
        device, dtype: where and in what precision the tower will compute.
        notes: what a user should be told of what was chosen for them.
        indexing: a bank of regions is being made.
    """

    config: InferenceConfig
    protocol: Protocol
    templates: tuple[str, ...]
    method: Method
    chosen: Chosen
    device: torch.device
    dtype: torch.dtype
    notes: tuple[str, ...] = ()
    indexing: bool = False

    def words_for(self, classes: ClassList) -> ClassList:
        """The words that stand for some classes: those given."""
        return classes

    def load(self, classes: ClassList, *, class_scores: bool = False) -> tuple[Backbone, Predictor]:
        """The weights, and a predictor for some classes; `class_scores` as in `Predictor`.

        Raises:
            ModelError: weights cannot be downloaded, read or loaded, or the tower gives no dense features.
            UsageError: options that exclude each other.
        """
        require_background(self.config, classes)
        backbone = self.backbone()
        return backbone, self.predictor(backbone, classes, class_scores=class_scores)

    def backbone(self) -> Backbone:
        """The weights of the CLIP, the image tower in the type that it computes in.

        Raises:
            ModelError: they cannot be downloaded, read or loaded, or the tower gives no dense features.
        """
        require_readable(self.config.model)
        backbone = load_backbone(self.config.model, self.config.pretrained, self.device)
        hold_weights_in(backbone.model.visual, self.dtype)  # of the words each is read once, and then kept
        return backbone

    def auxiliary_networks(self, backbone: Backbone) -> AuxiliaryNetworks:
        """What the method, `--saliency` and `--regions` ask beside CLIP.

        Raises:
            ClipsegError: weights cannot be downloaded, read or loaded into the network.
        """
        place = (self.device, self.dtype)
        guide, key_encoder = load_guide(self.config, self.method, backbone, self.protocol, *place), None
        if self.indexing or memory_kind(self.config.memory) == REGIONS:
            key_encoder = load_key_encoder(self.config, guide, backbone, self.protocol, *place)
        bank = load_memory(self.config, backbone, key_encoder, self.device)
        stages = None
        if isinstance(bank, Bank):
            stages = load_stages(backbone, *place)
            require_stages(bank, stages)
        return AuxiliaryNetworks(
            guide,
            load_saliency(self.config, backbone, *place),
            load_regions(self.config, self.chosen, *place),
            key_encoder,
            bank,
            stages,
        )

    def predictor(
        self,
        backbone: Backbone,
        classes: ClassList,
        *,
        class_scores: bool = False,
        auxiliary: AuxiliaryNetworks | None = None,
        asked: Collection[str] = (),
    ) -> Predictor:
        """A predictor on a model that is loaded already.

        Args:
            backbone: the model.
            classes: what it labels.
            class_scores, asked: as in `Predictor`.
            auxiliary: saves loading other networks once more.
        """
        guide, saliency, regions, _, bank, stages = auxiliary or self.auxiliary_networks(backbone)
        text_embeds = embed_words(
            backbone.model,
            backbone.tokenizer,
            build_prompts(classes.queries, self.templates),
            fingerprint=backbone.fingerprint,
            device=self.device,
        )
        if "levels" in asked:
            stages = load_stages(backbone, self.device, self.dtype)
        recall = None
        if isinstance(bank, Bank):
            scale = self.protocol.softmax_scale or backbone.logit_scale
            recall = recall_from(
                bank,
                classes,
                text_embeds,
                scale,
                self.device,
                self.chosen.of("memory"),
                placed=self.protocol.stitch == "patch",
            )
        predictor = Predictor(
            backbone,
            self.method,
            classes,
            text_embeds,
            self.config,
            device=self.device,
            dtype=self.dtype,
            protocol=self.protocol,
            class_scores=class_scores,
            guide=guide,
            saliency=saliency,
            regions=regions,
            recall=recall,
            bank=bank if isinstance(bank, RegionBank) else None,
            stages=stages,
            asked=asked,
            chosen=self.chosen,
        )
        predictor.notes = (*self.notes, *memory_notes(predictor.bank, predictor.steps))
        folder = experts_folder(self.config.templates)
        if folder is not None:
            predictor.experts = find_experts(
                predictor,
                backbone,
                build_prompts(classes.queries, self.templates),
                folder,
                method=f"{self.config.method_name} {self.chosen.of(self.config.method_name)}",
                max_megapixels=self.config.max_megapixels,
            )
        return predictor


def plan_model(config: InferenceConfig, protocol: Protocol) -> ModelPlan | StudentPlan:
    """Check what can be checked without weights.

    Args:
        config: of a CLIP, or of a student.
        protocol: as it is on the benchmark; a student brings its own.

    Raises:
        ClipsegError: unknown method, device, precision or templates, an unreadable file of templates, or no such
            student.
    """
    return plan_student(config) if config.student else plan_clip(config, protocol)


def plan_clip(config: InferenceConfig, protocol: Protocol, *, indexing: bool = False) -> ModelPlan:
    """`plan_model` for a CLIP; with `indexing`, for a bank of regions."""
    templates = load_templates(protocol.templates if config.templates is None else config.templates)
    whole = complete(config, protocol, indexing=indexing)
    config = whole.config
    asking = ("clipseg index",) if indexing else ()
    chosen = read_chosen(config, protocol, config.method_name, whole.hyperparameters, asking)
    method = chosen_method(config.method_name, chosen)
    folder = experts_folder(config.templates)
    if folder is not None:
        crops, sight = method.pyramid is not None, method.read_twice is not None
        check_experts(folder, words_in_sight=sight, crops=crops)
    check_guides(config, method, remembers=indexing or memory_kind(config.memory) == REGIONS)
    check_window(config, protocol)
    device = pick_device(config.device)
    if config.compile:
        check_compiler(device)
    return ModelPlan(
        config,
        protocol,
        templates,
        method,
        chosen,
        device,
        pick_precision(config.precision, device),
        whole.notes,
        indexing,
    )


def load_reader(
    config: InferenceConfig, protocol: Protocol, classes: ClassList
) -> tuple[Predictor, Backbone]:
    """A predictor that hands out levels for a memory, and its model."""
    bare = {"memory": "", "regions": OFF, "region_vote": False, "propagate": OFF}
    config = dataclasses.replace(config, **bare)  # type: ignore[arg-type]
    if find_method(config.method_name).read_regions is not None:
        raise UsageError(
            f"--method {config.method_name} reads regions, and levels are read patch by patch",
            hint="choose another --method, such as maskclip",
        )
    plan = plan_clip(config, protocol)
    backbone = plan.backbone()
    return plan.predictor(backbone, classes, asked=("levels",)), backbone
