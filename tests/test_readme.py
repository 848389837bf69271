"""Every command of the README and of docs/ runs, or fails offline in just the way it must."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from warm_server import warm_script

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
README, TEXT = PAGES[ROOT / "README.md"], "\n".join(PAGES.values())
BLOCKS = re.findall(r"^```sh( needs-weights| hours)?\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
LINES = [(line, mark.strip()) for mark, block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = [(line, bool(mark)) for line, mark in LINES if mark != "hours"]
LONG = [line for line, mark in LINES if mark == "hours" and not line.startswith("curl ")]
OFFLINE = [line for line, needs in COMMANDS if not needs and not line.startswith("pip ")]
ONLINE = [line for line, needs in COMMANDS if needs]
FEW = {"train": 6, "val": 6}
"""Images of each split; enough for two groups, two shards, two ranks and a batch of the student."""

OVER_DATA = re.compile(r" pseudolabel |^clipseg (eval(?! handed)|train|export)|--student")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, warm_server: str) -> Path:
    """A folder as a reader of the README has it: the samples, and photos of their own.

    Samples have half their sides, and of the data set among them there are a few images: what commands say of all of
    them is for other tests.
    """
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "samples", folder / "samples", ignore=shutil.ignore_patterns("emoji-voc"))
    few_images(ROOT / "samples" / "emoji-voc", folder / "samples" / "emoji-voc")
    for path in [*(folder / "samples").glob("*.png"), *(folder / "samples").glob("*.jpg")]:
        with Image.open(path) as image:
            half = image.resize((image.width // 2, image.height // 2))
        half.save(path)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    (folder / "holiday").mkdir()
    (folder / "bin").mkdir()
    # What imports torch for minutes, were it started anew each time, is forked from one process that has imported it.
    arguments = {"clipseg": "-m clipseg_cli", "python": "", "torchrun": "-m torch.distributed.run"}
    for name, first in arguments.items():
        script = folder / "bin" / name
        script.write_text(warm_script(warm_server, first))
        script.chmod(0o755)
    for copy in ("photo.jpg", "holiday/one.jpg"):
        shutil.copy(folder / "samples" / "farm_large.jpg", folder / copy)
    return folder


def few_images(data: Path, out: Path) -> None:
    """A copy of a data set of the layout of VOC with the first images of each split."""
    lists = "ImageSets/Segmentation"
    (out / lists).mkdir(parents=True)
    shutil.copy(data / "classes.txt", out) if (data / "classes.txt").exists() else None
    for split, count in FEW.items():
        names = (data / lists / f"{split}.txt").read_text().split()[:count]
        (out / lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            for file in (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"):
                (out / file).parent.mkdir(exist_ok=True)
                shutil.copy(data / file, out / file)


def environment(place: Path) -> dict[str, str]:
    """This interpreter's `clipseg` and `python` in front of all others, and no hub."""
    return {
        **os.environ,
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # two commands run at once
        "COLUMNS": "100",
        "PYTHON_EXEC": str(place / "bin" / "python"),  # what torchrun starts its ranks with
    }


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell does."""
    return subprocess.run(
        command,
        shell=True,
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def finished(place: Path) -> Iterator[list[Future[Done]]]:
    """Every command, run in its order; those over data sets beside the others, to save time."""
    commands = OFFLINE + ONLINE
    outcomes: list[Future[Done]] = [Future() for _ in commands]

    def run_all(numbers: list[int]) -> None:
        for number in numbers:
            try:
                outcomes[number].set_result(run(commands[number], place))
            except Exception as error:
                outcomes[number].set_exception(error)

    over_data = [i for i, line in enumerate(OFFLINE) if OVER_DATA.search(line)]
    with ThreadPoolExecutor(2) as pool:
        pool.submit(run_all, over_data)
        pool.submit(run_all, [i for i in range(len(commands)) if i not in over_data])
        yield outcomes


def test_there_is_something_to_run() -> None:
    assert len(OFFLINE) >= 5
    assert len(ONLINE) >= 3
    assert sum(line.startswith("pip install") for line, _ in COMMANDS) == 2


@pytest.mark.parametrize("number", range(len(OFFLINE)), ids=OFFLINE)
def test_command_runs_offline(number: int, finished: list[Future[Done]]) -> None:
    command, done = OFFLINE[number], finished[number].result(timeout=600)
    assert done.returncode == 0, done.stderr
    if "--json" in command:
        assert json.loads(done.stdout)["failed"] == 0


@lru_cache
def help_of(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """What a command says of its options, asked once."""
    return run(f"{command} --help", place)


@pytest.mark.parametrize("command", LONG)
def test_a_command_that_takes_hours_has_the_options_that_it_names(command: str, place: Path) -> None:
    command = re.sub(r"^([A-Z_]+=\S+ )+", "", command)
    command = re.sub(r"^torchrun --nproc-per-node \d+ -m clipseg_cli", "clipseg", command)
    module = re.match(r"python -m [\w.]+|clipseg \w+", command)
    assert module is not None
    done = help_of(module[0], place)
    assert done.returncode == 0, done.stderr
    named = re.findall(r" (--[\w-]+)", re.sub(r'"[^"]*"', "", command))
    assert named and all(re.search(rf"{option}\b", done.stdout) for option in named)


def test_first_result_is_what_the_readme_promises(place: Path) -> None:
    (install,) = [line for line, _ in COMMANDS if line.startswith("pip install . ")]
    for folder in place.glob("clipseg-out*"):  # of the commands further down, with other words
        shutil.rmtree(folder)
    done = run(install.split("&&", 1)[1], place)
    assert done.returncode == 0, done.stderr
    for name in ("night_heroes.png", "night_heroes_overlay.jpg", "classes.json"):
        assert name in README
        assert (place / "clipseg-out" / name).stat().st_size > 0
    for word in ("superhero", "supervillain", "joker"):
        assert word in done.stdout


def test_the_run_folder_holds_what_the_readme_promises(place: Path, finished: list[Future[Done]]) -> None:
    """Alone, in two parts and by two ranks: the same files."""
    for done in finished:
        done.result(timeout=600)
    runs = place / "runs" / "pseudolabel"
    alone = runs / "emoji-voc-voc21-train-emoji"
    for name in ("manifest.json", "images.jsonl", "summary.png"):
        assert name in TEXT
        for run_ in (alone, runs / "shared", runs / "two-ranks"):
            assert (run_ / name).read_bytes() == (alone / name).read_bytes(), f"{run_}/{name}"
    labels = sorted(path.name for path in (alone / "labels").iterdir())
    assert len(labels) == FEW["train"]
    for name in labels:
        for run_ in ("shared", "two-ranks"):
            assert (runs / run_ / "labels" / name).read_bytes() == (alone / "labels" / name).read_bytes()


def test_the_python_of_the_readme_runs(place: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    script = place / "readme.py"
    script.write_text(block + "print(result.classes.names, result.labels.shape == result.scores.shape)\n")
    done = run("python readme.py", place)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"result.classes.names  # (.*)", block)[0]
    assert done.stdout == f"{names} True\n".replace('"', "'")


@pytest.mark.parametrize("number", range(len(ONLINE)), ids=ONLINE)
def test_command_that_needs_weights_says_so_offline(number: int, finished: list[Future[Done]]) -> None:
    done = finished[len(OFFLINE) + number].result(timeout=600)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "Hint: " in done.stderr
    assert "Traceback" not in done.stderr


LINKS = [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\((?!http|#)([^)#]+)", text)]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=[f"{p.name}: {link}" for p, link in LINKS])
def test_linked_files_exist(page: Path, link: str) -> None:
    assert (page.parent / link).exists()


def test_the_first_page_is_short() -> None:
    assert len(README.encode()) < 9500
