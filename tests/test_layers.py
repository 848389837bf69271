"""Imports point one way, between folders and between files."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "clipseg_cli"
LAYERS = [
    {"__main__"},
    {"cli"},
    {"api", "commands"},
    {"training"},
    {"evaluation"},
    {"runs"},
    {"inference"},
    {"methods", "refinements", "regions", "memory", "models", "data", "outputs"},
    {"ops"},
    {"utils"},
    {"types", "config"},
    {"errors", "__init__"},
]
"""From the top down: a part imports from itself and from those below it, never from beside or above it."""

RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
MODULES = sorted(PACKAGE.rglob("*.py"))
LIGHT = {"types", "config", "errors", "cli", "outputs", "data", "__main__", "__init__"}
"""Parts that must not import torch when they are imported themselves."""


def part_of(path: Path) -> str:
    """The first name below the package: a folder, or a file without suffix."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def dotted(path: Path) -> str:
    """A module's name in an import."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> list[tuple[str, int]]:
    """Dotted names that a module imports, with line numbers; lazy ones and those for typing too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in MODULES} == set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    own = part_of(path)
    for name, line in imported(path):
        if name.split(".")[0] != "clipseg_cli":
            continue
        other = name.split(".")[1]
        other = other if other in RANK else "__init__"
        assert other == own or RANK[other] > RANK[own], f"{path}:{line}: {own} imports {other}"


def test_no_files_import_each_other() -> None:
    """Imports inside functions and those for typing count too: a circle is one, whenever it is closed."""
    names = {dotted(path): path for path in MODULES}
    graph: dict[str, set[str]] = {}
    for own, path in names.items():
        wanted = {name if name in names else name.rpartition(".")[0] for name, _ in imported(path)}
        graph[own] = {name for name in wanted if name in names and name not in (own, "clipseg_cli")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize(
    "path", [p for p in MODULES if part_of(p) in LIGHT], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_light_parts_do_not_load_torch(path: Path) -> None:
    """Only what runs at import time counts: the module body outside functions and TYPE_CHECKING."""
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        heavy = [name for name in names if name.split(".")[0] in ("torch", "open_clip", "torchvision")]
        assert not heavy, f"{path}:{node.lineno} imports {heavy[0]} at once"
