"""Who may call: API keys, and the web pages whose scripts may (CORS). Both are off by default.

A key comes as `Authorization: Bearer KEY` (RFC 6750, section 2.1) or `X-API-Key: KEY`. Keys are
compared by their digests, all of them and in constant time.
"""

import hmac
import re
from hashlib import sha256
from pathlib import Path

from service.errors import InvalidSetting, Unauthorized
from service.settings import Settings

Headers = list[tuple[bytes, bytes]]

# Where the paths of each begin.
PROBES = ("/health/", "/v2/health/")
METRICS = ("/metrics",)
PING = "/ping"  # SageMaker's probe
INDEX, DOCS, STATIC = "/", "/docs", "/static/"  # the pages, and the files of them
READING = ("GET", "HEAD")
PREFLIGHT = b"access-control-request-method"
ALLOWED = (
    b"authorization, content-encoding, content-type, inference-header-content-length, traceparent, "
    b"x-api-key, x-request-id, x-request-timeout-ms, x-request-timing"
)
EXPOSED = b"inference-header-content-length, retry-after, server-timing, x-request-id"
MAX_AGE_S = b"600"  # how long a browser may remember a preflight
SHORTEST_KEY = 16
_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:_-]+")


class Access:
    """What the settings say of keys and origins."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys. Raises InvalidSetting for a file that cannot be read, or a bad key."""
        self._digests = [sha256(key.encode()).digest() for key in keys(settings)]
        self._settings = settings
        self._origins = frozenset(_origins(settings))
        self.is_everybody = not self._digests and not self._origins

    def is_essential(self, method: str, path: str) -> bool:
        """Whether a probe or Prometheus asks: they are answered also when all is full."""
        is_metrics = path.startswith(METRICS)
        return method in READING and (is_metrics or is_probe(path, self._settings))

    def check(self, method: str, path: str, headers: dict[bytes, bytes]) -> None:
        """Raise Unauthorized unless a key is given, or none is needed there."""
        if not self._digests or self._is_open(method, path):
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            key = headers.get(b"x-api-key", b"")
        if not key:
            raise Unauthorized("expected an API key (Authorization: Bearer ...), got none")
        digest = sha256(key.strip()).digest()
        matches = [hmac.compare_digest(digest, each) for each in self._digests]  # all of them
        if not any(matches):
            raise Unauthorized("expected a valid API key, got another")

    def _is_open(self, method: str, path: str) -> bool:
        if is_page(method, path):
            return True  # it asks for a key itself
        if not self.is_essential(method, path):
            return False
        if path.startswith(METRICS):
            return not self._settings.protect_metrics
        return not self._settings.protect_health

    def cors_headers(self, method: str, headers: dict[bytes, bytes]) -> Headers:
        """Return what lets the page at `Origin` read the reply; nothing if it may not."""
        if not self._origins:
            return []
        origin = headers.get(b"origin")
        allowed: Headers = [(b"vary", b"origin")]
        if origin is None or (origin not in self._origins and b"*" not in self._origins):
            return allowed
        allowed.append((b"access-control-allow-origin", origin))
        if self.is_preflight(method, headers):
            allowed.append((b"access-control-allow-methods", b"GET, POST"))
            allowed.append((b"access-control-allow-headers", ALLOWED))
            allowed.append((b"access-control-max-age", MAX_AGE_S))
        else:
            allowed.append((b"access-control-expose-headers", EXPOSED))
        return allowed

    def is_preflight(self, method: str, headers: dict[bytes, bytes]) -> bool:
        """Whether a browser asks what it may send, before it sends it (Fetch, section 3.3.2)."""
        asks = b"origin" in headers and PREFLIGHT in headers
        return bool(self._origins) and method == "OPTIONS" and asks


def is_probe(path: str, settings: Settings) -> bool:
    """Whether GET of `path` asks for the service's health."""
    return path.startswith(PROBES) or path in (PING, settings.health_route)


def is_page(method: str, path: str) -> bool:
    """Whether a page or one of its files is asked for; they say nothing of the models."""
    return method in READING and (path in (INDEX, DOCS) or path.startswith(STATIC))


def _origins(settings: Settings) -> list[bytes]:
    """Return the origins, as browsers send them."""
    origins = settings.cors_origins.replace(",", " ").split()
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InvalidSetting(
                f"TORCHLIT_CORS_ORIGINS: expected `*` or origins such as https://a.example:8443, "
                f"got {origin!r}"
            )
    return [origin.encode() for origin in origins]


def keys(settings: Settings) -> list[str]:
    """Return the keys of the environment and of the file. Raises InvalidSetting."""
    keys = {}
    if settings.api_keys is not None:
        keys["TORCHLIT_API_KEYS"] = settings.api_keys.replace(",", " ").split()
    if settings.api_keys_file is not None:
        keys["TORCHLIT_API_KEYS_FILE"] = _keys_of_file(settings.api_keys_file)
    for variable, each in keys.items():
        if not each:  # a secret that did not arrive is no reason to let everybody in
            raise InvalidSetting(f"{variable}: expected at least one key, got none")
        if any(len(key) < SHORTEST_KEY or not key.isascii() for key in each):
            expected = f"keys of at least {SHORTEST_KEY} ASCII characters"
            raise InvalidSetting(f"{variable}: expected {expected}, got another")
    return [key for each in keys.values() for key in each]


def _keys_of_file(path: Path) -> list[str]:
    """Return the keys of a file, one a line; empty lines and those that begin with # are none."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidSetting(f"TORCHLIT_API_KEYS_FILE: {path}: cannot be read: {why}") from error
    return [line for line in lines if line and not line.startswith("#")]
