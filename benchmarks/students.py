"""Students beside their teacher: `python -m benchmarks.students --dataset DATA --init resnet10t.safetensors`.

Labels the training images once, trains every setting over several seeds, scores everything on the validation
split, and prints a table of mean and spread. What is finished is kept: the same command goes on with the rest.

docs/students.md has the commands that make the data sets, and what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FIGURES = ("mIoU", "mIoU_seen", "mIoU_unseen", "hIoU", "pixel_accuracy")
UNSEEN = "pottedplant,sheep,sofa,train,tvmonitor"
TEACHERS = {
    "teacher": (),
    "teacher, PD 0.5": ("--prompt-denoising", "0.5"),
    "teacher, PD 0.5 + KS 1.0": ("--prompt-denoising", "0.5", "--key-smoothing", "1.0"),
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.students", description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, help="a second data set, scored as well")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--method", default="maskclip", help="of the teacher; maskclip is the paper's")
    parser.add_argument("--saliency", default="none", help="of the teacher")
    parser.add_argument("--init", default="none")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument(
        "--rows",
        type=lambda text: text.split(","),
        default=["guided", "guided + self-training", "zero-shot", "supervised"],
        help="which students, by comma",
    )
    parser.add_argument(
        "--teacher-alone", action="store_true", help="no refinements of the teacher beside it"
    )
    parser.add_argument("--self-training-from", type=int, default=None, help="default: as the preset says")
    parser.add_argument("--unseen", default=UNSEEN)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/students"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--options", default="", help="more options for every training, as one text")
    options = parser.parse_args()
    bench = Bench(options)
    bench.label()
    jobs = [(row, seed) for seed in range(options.seeds) for row in bench.rows()]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda job: bench.student(*job), jobs))
    for data in filter(None, (options.dataset, options.heldout)):
        print(f"\n{data}, in %, {options.seeds} seeds")
        print_table(bench.table(data))


class Bench:
    """All runs, in one folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out: Path = options.out
        self.threads = max(1, (os.cpu_count() or 1) // options.jobs)

    def labels(self, kind: str) -> Path:
        """Folder of the pseudo labels of the training images: "free", or "seen", which keeps seen ground truth."""
        return self.out / "labels" / kind

    def label(self) -> None:
        """Pseudo labels of the training images, of both kinds."""
        for kind in ("free", "seen") if "zero-shot" in self.options.rows else ("free",):
            keep = ("--keep-labels", "seen", "--unseen", self.options.unseen) if kind == "seen" else ()
            self.run("pseudolabel", self.options.dataset, "--model", self.options.model, *self.teacher(),
                     *keep, "--out", self.labels(kind).parent, "--name", kind)  # fmt: skip

    def rows(self) -> dict[str, tuple[Any, ...]]:
        """Name -> options of `clipseg train`."""
        o = self.options
        own = () if o.self_training_from is None else ("--self-training-from", o.self_training_from)
        free, seen = ("--labels", self.labels("free")), ("--labels", self.labels("seen"))
        rows = {
            "guided": (*free, "--self-training-from", o.iterations),
            "guided + self-training": (*free, *own),
            "zero-shot": (*seen, "--setting", "zero-shot", *own),
            "supervised": ("--dataset", o.dataset, "--model", o.model, "--setting", "supervised"),
        }
        return {name: rows[name] for name in o.rows}

    def teacher(self) -> tuple[str, ...]:
        """Options of the teacher."""
        return ("--method", self.options.method, "--saliency", self.options.saliency)

    def student(self, row: str, seed: int) -> None:
        """Train one, or go on with it."""
        o, folder = self.options, self.out / "train" / self.name(row, seed)
        resume = ("--resume",) if (folder / "manifest.json").exists() else ()
        self.run("train", *self.rows()[row], "--preset", o.preset, "--init", o.init, "--iterations", o.iterations,
                 "--seed", seed, "--out", folder.parent, "--name", folder.name, "--validate-every", 0,
                 "--validation-images", 30, *o.options.split(), *resume)  # fmt: skip
        for data in filter(None, (o.dataset, o.heldout)):
            self.score(folder.name, data, ("--student", folder, "--alone"))

    def name(self, row: str, seed: int) -> str:
        """Folder of a run."""
        return f"{row.replace(' + ', '-').replace(' ', '-')}-{seed}"

    def score(self, name: str, data: Path, what: tuple[Any, ...]) -> dict[str, float]:
        """The figures of one evaluation, kept in a file."""
        file = self.out / "scores" / f"{name}-{data.name}.json"
        if not file.exists():
            report = self.run("eval", *what, "--dataset", data, "--unseen", self.options.unseen, "--json",
                              "--out", self.out / "eval", "--name", f"{name}-{data.name}")  # fmt: skip
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(report)
        summary: dict[str, float] = json.loads(file.read_text())["summary"]
        return summary

    def table(self, data: Path) -> dict[str, list[dict[str, float]]]:
        """Row -> the figures of each seed."""
        rows = {}
        for name, extra in list(TEACHERS.items())[: 1 if self.options.teacher_alone else None]:
            what = ("--model", self.options.model, *self.teacher(), *extra)
            rows[name] = [self.score(name.replace(" ", ""), data, what)]
        for row in self.rows():
            rows[row] = [
                self.score(self.name(row, seed), data, ("--student", ""))
                for seed in range(self.options.seeds)
            ]
        return rows

    def run(self, *command: Any) -> str:
        """One command of clipseg on the threads of one lane; its stdout."""
        line = [sys.executable, "-m", "clipseg_cli", *map(str, command)]
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        done = subprocess.run(line, env=env, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"failed: {' '.join(line[3:])}")
        return done.stdout


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    """Mean of each figure, and half the range over the seeds."""
    print(f"| | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}")
    for name, seeds in rows.items():
        cells = []
        for figure in FIGURES:
            values = [100 * one[figure] for one in seeds if one.get(figure) is not None]
            spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "-")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
