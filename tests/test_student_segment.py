"""`clipseg segment --student` and `Segmenter.from_run`: its own words, other words, and files that are not right."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipseg_cli import Segmenter
from clipseg_cli.config import BUNDLED_MODEL, InferenceConfig
from clipseg_cli.errors import ClipsegError, ModelError, UsageError
from clipseg_cli.inference import students
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.text_classifier import embed_words
from clipseg_cli.models.student.files import CARD, WEIGHTS, StudentCard, read_student, write_student
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.types import ClassList

CLASSES = ClassList(("background", "cat", "dog"), (("background",), ("cat",), ("dog", "puppy")), background=0)
CPU = torch.device("cpu")


def teacher_of(backbone) -> dict[str, str]:
    return {key: getattr(backbone, key) for key in ("name", "pretrained", "fingerprint")}


def write(folder: Path, backbone, *, learnt=True, classes=CLASSES, seed=0, **changes) -> Path:
    """A student with random weights, and the words of its teacher, as `clipseg train` leaves it."""
    prompts = [[f"a photo of a {word}."] for word in classes.queries]
    text = embed_words(
        backbone.model, backbone.tokenizer, prompts, fingerprint=backbone.fingerprint, device=CPU
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = StudentShape("resnet10t", "deeplabv2", text.shape[1])
        student = Student(shape, text, classes.query_to_class, classes.background if learnt else None)
        with torch.no_grad():  # at first all features are nearly equal
            for layer in student.head.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.mul_(50)
    card = StudentCard(
        shape=shape,
        classes=classes,
        templates=("a photo of a {}.",),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        short_side=48,
        long_side=96,
        teacher=teacher_of(backbone),
        training={"setting": "annotation-free"},
    )
    write_student(folder, student, replace(card, **changes))
    return folder


@pytest.fixture(scope="module")
def teacher(tiny_clip):
    return load_backbone(tiny_clip.name, str(tiny_clip.weights), CPU)


@pytest.fixture(scope="module")
def students_of(tmp_path_factory, teacher):
    """Two runs: one with a learnt background, one with the word."""
    folder = tmp_path_factory.mktemp("runs")
    for name, learnt in (("learnt", True), ("worded", False)):
        write(folder / name / "checkpoints" / "last-000010", teacher, learnt=learnt)
    return folder


@pytest.fixture
def run(students_of, tmp_path) -> Path:
    """A run of one's own, to be spoilt."""
    return Path(shutil.copytree(students_of / "learnt", tmp_path / "run"))


@pytest.fixture
def photo(tmp_path, make_image) -> Path:
    return make_image(tmp_path / "photo.png", 60, 90, seed=4)


@pytest.fixture
def segment(cli, photo, tmp_path):
    """Run `clipseg segment photo.png --student RUN ...`, into an empty folder each time."""

    def run(student, *args):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        return cli(
            "segment", photo, "--student", student, "--device", "cpu", "--out", tmp_path / "out", *args
        )

    return run


def record(tmp_path) -> dict:
    return json.loads((tmp_path / "out" / "classes.json").read_text())


def labels(tmp_path) -> np.ndarray:
    with Image.open(tmp_path / "out" / "photo.png") as image:
        return np.asarray(image)


def no_text_tower(monkeypatch) -> None:
    def refuse(*args):
        raise AssertionError("the text tower was loaded")

    monkeypatch.setattr(students, "load_backbone", refuse)


# With the words it was trained with


def test_without_classes_it_takes_its_own(segment, students_of, tmp_path, monkeypatch):
    no_text_tower(monkeypatch)
    checkpoint = students_of / "learnt" / "checkpoints" / "last-000010"
    done = segment(students_of / "learnt")
    assert done.code == 0, done.err
    assert f"student resnet10t / {checkpoint} on CPU" in done.err
    assert "Note" not in done.err
    assert [c["words"] for c in record(tmp_path)["classes"]] == [["background"], ["cat"], ["dog", "puppy"]]
    assert record(tmp_path)["background"] == 0
    assert labels(tmp_path).shape == (60, 90)
    assert len(np.unique(labels(tmp_path))) > 1


