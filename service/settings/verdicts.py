"""What a person says of single models, by their names: `TORCHLIT_BATCHING`, `TORCHLIT_MISSING`."""

import re
from typing import ClassVar, Literal, TypeAlias, cast

# Its rows are independent, or each request runs as it is sent.
Batching: TypeAlias = Literal["rows", "requests"]

# Whether a value that is missing may go in, as NaN.
Missing: TypeAlias = Literal["allow", "refuse"]


class _OfModels:
    """One of two words for each model that is named, blank-separated: `name=word`."""

    words: ClassVar[tuple[str, str]]

    def __init__(self, text: str = "") -> None:
        """Read them. Raises ValueError for what is not as `expected` says."""
        self._text = text
        self._said: dict[str, str] = {}
        item = re.compile(rf"(?P<name>[^=]+)=(?P<word>{'|'.join(self.words)})")
        for each in text.split():
            match = item.fullmatch(each)
            if match is None or match["name"] in self._said:
                raise ValueError(f"expected {self.expected()}, got {each!r}")
            self._said[match["name"]] = match["word"]

    @classmethod
    def expected(cls) -> str:
        """Say what the text is."""
        first, second = cls.words
        return f"`name={first}` or `name={second}`, each once for a model"

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._said == other._said

    def __hash__(self) -> int:
        return hash(frozenset(self._said.items()))

    @property
    def names(self) -> set[str]:
        """The models of which something is said."""
        return set(self._said)


class Verdicts(_OfModels):
    """Whether callers may share a batch of a model."""

    words = ("rows", "requests")

    def of(self, name: str) -> Batching | None:
        """Return what is said of a model, None if nothing is."""
        return cast(Batching | None, self._said.get(name))


class MissingValues(_OfModels):
    """Whether a model takes values that are missing."""

    words = ("allow", "refuse")

    def of(self, name: str) -> Missing | None:
        """Return what is said of a model, None if nothing is."""
        return cast(Missing | None, self._said.get(name))
