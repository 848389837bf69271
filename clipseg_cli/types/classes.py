"""What labels mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassList:
    """Names of the labels, in label order, each with the words that stand for it.

    Attributes:
        names: [C] display names; the label id is the position.
        aliases: [C] words of each class; the best of them scores for the class.
        background: id of the background class, or None for a closed set.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    background: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def queries(self) -> tuple[str, ...]:
        """All words of all classes, class by class: [Q]."""
        return tuple(word for words in self.aliases for word in words)

    @property
    def query_to_class(self) -> tuple[int, ...]:
        """For each query the id of its class: [Q], ascending."""
        return tuple(c for c, words in enumerate(self.aliases) for _ in words)

    def with_background_word(self, word: str) -> ClassList:
        """The same classes with this one word for the background, if there is one."""
        if self.background is None:
            return self
        aliases = tuple((word,) if c == self.background else words for c, words in enumerate(self.aliases))
        return ClassList(self.names, aliases, self.background)
