"""`clipseg review`: label maps that are there, in the order in which a person should look at them."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipseg_cli.commands.derive import Derivation
from clipseg_cli.config import ReviewConfig, check_options
from clipseg_cli.errors import ClipsegError, DiskFullError, RunError, UsageError
from clipseg_cli.outputs import ReviewFiles
from clipseg_cli.runs.beside import maps_of, truth_of
from clipseg_cli.runs.command import command_of_folder, command_of_run
from clipseg_cli.runs.derived import REVIEW
from clipseg_cli.runs.find import GOES_ON
from clipseg_cli.runs.labelled import NO_CONFIDENCE, dataset_of_run, open_labels, run_home
from clipseg_cli.runs.manifest import read_manifest
from clipseg_cli.runs.records import read_records
from clipseg_cli.runs.trust import Trust
from clipseg_cli.utils.files import check_writable, settle, sweep_leftovers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from pathlib import PurePosixPath

    from clipseg_cli.outputs import Entry
    from clipseg_cli.runs.beside import OtherMaps
    from clipseg_cli.runs.manifest import Manifest

CONFIDENCE, AGREEMENT = "confidence", "agreement"


@dataclass(frozen=True)
class Looked:
    """What became of one image.

    Attributes:
        name: without suffix.
        trust: in [0, 1]; None where it is not known.
        error: why it is missing from the review.
    """

    name: str
    trust: float | None = None
    error: ClipsegError | None = None


def prepare_review(config: ReviewConfig) -> Review:
    """Check every option; find the label maps, their images, and what they are compared with.

    Raises:
        ClipsegError: anything wrong with options or folders, a run that is not finished, or nothing to order by.
    """
    check_options(config)
    folder = Path(config.labels)
    home = run_home(folder)
    manifest = None if home is None else read_manifest(home)
    if manifest is not None and not manifest.complete:
        raise RunError(f"{home} is not finished", hint=GOES_ON)
    labels = open_labels(config.labels, classes=config.classes, images=config.images)
    if not labels.images:
        raise RunError(f"{folder}: where its images are is not known", hint="name their folder with --images")
    out = (home or folder) if config.out is None else config.out
    against = truth = None
    if config.against:
        if Path(config.against).resolve() in (folder.resolve(), (home or folder).resolve()):
            raise UsageError("--against names the run itself", hint="name another run over the same images")
        against = maps_of(config.against, labels)
    if config.truth:
        truth = maps_of(config.truth, labels, classes=labels.run.classes)
    notes = [*(against.notes if against else ()), *(truth.notes if truth else ())]
    true: OtherMaps | None = truth
    if truth is None and manifest is not None:
        true = truth_of(dataset_of_run(manifest))
    records = {} if home is None else read_records(home, lambda record: True)
    shown = min(config.show, len(labels.files))
    trust = Trust(labels, records, against, true, out, config.min_area, config.side_for(shown))
    trust.require_known()
    notes += [note for note in labels.notes if note != NO_CONFIDENCE]
    if not labels.has_confidence and against is None:
        notes.append(
            "how sure the model was is known for whole images only, so that regions are not ordered: the command that "
            "made the run adds it for every pixel with --formats confidence"
        )
    elif not labels.has_confidence:
        notes.append("no confidence is shown: --formats confidence keeps it when images are labelled")
    if shown < len(labels.files):
        notes.append(
            f"the page holds the {shown:,} least trusted of {len(labels.files):,} images; see --show"
        )
    check_writable(out)
    return Review(config, trust, _head(config, home, manifest, trust), tuple(notes))


class Review:
    """A prepared review; iterating it looks at every image and writes the files behind the last.

    Attributes:
        trust: what is looked at, and how.
        notes: what a user should be told once.
        total: number of label maps.
        order: by what images are ordered, "confidence" or "agreement".
        failures: image -> why it is missing; known while it goes on.
        written: the files; none until the end, nor where no image could be read.
    """

    def __init__(
        self, config: ReviewConfig, trust: Trust, head: Mapping[str, Any], notes: tuple[str, ...]
    ) -> None:
        self.trust, self.notes, self.out = trust, notes, trust.out
        self.total, self.order = len(trust.labels.files), head["order"]
        self.failures: dict[str, str] = {}
        self.written: tuple[Path, ...] = ()
        self._workers = config.workers
        self._files = ReviewFiles(self.out, head, trust.labels.run.classes, config.show)
        self._notes = Derivation(trust.labels, self.out, {REVIEW: _options(config)})

    def __iter__(self) -> Generator[Looked, None, None]:
        """In the order of names.

        Raises:
            DiskFullError: nothing is written.
        """
        sweep_leftovers({self.out})
        self._files.begin()
        try:
            for name, entry in self._all():
                if isinstance(entry, ClipsegError):
                    self.failures[str(name)] = entry.message
                    yield Looked(str(name), error=entry)
                    continue
                self._files.add(entry)
                yield Looked(str(name), None if np.isnan(entry.trust) else entry.trust)
            if len(self.failures) < self.total:
                with self._notes.writing(REVIEW):
                    self.written = self._files.end(self.failures)
                self._notes.end({REVIEW: self.written})
                settle()
        finally:
            self._files.close()

    def _all(self) -> Iterator[tuple[PurePosixPath, Entry | ClipsegError]]:
        with ThreadPoolExecutor(self._workers, thread_name_prefix="review") as pool:
            pending: deque[tuple[PurePosixPath, Future[Entry | ClipsegError]]] = deque()
            try:
                for name in self.trust.labels.files:
                    pending.append((name, pool.submit(self._one, name)))
                    if len(pending) > 2 * self._workers:
                        done, future = pending.popleft()
                        yield done, future.result()
                while pending:
                    done, future = pending.popleft()
                    yield done, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, name: PurePosixPath) -> Entry | ClipsegError:
        try:
            content = self._notes.fingerprint(name)
            entry = self.trust.entry(name)
        except DiskFullError:
            raise
        except ClipsegError as error:
            return error
        self._notes.add(name, content, {})
        return entry


def _options(config: ReviewConfig) -> dict[str, Any]:
    """Options other than the defaults, with which the review can be made again."""
    plain = ReviewConfig()
    places = {
        name: str(Path(text).resolve())
        for name in ("images", "against", "truth")
        if (text := getattr(config, name))
    }
    others = {name: getattr(config, name) for name in ("classes", "min_area", "show", "side")}
    return places | {name: value for name, value in others.items() if value != getattr(plain, name)}


def _head(config: ReviewConfig, home: Path | None, manifest: Manifest | None, trust: Trust) -> dict[str, Any]:
    """What the page and the list say of the run as a whole."""
    labels, compared = trust.labels, trust.against is not None
    folder = (home or labels.folder).resolve()
    if home is not None and manifest is not None:
        command = command_of_run(home, manifest)
    else:
        command = command_of_folder(labels.run, config.images)
    return {
        "title": folder.name,
        "run": folder.name,
        "command": command,
        "made_by": labels.run.made_by,
        "order": AGREEMENT if compared else CONFIDENCE,
        "against": Path(config.against).resolve().name if compared else None,
        "regions_ordered": labels.has_confidence or compared,
        "has_levels": labels.has_confidence,
        "has_beside": compared or trust.truth is not None,
    }
