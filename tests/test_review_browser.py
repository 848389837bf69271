"""The page of `clipseg review` in a real browser: opened from the disk, sorted, filtered, marked by keys, saved.

Skipped where there is no Chromium with its driver (Debian: chromium and chromium-driver), or no selenium.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from review_runs import Page, blocks, class_list, make_run

from clipseg_cli.outputs import levels_text, runs_text
from clipseg_cli.outputs._review import Entry, ReviewFiles
from clipseg_cli.outputs._spool import to_json
from clipseg_cli.runs.records import file_fingerprint

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver on the path"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of the driver
]

MANY = 2000
SOON = 3.0
"""Seconds of the processor, all processes of the browser together."""

NAMES = ("a2", "a10", "b/<b onclick='window.hacked = 1'>", "__proto__")
CLASSES = ("background", "<img src=x onerror='window.hacked = 1'>", "dog", "tree")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.page_load_strategy = "none"
    for name in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1400,900",
    ):
        options.add_argument(f"--{name}")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.downloads = folder
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of four images, made once."""
    from clipseg_cli.commands.review import prepare_review
    from clipseg_cli.config import ReviewConfig

    root = tmp_path_factory.mktemp("made")
    maps = {name: blocks(seed) for seed, name in enumerate(NAMES)}
    maps["a10"][maps["a10"] == 3] = 0  # no tree
    run, images = make_run(root, maps, classes=class_list(CLASSES))
    review = prepare_review(ReviewConfig(labels=str(run), images=str(images)))
    assert all(looked.error is None for looked in review)
    return run / "review.html"


