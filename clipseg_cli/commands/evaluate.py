"""`clipseg eval`: a data set, a model and what is to be scored, checked and made ready."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from clipseg_cli.evaluation.model_scoring import ModelScoring
from clipseg_cli.evaluation.scoring import plan_conditions, results_folder
from clipseg_cli.inference.dataset import open_data, unseen_ids
from clipseg_cli.inference.load import plan_model
from clipseg_cli.runs.provenance import model_notes
from clipseg_cli.utils.distributed import process_share, rendezvous

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clipseg_cli.config import EvalConfig


@contextmanager
def open_evaluation(config: EvalConfig) -> Iterator[ModelScoring]:
    """Check every option, find the data set, load the model.

    Raises:
        ClipsegError: anything wrong with options, data set or model.
    """
    share = process_share()
    conditions = plan_conditions(config)
    dataset, protocol = open_data(config, "score")
    unseen = unseen_ids(dataset, config.unseen)
    plan = plan_model(config, protocol)
    out = results_folder(config, dataset)
    with ExitStack() as stack:
        stack.enter_context(rendezvous(share))
        backbone, predictor = plan.load(plan.words_for(dataset.classes))
        yield ModelScoring(
            config=config,
            dataset=dataset,
            protocol=plan.protocol,
            images=len(dataset.samples),
            share=share,
            out=out,
            notes=(*dataset.notes, *predictor.notes, *model_notes(backbone, predictor.classes)),
            unseen=unseen,
            conditions=conditions,
            templates=plan.templates,
            backbone=backbone,
            predictor=predictor,
        )
