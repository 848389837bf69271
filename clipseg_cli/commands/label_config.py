"""Label Studio's labelling configuration: which tag is the brush, which the image, and what the labels are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from clipseg_cli.errors import UsageError

if TYPE_CHECKING:
    from clipseg_cli.types import ClassList

MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class LabelConfig:
    """What of a configuration matters here.

    Attributes:
        brush: name of the tag with the labels.
        image: name of the tag that shows the image.
        key: under which the data of a task names the image.
        labels: values of the labels; None for those of `--formats label-studio`.
    """

    brush: str
    image: str
    key: str
    labels: frozenset[str] | None

    @classmethod
    def own(cls, classes: ClassList) -> LabelConfig:
        """The configuration that `--formats label-studio` writes."""
        return cls("tag", "image", "image", frozenset(classes.names))

    def names_of(self, classes: ClassList) -> tuple[str, ...]:
        """For each class its label, or "" where the configuration has none for it."""
        return tuple(name if self.labels is None or name in self.labels else "" for name in classes.names)


def read_label_config(text: str) -> LabelConfig:
    """Read the XML.

    Raises:
        UsageError: it is none, or has no BrushLabels over an Image.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS or "<!" in text.replace("<!--", ""):
        raise UsageError("the labelling configuration is no plain XML")  # entities could grow without end
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise UsageError(f"the labelling configuration is no XML: {error}") from error
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    for brush in root.iter("BrushLabels"):
        shown = brush.get("toName")
        if shown in images and brush.get("name"):
            labels = frozenset(tag.get("value", "") for tag in brush.iter("Label"))
            return LabelConfig(str(brush.get("name")), str(shown), images[shown].removeprefix("$"), labels)
    raise UsageError(
        "the labelling configuration has no BrushLabels over an Image",
        hint="--formats label-studio writes one that fits: label_studio.xml",
    )
