"""Sentences around the words: templates -> prompts [Q][T].

CLIP was trained on captions, so a word is embedded within many sentences whose embeddings are averaged.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clipseg_cli.data.classes import is_list_file, numbered_lines
from clipseg_cli.errors import ClipsegError, UsageError, did_you_mean
from clipseg_cli.utils.imports import module_alone

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOT = "{}"
EXPERTS = "floss:"
TEMPLATE_SETS = ("imagenet", "maskclip", "single", "clip-diy", "name")

_SCENE_TEMPLATES = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)
"""What MaskCLIP adds to the 80 (chongzhou96/MaskCLIP, tools/maskclip_utils/prompt_engineering.py)."""


def load_templates(spec: str) -> tuple[str, ...]:
    """The templates of a named set or of a file, each with exactly one `{}` for the word.

    Args:
        spec: "imagenet" (the 80 of CLIP's authors), "maskclip" (those and 5 more, 85), "single" ("a photo
            of a {}."), "clip-diy" (the same without the full stop), "name" (the bare word), or a text file, one
            template a line (`#` starts a comment); "floss:FOLDER" is "imagenet", of which each class gets its own.

    Raises:
        UsageError: neither a set nor a file; the hint names the nearest set.
        ClipsegError: a file that cannot be read, is empty, or has a line without exactly one `{}`.
    """
    if spec in TEMPLATE_SETS:
        return _named(spec)
    if experts_folder(spec) is not None:
        return _named("imagenet")
    if not is_list_file(spec):
        raise UsageError(f"unknown templates '{spec}'", hint=did_you_mean(spec, (*TEMPLATE_SETS, "FILE.txt")))
    path = Path(spec)
    lines = numbered_lines(path, ClipsegError)
    if not lines:
        raise ClipsegError(f"{path}: no templates in this file", hint="write one a line: a photo of a {}.")
    for number, line in lines:
        if line.count(SLOT) != 1:
            raise ClipsegError(
                f"{path}:{number}: a template needs {{}} once, this line has it {line.count(SLOT)} times",
                hint="for example: a photo of a {}.",
            )
    return tuple(line for _, line in lines)


def experts_folder(spec: str | None) -> Path | None:
    """The folder of "floss:FOLDER", on whose images templates are chosen among the 80; None for any other set."""
    if spec is None or not spec.startswith(EXPERTS):
        return None
    return Path(os.path.expanduser(spec.removeprefix(EXPERTS)))  # noqa: PTH111  (leaves unknown homes as they are)


def build_prompts(words: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """Every word in every template: [Q][T].

    Plain replacement and not `str.format`, since words are the user's: "{0.__class__}" stays what it is.
    """
    return [[template.replace(SLOT, word) for template in templates] for word in words]


def _named(name: str) -> tuple[str, ...]:
    if name == "single":
        return ("a photo of a {}.",)
    if name == "clip-diy":
        return ("a photo of a {}",)
    if name == "name":
        return (SLOT,)
    known = module_alone("open_clip", "zero_shot_metadata").OPENAI_IMAGENET_TEMPLATES
    imagenet = tuple(template(SLOT) for template in known)  # functions of the word
    return imagenet if name == "imagenet" else imagenet + _SCENE_TEMPLATES
