"""A student on disk: what is written is what is read, and nothing else is read."""

from __future__ import annotations

import dataclasses
import json
import pickle
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipseg_cli.errors import ModelError
from clipseg_cli.models.student.files import (
    CARD,
    WEIGHTS,
    StudentCard,
    read_card,
    read_student,
    student_fingerprint,
    write_student,
)
from clipseg_cli.models.student.network import Student, StudentShape
from clipseg_cli.types import ClassList

CPU = torch.device("cpu")
CLASSES = ClassList(("background", "猫", "dog"), (("background",), ("cat", "kitten"), ("dog 🐕",)), 0)
SHAPE = dataclasses.asdict(StudentShape("resnet10t", "deeplabv2", 8))
TEACHER = {"name": "ViT-B-16", "pretrained": "openai", "fingerprint": "0123456789abcdef"}


def make(head="deeplabv2", *, background=0, backbone="resnet10t", **shape) -> Student:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = torch.randn(4, 8)
        student = Student(StudentShape(backbone, head, 8, **shape), words, CLASSES.query_to_class, background)
        student.train()(torch.randn(2, 3, 32, 32))  # so that running statistics are not those of the start
    return student


def card_of(student: Student, **changes) -> StudentCard:
    card = StudentCard(
        shape=student.shape,
        classes=CLASSES,
        templates=("a photo of {}", "{}"),
        mean=(0.1, 1 / 3, 0.5),
        std=(0.2, 0.3, 1.0),
        short_side=0,
        long_side=2048,
        teacher=TEACHER,
        training={"setting": "zero-shot", "unseen": ["dog"], "iterations": 10, "miou": 0.5},
        versions={"torch": "2.6.0"},
    )
    return dataclasses.replace(card, **changes)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    student = make()
    write_student(folder, student, card_of(student))
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A card that a test may spoil, without weights: these are only looked at where the card is good."""
    (tmp_path / CARD).write_bytes((original / CARD).read_bytes())
    return tmp_path


@pytest.fixture
def whole(original, folder):
    """The same with weights."""
    (folder / WEIGHTS).write_bytes((original / WEIGHTS).read_bytes())
    return folder


def change(folder, **entries) -> None:
    data = json.loads((folder / CARD).read_text())
    data.update(entries)
    (folder / CARD).write_text(json.dumps(data))


def change_tensors(folder, **entries) -> None:
    tensors = {**load_file(folder / WEIGHTS), **entries}
    save_file({k: v for k, v in tensors.items() if v is not None}, folder / WEIGHTS)


def message(folder) -> str:
    with pytest.raises(ModelError) as error:
        read_student(folder, CPU)
    return f"{error.value.message} | {error.value.hint}"


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("deeplabv2", {}),
        ("deeplabv3plus", {"normalise": True}),
        ("deeplabv2", {"background": None, "backbone": "resnetblur18", "output_stride": 16}),
    ],
)
def test_what_is_written_is_read_bit_for_bit(head, options, tmp_path):
    student = make(head, **options)
    card = card_of(student)
    assert write_student(tmp_path, student, card) == [tmp_path / WEIGHTS, tmp_path / CARD]
    again, card_again = read_student(tmp_path, CPU)
    assert card_again == card
    assert list(again.state_dict()) == list(student.state_dict())
    assert all(torch.equal(v, student.state_dict()[k]) for k, v in again.state_dict().items())
    assert not again.training
    assert not [name for name, p in again.named_parameters() if p.requires_grad]
    assert student_fingerprint(again) == student_fingerprint(student)
    image = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        assert all(map(torch.equal, again(image), student.eval()(image)))


def test_only_the_two_files_are_there(original):
    assert sorted(path.name for path in original.iterdir()) == [CARD, WEIGHTS]


def test_the_card_can_be_read_by_people(original):
    text = (original / CARD).read_text(encoding="utf-8")
    assert '"format": 1' in text
    assert "猫" in text
    assert "dog 🐕" in text
    assert json.loads(text)["classes"][1] == {"name": "猫", "words": ["cat", "kitten"]}


def test_the_weights_tell_whether_the_background_was_learnt(folder):
    student = make(background=None)
    write_student(folder, student, card_of(student))
    again, card = read_student(folder, CPU)
    assert again.background is None
    assert card.classes.background == 0


def test_reading_leaves_the_random_numbers_of_a_run_alone(original):
    torch.manual_seed(0)
    expected = torch.randn(2)
    torch.manual_seed(0)
    read_student(original, CPU)
    assert torch.equal(torch.randn(2), expected)


def test_channels_last_weights_are_written_as_the_same(original, tmp_path):
    student = make().to(memory_format=torch.channels_last)
    write_student(tmp_path, student, card_of(student))
    assert (tmp_path / WEIGHTS).read_bytes() == (original / WEIGHTS).read_bytes()


def test_a_fingerprint_knows_weights_shape_and_classes():
    student = make()
    first = student_fingerprint(student)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert student_fingerprint(make()) == first
    assert student_fingerprint(make(normalise=True)) != first
    assert student_fingerprint(make(output_stride=16)) != first
    words = student.text_embeds
    other = Student(student.shape, words, (0, 1, 2, 2), 0)
    other.load_state_dict(student.state_dict())
    assert student_fingerprint(other) != first
    with torch.no_grad():
        student.background[0] += 1e-3
    assert student_fingerprint(student) != first


# Refusals


def test_what_is_not_there_is_named(whole):
    assert message(whole / "nowhere").startswith(f"{whole / 'nowhere'}: no such folder | a student is a ")
    (whole / WEIGHTS).unlink()
    assert message(whole).startswith(f"{whole} holds no student: {WEIGHTS} is missing")
    (whole / CARD).unlink()
    assert message(whole).startswith(f"{whole} holds no student: {CARD} is missing")
    (whole / CARD).mkdir()
    assert message(whole).startswith(f"cannot read {whole / CARD}: Is a directory")


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"format": 1', b"\xff\xfe\xfd", b"[" * 100_000, b'{"format": ' + b"1" * 5000 + b"}"]
)
def test_a_damaged_card_is_told(folder, text):
    (folder / CARD).write_bytes(text)
    assert f"{folder / CARD} is damaged" in message(folder)


@pytest.mark.parametrize("data", [[], 1, None, "x", {}, {"format": "1"}, {"format": True}, {"format": 1}])
def test_other_json_is_no_card(folder, data):
    (folder / CARD).write_text(json.dumps(data))
    assert f"{folder / CARD} is damaged: it has no " in message(folder)


def test_a_format_of_the_future_asks_for_a_newer_version(folder):
    change(folder, format=2)
    assert (
        "has format 2; this version of clipseg reads format 1 | use the version that wrote it, or a newer"
        in (message(folder))
    )
    change(folder, format=0)
    assert message(folder).endswith("use the version that wrote it")


SPOILT = {
    "background": [3, -1, True, "0", 1.0],
    "classes": [[], {}, None, ["cat"], [{"name": 1, "words": ["a"]}], [{"name": "a", "words": []}]],
    "words": [[{"name": "a", "words": "cat"}], [{"name": "a", "words": [1]}]],
    "templates": [[], "a {}", [None]],
    "mean": [[0.5, 0.5], [0.5, 0.5, "0.5"], [0.5, 0.5, float("nan")], 0.5, [10**400, 0, 0], [True, 0, 0]],
    "std": [[0.5, 0.5, 0], [0.5, 0.5, -1], [0.5, 0.5, float("inf")]],
    "short_side": [-1, 1.5, "336", None, 10**12],
    "long_side": [-1],
    "teacher": [[], None],
    "training": ["x"],
    "versions": [["torch"]],
    "student": [None, "resnet10t"],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in SPOILT.items() for v in values])
def test_an_entry_of_another_kind_is_told(folder, key, value):
    change(folder, **{"classes" if key == "words" else key: value})
    with pytest.raises(ModelError, match=r"is damaged: its '(\w+)' is not what it should be") as error:
        read_card(folder)
    assert f"'{key}'" in error.value.message or key == "classes"


@pytest.mark.parametrize(
    ("key", "value"),
    [("backbone", 1), ("head", "mlp"), ("head", []), ("width", 0), ("width", "8"), ("normalise", 1)],
)
def test_a_shape_of_another_kind_is_told(folder, key, value):
    change(folder, student={**SHAPE, key: value})
    assert f"its '{key}' is not what it should be" in message(folder)
    change(folder, student={k: v for k, v in SHAPE.items() if k != key})
    assert f"is damaged: it has no '{key}'" in message(folder)


def test_a_missing_entry_is_named(folder):
    for key in json.loads((folder / CARD).read_text()):
        data = json.loads((folder / CARD).read_text())
        del data[key]
        (folder / "other").mkdir(exist_ok=True)
        (folder / "other" / CARD).write_text(json.dumps(data))
        with pytest.raises(ModelError, match=rf"it has no '?{key}'?"):
            read_card(folder / "other")


def test_a_teacher_must_have_a_name_and_a_fingerprint(folder):
    for key in TEACHER:
        change(folder, teacher={k: v for k, v in TEACHER.items() if k != key})
        assert f"it has no '{key}'" in message(folder)


@pytest.mark.parametrize(
    "name",
    ["resnet999", "../../etc/passwd", "hf-hub:someone/evil", "local-dir:/tmp", "vit_base_patch16_224", ""],
)
def test_a_backbone_that_is_none_is_refused_and_nothing_is_opened(whole, name):
    change(whole, student={**SHAPE, "backbone": name})
    assert f"{whole / CARD}: unknown backbone '{name}'" in message(whole)


def test_sizes_that_nobody_has_memory_for_are_refused_at_once(whole):
    change(whole, student={**SHAPE, "width": 10**9})
    start = time.monotonic()
    assert f"{whole / WEIGHTS} does not fit {CARD}: " in message(whole)
    assert time.monotonic() - start < 5


def test_damaged_weights_are_told(whole):
    good = (whole / WEIGHTS).read_bytes()
    for data in (b"", b"hello", good[: len(good) // 2], good[:-1], b"\xff" * 8 + good[8:]):
        (whole / WEIGHTS).write_bytes(data)
        assert f"{whole / WEIGHTS} is damaged or cut short" in message(whole)


def test_a_pickle_under_the_name_of_the_weights_is_not_opened(whole, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (whole / WEIGHTS).write_bytes(pickle.dumps(Evil()))
    assert "is damaged" in message(whole)
    torch.save({"background": torch.ones(8)}, whole / WEIGHTS)
    assert "is damaged" in message(whole)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_student_are_told(whole):
    change_tensors(whole, **{"text_embeds": None, "backbone.bn1.weight": None})
    assert (
        "missing 2 keys (text_embeds, backbone.bn1.weight) | student.safetensors and student.json"
        in message(whole)
    )


def test_unexpected_misshapen_and_spoilt_weights_are_told(whole):
    good = (whole / WEIGHTS).read_bytes()
    for entries, said in (
        ({"extra": torch.ones(1)}, "does not fit student.json: unexpected 1 key (extra) | "),
        ({"text_embeds": torch.ones(3, 8)}, "text_embeds is float32 [3, 8] where float32 [4, 8] is expected"),
        ({"text_embeds": torch.ones(4, 8).half()}, "text_embeds is float16 [4, 8] where float32"),
        ({"background": torch.full((8,), torch.nan)}, "holds NaN or infinity in background"),
    ):
        (whole / WEIGHTS).write_bytes(good)
        change_tensors(whole, **entries)
        assert said in message(whole)


def test_a_class_more_in_the_card_is_told(whole):
    change(whole, classes=[{"name": n, "words": [n]} for n in "abcde"], background=None)
    assert "unexpected 1 key (background)" in message(whole) or "text_embeds is" in message(whole)


def test_a_learnt_background_with_two_words_is_told(whole):
    change(whole, background=1)
    assert "class 1 is the background and has 2 words" in message(whole)
