"""What a person should look at first comes first."""

from __future__ import annotations

import dataclasses
import json
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from review_runs import (  # noqa: F401
    FILES,
    MAPS,
    NAMES,
    blocks,
    class_list,
    confidences,
    listed,
    make_run,
    page_of,
    rows,
    run_of_maps,
    unpacked,
)

from clipseg_cli.config import SegmentConfig
from clipseg_cli.ops.components import find_regions
from clipseg_cli.ops.trust import accuracy, agreement, foreground_confidence
from clipseg_cli.outputs import json_safe
from clipseg_cli.runs.command import command_of_folder
from clipseg_cli.types import RunInfo


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
