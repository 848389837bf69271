"""What a person should look at first comes first, and a page shows it whatever things are called."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import shlex
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from review_runs import NAMES, Page, blocks, class_list, confidences, make_run, unpacked

from clipseg_cli.config import SegmentConfig
from clipseg_cli.ops.components import find_regions
from clipseg_cli.ops.trust import accuracy, agreement, foreground_confidence
from clipseg_cli.outputs import json_safe
from clipseg_cli.outputs._raster import levels_text, nearest, runs_text, shrunk
from clipseg_cli.outputs._review import Entry, ReviewFiles
from clipseg_cli.outputs._spool import SortedSpool
from clipseg_cli.runs.command import command_of_folder
from clipseg_cli.runs.trust import Trust
from clipseg_cli.types import RunInfo

MAPS = {name: blocks(seed) for seed, name in enumerate(("one", "sub folder/zwei 猫", "three", "four"))}
FILES = ("review.csv", "review_regions.csv", "review.json", "review.html")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, MAPS)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def listed(folder):
    return json.loads((folder / "review.json").read_text("utf-8"))


def page_of(folder):
    return Page((folder / "review.html").read_text("utf-8"))


def test_least_trusted_first_in_every_file(cli, run):
    folder, photos = run
    done = cli("review", folder, "--images", photos)
    assert done.code == 0, done.err
    table = rows(folder / "review.csv")
    assert [int(row["rank"]) for row in table] == [1, 2, 3, 4]
    trust = [float(row["trust"]) for row in table]
    assert trust == sorted(trust) and len(set(trust)) == 4
    order = [row["image"] for row in table]
    assert sorted(order) == sorted(MAPS)
    assert [image["image"] for image in listed(folder)["images"]] == order
    assert [image["name"] for image in page_of(folder).data["images"]] == order
    regions = [float(row["trust"]) for row in rows(folder / "review_regions.csv")]
    assert regions == sorted(regions)
    for image in listed(folder)["images"]:
        assert all(a["trust"] <= b["trust"] for a, b in pairwise(image["regions"]))
    assert order[0] in done.out and str(folder / "review.html") in done.err


def test_trust_is_the_mean_confidence_of_the_foreground(cli, run):
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    for image in listed(folder)["images"]:
        seed, labels = list(MAPS).index(image["image"]), MAPS[image["image"]]
        mean = confidences(seed)[labels > 0].mean()
        assert image["trust"] == image["confidence"] == pytest.approx(mean, abs=2e-4)
        assert image["foreground"] == pytest.approx((labels > 0).mean(), abs=1e-4)


def test_regions_are_those_of_the_label_map_and_add_up(cli, run):
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    table = rows(folder / "review_regions.csv")
    for image in listed(folder)["images"]:
        labels = MAPS[image["image"]]
        true = find_regions(labels, ignore=255)
        things = {i for i in range(len(true)) if true.labels[i]}
        assert {region["region"] for region in image["regions"]} == things
        for region in image["regions"]:
            i = region["region"]
            assert region["area"] == true.areas[i] and region["class"] == NAMES[true.labels[i]]
            assert region["box"] == true.boxes[i].tolist()
        own = [row for row in table if row["image"] == image["image"]]
        assert sum(int(row["area"]) for row in own) + int((labels == 0).sum()) == labels.size
        assert sum(c["share"] for c in image["classes"]) == pytest.approx(1, abs=1e-3)


def test_specks_go_to_their_surroundings_if_asked(cli, run):
    folder, photos = run
    assert cli("review", folder, "--images", photos, "--min-area", 100).code == 0
    assert min(int(row["area"]) for row in rows(folder / "review_regions.csv")) >= 100


def test_a_second_run_orders_by_agreement_whatever_the_order_of_its_classes(cli, run, tmp_path):
    folder, photos = run
    turned = class_list(("tree", "background", "dog", "cow", "cat"), background=1)
    to_there = np.array([1, 4, 2, 0])  # ids of NAMES in the second list
    other = {name: to_there[labels].astype(np.uint8) for name, labels in MAPS.items()}
    other["one"][:24] = 3  # a cow, which the first run does not know
    second, _ = make_run(tmp_path / "b", other, classes=turned, images=False)
    done = cli("review", folder, "--images", photos, "--against", second, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "cow" in done.err
    images = {image["image"]: image for image in listed(tmp_path / "out")["images"]}
    assert next(iter(images)) == "one"
    assert all(image["agreement"] == image["trust"] == 1 for name, image in images.items() if name != "one")
    union = np.ones((48, 64), bool)
    union[24:] = MAPS["one"][24:] > 0
    same = np.zeros((48, 64), bool)
    same[24:] = True
    assert images["one"]["trust"] == pytest.approx(same[union].mean(), abs=1e-4)
    for region in images["one"]["regions"]:
        assert region["trust"] == region["agreement"]
    whole = [region for region in images["one"]["regions"] if region["box"][1] >= 24]
    assert whole and all(region["agreement"] == 1 for region in whole)
    page = page_of(tmp_path / "out")
    assert page.data["order"] == "agreement" and page.data["against"] == "run"
    drawn = page.payloads[0]
    assert (unpacked(drawn["other"], (48, 64))[:24] == len(NAMES) + 1).all()


def test_images_that_the_second_run_lacks_come_last(cli, run, tmp_path):
    folder, photos = run
    second, _ = make_run(tmp_path / "b", {"one": MAPS["one"]}, images=False)
    done = cli("review", folder, "--images", photos, "--against", second)
    assert done.code == 0
    assert "1 of 4 images" in done.err and "nothing is known of 3 images" in done.err
    assert [image["trust"] for image in listed(folder)["images"]] == [1, None, None, None]


def test_truth_is_beside(cli, run, tmp_path):
    folder, photos = run
    for name, labels in MAPS.items():
        wrong = labels.copy()
        wrong[:12] = 255
        wrong[12:24] = (wrong[12:24] + 1) % 4
        path = tmp_path / "truth" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(wrong).save(path)
    assert cli("review", folder, "--images", photos, "--truth", tmp_path / "truth").code == 0
    assert all(
        float(row["accuracy"]) == pytest.approx(2 / 3, abs=1e-4) for row in rows(folder / "review.csv")
    )
    page = page_of(folder)
    for image, drawn in zip(page.data["images"], page.payloads, strict=True):
        true = unpacked(drawn["truth"], (48, 64))
        assert (true[:12] == len(NAMES)).all() and (true[24:] == MAPS[image["name"]][24:]).all()


def test_the_page_holds_everything_and_asks_for_nothing(cli, run):
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    page = page_of(folder)
    addresses = [
        value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "action")
    ]
    assert addresses == []
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "http:" not in page.blocks["script"].replace("http://www.w3.org/2000/svg", "")
    assert page.texts["command"].startswith(f"clipseg segment {photos} --classes cat,dog,tree --model emoji")
    for image, drawn in zip(page.data["images"], page.payloads, strict=True):
        labels = MAPS[image["name"]]
        assert np.array_equal(unpacked(drawn["labels"], labels.shape), labels)
        outlined = unpacked(drawn["outlines"], labels.shape)
        assert set(np.unique(outlined)) - {0} == set(range(1, len(image["regions"]) + 1))
        for number, region in enumerate(image["regions"], start=1):
            assert (outlined == number).sum() == region["area"]
        assert len(drawn["levels"]) == drawn["cells"][0] * drawn["cells"][1]


HOSTILE = (
    "</script><script>alert(1)<!--",
    "quotes \"'& ünd 猫",
    "two\nlines",
    "__proto__",
    "=1+1",
    "{{data}}",
)


def test_hostile_names_stay_names(cli, tmp_path):
    classes = class_list(("background", *HOSTILE[:2], "<img src=x onerror=alert(1)>"))
    files = [name.replace("/", "") for name in HOSTILE]
    folder, photos = make_run(
        tmp_path,
        {name: blocks(seed) for seed, name in enumerate(files)},
        classes=classes,
        options={"classes": "</code>"},
    )
    done = cli("review", folder, "--images", photos)
    assert done.code == 0, done.err
    page = page_of(folder)
    assert sorted(image["name"] for image in page.data["images"]) == sorted(files)
    assert [c["name"] for c in page.data["classes"]] == list(classes.names)
    assert sum(tag == "script" for tag, _ in page.tags) == 2 + len(files)
    assert not any(tag == "img" for tag, _ in page.tags)
    assert "</code>" in page.texts["command"]
    assert sorted(row["image"] for row in rows(folder / "review.csv")) == sorted(files)
    assert sorted(image["image"] for image in listed(folder)["images"]) == sorted(files)


def test_a_page_holds_the_least_trusted_if_there_are_many(cli, run):
    folder, photos = run
    done = cli("review", folder, "--images", photos, "--show", 2, "--side", 64)
    assert done.code == 0 and "2 least trusted of 4" in done.err
    order = [row["image"] for row in rows(folder / "review.csv")]
    page = page_of(folder)
    assert len(order) == 4 and [image["name"] for image in page.data["images"]] == order[:2]
    assert page.data["images_in_all"] == 4


def test_one_bad_image_keeps_no_other_from_it(cli, run):
    folder, photos = run
    (photos / "one.png").write_bytes(b"no image")
    (photos / "three.png").unlink()
    Image.new("RGB", (10, 10)).save(photos / "four.png")
    done = cli("review", folder, "--images", photos, "--json")
    assert done.code == 1
    document = json.loads(done.out)
    assert set(document["failures"]) == {"one", "three", "four"} and document["images"] == 1
    assert "not found" in document["failures"]["three"] and "10x10" in document["failures"]["four"]
    assert document["written"] == list(FILES)
    assert page_of(folder).data["failures"] == document["failures"]
    assert len(rows(folder / "review.csv")) == 1


def test_where_no_image_can_be_read_nothing_is_written(cli, run):
    folder, photos = run
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no image")
    assert cli("review", folder, "--images", photos).code == 1
    assert not any((folder / name).exists() for name in FILES)


def test_all_files_or_none(cli, run, monkeypatch):
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    before = {name: (folder / name).read_bytes() for name in FILES}

    def full(*args):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("clipseg_cli.outputs._review.write_page", full)
        done = cli("review", folder, "--images", photos, "--show", 1)
    assert done.code == 1 and "no space left" in done.err
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    assert not list(folder.glob(".*"))
    assert cli("review", folder, "--images", photos).code == 0
    assert {
        name: (folder / name).read_bytes() for name in FILES
    } == before  # the same bytes whenever it is made


@pytest.mark.parametrize("name", FILES)
def test_a_stranger_is_not_written_over(name, cli, run):
    folder, photos = run
    (folder / name).write_text("mine")
    done = cli("review", folder, "--images", photos)
    assert done.code == 1 and "not made by clipseg" in done.err
    assert (folder / name).read_text() == "mine" and sum((folder / n).exists() for n in FILES) == 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("nowhere",), "nowhere: no such folder"),
        (("{images}",), "nothing says what the values"),
        (("{run}",), "where its images are is not known"),
        (("{run}", "--images", "{run}/nothing"), "no such"),
        (("{run}", "--images", "{images}", "--against", "{run}"), "names the run itself"),
        (("{run}", "--images", "{images}", "--against", "nowhere"), "nowhere: no such folder"),
        (("{run}", "--images", "{images}", "--against", "{cars}"), "has other classes"),
        (("{run}", "--images", "{images}", "--against", "{others}"), "no label map of any image"),
        (("{run}", "--images", "{images}", "--truth", "nowhere"), "nowhere: no such folder"),
        (("{run}", "--images", "{images}", "--side", 9), "not between 64 and 2048"),
        (("{plain}", "--images", "{images}"), "how sure the model was"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_sentence(args, text, cli, run, tmp_path):
    folder, photos = run
    cars, _ = make_run(
        tmp_path / "c", MAPS, classes=class_list(("car", "bus", "tram", "van"), None), images=False
    )
    others, _ = make_run(tmp_path / "o", {"else": blocks(0)}, images=False)
    plain, _ = make_run(tmp_path / "p", MAPS, scores={}, images=False)
    places = {"run": folder, "images": photos, "cars": cars, "others": others, "plain": plain}
    done = cli("review", *(str(arg).format(**places) for arg in args), "--out", tmp_path / "out")
    assert done.code in (1, 2) and done.err.startswith("Error: ") and "Traceback" not in done.err
    assert text in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()


def test_labels_without_confidence_are_ordered_by_agreement(cli, run, tmp_path):
    folder, photos = run
    plain, _ = make_run(tmp_path / "p", MAPS, scores={}, images=False)
    done = cli("review", plain, "--images", photos, "--against", folder)
    assert done.code == 0 and "no confidence is shown" in done.err
    assert page_of(plain).data["has_levels"] is False
    assert all(drawn["levels"] is None for drawn in page_of(plain).payloads)


def test_measures_on_small_maps():
    labels, scores = np.array([[0, 1, 2, 255]]), np.array([[0.1, 0.5, 0.7, 0.9]], np.float32)
    assert foreground_confidence(labels, scores, 0, 255) == pytest.approx(0.6)
    assert foreground_confidence(labels, scores, None, 255) == pytest.approx(1.3 / 3)
    assert foreground_confidence(np.zeros((1, 4), int), scores, 0, 255) == pytest.approx(0.55)
    assert np.isnan(foreground_confidence(np.full((1, 4), 255), scores, 0, 255))
    assert agreement(labels, np.array([[0, 1, 1, 1]]), 0, 255) == 0.5
    assert agreement(labels, np.array([[3, 1, 2, 255]]), 0, 255) == pytest.approx(2 / 3)
    assert agreement(np.zeros((1, 4), int), np.zeros((1, 4), int), 0, 255) == 1
    assert np.isnan(agreement(labels, np.full((1, 4), 255), 0, 255))
    assert accuracy(labels, np.array([[0, 1, 255, 3]]), 255) == pytest.approx(2 / 3)
    assert np.isnan(accuracy(labels, np.full((1, 4), 255), 255))


@pytest.mark.parametrize("most", [2, 200, 70_000])
def test_runs_are_read_back(most):
    values = np.random.default_rng(most).integers(0, most, (13, 29)) // 2 * 2
    assert np.array_equal(unpacked(runs_text(values), values.shape), values)
    long = np.full((300, 400), most - 1)
    assert np.array_equal(unpacked(runs_text(long), long.shape), long)


def test_levels_and_sizes():
    text = levels_text(np.array([[0, 0.5, 1]], np.float32), (1, 3))
    assert [text[0], text[2]] == ["A", "/"] and len(text) == 3
    assert (
        shrunk(480, 640, 320) == (240, 320)
        and shrunk(10, 5, 320) == (10, 5)
        and shrunk(1, 5000, 100) == (1, 100)
    )
    values = np.arange(12).reshape(3, 4)
    assert np.array_equal(nearest(values, (3, 4)), values)
    assert np.array_equal(nearest(np.kron(values, np.ones((3, 3), int)), (3, 4)), values)


def test_pieces_come_in_the_order_of_their_keys(tmp_path):
    spool = SortedSpool(tmp_path / "x")
    for data, key, weight in (
        (b"unknown", float("nan"), 9),
        (b"second", 0.5, 1),
        (b"", 0.7, 0),
        (b"first", 0.5, 2),
        (b"third", 0.5, 1),
        (b"negative", -1, 0),
    ):
        spool.add(data, key, weight)
    assert list(spool) == [b"negative", b"first", b"second", b"third", b"", b"unknown"]
    assert list(spool)[:2] == [b"negative", b"first"]  # again from the beginning
    spool.close()
    assert not list(tmp_path.iterdir())


def test_after_ctrl_c_nothing_is_there(cli, run, monkeypatch):
    folder, photos = run
    entry, calls = Trust.entry, []

    def stopped(self, name):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return entry(self, name)

    monkeypatch.setattr(Trust, "entry", stopped)
    done = cli("review", folder, "--images", photos)
    assert done.code == 130 and "interrupted" in done.err
    assert not list(folder.glob("review*")) and not list(folder.glob(".*"))


def test_memory_holds_no_images(tmp_path):
    head = dict.fromkeys(("title", "run", "command", "made_by", "order", "against"), "x")
    files = ReviewFiles(tmp_path, head, class_list(), most=400)
    tracemalloc.start()
    try:
        files.begin()
        for i in range(400):
            payload = b'"%s"' % (b"%05d" % i * 10_000)
            region = (0.5, 1, b"x,1\n")
            files.add(Entry(0.5, b"x,1\n", b'{"image":"x"}', b'{"name":"x"}', payload, (region,)))
        files.end({})
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "review.html").stat().st_size > 400 * 50_000


def test_more_classes_than_a_byte_holds(cli, tmp_path):
    names = [f"class {i}" for i in range(300)]
    labels = np.arange(48 * 64).reshape(48, 64) // 11
    folder, photos = make_run(tmp_path, {"x": labels.astype(np.uint16)}, classes=class_list(names, None))
    assert cli("review", folder, "--images", photos).code == 0
    page = page_of(folder)
    assert np.array_equal(unpacked(page.payloads[0]["labels"], labels.shape), labels)
    assert len(page.data["classes"]) == 300 and page.data["background"] is None


def test_the_command_says_what_was_chosen_and_nothing_else():
    config = SegmentConfig(
        classes="cat|kitty,dog",
        model="emoji",
        background="none",
        method="naclip",
        prompt_denoising=0.25,
        pamr=2,
        hyperparameters=("pamr.dilations=8,16", "naclip.std=3"),
        presence="freecp",
        out=Path("my labels"),
        images=("photos",),
        heatmaps=True,
        device="cpu",
    )
    recorded = dataclasses.asdict(config) | {"saliency": config.saliency_name(False)}
    recorded.pop("images")
    info = RunInfo(class_list(("cat", "dog"), None), json_safe(recorded), {})
    words = shlex.split(command_of_folder(info, "photos"))
    assert words[:3] == ["clipseg", "segment", "photos"]
    given = "--classes cat|kitty,dog --model emoji --background none --method naclip --prompt-denoising 0.25"
    given += " --presence freecp --pamr 2 --set pamr.dilations=8,16 --set naclip.std=3 --heatmaps"
    assert sorted(words[3:]) == sorted([*given.split(" "), "--out", "my labels"])
    assert command_of_folder(RunInfo(class_list(), {}, {}), "photos") == ""
    plain = dataclasses.asdict(SegmentConfig(classes="cat", model="emoji", method="vanilla", saliency="none"))
    line = command_of_folder(RunInfo(class_list(), json_safe(plain), {}), "")
    assert line == "clipseg segment IMAGES --classes cat --model emoji"


def test_what_a_human_answers_for_comes_last(cli, run, tmp_path):
    """Also where the folder keeps no record of each label, and whether pixels were changed or only looked at."""
    folder, photos = run
    assert cli("review", folder, "--images", photos).code == 0
    first, second = (image["image"] for image in listed(folder)["images"][:2])
    with Image.open(folder / f"{first}.png") as labels:
        changed = np.asarray(labels).copy()
    changed[:5, :5] = (changed[:5, :5] + 1) % 2
    path = tmp_path / "by hand" / f"{first}.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(changed).save(path)
    assert cli("import", folder, path.parent, "--by", "anna").code == 0
    marks = {"format": "clipseg-review", "version": 1, "run": folder.name, "marks": {second: "good"}}
    (tmp_path / "marks.json").write_text(json.dumps(marks), "utf-8")
    done = cli("import", folder, tmp_path / "marks.json", "--by", "anna")
    assert done.code == 0, done.err
    assert cli("review", folder, "--images", photos).code == 0
    images = listed(folder)["images"]
    assert {image["image"] for image in images[-2:]} == {first, second}
    assert all(image["corrected"] and image["trust"] is None for image in images[-2:])
    assert not any(image["corrected"] for image in images[:-2])
