"""What kind of failure is which HTTP status, and which headers go with it.

RFC 9110, sections 11.6.1, 10.2.3 and 15.5; RFC 6585, section 5.
"""

from typing import TypeAlias

from service import errors
from service.errors import RequestError

Headers: TypeAlias = list[tuple[bytes, bytes]]

STATUS: dict[type[RequestError], int] = {
    errors.InvalidInput: 400,
    errors.UnknownValue: 400,
    errors.UnknownField: 400,
    errors.Unauthorized: 401,
    errors.NotFound: 404,
    errors.MethodNotAllowed: 405,
    errors.RequestTimeout: 408,
    errors.TooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.UnsupportedEncoding: 415,
    errors.HeadTooLarge: 431,
    errors.InferenceFailed: 500,
    errors.NotSupported: 501,
    errors.Unavailable: 503,
    errors.QueueFull: 503,
    errors.MemoryFull: 503,
    errors.TooManyConnections: 503,
    errors.DeadlineExceeded: 504,
}

_TRY_AGAIN = (b"retry-after", b"1")
_HEADERS: dict[type[RequestError], Headers] = {
    errors.MethodNotAllowed: [(b"allow", b"POST")],
    errors.Unauthorized: [(b"www-authenticate", b"Bearer")],
    errors.UnsupportedEncoding: [(b"accept-encoding", b"gzip, deflate")],
    errors.Unavailable: [_TRY_AGAIN],
    errors.QueueFull: [_TRY_AGAIN],
    errors.MemoryFull: [_TRY_AGAIN],
    errors.TooManyConnections: [_TRY_AGAIN, (b"connection", b"close")],
}


def headers_of(error: RequestError) -> Headers:
    """Return the headers that go with a failure."""
    return _HEADERS.get(type(error), [])
