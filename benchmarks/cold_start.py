"""CPU seconds from the start of the process to the end of a first label: `python -m benchmarks.cold_start`.

    python -m benchmarks.cold_start --before ../clipseg-before

Runs `clipseg segment` on one image, as a user does, several times; with `--before`, by turns with another checkout.
CPU seconds and not those of a clock: they hold on a machine that has other work, and so does their order.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
IMPORTS = "import torch"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout, measured by turns with this one")
    parser.add_argument("--image", type=Path, default=HERE / "samples" / "cars.png")
    parser.add_argument("--classes", default="blue car,red car")
    parser.add_argument("--model", default="emoji")
    parser.add_argument(
        "--pretrained", help="a tag or a file; the words are in the cache after the first run"
    )
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    checkouts = {"now": HERE} if options.before is None else {"before": options.before, "now": HERE}
    seconds: dict[str, list[float]] = {name: [] for name in (*checkouts, IMPORTS)}
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "clipseg_cli", "segment", str(options.image.resolve())]
        command += ["--classes", options.classes, "--model", options.model, "--out", folder]
        command += ["--pretrained", options.pretrained] if options.pretrained else []
        for turn in range(options.runs + 1):  # the first one fills the caches of words and of bytecode
            for name, checkout in checkouts.items():
                taken = cpu_seconds(command, checkout, Path(folder))
                if turn:
                    seconds[name].append(taken)
            if turn:
                seconds[IMPORTS].append(cpu_seconds(["-c", IMPORTS], HERE, Path(folder)))
    for name, values in seconds.items():
        print(f"{name:12s} {statistics.median(values):6.2f} s, from {min(values):.2f} to {max(values):.2f}")


def cpu_seconds(arguments: list[str], checkout: Path, folder: Path) -> float:
    """User and system seconds of one process of Python that imports clipseg from a checkout.

    Raises:
        CalledProcessError: it failed.
    """
    env = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        env=env,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