def test_labels_are_the_best_logits_of_the_student(run):
    """One picture at the size it was trained for: features, dot products, upsampling, best class."""
    student, card = read_student(run / "checkpoints" / "last-000010", CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    result = Segmenter.from_run(run, device="cpu", precision="fp32").segment(pixels)
    image = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - card.mean[0]) / card.std[0]
    with torch.inference_mode():
        features, _ = student(image)
        words = student.logits(features)  # [1, Q, h, w]
        words = torch.nn.functional.interpolate(words, size=(48, 64), mode="bilinear")[0].softmax(dim=0)
    classes = torch.stack([words[0], words[1], torch.maximum(words[2], words[3])])
    assert np.mean(result.labels == classes.argmax(dim=0).numpy()) > 0.999
    np.testing.assert_allclose(result.scores, classes.amax(dim=0).numpy(), atol=1e-4)


def test_classes_json_describes_the_student(segment, run, tmp_path, teacher):
    assert segment(run, "--json").code == 0
    found = record(tmp_path)
    student = Segmenter.from_run(run, device="cpu")
    assert found["method"] is None
    assert found["model"]["name"] == student.name == "student resnet10t"
    assert found["model"]["path"] == str((run / "checkpoints" / "last-000010").resolve())
    assert found["model"]["fingerprint"] == student.fingerprint
    assert found["model"]["teacher"] == teacher_of(teacher)
    assert found["model"]["settings"]["short_side"] == 48
    assert found["options"]["student"] == str(run)
    assert {found["options"][name] for name in (*students.OF_A_CLIP, "classes", "background")} == {None}


def test_the_same_from_python(segment, run, tmp_path, photo):
    for classes, args in ((None, ()), ("tree,house|hut", ("--classes", "tree,house|hut"))):
        assert segment(run, *args).code == 0
        student = Segmenter.from_run(run, device="cpu")
        result = student.segment(photo, classes)
        assert student.classes == CLASSES
        made = result.save(tmp_path / "saved" / str(classes))
        assert {path.name for path in made} == {"classes.json", "photo.png", "photo_overlay.jpg"}
        for path in made[1:]:
            assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
        many = list(student.segment_many([photo] * 2, classes))
        assert np.mean(many[1].labels != result.labels) < 1e-2


def test_standard_input_gives_a_png(cli, run, photo):
    done = cli("segment", "-", "--student", run, "--device", "cpu", stdin=photo.read_bytes())
    assert done.code == 0, done.err
    assert done.stdout.startswith(b"\x89PNG")


# With other words


