"""From a run of `clipseg train` to a student that is ready to label images, with its own words or with others."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import (
    BUNDLED_MODEL,
    DEFAULT_PROTOCOL,
    OF_A_CLIP,
    TEACHING,
    EvalConfig,
    InferenceConfig,
    Protocol,
)
from clipseg_cli.data.prompts import build_prompts
from clipseg_cli.errors import ModelError, RunError, UsageError
from clipseg_cli.inference.complete import without_none
from clipseg_cli.inference.predictor import Predictor
from clipseg_cli.inference.regions import load_regions
from clipseg_cli.inference.settings import STUDENT_PROTOCOL
from clipseg_cli.inference.steps import read_chosen
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.text_classifier import cached_words, embed_words
from clipseg_cli.models.student.adapter import StudentModel
from clipseg_cli.models.student.files import CARD, read_card, read_student
from clipseg_cli.models.student.folded import fold_norms
from clipseg_cli.models.weights.precision import hold_weights_in
from clipseg_cli.utils.device import pick_device, pick_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from clipseg_cli.inference.hyperparameters import Chosen
    from clipseg_cli.models.clip.backbones import Backbone
    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.types import ClassList

CHECKPOINTS = "checkpoints"
LAST, BEST = "last", "best"


def find_student(text: str) -> Path:
    """The folder of a student's files: of a run (its last checkpoint), RUN/best, RUN/last, or a checkpoint.

    Raises:
        ModelError: there is none.
    """
    # Of the module os, which leaves the home of an unknown user as it is written.
    path = Path(os.path.expanduser(text))  # noqa: PTH111
    for folder, kind in ((path, LAST), (path.parent, path.name)):
        found = latest(folder, kind) if kind in (LAST, BEST) else None
        if found is not None:
            return found
    if (path / CARD).is_file():
        return path
    if (path / CHECKPOINTS).is_dir():
        raise ModelError(
            f"{path} has no checkpoint yet", hint="clipseg train writes the first one after a while"
        )
    what = f"{path}: no such folder" if not path.exists() else f"{path} is no run of clipseg train"
    raise ModelError(what, hint="name a run folder, such as runs/train/NAME")


def latest(run: Path, kind: str) -> Path | None:
    """The newest checkpoint of a kind ("last" or "best") in a run folder, or None."""
    found = [path for path in (run / CHECKPOINTS).glob(f"{kind}-*") if (path / CARD).is_file()]
    return max(found, key=lambda path: path.name, default=None)


@dataclass(frozen=True)
class StudentPlan:
    """A student whose options have been checked, before its weights are loaded.

    Attributes:
        folder: of its files.
        protocol: how it sees images, as it was trained.
        templates: sentences around each word, for words that it was not trained with.
    """

    config: InferenceConfig
    folder: Path
    card: StudentCard
    protocol: Protocol
    device: torch.device
    dtype: torch.dtype

    @property
    def chosen(self) -> Chosen:
        """What `--set` says."""
        return read_chosen(self.config, self.protocol, method="")

    @property
    def templates(self) -> tuple[str, ...]:
        """As they were in training."""
        return self.card.templates

    def words_for(self, classes: ClassList) -> ClassList:
        """The words that it was trained with, where the classes are the same; else those given."""
        return self.card.classes if self.card.classes.names == classes.names else classes

    def load(self, classes: ClassList, *, class_scores: bool = False) -> tuple[StudentModel, Predictor]:
        """The weights, and a predictor for some classes; `class_scores` as in `Predictor`.

        Raises:
            ModelError: damaged files; or words that it was not trained with, and no text tower to read them.
        """
        model = self.model()
        return model, self.predictor(model, classes, class_scores=class_scores)

    def model(self) -> StudentModel:
        """The weights, held in the precision in which they compute, with the norms folded into the convolutions.

        Raises:
            ModelError: damaged files.
        """
        model = StudentModel(*read_student(self.folder, self.device), str(self.folder))
        _ = model.fingerprint  # of the weights as they were loaded
        fold_norms(model.student)
        hold_weights_in(model.student, self.dtype)
        return model

    def predictor(self, model: StudentModel, classes: ClassList, *, class_scores: bool = False) -> Predictor:
        """A predictor on a student that is loaded already."""
        classes, text_embeds = model.with_words(classes, self._embed)
        return Predictor(
            model,
            None,
            classes,
            text_embeds,
            self.config,
            device=self.device,
            dtype=self.dtype,
            protocol=self.protocol,
            class_scores=class_scores,
            regions=load_regions(self.config, self.chosen, self.device, self.dtype),
            chosen=self.chosen,
        )

    def _embed(self, words: Sequence[str]) -> Tensor:
        return embed_for(self.card.teacher, words, self.card.templates, self.device)


def embed_for(
    teacher: Mapping[str, Any],
    words: Sequence[str],
    templates: Sequence[str],
    device: torch.device,
    backbone: Backbone | None = None,
) -> Tensor:
    """Unit embeddings [n, D] of words by the text tower that a student was trained with.

    Args:
        teacher: name, pretrained and fingerprint of the CLIP; it is loaded only if the words are in no cache.
        words: n words.
        templates: sentences around each.
        device: where they are computed, and where they go.
        backbone: the CLIP itself, if it is loaded already.

    Raises:
        ModelError: its weights cannot be fetched, or are not those of the training.
    """
    prompts = build_prompts(words, templates)
    found = cached_words(teacher["fingerprint"], prompts)
    if found is not None:
        return found.to(device)
    backbone = backbone or load_backbone(teacher["name"], teacher["pretrained"], device)
    if backbone.fingerprint != teacher["fingerprint"]:
        raise ModelError(
            f"{teacher['name']} / {teacher['pretrained']} has other weights than those that the words of this "
            "student come from",
            hint="put the same weights back, or use the words that it was trained with",
        )
    return embed_words(
        backbone.model, backbone.tokenizer, prompts, fingerprint=backbone.fingerprint, device=device
    )


def plan_student(config: InferenceConfig) -> StudentPlan:
    """Find a student and check the options that go with it.

    Raises:
        ClipsegError: no such student, or options that only mean something for a CLIP.
    """
    for name in OF_A_CLIP:
        if getattr(config, name) != getattr(InferenceConfig, name):
            raise UsageError(
                f"--{name.replace('_', '-')} is about a CLIP; a student is used as it was trained",
                hint=f"leave out --student or --{name.replace('_', '-')}",
            )
    config = without_none(config)
    folder = find_student(config.student)
    card = read_card(folder)
    device = pick_device(config.device)
    return StudentPlan(
        config, folder, card, student_protocol(card), device, pick_precision(config.precision, device)
    )


def evaluation_of_student(text: str, given: Mapping[str, Any]) -> EvalConfig:
    """An evaluation of a student on the validation split of the data set that it was trained on.

    Args:
        text: as `find_student` takes it.
        given: options that the user wrote; they win.

    Raises:
        ClipsegError: no such student, or its data set is gone.
    """
    card = read_card(find_student(text))
    # Of a student that is scored on another data set only the words remain.
    own = {} if "dataset" in given else _own_data(text, card.training)
    return EvalConfig(**{**own, **given, "student": text})


def _own_data(text: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """The options that name the data set a student was trained on.

    Raises:
        RunError: its card does not say, or the data set is gone.
    """
    another = "name it with --dataset ROOT"
    try:
        data, unseen = training["data"], ",".join(training["unseen"])
        own = {"dataset": data["root"], **{key: data[key] for key in ("benchmark", "classes", "background")}}
        is_there = Path(own["dataset"]).is_dir()
    except (LookupError, TypeError) as error:
        raise RunError(
            f"the card of {text} does not say on which data set it was trained", hint=another
        ) from error
    if not is_there:
        raise RunError(
            f"the data set of {text} is no longer at {own['dataset']}", hint=f"put it back, or {another}"
        )
    return {**own, "unseen": unseen}


def evaluation_of_teacher(config: EvalConfig) -> EvalConfig | None:
    """The same evaluation of the CLIP that taught a student; None where it learnt from ground truth alone.

    Raises:
        ClipsegError: no such student.
    """
    card = read_card(find_student(config.student))
    training, teacher = card.training, card.teacher
    if training.get("setting") == "supervised":
        return None
    return dataclasses.replace(
        config,
        student="",
        model=teacher["name"],
        pretrained=None if teacher["name"] == BUNDLED_MODEL else teacher["pretrained"],
        short_side=None,
        window=None,
        stride=None,
        **{key: training[key] for key in TEACHING if key in training},
    )


def student_protocol(card: StudentCard) -> Protocol:
    """How a student sees images: whole, at the size that it was trained for."""
    return dataclasses.replace(
        DEFAULT_PROTOCOL,
        name=STUDENT_PROTOCOL,
        short_side=card.short_side,
        long_side=card.long_side,
        window=0,
        softmax_scale=1.0,
        mean=card.mean,
        std=card.std,
        source="the student's own settings",
    )
