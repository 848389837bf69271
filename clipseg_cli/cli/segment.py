"""`clipseg segment`: parse, call the one inference loop, show."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipseg_cli.cli import options as opt
from clipseg_cli.cli.console import Console, Stopwatch, count, data_errors
from clipseg_cli.cli.qualities import say_needs
from clipseg_cli.cli.renewed import renew
from clipseg_cli.config import OUTPUT, SegmentConfig
from clipseg_cli.errors import ClipsegError, UsageError
from clipseg_cli.utils.text import format_seconds, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.commands.segment import ImageResult, SegmentRun
    from clipseg_cli.types import ClassShare, ImageSource, Segmentation

EXAMPLES = """
[bold]Examples[/bold]
  clipseg segment photo.jpg --classes batman,joker
  clipseg segment holiday/ -c "couch|sofa,dog,red car" --out labels
  clipseg segment photo.jpg -c voc21 --model RN50 --pretrained openai
  clipseg segment drawing.png -c cat,house --model emoji --json
  clipseg segment photo.jpg --student runs/train/NAME
  clipseg segment - -c cat,dog < photo.jpg > labels.png
"""
JsonLinesOpt = Annotated[
    bool,
    opt.ask(
        "Print one line of JSON for each image as soon as its files are written.", OUTPUT, "--json-lines"
    ),
]
STDIN = "-"
_NO_DIGITS = str.maketrans("", "", "0123456789")
MANY = 5  # above this, one table over all images, and a progress bar


@opt.takes(SegmentConfig)
def segment(
    ctx: typer.Context,
    images: opt.ImagesArg,
    as_json: opt.JsonOpt = False,
    json_lines: JsonLinesOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = False,
) -> None:
    """Label every pixel of IMAGES with one of the words you list.

    Writes a palette PNG (pixel value = class id), an overlay with a legend, and classes.json into --out, and
    prints what share of each image every class took.
    """
    _check_words(opt.given_options(ctx))
    config = opt.config_from(SegmentConfig, ctx.params, images=tuple(images))
    streamed = STDIN in images
    if streamed:
        _check_streams(images, as_json or json_lines, config.heatmaps)
    if as_json and json_lines:
        raise UsageError("--json and --json-lines exclude each other", hint="leave out one of them")
    if as_json and config.watch:
        raise UsageError("--watch has no end that --json could wait for", hint="take --json-lines")
    console = Console(as_json=as_json or json_lines, quiet=quiet, verbose=verbose, data_to_stderr=streamed)
    from clipseg_cli.data.image_files import nothing_left  # brings numpy, not torch
    from clipseg_cli.data.inputs import find_inputs

    found = find_inputs(config)
    if not found[0] and not config.watch:
        raise nothing_left(found[1])
    say_needs(config, console)
    with console.waiting("loading the model"):
        from clipseg_cli.commands.segment import prepare_segmentation  # torch loads here, not for --help

        run = prepare_segmentation(config, found)
    console.say(f"{run.model} on {run.device}")
    for note in run.notes:
        console.say(f"Note: {note}")
    report = _Report(run, console.line if json_lines else None)
    if run.skipped:
        console.say(f"{count(run.skipped, 'image')} {'was' if run.skipped == 1 else 'were'} labelled before")
    _run(run, report, console, None if streamed else run.out)
    if config.watch:
        _watch(run, found[0], report, console)
    if report.wrote:  # files of other formats that an earlier command has made of these labels
        report.failed += renew(run.out, console).failed
    if as_json:
        console.document({**report.document(), "out": str(run.out), "failed": report.failed})
    _finish(report, console, run.out)


class _Report:
    """What has come out so far: counts, sums over all images, and the JSON of each."""

    def __init__(self, run: SegmentRun, say_at_once: Callable[[Any], None] | None = None) -> None:
        self.run, self._say_at_once = run, say_at_once
        self.done = self.failed = 0
        self.wrote = False
        self.noted: set[str] = set()
        self.watch = Stopwatch()
        self._images: list[dict[str, Any]] = []
        self._pixels = [0] * len(run.classes)
        self._confidence = [0.0] * len(run.classes)  # summed over pixels

    def failure(self, image: str, error: ClipsegError) -> None:
        """Count an image that could not be used."""
        self.failed += 1
        self._add({"image": image, "error": error.message, "hint": error.hint})

    def success(self, result: ImageResult, segmentation: Segmentation, shares: Sequence[ClassShare]) -> None:
        """Count an image that was labelled."""
        self.done += 1
        self.wrote |= any(result.written.values())
        for share in shares:
            self._pixels[share.id] += share.pixels
            self._confidence[share.id] += share.pixels * (share.confidence or 0.0)
        height, width = segmentation.labels.shape
        self._add(
            {
                "image": result.name,
                **_firsts(result.written),
                "written": [str(path) for paths in result.written.values() for path in paths],
                "height": height,
                "width": width,
                "classes": [asdict(share) for share in shares],
                "notes": list(segmentation.image.notes),
            }
        )

    def _add(self, image: dict[str, Any]) -> None:
        if self._say_at_once is None:
            self._images.append(image)
        else:
            self._say_at_once(image)

    def total(self) -> list[ClassShare]:
        """Shares over the pixels of all images together."""
        from clipseg_cli.types import ClassShare  # brings numpy, which --help does without

        everything = sum(self._pixels) or 1
        return [
            ClassShare(i, name, pixels, pixels / everything, confidence / pixels if pixels else None)
            for i, (name, pixels, confidence) in enumerate(
                zip(self.run.classes.names, self._pixels, self._confidence, strict=True)
            )
        ]

    def document(self) -> dict[str, Any]:
        """What --json prints, less what only the command knows."""
        classes = self.run.classes
        return {
            "images": self._images,
            "classes": [
                {"id": i, "name": name, "words": list(words), "background": i == classes.background}
                for i, (name, words) in enumerate(zip(classes.names, classes.aliases, strict=True))
            ],
            "model": self.run.model,
            "device": self.run.device,
            "notes": list(self.run.notes),
        }


def _run(run: SegmentRun, report: _Report, console: Console, out: Path | None) -> None:
    """Go through all images, name each failed one at once, and show the others.

    Without an output folder the label PNG goes to stdout.

    Raises:
        KeyboardInterrupt: with a sentence about what is kept.
    """
    many = run.total > MANY
    try:
        with (
            console.progress("segmenting", total=run.total if many else 0) as advance,
            closing(iter(run)) as results,  # however this ends, what is being written is finished first
        ):
            for result in results:
                _one(result, report, console, many=many)
                if out is None and result.segmentation is not None:
                    _stream(result.segmentation)
                advance()
    except KeyboardInterrupt:
        kept = "" if out is None else f"; files already written to {out} are kept"
        raise KeyboardInterrupt(
            f"interrupted after {len(run.finished)} of {count(run.total, 'image')}{kept}"
        ) from None
    if many and report.done:
        _table(f"{count(report.done, 'image')} together", report.total(), console)


def _watch(run: SegmentRun, known: Sequence[ImageSource], report: _Report, console: Console) -> None:
    """Label what arrives until somebody stops it.

    Raises:
        KeyboardInterrupt: with a sentence about what is kept.
        ClipsegError: a folder is gone.
    """
    from clipseg_cli.commands.watch import Arrivals

    console.say(f"Watching {', '.join(run.config.images)}; Ctrl-C ends it")
    try:
        for sources, failures in Arrivals(run.config, known):
            _run(run.of(sources, failures), report, console, run.out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped watching after {count(report.done, 'image')}; everything is in {run.out}"
        ) from None


def _one(result: ImageResult, report: _Report, console: Console, *, many: bool) -> None:
    name = result.name
    if result.segmentation is None:
        error = result.error or ClipsegError(f"{name}: failed")
        report.failure(name, error)
        console.error(error)
        return
    shares = result.segmentation.shares()
    report.success(result, result.segmentation, shares)
    for note in result.segmentation.image.notes:
        kind = note.translate(_NO_DIGITS)
        # Of thousands of images that are alike in something, the first says so.
        (console.detail if many and kind in report.noted else console.say)(f"Note: {name}: {note}")
        report.noted.add(kind)
    if many:
        best = ", ".join(f"{s.name} {percent(s.share)}" for s in _present(shares)[:4])
        console.detail(f"{name}: {best}")
    else:
        _table(name, shares, console)
    for path in (path for paths in result.written.values() for path in paths):
        console.detail(f"  wrote {path}")


def _finish(report: _Report, console: Console, out: Path) -> None:
    """Say where the results are.

    Raises:
        typer.Exit: with code 1 where images failed.
    """
    if report.done:
        where = f", results in {out}" if report.wrote else ""
        console.say(f"{count(report.done, 'image')} in {format_seconds(report.watch.seconds)}{where}")
    total = report.done + report.failed
    if report.failed and total > 1:
        console.error(ClipsegError(f"{report.failed} of {count(total, 'image')} failed"))
    if report.failed:
        raise typer.Exit(1)


def _table(title: str, shares: Iterable[ClassShare], console: Console) -> None:
    rows = [
        (s.name, percent(s.share), "" if s.confidence is None else f"{s.confidence:.2f}")
        for s in _present(shares)
    ]
    console.table(title, ("class", "share", "confidence"), rows)


def _present(shares: Iterable[ClassShare]) -> list[ClassShare]:
    """The classes that took a pixel, the largest first."""
    return sorted((s for s in shares if s.pixels), key=lambda s: -s.pixels)


def _firsts(written: Mapping[str, Sequence[Path]]) -> dict[str, str | None]:
    """The first file of each format; of the two that most callers want also where there is none."""
    firsts = {name: str(paths[0]) for name, paths in written.items() if paths}
    return {"labels": None, "overlay": None, **firsts}


def _check_words(given: Mapping[str, Any]) -> None:
    """Something must say what to look for: a list of words, or a student that has its own.

    Raises:
        UsageError: nothing does, or options beside a student mean nothing.
    """
    opt.check_student(given)
    if "student" not in given:
        if "classes" not in given:
            raise UsageError(
                "Missing option '--classes' / '-c'.",
                hint="list the words to look for: --classes cat,dog; or use a student, which has its own",
            )
        return
    if not given.get("classes", "words").strip():
        raise UsageError("--classes is empty", hint="leave it out for the words the student was trained with")
    if "background" in given and "classes" not in given:
        raise UsageError(
            "--background goes with --classes; without them a student has its own background",
            hint="leave out --background, or add --classes",
        )


def _check_streams(images: Sequence[str], as_json: bool, heatmaps: bool) -> None:
    """Standard input and output must be free for the image and its labels.

    Raises:
        UsageError: they are not.
    """
    if len(images) > 1:
        raise UsageError("- stands for one image on standard input and cannot be mixed with others")
    if as_json:
        raise UsageError("- writes the label PNG to standard output, where --json would print as well")
    if heatmaps:
        raise UsageError("- writes the label PNG to standard output and nothing else: no --heatmaps")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("no image on standard input", hint="clipseg segment - ... < photo.jpg > labels.png")
    if sys.stdout.isatty():
        raise UsageError("a PNG does not belong on a terminal", hint="add > labels.png")


def _stream(segmentation: Segmentation) -> None:
    from clipseg_cli.outputs.labels import encode_labels

    with data_errors():
        sys.stdout.buffer.write(encode_labels(segmentation.labels, segmentation.classes))
        sys.stdout.buffer.flush()


COMMAND = opt.Command("segment", segment, EXAMPLES, order=10)
