"""From a folder and what the user said about it to one data set and one benchmark, or an error that says why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from clipseg_cli.data.classes import benchmark_names
from clipseg_cli.data.datasets._recognise import Found, recognise_in
from clipseg_cli.errors import DatasetError, UsageError, did_you_mean
from clipseg_cli.utils.text import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clipseg_cli.data.datasets._layout import Layout


class Choice(NamedTuple):
    """What a folder was taken for.

    Attributes:
        name: of the layout.
        root: the folder that has it.
        benchmark: None for a folder of the user's own.
        notes: what else it could have been.
    """

    name: str
    root: Path
    benchmark: str | None
    notes: tuple[str, ...] = ()


def choose(
    given: Path, layouts: Mapping[str, Layout], *, benchmark: str | None, classes: str, prefer: Sequence[str]
) -> Choice | None:
    """The data set that is meant; None for a folder that looks like none of them.

    Raises:
        DatasetError: no such folder, or several data sets in it.
        UsageError: the benchmark is unknown or of another data set, or a benchmark's classes are given.
    """
    _check_folder(given)
    if benchmark is not None and benchmark not in benchmark_names():
        raise UsageError(
            f"unknown benchmark '{benchmark}'",
            hint=did_you_mean(benchmark, benchmark_names()) or "known: " + ", ".join(benchmark_names()),
        )
    found = recognise_in(given, layouts)
    if any(layouts[f.name].benchmarks for f in found):
        # Nothing but a stray classes.txt says that the folder around it is a data set of its own.
        found = [f for f in found if layouts[f.name].benchmarks or f.complete]
    meant = [f for f in found if benchmark is None or benchmark in layouts[f.name].benchmarks]
    if benchmark is not None and not meant:
        raise _another_data_set(given, found, layouts, benchmark)
    if not meant:
        return None
    nearest = [f for f in meant if f.depth == meant[0].depth]
    best, notes = _one_root(given, nearest, layouts)
    if classes and layouts[best.name].benchmarks:
        raise _classes_are_fixed(best, layouts[best.name])
    return _with_benchmark(best, found, layouts, benchmark, prefer, notes)


def known_layouts(layouts: Mapping[str, Layout]) -> str:
    """One line on every data set and the folders that it needs, for hints."""
    return "; ".join(f"{x.title} ({', '.join(sorted(_tops(x)))})" for x in layouts.values() if x.benchmarks)


def _tops(layout: Layout) -> set[str]:
    return {path.split("{")[0] for path in (layout.images, layout.labels[0].path, layout.split_file) if path}


def _check_folder(given: Path) -> None:
    try:
        if given.is_dir():
            return
        exists = given.exists()
        near = [entry.name for entry in given.parent.iterdir() if entry.is_dir()] if not exists else []
    except (OSError, ValueError):  # a part of the path is a file, over-long, or may not be listed
        exists, near = False, []
    if exists:
        raise DatasetError(f"{given} is a file, not the folder of a data set", hint="name its folder")
    raise DatasetError(f"no such folder: {given}", hint=did_you_mean(given.name, near) if near else "")


def _one_root(
    given: Path, nearest: list[Found], layouts: Mapping[str, Layout]
) -> tuple[Found, tuple[str, ...]]:
    """The first of the best candidates, which must all lie in one folder."""
    best = [f for f in nearest if f.complete] or nearest[:1]
    roots = {f.root for f in best}
    at_home = [f for f in best if f.root.name == layouts[f.name].home]
    if len(roots) > 1 and len({f.name for f in best}) == 1 and len(at_home) == 1:
        others = ", ".join(str(root) for root in sorted(roots - {at_home[0].root}))
        return at_home[0], (f"took {at_home[0].root}, not {others}",)
    if len(roots) > 1:
        titles = {f.root: layouts[f.name].title for f in reversed(best)}
        shown = [f"{root} ({titles[root]})" for root in sorted(roots)]
        raise DatasetError(
            f"{given} holds several data sets: {listed(shown)}",
            hint="name one of these folders, or add --benchmark",
        )
    return best[0], ()


def _with_benchmark(
    best: Found,
    found: list[Found],
    layouts: Mapping[str, Layout],
    benchmark: str | None,
    prefer: Sequence[str],
    notes: tuple[str, ...],
) -> Choice:
    """Settle the benchmark: the user's, the first preferred of this or then another data set here, the default."""
    here = [best, *(f for f in found if f.root == best.root and f.complete and f is not best)]
    wanted = [benchmark] if benchmark is not None else prefer
    offers = [(f, name) for f in here for name in wanted if name in layouts[f.name].benchmarks]
    default: list[tuple[Found, str | None]] = [(best, next(iter(layouts[best.name].benchmarks), None))]
    chosen, name = (offers or default)[0]
    title = layouts[chosen.name].title
    if chosen.depth:
        notes = (f"{title} found in {chosen.root}", *notes)
    for other in here:
        if other is not chosen and benchmark is None and layouts[other.name].benchmarks:
            notes += (
                f"{chosen.root} also holds {layouts[other.name].title}: "
                f"--benchmark {layouts[other.name].benchmarks[0]}",
            )
    return Choice(chosen.name, chosen.root, name, notes)


def _another_data_set(
    given: Path, found: list[Found], layouts: Mapping[str, Layout], benchmark: str
) -> UsageError:
    owner = next(layout.title for layout in layouts.values() if benchmark in layout.benchmarks)
    own = [f for f in found if layouts[f.name].benchmarks]
    if not own:
        return UsageError(
            f"'{benchmark}' belongs to {owner}, and {given} does not look like it",
            hint=f"for the classes of {benchmark} on images of your own: --classes {benchmark}",
        )
    return UsageError(
        f"'{benchmark}' belongs to {owner}, and {own[0].root} is {layouts[own[0].name].title}",
        hint="its benchmarks: "
        + ", ".join(dict.fromkeys(b for f in own for b in layouts[f.name].benchmarks)),
    )


def _classes_are_fixed(best: Found, layout: Layout) -> UsageError:
    images = best.root / layout.images.split("/{")[0]
    return UsageError(
        f"{best.root} is {layout.title}: its benchmark names the classes, --classes cannot",
        hint=f"choose with --benchmark {'|'.join(layout.benchmarks)}, or label its images alone: {images}",
    )
