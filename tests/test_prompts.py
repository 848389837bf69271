"""Prompt templates: the named sets, files, and words that try to be clever."""

import pytest

from clipseg_cli.data.prompts import build_prompts, load_templates
from clipseg_cli.errors import ClipsegError, UsageError


@pytest.mark.parametrize(("name", "count"), [("imagenet", 80), ("maskclip", 85), ("single", 1), ("name", 1)])
def test_named_sets_have_one_slot_each(name, count):
    templates = load_templates(name)
    assert len(templates) == len(set(templates)) == count
    assert all(t.count("{}") == 1 for t in templates)


def test_maskclip_adds_the_scene_to_the_imagenet_templates():
    imagenet, maskclip = load_templates("imagenet"), load_templates("maskclip")
    assert maskclip[:80] == imagenet
    assert imagenet[0] == "a bad photo of a {}."
    assert maskclip[-1] == "this is one {} in the scene."


def test_file_of_templates(tmp_path):
    file = tmp_path / "mine"
    file.write_bytes(
        "\ufeff# mine\n\na drawing of a {}.\r\n{} in {{snow}}\n".replace("{{snow}}", "{snow}").encode()
    )
    assert load_templates(str(file)) == ("a drawing of a {}.", "{} in {snow}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": no templates in this file"),
        ("a {}\na photo\n", ":2: a template needs {} once, this line has it 0 times"),
        ("a {} and a {}\n", ":1: a template needs {} once, this line has it 2 times"),
    ],
)
def test_bad_files_name_file_and_line(tmp_path, text, message):
    file = tmp_path / "templates.txt"
    file.write_text(text)
    with pytest.raises(ClipsegError) as caught:
        load_templates(str(file))
    assert caught.value.message == f"{file}{message}"


def test_missing_file_is_named():
    with pytest.raises(ClipsegError, match=r"no such file: nowhere\.txt"):
        load_templates("nowhere.txt")


def test_unknown_set_names_the_nearest():
    with pytest.raises(UsageError, match="unknown templates 'imagnet'") as caught:
        load_templates("imagnet")
    assert caught.value.hint == "did you mean 'imagenet'?"


def test_prompts_are_word_by_template():
    prompts = build_prompts(["cat", "red car"], ["a {}.", "the {}."])
    assert prompts == [["a cat.", "the cat."], ["a red car.", "the red car."]]


@pytest.mark.parametrize("word", ["{0.__class__}", "{}", "{", "%s", "{name!r}"])
def test_words_are_never_formatted(word):
    assert build_prompts([word], ["a {}."]) == [[f"a {word}."]]
