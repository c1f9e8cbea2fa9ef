"""Who may call: API keys, and the web pages whose scripts may (CORS). Both are off by default.

What a key is, and where it stands: entrance/keys.py.
"""

from collections.abc import Iterable

from service.entrance.keys import Keys
from service.http.route import Route, Router, Who
from service.http.status import Headers
from service.settings import Settings
from service.settings.keys import origins

READING = ("GET", "HEAD", "OPTIONS")  # the last says no more than that something can be read
PREFLIGHT = b"access-control-request-method"
ALLOWED = (
    b"authorization, baggage, content-encoding, content-type, inference-header-content-length, "
    b"sentry-trace, traceparent, tracestate, x-api-key, x-request-id, x-request-timeout-ms, "
    b"x-request-timing, x-requested-with"
)
EXPOSED = (
    b"inference-header-content-length, retry-after, server-timing, x-model-version, x-request-id"
)
MAX_AGE_S = b"600"  # how long a browser may remember a preflight


class Access:
    """What the settings say of keys and origins."""

    def __init__(self, settings: Settings, routes: Iterable[Route]) -> None:
        """Read the keys. Raises InvalidSetting for a file that cannot be read, or a bad key."""
        self._read = Router(route for route in routes if route.method == "GET")
        self._keys = Keys(settings)
        self._settings = settings
        self._origins = frozenset(origins(settings))
        further = settings.split_header
        self._allowed = ALLOWED if further is None else b"%b, %b" % (ALLOWED, further.encode())
        self.is_everybody = not self._keys.are_needed and not self._origins

    def who(self, method: str, path: str) -> Who:
        """Return who may call a path."""
        if is_of_server(method, path):
            return "everybody"
        if method not in READING:
            return "key"
        found = self._read.find(path)
        return "key" if found is None else found[0].who

    def is_essential(self, method: str, path: str) -> bool:
        """Whether a probe or Prometheus calls: they are answered also when all is full.

        A probe of HAProxy is OPTIONS of "/", unless its `option httpchk` says another.
        """
        if is_of_server(method, path) or (method, path) == ("OPTIONS", "/"):
            return True
        return self.who(method, path) in ("probe", "metrics")

    def check(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Unauthorized unless a key is given in some header, or none is needed there."""
        if self._keys.are_needed and not self._is_open(method, path):
            self._keys.check(headers)

    def _is_open(self, method: str, path: str) -> bool:
        who = self.who(method, path)
        if who == "metrics":
            return not self._settings.protect_metrics
        if who == "probe":
            return not self._settings.protect_health
        return who == "everybody"

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
            allowed.append((b"access-control-allow-headers", self._allowed))
            allowed.append((b"access-control-max-age", MAX_AGE_S))
        else:
            allowed.append((b"access-control-expose-headers", EXPOSED))
        return allowed

    def is_preflight(self, method: str, headers: dict[bytes, bytes]) -> bool:
        """Whether a browser checks what it may send, before it does (Fetch, section 3.3.2)."""
        is_question = b"origin" in headers and PREFLIGHT in headers
        return bool(self._origins) and method == "OPTIONS" and is_question


def is_of_server(method: str, path: str) -> bool:
    """Whether a request is about the server, and no path of it (RFC 9110, section 9.3.7)."""
    return method == "OPTIONS" and path == "*"