def test_new_words_come_from_the_text_tower(segment, run, tmp_path, teacher, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    done = segment(run, "--classes", "horse,cat,barn|shed", "--background", "none")
    assert done.code == 0, done.err
    assert [c["words"] for c in record(tmp_path)["classes"]] == [["horse"], ["cat"], ["barn", "shed"]]
    _, predictor = students.plan_student(replace(InferenceConfig(), student=str(run), device="cpu")).load(
        ClassList(("horse", "cat"), (("horse",), ("cat",)))
    )
    prompts = [["a photo of a horse."], ["a photo of a cat."]]
    wanted = embed_words(teacher.model, teacher.tokenizer, prompts, fingerprint="other", device=CPU)
    torch.testing.assert_close(predictor.text_embeds, wanted)


def test_background_words_mean_the_learnt_background(segment, students_of, tmp_path, monkeypatch):
    no_text_tower(monkeypatch)
    assert segment(students_of / "learnt").code == 0
    own = labels(tmp_path)
    assert segment(students_of / "learnt", "-c", "cat,dog|puppy", "--background", "wall,sky").code == 0
    assert np.array_equal(labels(tmp_path), own)
    assert record(tmp_path)["classes"][0]["words"] == ["background"]


def test_background_words_are_words_where_none_was_learnt(segment, students_of, tmp_path):
    assert segment(students_of / "worded", "-c", "cat,dog|puppy", "--background", "wall,sky").code == 0
    assert record(tmp_path)["classes"][0]["words"] == ["wall", "sky"]
    assert segment(students_of / "worded", "-c", "cat,dog|puppy").code == 0
    assert "building" in record(tmp_path)["classes"][0]["words"]


def test_cached_words_need_no_text_tower(segment, run, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    assert segment(run, "-c", "horse,barn").code == 0
    first = labels(tmp_path)
    no_text_tower(monkeypatch)
    done = segment(run, "-c", "horse,barn")
    assert done.code == 0, done.err
    assert np.array_equal(labels(tmp_path), first)


def test_other_weights_of_the_teacher_are_refused(segment, run, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    card = json.loads((run / "checkpoints" / "last-000010" / CARD).read_text())
    card["teacher"]["fingerprint"] = "0" * 16
    (run / "checkpoints" / "last-000010" / CARD).write_text(json.dumps(card))
    done = segment(run, "-c", "horse,barn")
    assert done.code == 1
    assert "has other weights than those" in done.err and "Hint: put the same weights back" in done.err
    assert not (tmp_path / "out").exists()
    assert segment(run).code == 0  # its own words need no teacher


def test_missing_weights_of_the_teacher_are_a_sentence(segment, run, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPSEG_CACHE", str(tmp_path / "cache"))
    card = json.loads((run / "checkpoints" / "last-000010" / CARD).read_text())
    card["teacher"]["pretrained"] = str(tmp_path / "gone.safetensors")
    (run / "checkpoints" / "last-000010" / CARD).write_text(json.dumps(card))
    done = segment(run, "-c", "horse,barn")
    assert done.code == 1
    assert "gone.safetensors: no such weight file" in done.err
    with pytest.raises(ClipsegError, match=r"gone\.safetensors"):
        Segmenter.from_run(run, device="cpu").segment(np.zeros((9, 9, 3), np.uint8), "horse")
    assert segment(run).code == 0


def test_words_that_the_bundled_teacher_was_never_taught_are_said(
    segment, tmp_path, caplog, monkeypatch, make_image
):
    emoji = load_backbone(BUNDLED_MODEL, None, CPU)
    classes = ClassList(("cat", "Quux"), (("cat",), ("Quux",)))
    run = write(tmp_path / "run" / "checkpoints" / "last-000001", emoji, classes=classes).parents[1]
    assert "Note" not in segment(run).err
    done = segment(run, "-c", "cat,quux,flibbertigibbet")
    assert done.code == 0
    assert (
        "Note: the model 'student resnet10t' was never taught 'flibbertigibbet': what it labels" in done.err
    )
    monkeypatch.setattr(logging.getLogger("clipseg_cli"), "handlers", [])
    Segmenter.from_run(run, device="cpu").segment(make_image(tmp_path / "x.png"), ["flibbertigibbet"])
    assert "never taught 'flibbertigibbet'" in caplog.text


# Where it lies


def test_a_run_is_its_last_checkpoint_and_best_is_the_best(run, teacher, photo):
    write(run / "checkpoints" / "last-000020", teacher, seed=1)
    write(run / "checkpoints" / "best-000015", teacher, seed=2)

    def found(path) -> str:
        return Segmenter.from_run(path, device="cpu").fingerprint

    checkpoints = {
        name: found(run / "checkpoints" / name) for name in ("last-000010", "last-000020", "best-000015")
    }
    assert len(set(checkpoints.values())) == 3
    assert found(run) == found(run / "last") == found(str(run)) == checkpoints["last-000020"]
    assert found(run / "best") == checkpoints["best-000015"]


def spoilt(what, run) -> Path:
    """A run folder with something wrong in it."""
    checkpoint = run / "checkpoints" / "last-000010"
    if what == "json":
        (checkpoint / CARD).write_text((checkpoint / CARD).read_text()[:100])
    if what == "weights":
        (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:5000])
    if what == "no weights":
        (checkpoint / WEIGHTS).unlink()
    if what == "format":
        (checkpoint / CARD).write_text((checkpoint / CARD).read_text().replace('"format": 1', '"format": 99'))
    if what == "empty":
        shutil.rmtree(checkpoint)
    if what == "no run":
        shutil.rmtree(run / "checkpoints")
    return run / "nowhere" if what == "nowhere" else run


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("json", f"{CARD} is damaged"),
        ("weights", f"{WEIGHTS} is damaged or cut short"),
        ("no weights", WEIGHTS),
        ("format", "has format 99"),
        ("empty", "has no checkpoint yet"),
        ("no run", "is no run of clipseg train"),
        ("nowhere", "nowhere: no such folder"),
    ],
)
def test_files_that_are_not_right_are_one_sentence(segment, run, tmp_path, what, said):
    folder = spoilt(what, run)
    done = segment(folder)
    assert done.code == 1
    assert done.err.startswith("Error: ") and said in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=said):
        Segmenter.from_run(folder, device="cpu")


