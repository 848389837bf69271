"""`clipseg segment --watch`: images that arrive in a folder, once they are whole."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.data.image_files import find_images, result_folders
from clipseg_cli.errors import ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clipseg_cli.config import SegmentConfig
    from clipseg_cli.types import ImageSource

STILL = 1.0
"""Seconds for which a file must not have changed before it is read: whoever writes it may not be done."""

LOOK_EVERY = 1.0
"""Seconds; also where the file system does not say that something changed, as on network drives."""

Stamp = tuple[int, int]


def check_watched(images: Sequence[str], failures: Sequence[ImageError]) -> list[ImageError]:
    """The failures that remain where folders are watched: an empty folder is no failure.

    Raises:
        UsageError: something other than a folder was given, or the library that watches is missing.
    """
    for text in images:
        if not Path(text).is_dir():
            raise UsageError(f"--watch looks at folders, and {text} is none", hint="name the folder it is in")
    try:
        import watchfiles  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            "--watch needs the library watchfiles", hint='install it with: pip install "clipseg-cli[watch]"'
        ) from error
    folders = set(images)
    return [failure for failure in failures if failure.image not in folders]


class Arrivals:
    """Images that arrive or change, each time some are whole.

    Args:
        config: `images` are the folders.
        known: images that are dealt with already.
        stop: ends the iteration.

    Yields:
        Images and failures as `find_images` gives them, each image once for every time it was written.

    Raises:
        ImageError: a folder is no longer there.
    """

    def __init__(
        self, config: SegmentConfig, known: Sequence[ImageSource], stop: threading.Event | None = None
    ) -> None:
        self.config = config
        self.stop = stop or threading.Event()
        self._done = {source.path: stamp for source in known if (stamp := _stamp(source)) is not None}
        self._waiting: dict[Path | None, tuple[Stamp, float]] = {}
        self._named: set[str] = set()

    def __iter__(self) -> Iterator[tuple[list[ImageSource], list[ImageError]]]:
        from watchfiles import watch

        self._check_folders()
        changes = watch(
            *self.config.images,
            watch_filter=None,
            stop_event=self.stop,
            rust_timeout=int(1000 * LOOK_EVERY),
            yield_on_timeout=True,
            raise_interrupt=True,
            ignore_permission_denied=True,
        )
        for _ in changes:
            self._check_folders()
            found = self._look(time.monotonic())
            if any(found):
                yield found

    def _check_folders(self) -> None:
        for text in self.config.images:
            if not Path(text).is_dir():
                raise ImageError(f"{text} is no longer there; what was labelled is kept", image=text)

    def _look(self, now: float) -> tuple[list[ImageSource], list[ImageError]]:
        """Images that have been the same for a while, and new failures."""
        sources, failures = find_images(
            self.config.images,
            exclude=result_folders(self.config.out),
            full_names=self.config.full_names,
        )
        ready = []
        for source in sources:
            stamp = _stamp(source)
            if stamp is None or self._done.get(source.path) == stamp:
                continue
            before = self._waiting.get(source.path)
            if before is None or before[0] != stamp:
                self._waiting[source.path] = (stamp, now)
            elif now - before[1] >= STILL:
                del self._waiting[source.path]
                self._done[source.path] = stamp
                ready.append(source)
        folders = set(self.config.images)
        new = [f for f in failures if f.image not in folders and f.message not in self._named]
        self._named.update(failure.message for failure in new)
        return ready, new


def _stamp(source: ImageSource) -> Stamp | None:
    """What changes whenever a file is written; None where it is gone."""
    try:
        stat = source.path.stat() if source.path else None
    except OSError:
        return None
    return None if stat is None else (stat.st_size, stat.st_mtime_ns)
