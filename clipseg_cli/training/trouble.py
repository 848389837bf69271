"""Why training had to stop, and what to try instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipseg_cli.errors import RunError
from clipseg_cli.inference.students import LAST, latest
from clipseg_cli.training.setup import LEAST_CROPS

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from clipseg_cli.training.hyperparameters import Numbers


def diverged(what: str, folder: Path, numbers: Numbers, *, iteration: int, rate: float) -> RunError:
    """The error of a loss or of weights that are no numbers.

    Args:
        what: as in "the loss is no number".
        folder: of the run.
        numbers: of the run.
        iteration: how many were done.
        rate: the learning rate by then.
    """
    kept = latest(folder, LAST)
    where = f"the last good checkpoint is kept in {kept}" if kept else "there was no checkpoint yet"
    return RunError(
        f"{what} any more after {iteration} iterations, at a learning rate of {rate:.2g}; {where}",
        hint=f"try a smaller one in a run of another name, as in --rate {numbers.rate / 4:.2g}",
    )


def out_of_memory(numbers: Numbers, ranks: int, device: torch.device) -> RunError:
    """The error of a batch that does not fit, with batch and crop to try."""
    n = numbers
    own = n.batch_size // ranks
    here, crop = own // n.accumulate, max(32, n.crop * 3 // 4 // 32 * 32)
    least = -(-LEAST_CROPS // ranks) if n.head == "deeplabv3plus" else 1
    parts = next((k for k in range(n.accumulate + 1, own // least + 1) if own % k == 0), None)
    ways = [f"--accumulate {parts}, which keeps the batch"] if parts else []
    ways += [f"--crop {crop}"] if crop < n.crop else []
    return RunError(
        f"not enough memory for {here} crop{'s' if here > 1 else ''} of {n.crop} pixels at once on {device}",
        hint=f"try {', or '.join(ways) or 'a smaller --backbone'}, in a run of another --name",
    )
