"""`clipseg train`: from options to a run that is ready to go, or to go on."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import AUTO, BUNDLED_MODEL, RECIPES
from clipseg_cli.errors import RunError
from clipseg_cli.inference.dataset import subset_classes
from clipseg_cli.inference.load import plan_clip
from clipseg_cli.inference.students import embed_for
from clipseg_cli.outputs import safe_name
from clipseg_cli.runs.find import newest_run
from clipseg_cli.runs.folder import lock_run, run_folder
from clipseg_cli.runs.manifest import Manifest, read_manifest, refuse_changes, write_manifest
from clipseg_cli.training import checkpoints
from clipseg_cli.training.hyperparameters import Hyperparameters, resolve_hyperparameters
from clipseg_cli.training.loop import TrainingRun
from clipseg_cli.training.samples import TrainingImages
from clipseg_cli.training.setup import (
    build_optimiser,
    build_student,
    describe_student,
    place,
    training_identity,
)
from clipseg_cli.training.targets import Teacher
from clipseg_cli.training.task import TrainingTask, open_task
from clipseg_cli.training.validation import Validator
from clipseg_cli.utils.device import pick_device, pick_precision
from clipseg_cli.utils.distributed import process_share, rendezvous, wait_for_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from torch import Tensor

    from clipseg_cli.config import TrainConfig
    from clipseg_cli.models.student.files import StudentCard
    from clipseg_cli.models.student.network import Student

TEACHER_WINDOWS = 16
"""Crops that the teacher reads in one forward pass."""


def choose_labels(config: TrainConfig) -> tuple[TrainConfig, str]:
    """The newest pseudo-label run where nothing else says what to learn from, and a sentence that says so.

    Raises:
        RunError: there is none.
    """
    if config.labels or config.dataset or config.teacher:
        return config, ""
    folder, why = newest_run(purpose="to learn from")
    return dataclasses.replace(config, labels=str(folder)), f"Learning from {folder}, {why}"


@contextmanager
def open_training(config: TrainConfig) -> Iterator[TrainingRun]:
    """Check every option, take the run folder for this process, build teacher and student.

    Raises:
        ClipsegError: anything wrong with options, labels, data set, run folder or weights.
    """
    share = process_share()
    task = open_task(config)
    config = task.config
    hparams = resolve_hyperparameters(config, task.dataset.benchmark, share.count)
    task = dataclasses.replace(task, learns_background=hparams.learn_background)
    device = pick_device(config.device)
    dtype = pick_precision(config.precision, device, cpu_bf16=RECIPES[hparams.preset].bf16)
    folder = config.out / (config.name or default_name(config, task, hparams))
    with ExitStack() as stack:
        stack.enter_context(rendezvous(share, cuda=device.type == "cuda"))
        stack.enter_context(run_folder(folder, task.dataset, inside=()))
        left_by = stack.enter_context(lock_run(folder, share))
        before = _check_beginning(folder, resume=config.resume)
        wait_for_all(share)  # all have looked before the first begins
        teacher, facts, text_embeds = _teacher(config, task, device)
        student, init = build_student(task, hparams, text_embeds)
        card = describe_student(task, hparams, student, facts)
        optimiser = build_optimiser(place(student, device, share), hparams)
        identity = training_identity(task, hparams, facts, f"{device.type} {dtype}")
        state = _begin(folder, before, identity, student, optimiser, card)
        finished = before is not None and before.complete and state.iteration == hparams.iterations
        notes = [*task.notes, *_chosen(config, task, hparams), init, *_notes(task, hparams, share.count)]
        if finished:
            notes.append(f"nothing is left to do: {folder} is finished")
        elif before is not None:
            notes.append(f"going on after iteration {state.iteration} of {hparams.iterations}")
        if left_by:
            notes.append(f"{left_by} left this run unfinished")
        images = TrainingImages(task)
        yield TrainingRun(
            config=config,
            task=task,
            hparams=hparams,
            student=student.to(device),
            optimiser=optimiser,
            card=card,
            images=images,
            teacher=teacher,
            validator=Validator(
                student,
                card,
                task,
                images,
                teacher,
                config=config,
                device=device,
                dtype=dtype,
                share=share,
                out=folder,
            ),
            folder=folder,
            share=share,
            device=device,
            dtype=dtype,
            state=state,
            identity=identity,
            notes=tuple(notes),
            finished=finished,
        )


def default_name(config: TrainConfig, task: TrainingTask, hparams: Hyperparameters) -> str:
    """As in "VOC2012-voc21-zero-shot-resnet101c": the same command finds its own run again."""
    data = task.dataset
    source = "teacher" if config.teacher else None
    seed = f"seed{config.seed}" if config.seed else None
    parts = (data.root.resolve().name, data.benchmark, config.setting, source, hparams.backbone, seed)
    return "-".join(safe_name(part) for part in parts if part)


def _teacher(
    config: TrainConfig, task: TrainingTask, device: torch.device
) -> tuple[Teacher | None, dict[str, Any], Tensor]:
    """Who labels crops, if somebody does; which CLIP the words come from; and their embeddings [Q, D]."""
    words = task.classes.queries
    if task.teacher is not None:
        facts = dict(task.teacher)
        return None, facts, embed_for(facts, words, task.templates, device)
    # The teacher sees a crop whole and as it is, like the student.
    seen = dataclasses.replace(config, short_side=0, window=config.window or 0, batch_size=TEACHER_WINDOWS)
    plan = plan_clip(seen, task.protocol)
    wanted = subset_classes(task.dataset.classes, task.unlabelled or tuple(range(len(task.classes))))
    backbone, predictor = plan.load(wanted)
    facts = {
        "name": backbone.name,
        "pretrained": backbone.pretrained,
        "fingerprint": backbone.fingerprint,
    }
    embeds = embed_for(facts, words, task.templates, device, backbone)
    return (Teacher(predictor, task.unlabelled) if config.teacher else None), facts, embeds


def _check_beginning(folder: Path, *, resume: bool) -> Manifest | None:
    """Resume a run only if that was asked for; returns what it was started with.

    Raises:
        RunError: it is there and was not asked for, or the other way round, or is damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None and resume:
        raise RunError(
            f"there is no run in {folder} to go on with", hint="leave out --resume, or give its --name"
        )
    if manifest is not None and manifest.identity.get("kind") != "train":
        raise RunError(f"{folder} is a run of another command", hint="choose another folder with --name")
    if manifest is not None and not resume:
        done = "is finished" if manifest.complete else "was begun before"
        raise RunError(f"{folder} {done}", hint="--resume goes on with it; --name starts another one")
    return manifest


