"""`review.html`: one file that opens from the disk, without network and without any library."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any

from clipseg_cli.outputs._spool import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCRIPTS = ("draw.js", "grid.js", "detail.js", "review.js")
"""In the order in which they run, as one."""


def write_page(
    file: IO[bytes], head: Mapping[str, Any], images: Iterable[bytes], payloads: Iterable[bytes]
) -> None:
    """Write the page piece by piece.

    What a browser must know of all images stands in one block at the beginning, and is shown while the rest loads. What
    is only needed once an image is looked at stands in a block of its own for each, which no script reads before.

    Args:
        file: open for writing.
        head: what is said about the run; title, command and made_by are also written as plain HTML.
        images: for each image one JSON object, in the order in which they are shown first.
        payloads: the same of what is drawn.
    """
    style, script = _read("review.css"), "".join(map(_read, SCRIPTS))
    page = _read("review.html")
    texts = {
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
        "style": style,
        "script": script,
        **{name: html.escape(str(head[name])) for name in ("title", "command", "made_by")},
    }
    for i, part in enumerate(page.split("{{")):
        name, _, rest = part.partition("}}") if i else ("", "", part)
        if name == "data":
            file.write(in_script(to_json(head))[:-1] + b',"images":[')
            for number, image in enumerate(images):
                file.write((b",\n" if number else b"\n") + in_script(image))
            file.write(b"\n]}")
        elif name == "payloads":
            for number, payload in enumerate(payloads):
                file.write(b'<script type="application/json" id="p%d">' % number)
                file.write(in_script(payload) + b"</script>\n")
        elif i:
            file.write(texts[name].encode())
        file.write(rest.encode())


def in_script(data: bytes) -> bytes:
    """JSON that no name in it can end: a parser of HTML looks for "<" only."""
    return data.replace(b"<", b"\\u003c")


def _read(name: str) -> str:
    return (files("clipseg_cli.outputs") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a policy names the one script, or style, that may be used: whatever else gets into the page is dead."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
