"""Which versions of a model share the requests that name none, as TORCHLIT_SPLIT says."""

import re
from collections.abc import Mapping

from service.card import LAST_VERSION, VERSION

EXPECTED = (
    "weights such as `mnist=2:90,3:10`, whole numbers from 0 that are not all 0, each model and "
    "version once"
)

_SHARE = rf"{VERSION.pattern}:(?:0|[1-9][0-9]{{0,8}})"
_ITEM = re.compile(rf"(?P<name>[^=]+)=(?P<shares>{_SHARE}(?:,{_SHARE})*)")


class Split:
    """The weights of the versions of each model that has some."""

    def __init__(self, text: str = "") -> None:
        """Read blank-separated weights, in lines; from a # to the end of a line nothing counts.

        Raises ValueError with the line for what is not as EXPECTED.
        """
        self._weights: dict[str, dict[int, int]] = {}  # by name and version, lowest version first
        for number, line in enumerate(text.splitlines(), 1):
            for item in line.partition("#")[0].split():
                found = _read(item)
                if found is None or found[0] in self._weights:
                    raise ValueError(f"line {number}: expected {EXPECTED}, got {item!r}")
                self._weights[found[0]] = found[1]

    def __str__(self) -> str:
        return " ".join(f"{name}={self.shown(name)}" for name in self._weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Split) and self._weights == other._weights

    def __hash__(self) -> int:
        return hash(frozenset(self._weights))

    @property
    def names(self) -> set[str]:
        """The models that have weights."""
        return set(self._weights)

    def of(self, name: str) -> Mapping[int, int]:
        """Return the weights of a model by version, lowest version first; empty if it has none."""
        return self._weights.get(name, {})

    def shown(self, name: str) -> str:
        """Return the weights of a model as they are written."""
        return ",".join(f"{version}:{weight}" for version, weight in self.of(name).items())


def _read(item: str) -> tuple[str, dict[int, int]] | None:
    """Return a model and its weights; None for what is none."""
    match = _ITEM.fullmatch(item)
    if match is None:
        return None
    shares = [each.split(":") for each in match["shares"].split(",")]
    weights = {int(version): int(weight) for version, weight in shares}
    if len(weights) < len(shares) or not any(weights.values()) or max(weights) > LAST_VERSION:
        return None
    return match["name"], dict(sorted(weights.items()))
