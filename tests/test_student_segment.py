"""`clipseg segment --student` and `Segmenter.from_run`: its own words, and other words."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from student_runs import (  # noqa: F401
    CLASSES,
    CPU,
    labels,
    no_text_tower,
    one_photo,
    record,
    segment_command,
    student_run,
    students_of_teacher,
    teacher_of,
    tiny_teacher,
    write,
)

from clipseg_cli import Segmenter
from clipseg_cli.config import BUNDLED_MODEL, InferenceConfig
from clipseg_cli.errors import ClipsegError
from clipseg_cli.inference import students
from clipseg_cli.models.clip.backbones import load_backbone
from clipseg_cli.models.clip.text_classifier import embed_words
from clipseg_cli.models.student.files import CARD, read_student
from clipseg_cli.types import ClassList

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
