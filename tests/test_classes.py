"""Class lists: what is read, and the place that every refusal names."""

import pytest

from clipseg_cli.data.classes import benchmark_names, load_benchmark, load_classes
from clipseg_cli.errors import ClassListError

BENCHMARKS = {
    "voc20": 20,
    "voc21": 21,
    "context59": 59,
    "context60": 60,
    "coco-object": 81,
    "coco-stuff": 171,
    "ade20k": 150,
    "cityscapes": 19,
}


def test_commas_separate_classes_and_bars_separate_synonyms():
    classes = load_classes(" batman , couch | sofa,red   car")
    assert classes.names == ("batman", "couch", "red car")
    assert classes.aliases == (("batman",), ("couch", "sofa"), ("red car",))
    assert classes.background is None


def test_file_has_one_class_a_line(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeff# things\r\ncouch, sofa\r\n\r\n  cat|kitten \r\n猫\r\n".encode())
    classes = load_classes(str(file))
    assert classes.aliases == (("couch", "sofa"), ("cat", "kitten"), ("猫",))


def test_an_existing_file_wins_over_a_word_and_a_benchmark(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc20").write_text("cat\ndog\n")
    assert load_classes("voc20").names == ("cat", "dog")


def test_a_folder_named_like_a_class_is_no_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat").mkdir()
    assert load_classes("cat").names == ("cat",)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_come_with_the_package(name):
    classes, benchmark = load_classes(name), load_benchmark(name)
    assert len(classes) == len(classes.aliases) == BENCHMARKS[name]
    assert classes.names == tuple(benchmark["labels"])
    assert len(set(classes.names)) == len(classes)
    assert all(classes.aliases)
    assert classes.background == (0 if "background" in classes.names else None)
    assert len(benchmark.get("maskclip_prompt_names", classes.names)) == len(classes)


def test_every_benchmark_is_known():
    assert benchmark_names() == sorted(BENCHMARKS)
    with pytest.raises(ClassListError, match="unknown benchmark 'voc2l'") as caught:
        load_benchmark("voc2l")
    assert "voc21" in caught.value.hint


def test_benchmark_prompt_names_differ_from_its_labels():
    classes = load_classes("voc21")
    assert classes.aliases[classes.names.index("tvmonitor")][0] == "television monitor"
    assert "sky" in classes.aliases[0]


def test_a_misspelt_benchmark_is_a_class():
    assert load_classes("voc2l").names == ("voc2l",)


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "🦇", "👩‍🚀", "蝙蝠侠", "{0.__class__}", "[red]", "Dr. No", "C:\\x"]
)
def test_unusual_names_are_legal(name):
    assert load_classes(f"{name},cat").names == (name, "cat")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "the class list is empty"),
        ("  ", "the class list is empty"),
        ("cat,,dog", "class list, item 2: the name is empty"),
        ("cat,dog,", "class list, item 3: the name is empty"),
        ("cat,dog||puppy", "class list, item 2: the name is empty"),
        ("cat,dog,Cat", "class list, item 3: 'Cat' appears twice (first at class list, item 1)"),
        ("red car,red  CAR", "class list, item 2: 'red CAR' appears twice (first at class list, item 1)"),
        ("couch|sofa,bed|sofa", "class list, item 2: 'sofa' appears twice (first at class list, item 1)"),
        ("cat|Cat", "class list, item 1: 'Cat' appears twice"),
        (
            "cat," + "z" * 5000,
            f"class list, item 2: a name of 5,000 characters, at most 100: '{'z' * 30}...'",
        ),
        ("x" * 5000, f"class list, item 1: a name of 5,000 characters, at most 100: '{'x' * 30}...'"),
        ("cat\ndog", r"class list, item 1: 'cat\ndog' holds a control character"),
        ("cat\x1b[31m", r"class list, item 1: 'cat\x1b[31m' holds a control character"),
        ("cat,\udce9", r"class list, item 2: '\udce9' is not text in the encoding of this terminal"),
        ("lists/none.txt", "no such file: lists/none.txt"),
        ("none.txt", "no such file: none.txt"),
    ],
)
def test_refusals_name_the_place(spec, message):
    with pytest.raises(ClassListError) as caught:
        load_classes(spec)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", ": no class names in this file"),
        (b"# nothing\n\n", ": no class names in this file"),
        (b"dog\n# pets\n\ncat\nbird, Cat\n", ":5: 'Cat' appears twice (first at "),
        (b"dog\ncat,,kitten\n", ":2: the name is empty"),
        (b"dog\n" + b"z" * 101, ":2: a name of 101 characters, at most 100: '"),
        (b"dog\ncat\ncaf\xe9\n", ":3: this is not UTF-8 text"),
        (b"dog\ncat\0\n", r":2: 'cat\x00' holds a control character"),
    ],
)
def test_refusals_name_file_and_line(tmp_path, text, message):
    file = tmp_path / "words.txt"
    file.write_bytes(text)
    with pytest.raises(ClassListError) as caught:
        load_classes(str(file))
    assert caught.value.message.startswith(f"{file}{message}")


def test_too_many_classes_are_refused(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("".join(f"class {i}\n" for i in range(65_001)))
    with pytest.raises(ClassListError, match=r":65001: more than 65,000 classes"):
        load_classes(str(file))


def test_a_thousand_names_in_one_go():
    assert len(load_classes(",".join(f"name {i}" for i in range(1000)), background="sky")) == 1001


def test_background_words_become_class_zero():
    classes = load_classes("cat,dog", background="sky, tree,background")
    assert classes.names == ("background", "cat", "dog")
    assert classes.aliases[0] == ("sky", "tree", "background")
    assert classes.background == 0


def test_listed_words_leave_the_background():
    classes = load_classes("tree,roof|Sky", background="sky,tree,grass")
    assert classes.aliases == (("grass",), ("tree",), ("roof", "Sky"))


def test_a_list_with_all_background_words_has_no_background_class():
    assert load_classes("tree,sky", background="sky,tree").background is None


def test_an_own_background_is_kept_and_nothing_is_added():
    classes = load_classes("cat,Background,dog", background="sky")
    assert classes.names == ("cat", "Background", "dog")
    assert classes.background == 1
    assert load_classes("cat,wall|background").background == 1
    assert load_classes("voc21", background="sky,lake").aliases == load_classes("voc21").aliases


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("", "the background is empty"),
        ("sky,,tree", "background, item 2: the name is empty"),
        ("sky,Sky", "background, item 2: 'Sky' appears twice (first at background, item 1)"),
    ],
)
def test_background_refusals_name_the_place(background, message):
    with pytest.raises(ClassListError) as caught:
        load_classes("cat", background=background)
    assert caught.value.message == message


def test_queries_are_class_by_class():
    classes = load_classes("couch|sofa,cat")
    assert classes.queries == ("couch", "sofa", "cat")
    assert classes.query_to_class == (0, 0, 1)


@pytest.mark.parametrize(
    "twin", ["c\u200bat", "cat\ufeff", "\u202ecat", "c\u200dat", "cat\u200c", "\u2066cat"]
)
def test_invisible_twins_are_refused(twin: str) -> None:
    with pytest.raises(ClassListError, match=r"item 2: .* holds a character that cannot be seen"):
        load_classes(f"cat,{twin}")


ASTRONAUT = "\U0001f469\u200d\U0001f680"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


@pytest.mark.parametrize("name", [ASTRONAUT, PERSIAN, ENGLAND])
def test_joiners_that_can_be_seen_are_kept(name: str) -> None:
    assert load_classes(f"cat,{name}").names == ("cat", name)
