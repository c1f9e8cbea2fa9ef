"""What a caller would rather have: Accept and Accept-Encoding (RFC 9110, section 12.4.2).

Litestar 2.25 has a reader of Accept: it takes a quality of 0 for what is wanted least, raises for
one that is no number, and takes seconds for a header of 60 kB.
"""

import re
from collections.abc import Iterable

from service.entrance.compression import ENCODINGS

LONGEST = 1000  # bytes of a header that are read; browsers send 150
# Java's HttpURLConnection writes .2 for 0.2.
_QUALITY = re.compile(r"\s*q\s*=\s*(0?\.\d{1,3}|0\.?|1(?:\.0{0,3})?)\s*")


class Preferences:
    """How much each thing that a header names is wanted."""

    def __init__(self, header: bytes) -> None:
        """Read a header; parameters but the quality are left out, and a quality that is none."""
        text = header[:LONGEST].decode("latin-1").lower()
        if len(header) > LONGEST:
            text = text.rpartition(",")[0]  # the last entry is cut off
        self._qualities: dict[str, float] = {}
        for entry in text.split(","):
            name, *parameters = entry.split(";")
            found = [match for each in parameters if (match := _QUALITY.fullmatch(each))]
            self._qualities[name.strip()] = float(found[0][1]) if found else 1.0

    def of(self, name: str) -> float:
        """Return the quality of a media type or an encoding, 0 to 1: 0 is not acceptable."""
        return self._said(name) or 0.0

    def refuses(self, name: str) -> bool:
        """Whether the header says that something is not acceptable, rather than nothing of it."""
        return self._said(name) == 0.0

    def _said(self, name: str) -> float | None:
        wider = (name, f"{name.partition('/')[0]}/*", "*/*", "*")
        return next((self._qualities[each] for each in wider if each in self._qualities), None)

    def best(self, names: Iterable[str]) -> str | None:
        """Return the name that is wanted most, None if none is acceptable.

        Of several it is one that the header itself names, the first in it; else the first of names.
        """
        named = list(self._qualities)
        order = {name: -named.index(name) if name in named else -len(named) for name in names}
        name = max(order, key=lambda each: (self.of(each), order[each]))
        return name if self.of(name) > 0 else None


def wanted_encoding(accept: bytes) -> str | None:
    """Return the encoding that an Accept-Encoding header wants, of those there are."""
    preferences = Preferences(accept)
    best = max(ENCODINGS, key=preferences.of)
    return best if 0 < preferences.of(best) >= preferences.of("identity") else None
