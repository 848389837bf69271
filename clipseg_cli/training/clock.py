"""How fast training goes."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipseg_cli.training.log import Step

RATE_ITERATIONS = 20
"""Over how many iterations images per second are averaged."""


class Clock:
    """Images per second over the last iterations."""

    def __init__(self, images: int) -> None:
        self.images = images
        self._ends = [time.monotonic()]

    def timed(self, step: Step) -> Step:
        """The step that has just ended, with the rate up to it."""
        self._ends = [*self._ends[-RATE_ITERATIONS:], time.monotonic()]
        seconds = self._ends[-1] - self._ends[0]
        rate = self.images * (len(self._ends) - 1) / max(seconds, 1e-9)
        return dataclasses.replace(step, images_per_second=rate)

    def restart(self) -> None:
        """After something else took time."""
        self._ends = [time.monotonic()]
