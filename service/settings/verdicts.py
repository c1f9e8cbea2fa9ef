"""What TORCHLIT_BATCHING says of single models: that their rows are independent, or are none."""

import re
from typing import Literal, TypeAlias

# Its rows are independent, or each request runs as it is sent.
Batching: TypeAlias = Literal["rows", "requests"]

EXPECTED = "`name=rows` or `name=requests`, each once for a model"

_ITEM = re.compile(r"(?P<name>[^=]+)=(?P<batching>rows|requests)")


class Verdicts:
    """The batching of models by their name, where a person says it."""

    def __init__(self, text: str = "") -> None:
        """Read blank-separated verdicts. Raises ValueError for what is not as EXPECTED."""
        self._text = text
        self._batching: dict[str, Batching] = {}
        for item in text.split():
            match = _ITEM.fullmatch(item)
            if match is None or match["name"] in self._batching:
                raise ValueError(f"expected {EXPECTED}, got {item!r}")
            self._batching[match["name"]] = "rows" if match["batching"] == "rows" else "requests"

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdicts) and self._batching == other._batching

    def __hash__(self) -> int:
        return hash(frozenset(self._batching.items()))

    @property
    def names(self) -> set[str]:
        """The models of which something is said."""
        return set(self._batching)

    def of(self, name: str) -> Batching | None:
        """Return what is said of a model, None if nothing is."""
        return self._batching.get(name)
