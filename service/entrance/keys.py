"""API keys: who has one may do everything. They are off by default.

A key comes as `Authorization: Bearer KEY` (RFC 6750, section 2.1) or `X-API-Key: KEY`, or in
several: a gateway may have written a token of its own into one. Keys are compared by their digests,
all of them and in constant time.
"""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from itertools import product

from service.errors import Unauthorized
from service.settings import Settings
from service.settings.keys import keys

_MOST_KEYS = 64  # of a request that are compared


class Keys:
    """The keys of the settings."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys. Raises InvalidSetting for a file that cannot be read, or a bad key."""
        self._digests = [sha256(key.encode()).digest() for key in keys(settings)]
        self.are_needed = bool(self._digests)

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Unauthorized unless a key is given in some header."""
        given = [key for name, value in headers if (key := _key_in(name, value))]
        if not given:
            raise Unauthorized("expected an API key (Authorization: Bearer ...), got none")
        digests = [sha256(each).digest() for each in given[:_MOST_KEYS]]
        pairs = product(digests, self._digests)
        matches = [hmac.compare_digest(one, other) for one, other in pairs]  # all of them
        if not any(matches):
            raise Unauthorized("expected a valid API key, got another")


def _key_in(name: bytes, value: bytes) -> bytes:
    """Return the key that a header says, nothing if it says none."""
    if name == b"x-api-key":
        return value.strip()
    scheme, _, token = value.partition(b" ")
    return token.strip() if name == b"authorization" and scheme.lower() == b"bearer" else b""
