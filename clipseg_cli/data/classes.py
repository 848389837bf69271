"""From what the user wrote to a checked `ClassList`: "cat,dog", a text file, or the name of a benchmark.

The benchmark lists lie beside this file, one JSON each, with everything a data set needs to know about them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipseg_cli.config import PLAIN_BACKGROUND
from clipseg_cli.errors import ClassListError, ClipsegError, did_you_mean
from clipseg_cli.types import ClassList
from clipseg_cli.utils.files import open_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_NAME_LENGTH = 100
MAX_CLASSES = 65_000  # ids are stored in 16 bits, and 65,535 and its neighbours stay free
MAX_FILE_BYTES = 32 * 2**20

_BENCHMARKS = Path(__file__).parent / "benchmarks"

# A name may hold a slash ("a/b") and even be "../../x"; only what ends like a list file is taken for one.
_LOOKS_LIKE_FILE = re.compile(
    r"[^,|]+\.(txt|lst|list|names|csv|tsv)|[^,|]*[/\\][^,|/\\]+\.[a-z]\w{0,4}", re.IGNORECASE
)


_JOINERS = "\u200c\u200d"
"""Invisible characters that names need: between the parts of an emoji, and in Persian and Indic scripts."""

_TAGS = range(0xE0020, 0xE0080)
"""Those that say whose flag an emoji is."""

_UNJOINED = ("LATIN", "GREEK", "CYRILLIC", "DIGIT", "SPACE")
"""Begin the names of characters that look the same with a joiner beside them."""


def load_classes(spec: str, *, background: str = "none", words: str = "prompt_names") -> ClassList:
    """Read a class list and add the background to it.

    Args:
        spec: a text file (one class a line, synonyms by comma, `#` starts a comment line), or the exact name
            of a benchmark, or names by comma with synonyms by `|` ("cat,couch|sofa"). The first synonym is
            the display name. An existing file wins over the other two.
        background: words by comma that together become the class `background`, id 0; or "none".
            A class that already has the word "background" (as in voc21) is the background, wherever it
            stands and also with "none", and then no words are added. Words that the list itself uses are
            left out silently; if that leaves none, there is no background class: the list names its own.
        words: which words of a benchmark stand for its classes: a key of its file; benchmarks without that
            key use `prompt_names`.

    Returns:
        Unique display names, one or more words each. Which background words were left out can be seen by
        comparing `background` with the words of the class.

    Raises:
        ClassListError: no such file, an unreadable one, or an empty, repeated, over-long or unprintable name;
            the message names the place.
    """
    classes = _read(spec.strip(), words)
    for id_, (name, aliases) in enumerate(classes):
        if PLAIN_BACKGROUND in map(_key, (name, *aliases)):
            return _class_list(classes, background=id_)
    used = {_key(word) for name, aliases in classes for word in (name, *aliases)}
    extra = tuple(word for word in _background_words(background) if _key(word) not in used)
    if not extra:
        return _class_list(classes, background=None)
    return _class_list([(PLAIN_BACKGROUND, extra), *classes], background=0)


def benchmark_names() -> list[str]:
    """Names of the benchmarks whose class lists are in the package, sorted."""
    return sorted(file.stem for file in _BENCHMARKS.glob("*.json"))


@cache
def load_benchmark(name: str) -> dict[str, Any]:
    """Everything known about a benchmark: title, labels, prompt_names, layout, label_map, ignore, sizes ...

    The dictionary is shared between callers: read it, do not change it.

    Raises:
        ClassListError: there is no such benchmark; the hint names the nearest.
    """
    if name not in benchmark_names():
        raise ClassListError(f"unknown benchmark '{name}'", hint=did_you_mean(name, benchmark_names()))
    data: dict[str, Any] = json.loads((_BENCHMARKS / f"{name}.json").read_text("utf-8"))
    return data


def numbered_lines(path: Path, error: type[ClipsegError]) -> list[tuple[int, str]]:
    """The lines of a UTF-8 text file that say something, stripped, with their numbers from 1.

    Blank lines and lines that start with `#` are left out; a byte-order mark is tolerated.

    Raises:
        error: the file does not exist, cannot be read, is far too large, or is not UTF-8 text.
    """
    try:
        with open_input(path) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as err:
        raise error(f"no such file: {path}") from err
    except OSError as err:
        raise error(f"cannot read {path}: {err.strerror or err}") from err
    if len(data) > MAX_FILE_BYTES:
        raise error(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB: not a list of words")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise error(f"{path}:{line}: this is not UTF-8 text", hint="save the file as UTF-8") from err
    # Only real line ends count, so that the numbers are those of an editor.
    lines = ((number, line.strip()) for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def is_list_file(spec: str) -> bool:
    """Whether an option that may hold a file name does: the file exists, or the text can only mean one."""
    try:
        exists = bool(spec) and Path(spec).exists() and not Path(spec).is_dir()
    except (OSError, ValueError):  # longer than the file system allows, or a null byte: words
        exists = False
    return exists or _LOOKS_LIKE_FILE.fullmatch(spec) is not None


_Class = tuple[str, tuple[str, ...]]  # display name, words


def _class_list(classes: Sequence[_Class], background: int | None) -> ClassList:
    return ClassList(tuple(n for n, _ in classes), tuple(words for _, words in classes), background)


def _read(spec: str, words_key: str) -> list[_Class]:
    """The classes as written, checked; those of a benchmark as published."""
    if is_list_file(spec):
        path = Path(spec)
        lines = numbered_lines(path, ClassListError)
        if not lines:
            raise ClassListError(f"{path}: no class names in this file", hint="write one class a line")
        # `|` means on a line what it means on the command line; a name with a bar in it is never meant.
        items = [(f"{path}:{number}", re.split("[,|]", line)) for number, line in lines]
        return _checked(items, hint="join synonyms on one line: cat, kitten")
    if spec in benchmark_names():
        benchmark = load_benchmark(spec)
        pairs = zip(benchmark["labels"], benchmark.get(words_key, benchmark["prompt_names"]), strict=True)
        return [(name, (word,) if isinstance(word, str) else tuple(word)) for name, word in pairs]
    if not spec:
        raise ClassListError("the class list is empty", hint="for example: --classes cat,dog")
    items = [(f"class list, item {i}", item.split("|")) for i, item in enumerate(spec.split(","), start=1)]
    return _checked(items, hint="join synonyms with a bar: couch|sofa")


def _background_words(background: str) -> tuple[str, ...]:
    """The words of the background option, checked; none for "none"."""
    if background.strip().lower() == "none":
        return ()
    if not background.strip():
        raise ClassListError("the background is empty", hint="--background none leaves it out")
    items = [(f"background, item {i}", [word]) for i, word in enumerate(background.split(","), start=1)]
    return tuple(name for name, _ in _checked(items, hint="write each word once, or none"))


def _checked(items: Iterable[tuple[str, Sequence[str]]], hint: str) -> list[_Class]:
    """Clean the words of each (place, words) and refuse what cannot be meant.

    Raises:
        ClassListError: as `load_classes`.
    """
    classes: list[_Class] = []
    first_seen: dict[str, str] = {}
    for place, raw_words in items:
        words = tuple(_clean(word, place) for word in raw_words)
        for word in words:
            if (earlier := first_seen.get(_key(word))) is not None:
                first = "" if earlier == place else f" (first at {earlier})"
                raise ClassListError(f"{place}: '{word}' appears twice{first}", hint=hint)
            first_seen[_key(word)] = place
        classes.append((words[0], words))
        if len(classes) > MAX_CLASSES:
            raise ClassListError(f"{place}: more than {MAX_CLASSES:,} classes", hint="split the list")
    return classes


def _clean(word: str, place: str) -> str:
    """One word with single spaces.

    Raises:
        ClassListError: it is empty, over-long, or holds something that cannot be printed.
    """
    word = word.strip()
    if not word:
        raise ClassListError(f"{place}: the name is empty", hint="look for a comma or a bar too many")
    if len(word) > MAX_NAME_LENGTH:
        raise ClassListError(
            f"{place}: a name of {len(word):,} characters, at most {MAX_NAME_LENGTH}: '{word[:30]}...'",
            hint="separate names by commas",
        )
    for i, char in enumerate(word):
        # Cc: control characters, Cs: bytes of a command line that are not text, Cf: invisible ones.
        category = unicodedata.category(char)
        if category == "Cs":
            raise ClassListError(
                f"{place}: {word!r} is not text in the encoding of this terminal",
                hint="choose a UTF-8 locale, or write the names into a UTF-8 file",
            )
        if category == "Cc" and char != "\t":
            raise ClassListError(
                f"{place}: {word!r} holds a control character", hint="separate names by commas"
            )
        if category == "Cf" and _unseen(word, i):
            raise ClassListError(
                f"{place}: {word!a} holds a character that cannot be seen",
                hint="type the name again instead of copying it",
            )
    return " ".join(word.split())


def _key(word: str) -> str:
    """What makes two words the same: letters without case, composed accents."""
    return unicodedata.normalize("NFC", word).casefold()


def _unseen(word: str, at: int) -> bool:
    """Whether a word looks the same without the format character at this place."""
    if word[at] not in _JOINERS:
        return ord(word[at]) not in _TAGS
    beside = (word[at - 1] if at else " ", word[at + 1] if at + 1 < len(word) else " ")
    return any(unicodedata.name(char, "").startswith(_UNJOINED) for char in beside)
