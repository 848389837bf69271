"""`clipseg convert`: label maps that are there, in other formats."""

from __future__ import annotations

import dataclasses
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.commands.derive import Derivation
from clipseg_cli.config import ConvertConfig, check_options, ignore_value
from clipseg_cli.errors import ClipsegError, DiskFullError, UsageError
from clipseg_cli.inference.hyperparameters import is_about_a_format, read_settings, require_used
from clipseg_cli.ops.components import absorb_small
from clipseg_cli.outputs import (
    FORMATS,
    Outputs,
    check_class_list,
    format_names,
    shown_name,
    write_run_info,
)
from clipseg_cli.runs.labelled import LabelFolder, open_labels
from clipseg_cli.runs.manifest import FILE as MANIFEST
from clipseg_cli.utils.files import check_writable, settle, sweep_leftovers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence, Set
    from pathlib import PurePosixPath

    from clipseg_cli.config import PseudolabelConfig

KEPT = "confidence"
"""The format that `pseudolabel` writes while it labels, since no label map is enough for it."""


@dataclass(frozen=True)
class Converted:
    """What became of one label map.

    Attributes:
        name: of its image, without suffix.
        written: format -> files made of it alone.
        error: why there are none.
    """

    name: str
    written: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    error: ClipsegError | None = None


def prepare_conversion(config: ConvertConfig, only: Set[str] | None = None) -> Conversion:
    """Check every option, find the label maps and their images.

    Args:
        config: all options.
        only: these images alone, of which files about all images know no more, or other things; None for all.

    Raises:
        ClipsegError: anything wrong with options or folders, or a format that label maps are not enough for.
    """
    check_options(config)
    names = format_names((config.formats,))
    chosen = read_settings(config.hyperparameters, {})
    require_used(chosen, "", names)
    labels = open_labels(config.labels, classes=config.classes, images=config.images)
    out = labels.folder if config.out is None else config.out
    check_enough(names, labels)
    same = out.resolve() == labels.folder.resolve()
    if same and "labels" in names:
        raise UsageError("labels would be written over themselves", hint="choose another folder with --out")
    check_class_list(out, labels.run.classes)
    check_writable(out)
    if only is not None:
        labels = dataclasses.replace(
            labels, files={name: path for name, path in labels.files.items() if str(name) in only}
        )
    outputs = Outputs(names, labels.run, out, chosen.hyperparameters)
    notes = Derivation(labels, out, _options(config, names), part=only is not None)
    return Conversion(config, labels, names, outputs, notes, out, describes=not same)


def _options(config: ConvertConfig, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Format -> options other than the defaults, with which it can be made again; none of the scores of a model."""
    said: dict[str, Any] = {"classes": config.classes, "min_area": config.min_area}
    if config.images:
        said["images"] = str(Path(config.images).resolve())
    said = {name: value for name, value in said.items() if value}
    found = {}
    for name in names:
        own = [text for text in config.hyperparameters if text.split(".")[0].replace("-", "_") == name]
        if "scores" not in FORMATS.get(name).needs:
            found[name] = {**said, **({"hyperparameters": own} if own else {})}
    return found


def check_enough(names: Sequence[str], labels: LabelFolder) -> None:
    """Refuse formats that need more than label maps.

    Raises:
        UsageError: the message names the first.
    """
    for name in names:
        format_ = FORMATS.get(name)
        if format_.class_scores:
            raise UsageError(
                f"{shown_name(name)} needs the scores of all classes, which no file holds",
                hint="segment the images again with this format",
            )
        if "scores" in format_.needs and not labels.has_confidence:
            raise UsageError(
                f"{shown_name(name)} needs to know how sure the model was, which label PNGs do not hold",
                hint="segment the images again with --formats labels,confidence",
            )
        if "pixels" in format_.needs and not labels.images:
            raise UsageError(f"{shown_name(name)} needs the images", hint="name their folder with --images")


def check_formats_of_a_run(config: PseudolabelConfig) -> None:
    """Refuse formats that cannot be made of the label maps of a run, before the long work starts.

    Raises:
        UsageError: the message names the first.
    """
    for name in format_names(config.format_texts):
        format_ = FORMATS.get(name)
        if name == KEPT:
            continue
        if name == "labels" or "scores" in format_.needs or format_.class_scores:
            why = (
                "are what a run is made of" if name == "labels" else "needs more than the label maps of a run"
            )
            raise UsageError(f"--formats: {shown_name(name)} {why}", hint="clipseg segment writes any format")


def conversion_of_a_run(config: PseudolabelConfig, folder: Path) -> Conversion | None:
    """What writes the formats that were asked for with `pseudolabel`, beside the label maps; None without any."""
    names = [name for name in format_names(config.format_texts) if name != KEPT]
    if not names:
        return None
    return prepare_conversion(
        ConvertConfig(
            labels=str(folder),
            formats=",".join(names),
            hyperparameters=tuple(filter(is_about_a_format, config.hyperparameters)),
            workers=config.workers,
        )
    )


class Conversion:
    """A prepared conversion; iterating it does the work and yields a `Converted` for every label map.

    Attributes:
        labels: what is converted.
        out: where the files go.
        total: number of label maps.
        finished: images that are done; ahead of what iterating has yielded.
        together: format -> files about all images; known at the end.
    """

    def __init__(
        self,
        config: ConvertConfig,
        labels: LabelFolder,
        names: Sequence[str],
        outputs: Outputs,
        notes: Derivation,
        out: Path,
        *,
        describes: bool,
    ) -> None:
        self.labels, self.out, self.total = labels, out, len(labels.files)
        self.finished: list[str] = []
        self.together: dict[str, tuple[Path, ...]] = {}
        self._config, self._describes = config, describes
        self._pixels = any("pixels" in FORMATS.get(name).needs for name in names)
        self._outputs, self._notes = outputs, notes

    def __iter__(self) -> Generator[Converted, None, None]:
        """In the order of names.

        Raises:
            KeyboardInterrupt: after Ctrl-C, once the files being written are finished.
            DiskFullError: nothing more can be written; what is finished stays.
        """
        sweep_leftovers({self.out})
        if self._describes and not (self.out / MANIFEST).exists():
            write_run_info(self.labels.run, self.out)
        self._notes.begin()
        self._outputs.begin()
        try:
            yield from self._all()
        finally:  # what describes all images describes those that are there, however this ends
            if self.finished:
                self.together = self._outputs.end(self._notes.writing)
                self._notes.end(self.together)
                settle()

    def _all(self) -> Iterator[Converted]:
        workers = self._config.workers
        with ThreadPoolExecutor(workers, thread_name_prefix="convert") as pool:
            pending: deque[Future[Converted]] = deque()
            try:
                for name in self.labels.files:
                    pending.append(pool.submit(self._one, name))
                    if len(pending) > 2 * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, name: PurePosixPath) -> Converted:
        try:
            content = self._notes.fingerprint(name)
            result = self.labels.read(name, pixels=self._pixels)
            ignore = ignore_value(len(result.classes))
            labels = absorb_small(result.labels, self._config.min_area, keep=ignore)
            written = self._outputs.write(dataclasses.replace(result, labels=labels), self.out / name)
        except DiskFullError:
            raise  # every later file would fail in the same way
        except ClipsegError as error:
            return Converted(str(name), error=error)
        self._notes.add(name, content, written)
        self.finished.append(str(name))
        return Converted(str(name), written)