def _begin(
    folder: Path,
    before: Manifest | None,
    identity: dict[str, Any],
    student: Student,
    optimiser: torch.optim.Optimizer,
    card: StudentCard,
) -> checkpoints.State:
    """Start a run, or bring the student to where it is.

    Raises:
        RunError: it was made with other options, or its checkpoint is damaged.
    """
    first = process_share().index == 0
    if before is None:
        if first:
            write_manifest(Manifest(identity), folder)
        return checkpoints.State()
    _check_labels(folder, before, identity)
    refuse_changes(folder, before, identity)
    state = checkpoints.restore(folder, student, optimiser, card) or checkpoints.State()
    if first:
        checkpoints.forget_later(folder, state.iteration)
        if before.complete and state.iteration < identity["numbers"]["iterations"]:
            write_manifest(Manifest(identity), folder)  # its last checkpoint is gone: it is not complete
    return state


def _check_labels(folder: Path, before: Manifest, identity: dict[str, Any]) -> None:
    """A run of older versions does not know its labels; it learns from now on what they are.

    Raises:
        RunError: they are not those that the run was begun with.
    """
    old, now = before.identity.get("labels"), identity["labels"]
    if not old or not now or old.get("run") != now["run"]:
        return
    if "sha256" not in old:
        old["sha256"] = now["sha256"]
    if old["sha256"] != now["sha256"]:
        raise RunError(
            f"the labels in {now['run']} have changed since {folder} began to learn from them",
            hint="put them back to go on, or use another --name to start anew",
        )


def _chosen(config: TrainConfig, task: TrainingTask, hparams: Hyperparameters) -> Iterator[str]:
    """What the user left open, and for whose sake it was decided as it was."""
    made = [] if config.preset else [f"--preset {hparams.preset}"]
    made += [f"--init {hparams.init}"] if config.init == AUTO else []
    if made:
        sake = task.dataset.benchmark
        if config.model == BUNDLED_MODEL:
            labels = (task.run or config.teacher) and config.setting != "supervised"
            sake = f"{'labels' if labels else 'words'} by {config.model}"
        yield "chosen" + (f" for {sake}" if sake else "") + f": {', '.join(made)}"


def _notes(task: TrainingTask, hparams: Hyperparameters, ranks: int) -> Iterator[str]:
    images = len(task.samples)
    if ranks > images:
        yield f"there are more processes ({ranks}) than images ({images}): every batch repeats some"
    elif images < hparams.batch_size:
        are = "is only one image" if images == 1 else f"are only {images} images"
        yield f"there {are}: every batch of {hparams.batch_size} repeats some"