def until(driver, script, seconds=60.0, step=0.02):
    """What a script gives, once it gives something; asked again after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = driver.execute_script(f"return {script}")
        if found:
            return found
        time.sleep(step)
    raise AssertionError(f"never true: {script}")


@pytest.fixture
def page(browser, made):
    """The page, opened anew, without marks of the test before."""
    browser.get("about:blank")
    until(browser, "location.href === 'about:blank'")
    browser.get(made.as_uri())
    until(
        browser,
        "document.readyState === 'complete' && document.querySelectorAll('[data-painted=yes]').length === 4",
    )
    browser.execute_script(
        "localStorage.clear(); marks.clear(); showMarks(); filter(); select(view.order[0])"
    )
    yield browser
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def press(driver, *keys):
    for key in keys:
        webdriver.ActionChains(driver).send_keys(key).perform()


def names_shown(driver):
    return driver.execute_script(
        "return [...document.querySelectorAll('.card')].filter((c) => c.offsetParent).map((c) => c.dataset.name)"
    )


def current(driver):
    return driver.execute_script("return document.querySelector('[aria-current=true]').dataset.name")


def test_it_opens_from_the_disk_and_asks_the_network_for_nothing(page, made):
    written = Page(made.read_text("utf-8")).data
    assert names_shown(page) == [image["name"] for image in written["images"]]
    requests = [
        json.loads(line["message"])["message"]["params"]["request"]["url"]
        for line in page.get_log("performance")
        if json.loads(line["message"])["message"]["method"] == "Network.requestWillBeSent"
    ]
    assert any(url == made.as_uri() for url in requests)
    assert all(url.startswith(("file:", "data:", "blob:", "about:", "chrome:")) for url in requests)
    assert page.find_element("id", "command").text.startswith("clipseg segment ")


def test_names_are_texts_and_never_run(page):
    assert page.execute_script("return window.hacked") is None
    made = "document.querySelectorAll('#classes img, .card b, #detail b[onclick]').length"
    assert page.execute_script(f"return {made}") == 0
    assert CLASSES[1] in page.find_element("id", "classes").text


def test_sorted_and_filtered(page):
    choose = "const s = document.getElementById('{}'); s.value = '{}'; s.dispatchEvent(new Event('{}'))"
    trust = names_shown(page)
    page.execute_script(choose.format("sort", "trusted", "change"))
    assert names_shown(page) == trust[::-1]
    page.execute_script(choose.format("sort", "name", "change"))
    assert names_shown(page).index("a2") < names_shown(page).index("a10")  # as people count
    page.execute_script(choose.format("search", "A1", "input"))
    assert names_shown(page) == ["a10"]
    page.execute_script(choose.format("search", "", "input"))
    page.execute_script(choose.format("sort", "trust", "change"))
    tree = "document.querySelector('#classes [data-id=\"3\"]')"
    page.execute_script(f"{tree}.click()")
    assert names_shown(page) == [name for name in trust if name != "a10"]
    colours = page.execute_script(COLOURS)
    assert len(colours) == 1  # the one class alone is painted
    page.execute_script(f"{tree}.click()")
    assert names_shown(page) == trust and len(page.execute_script(COLOURS)) == 3


COLOURS = """
const canvas = document.querySelector('#detail canvas.labels');
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, found = new Set();
for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255) found.add(data.slice(i, i + 3).join());
return [...found];
"""
"""Of opaque pixels: the edges of the classes that are painted."""


def test_layers_go_on_and_off_by_keys(page):
    def displayed(selector):
        return page.execute_script(
            f"return getComputedStyle(document.querySelector('{selector}')).display !== 'none'"
        )

    for key, selector, at_first in (
        ("o", "#detail canvas.labels", True),
        ("r", "#detail svg", True),
        ("c", "#detail canvas.levels", False),
    ):
        assert displayed(selector) == at_first
        press(page, key)
        assert displayed(selector) != at_first
        press(page, key)
        assert displayed(selector) == at_first
    outlined = page.execute_script("return document.querySelectorAll('#detail svg g').length")
    assert outlined == page.execute_script("return document.querySelectorAll('tr.region').length") > 0


def test_marked_by_keys_saved_and_remembered(page, made):
    order = names_shown(page)
    assert current(page) == order[0]
    press(page, "g")
    assert current(page) == order[1]
    press(page, "f", "s", "g", "u", "k", "k", "f")
    expected = {order[0]: "good", order[1]: "fix", order[2]: "skip"}
    press(page, "k", "k", "k", "g")
    for path in page.downloads.iterdir():
        path.unlink()
    page.find_element("id", "save").click()
    for _ in range(500):
        done = list(page.downloads.glob("*.json"))
        if done:
            break
        time.sleep(0.02)
    (path,) = done
    assert path.name == "review_marks.json"
    saved = json.loads(path.read_text("utf-8"))
    labels = {name: file_fingerprint(made.parent / f"{name}.png") for name in expected}
    assert saved == {
        "format": "clipseg-review",
        "version": 1,
        "run": "run",
        "marks": expected,
        "labels": labels,
    }
    page.execute_script("view.mark = 'fix'; filter()")
    assert names_shown(page) == [order[1]]
    page.get(made.as_uri())
    until(
        page,
        "document.readyState === 'complete' && document.querySelectorAll('[data-painted=yes]').length === 4",
    )
    marked = (
        "return [...document.querySelectorAll('.card')].map((c) => [c.dataset.name, c.dataset.mark ?? null])"
    )
    assert dict(page.execute_script(marked)) == {**dict.fromkeys(order), **expected}
    page.execute_script("localStorage.clear(); marks.clear(); showMarks()")
    page.find_element("id", "file").send_keys(str(path))
    until(page, "marks.size === 3")
    assert dict(page.execute_script(marked)) == {**dict.fromkeys(order), **expected}
    page.execute_script("localStorage.clear(); marks.clear(); showMarks()")
    path.write_text(json.dumps(saved | {"labels": labels | {order[1]: "of another label"}}))
    page.find_element("id", "file").send_keys(str(path))
    until(page, "marks.size === 2")
    assert order[1] not in [name for name, mark in page.execute_script(marked) if mark]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A page of 2,000 images of the size that the command gives them: about 50 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (27, 36, 3), np.uint8)
    image = Image.fromarray(noise).resize((288, 216), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    photo = base64.b64encode(buffer.getvalue()).decode()
    labels = np.kron(blocks(0, height=72, width=96), np.ones((3, 3), np.uint8))
    drawn = {
        "size": [288, 216],
        "photo": photo,
        "labels": runs_text(labels),
        "outlines": None,
        "cells": [48, 36],
    }
    drawn |= {
        "levels": levels_text(np.full((36, 48), 0.5, np.float32), (36, 48)),
        "other": None,
        "truth": None,
    }
    payload, out = to_json(drawn), tmp_path_factory.mktemp("large")
    facts = {
        "confidence": 0.5,
        "agreement": None,
        "accuracy": None,
        "width": 288,
        "height": 216,
        "foreground": 0.5,
    }
    facts |= {
        "ignored": 0,
        "corrected": False,
        "classes": [{"id": 1, "share": 0.5, "confidence": 0.5}],
        "regions": [],
    }
    head = {"title": "large", "run": "large", "command": "clipseg", "made_by": "x", "order": "confidence"}
    head |= {"against": None, "regions_ordered": True, "has_levels": True, "has_beside": False}
    files = ReviewFiles(out, head, class_list(), MANY)
    files.begin()
    for i in range(MANY):
        shown = to_json({"name": f"image {i:04}", "link": "", "trust": i / MANY, **facts})
        files.add(Entry(i / MANY, b"", b"{}", shown, payload, ()))
    path = files.end({})[-1]
    assert 40e6 < path.stat().st_size < 60e6
    return path


def seconds_used(root: int) -> float:
    """Of the processor, by all processes below one: what a page costs, whoever else is working meanwhile."""
    below: dict[int, list[tuple[int, float]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            below.setdefault(int(fields[1]), []).append((int(path.parent.name), used))
    total, waiting = 0.0, [root]
    while waiting:
        for child, used in below.get(waiting.pop(), ()):
            total += used
            waiting.append(child)
    return total


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="counts the seconds of processes as Linux does"
)
def test_two_thousand_images_open_in_three_seconds(browser, large):
    browser.get("about:blank")
    until(browser, "location.href === 'about:blank'")
    before = seconds_used(browser.service.process.pid)
    browser.get(large.as_uri())
    whole = "document.readyState === 'complete' && document.querySelectorAll('[data-painted=yes]').length > 8"
    until(browser, f"location.protocol === 'file:' && {whole}", 200, step=0.4)  # asking takes seconds as well
    assert seconds_used(browser.service.process.pid) - before < SOON
    assert len(names_shown(browser)) == MANY
    painted = "return document.querySelectorAll('[data-painted=yes]').length"
    assert browser.execute_script(painted) < 60
    press(browser, webdriver.Keys.END)
    until(browser, "document.querySelector('[data-name=\"image 1999\"]').dataset.painted === 'yes'")
    assert browser.execute_script(painted) < 120  # those at the beginning were given back
