"""Which versions are compared with which on live rows, as TORCHLIT_SHADOW says."""

import re
from collections.abc import Iterator

from msgspec import Struct

from service.card import LAST_VERSION, VERSION

EXPECTED = (
    "`name/2=3` or `name/2=3:0.1`, a share above 0 and at most 1, each version once and none of "
    "itself"
)

_NUMBER = VERSION.pattern
_ITEM = re.compile(
    rf"(?P<name>[^=/]+)/(?P<version>{_NUMBER})=(?P<shadow>{_NUMBER})"
    r"(:(?P<share>[0-9]{1,9}(\.[0-9]{1,9})?))?"
)


class Shadowing(Struct, frozen=True):
    """That rows which one version answered go to another too, or a share of them."""

    name: str
    version: int
    shadow: int
    share: float = 1.0

    def __str__(self) -> str:
        return f"{self.name}/{self.version}={self.shadow}"


class ShadowVersions:
    """The versions that are compared."""

    def __init__(self, text: str = "") -> None:
        """Read them, blank-separated. Raises ValueError for what is not as EXPECTED."""
        self._text = text
        self._said: dict[tuple[str, int], Shadowing] = {}
        for item in text.split():
            match = _ITEM.fullmatch(item)
            said = _shadowing(match) if match else None
            if said is None or (said.name, said.version) in self._said:
                raise ValueError(f"expected {EXPECTED}, got {item!r}")
            self._said[said.name, said.version] = said

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShadowVersions) and self._said == other._said

    def __hash__(self) -> int:
        return hash(frozenset(self._said.values()))

    def __iter__(self) -> Iterator[Shadowing]:
        return iter(self._said.values())

    @property
    def only_shadows(self) -> frozenset[tuple[str, int]]:
        """The versions, by name and number, that are here to be compared and for nothing else."""
        return frozenset((each.name, each.shadow) for each in self) - self._said.keys()


def _shadowing(match: re.Match[str]) -> Shadowing | None:
    """Return what is said, None if a number is beyond its bounds."""
    version, shadow, share = int(match["version"]), int(match["shadow"]), float(match["share"] or 1)
    if version == shadow or max(version, shadow) > LAST_VERSION or not 0 < share <= 1:
        return None
    return Shadowing(match["name"], version, shadow, share)
