"""What votes, propagation and memories add to plain attention on a data set, and what they cost.

    python -m benchmarks.additions --dataset samples/emoji-voc --learn train --split val --out runs/additions/emoji-voc

Every row is a run of `clipseg eval` in a process of its own. Memories of corrected images are made of the images of
`--learn` that `clipseg index --suggest` names first, or else of those that `--order` lists, with their ground truth.
Cost is CPU time per image behind the start, which a run over two images measures, relative to the plain row; memory is
the peak of the process. With `--jobs`, banks and then rows are made side by side, and neither is measured. What is
finished is kept in `--out`: the same command goes on with the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

VOTE = ("--regions", "superpixels", "--region-vote")
FOUND = ("--saliency", "found")
WAYS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "vote": VOTE,
    "vote, SLIC": (*VOTE, "--set", "superpixels.algorithm=slic"),
    "lposs": ("--propagate", "lposs"),
    "lposs+": ("--propagate", "lposs+"),
    "pearl": ("--propagate", "pearl"),
    "lposs, vote": ("--propagate", "lposs", *VOTE),
    "found": FOUND,
    "lposs, found": ("--propagate", "lposs", *FOUND),
    "lposs, found, vote": ("--propagate", "lposs", *FOUND, *VOTE),
    "unlabelled": ("--memory", "{unlabelled}"),
    "unlabelled, share 0.75": ("--memory", "{unlabelled}", "--set", "region_memory.share=0.75"),
    "1 corrected": ("--memory", "{1}"),
    "3 corrected": ("--memory", "{3}"),
    "10 corrected": ("--memory", "{10}"),
    "20 corrected": ("--memory", "{20}"),
    "10 corrected, vote": ("--memory", "{10}", *VOTE),
    "20 corrected, vote": ("--memory", "{20}", *VOTE),
    "20 corrected, lposs": ("--memory", "{20}", "--propagate", "lposs"),
    "20 corrected, found": ("--memory", "{20}", *FOUND),
    "20 corrected, found, vote": ("--memory", "{20}", *FOUND, *VOTE),
}
"""Name -> options of `clipseg eval`; {N} is a bank of N corrected images, {unlabelled} one of unlabelled images."""

FEW = 2
"""Images of the run that measures the start."""


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--learn-from", type=Path, help="the data set of the banks; left out: --dataset")
    parser.add_argument("--learn", default="train", help="split that the banks may know, or a file of names")
    parser.add_argument("--split", default="val", help="split that is scored, or a file of names")
    parser.add_argument(
        "--order", type=Path, help="a file of names to correct in this order, not as suggested"
    )
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--size", default="", help="options of index and eval alike, as one text")
    parser.add_argument("--device", default="auto", help="that of clipseg")
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes at once; of more than one, scores alone"
    )
    parser.add_argument(
        "--rows", default=",".join(WAYS), help="names of rows; commas within them as semicolons"
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    wanted = (
        [row.replace(";", ",") for row in args.rows.split(",")] if args.rows != ",".join(WAYS) else [*WAYS]
    )
    bench = Bench(args)
    with ThreadPoolExecutor(args.jobs) as pool:
        if args.jobs > 1:
            list(pool.map(bench.bank, bench.banks(wanted)))
        list(pool.map(bench.row, wanted))
    print(bench.table(wanted))


class Bench:
    """All runs of one data set, in one folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out
        self.made = set[Path]()
        self.out.mkdir(parents=True, exist_ok=True)
        self.common = ("--model", args.model, "--device", args.device, *args.size.split())
        self.source = args.learn_from or args.dataset

    def row(self, name: str) -> dict[str, Any]:
        """The figures of one row, kept in a file."""
        file = self.out / f"{name.replace(', ', '-').replace(' ', '-')}.json"
        if not file.exists():
            options = [self.fill(option) for option in WAYS[name]]
            report, seconds, peak = self.score(self.args.split, options)
            figures = {
                "miou": 100 * report["summary"]["mIoU"],
                "accuracy": 100 * report["summary"]["pixel_accuracy"],
            }
            if self.args.jobs == 1:
                start = self.score(self.few(), options)[1]
                figures |= {"seconds": (seconds - start) / (report["images"] - FEW), "peak_mb": peak}
            file.write_text(json.dumps(figures))
            print(name, {key: round(value, 2) for key, value in figures.items()}, flush=True)
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def score(self, split: str, options: list[str]) -> tuple[dict[str, Any], float, float]:
        """The report of an evaluation, its CPU seconds, and its peak of memory in MB."""
        with tempfile.TemporaryDirectory() as folder:
            return self.run("eval", "--dataset", str(self.args.dataset), "--split", split, *self.common,
                            *options, "--json", "--out", folder)  # fmt: skip

    def few(self) -> str:
        """A file that names the first images of the split that is scored."""
        from clipseg_cli.config import DataConfig
        from clipseg_cli.inference.dataset import open_data

        file = self.out / "few.txt"
        if not file.exists():
            data, _ = open_data(DataConfig(dataset=self.args.dataset, split=self.args.split), "label")
            file.write_text("".join(f"{sample.source.relative}\n" for sample in data.samples[:FEW]))
        return str(file)

    def fill(self, option: str) -> str:
        """An option, with the bank that it names, which is made when it is first asked for."""
        return self.bank(option[1:-1]) if option.startswith("{") else option

    def banks(self, wanted: list[str]) -> list[str]:
        """Kinds of the banks that rows ask for."""
        options = [option for name in wanted for option in WAYS[name] if option.startswith("{")]
        kinds = [option[1:-1] for option in dict.fromkeys(options)]
        if set(kinds) - {"unlabelled"}:
            self.suggested()
        return kinds

    def bank(self, kind: str) -> str:
        """A bank, made the first time: of so many corrected images, or of unlabelled ones."""
        where: tuple[str, ...]
        bank = self.out / f"bank-{kind}"
        if bank in self.made:
            return str(bank)
        if kind == "unlabelled":
            where = (str(self.source), "--split", self.args.learn)
        else:
            names = self.out / f"first-{kind}.txt"
            names.write_text("".join(f"{name}\n" for name in self.suggested()[: int(kind)]))
            where = ("--labels", str(self.source), "--split", str(names))
        self.run("index", *where, *self.common, "--out", str(bank))
        self.made.add(bank)
        return str(bank)

    def suggested(self) -> list[str]:
        """The twenty images to correct first."""
        file = self.args.order or self.out / "suggested.txt"
        if not file.exists():
            line = ("index", str(self.source), "--split", self.args.learn, "--suggest", "20", *self.common)
            done = subprocess.run(command(*line), stdout=subprocess.PIPE, text=True, check=True)
            file.write_text(done.stdout)
        names: list[str] = file.read_text().split()
        return names

    def run(self, *line: str) -> tuple[dict[str, Any], float, float]:
        """One command of clipseg: what it prints as JSON, its CPU seconds and its peak of memory in MB."""
        process = subprocess.Popen(command(*line), stdout=subprocess.PIPE, text=True)
        printed = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"failed: clipseg {' '.join(line)}")
        report = json.loads(printed) if "--json" in line else {}
        return report, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

    def table(self, wanted: list[str]) -> str:
        """Markdown; costs where they were measured."""
        rows = [(name, self.row(name)) for name in wanted]
        titles, lines = (
            ["", "mIoU", "pixel accuracy"],
            [[name, f"{f['miou']:.1f}", f"{f['accuracy']:.1f}"] for name, f in rows],
        )
        if all("seconds" in f for _, f in rows):
            titles += ["CPU time of plain", "peak memory, MB"]
            plain = self.row("plain")["seconds"]
            for line, (_, f) in zip(lines, rows, strict=True):
                line += [f"{f['seconds'] / plain:.2f}", f"{f['peak_mb']:.0f}"]
        return "\n".join(f"| {' | '.join(line)} |" for line in (titles, ["---"] * len(titles), *lines))


def command(*line: str) -> list[str]:
    """A command of clipseg."""
    return [sys.executable, "-m", "clipseg_cli", *line]


if __name__ == "__main__":
    main()
