"""Names that options had before: what was written with them is still read, and they can still be typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMER_NAMES = {
    "rate": "lr",
    "learning_rate": "lr",
    "min_rate": "min_lr",
    "step_images": "batch_size",
    "self_from": "self_training_from",
    "accumulate": "grad_accumulation",
}
"""Name of an option or hyperparameter of `clipseg train` before -> now."""


def with_present_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a run recorded of its options, by the names that they have now.

    A former name wins over its present one: runs that were recorded with `step_images` have a `batch_size` beside it,
    which meant nothing in a training.
    """
    former = {now: record[name] for name, now in FORMER_NAMES.items() if name in record}
    return {name: value for name, value in record.items() if name not in FORMER_NAMES} | former


def present_flag(flag: str) -> str:
    """The flag that an option has now, as in "--lr" for "--rate"; any other text as it is."""
    name = FORMER_NAMES.get(flag.removeprefix("--").replace("-", "_"))
    return f"--{name.replace('_', '-')}" if name and flag.startswith("--") else flag
