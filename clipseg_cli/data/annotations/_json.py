"""JSON of strangers: strict, bounded, and asked key by key, so that what is wrong is said in a sentence."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from clipseg_cli.data.annotations._files import read_limited
from clipseg_cli.errors import AnnotationError

if TYPE_CHECKING:
    from pathlib import Path


def read_json(path: Path) -> Any:
    """The content of a file.

    Raises:
        AnnotationError: it cannot be read, is too large or no JSON, or says something twice.
    """
    return parse_json(read_limited(path), str(path))


def parse_json(data: bytes, where: str) -> Any:
    """The content of a text in UTF-8.

    Args:
        data: the text.
        where: file, for the message.

    Raises:
        AnnotationError: no JSON, nested too deeply, a key twice in one object, NaN or infinity.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_object, parse_constant=_not_json)
    except AnnotationError as error:
        raise AnnotationError(f"{where}: {error.message}", hint=error.hint) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{where} is not JSON: it is no text in UTF-8") from error
    except RecursionError as error:
        raise AnnotationError(f"{where} is nested too deeply to be a file of annotations") from error
    except ValueError as error:
        what = "is cut short, or no JSON" if not data.rstrip().endswith((b"}", b"]")) else "is not JSON"
        raise AnnotationError(f"{where} {what}: {error}", hint="export it again") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set[str]()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise AnnotationError(f"'{twice}' stands twice in one object", hint="which of them holds is not said")
    return found


def _not_json(text: str) -> NoReturn:
    raise AnnotationError(f"{text} is not allowed in JSON")


def objects(data: Any, key: str) -> list[dict[str, Any]]:
    """A list of objects under a key.

    Raises:
        AnnotationError: there is none.
    """
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise AnnotationError(f"'{key}' is not a list of objects")
    return found


def text(data: dict[str, Any], key: str) -> str:
    """A text under a key.

    Raises:
        AnnotationError: there is none.
    """
    found = data.get(key)
    if not isinstance(found, str):
        raise AnnotationError(f"'{key}' {_shown(found)}, not a text")
    return found


def whole(data: dict[str, Any], key: str) -> int:
    """A whole number of at least 0 under a key, as number or, as some tools write it, as text.

    Raises:
        AnnotationError: there is none.
    """
    found = data.get(key)
    if isinstance(found, str) and found.isdecimal() and len(found) < 19:
        found = int(found)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 62:
        raise AnnotationError(f"'{key}' {_shown(found)}, not a whole number")
    return found


def number(data: dict[str, Any], key: str, default: float | None = None) -> float:
    """A finite number under a key.

    Raises:
        AnnotationError: there is none.
    """
    found = data.get(key, default)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
        raise AnnotationError(f"'{key}' {_shown(found)}, not a number")
    return float(found)


def _shown(value: Any) -> str:
    if value is None:
        return "is missing"
    written = repr(value)
    return f"is {written if len(written) <= 40 else written[:37] + '...'}"