@pytest.mark.parametrize("training", [{}, {"data": None}, {"data": {"root": "x"}, "unseen": []}])
def test_a_card_without_its_data_set_asks_for_one(cli, tmp_path, teacher, training):
    folder = write(tmp_path / "student", teacher, training=training)
    done = cli("eval", "--student", folder)
    assert done.code == 1
    assert "does not say on which data set it was trained" in done.err and "--dataset ROOT" in done.err


# Options that go with it


@pytest.mark.parametrize(
    "option",
    [
        ("--model", "ViT-B-16"),  # the defaults are refused too: whoever writes them means something
        ("--pretrained", "openai"),
        ("--method", "maskclip"),
        ("--protocol", "default"),
        ("--templates", "single"),
        ("--prompt-denoising", "0"),
        ("--key-smoothing", "1"),
    ],
)
def test_options_about_a_clip_are_refused(segment, run, option):
    done = segment(run, *option)
    assert done.code == 2
    assert f"Error: {option[0]} is about a CLIP; a student is used as it was trained" in done.err
    assert f"Hint: leave out --student or {option[0]}" in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--student", "{run}", "--background", "none"), "--background goes with --classes"),
        (("--student", "{run}", "--classes", " "), "--classes is empty"),
        (("--student", ""), "--student is empty"),
        (("--student", "", "--classes", "cat"), "--student is empty"),
        ((), "Missing option '--classes' / '-c'."),
        (("--model", "emoji"), "Hint: list the words to look for: --classes cat,dog; or use a student"),
    ],
)
def test_something_says_what_to_look_for(cli, run, photo, args, said):
    done = cli("segment", photo, *(arg.format(run=run) for arg in args))
    assert done.code == 2
    assert said in done.err


def test_sizes_and_windows_can_be_chosen(segment, run, tmp_path):
    options = ("--short-side", "64", "--window", "32", "--stride", "16", "--batch-size", "3")
    assert segment(run, *options).code == 0
    settings = record(tmp_path)["model"]["settings"]
    assert (settings["short_side"], settings["window"], settings["stride"]) == (64, 32, 16)
    student = Segmenter.from_run(run, device="cpu", short_side=64, window=32, stride=16, batch_size=3)
    student.segment(tmp_path / "photo.png").save(tmp_path / "saved")
    assert (tmp_path / "saved/photo.png").read_bytes() == (tmp_path / "out/photo.png").read_bytes()
    with pytest.raises(UsageError, match="window: -1 is not between"):
        Segmenter.from_run(run, window=-1)
    with pytest.raises(TypeError, match="path is text, not int"):
        Segmenter.from_run(5)


def test_regions_vote_on_what_a_student_says_too(segment, students_of, photo, tmp_path):
    assert segment(students_of / "learnt").code == 0
    plain = labels(tmp_path)
    ids = np.arange(60 * 90).reshape(60, 90) // 90 // 20 + 1
    ids[:, 70:] = 0
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "photo.npy", ids)
    done = segment(students_of / "learnt", "--regions", f"folder={tmp_path / 'maps'}", "--region-vote")
    assert done.code == 0, done.err
    voted = labels(tmp_path)
    assert np.array_equal(voted[:, 70:], plain[:, 70:]) and not np.array_equal(voted, plain)
    for number in (1, 2, 3):
        here = ids == number
        assert np.unique(voted[here]).tolist() == [np.bincount(plain[here]).argmax()]
    assert record(tmp_path)["options"]["region_vote"] is True
