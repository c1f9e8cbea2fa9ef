"""What kind of failure is which code of gRPC, and how a code and a sentence are sent.

https://github.com/grpc/grpc/blob/master/doc/statuscodes.md and PROTOCOL-HTTP2.md there.
"""

from enum import IntEnum
from urllib.parse import quote_from_bytes

from service import errors
from service.errors import RequestError

LONGEST = 1024  # bytes of a sentence: headers are short


class Code(IntEnum):
    """The codes that are used here."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# None of HeadTooLarge: h2 ends the connection.
CODES: dict[type[RequestError], Code] = {
    errors.InvalidInput: Code.INVALID_ARGUMENT,
    errors.UnknownValue: Code.INVALID_ARGUMENT,
    errors.UnknownField: Code.INVALID_ARGUMENT,
    errors.Unauthorized: Code.UNAUTHENTICATED,
    errors.NotFound: Code.NOT_FOUND,
    errors.MethodNotAllowed: Code.UNIMPLEMENTED,
    errors.RequestTimeout: Code.DEADLINE_EXCEEDED,
    errors.TooLarge: Code.RESOURCE_EXHAUSTED,
    errors.UnsupportedMediaType: Code.INVALID_ARGUMENT,
    errors.UnsupportedEncoding: Code.UNIMPLEMENTED,
    errors.InferenceFailed: Code.INTERNAL,
    errors.NotSupported: Code.UNIMPLEMENTED,
    errors.Unavailable: Code.UNAVAILABLE,
    errors.QueueFull: Code.UNAVAILABLE,
    errors.MemoryFull: Code.RESOURCE_EXHAUSTED,
    errors.TooManyConnections: Code.UNAVAILABLE,
    errors.DeadlineExceeded: Code.DEADLINE_EXCEEDED,
}

_AS_IT_IS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def in_header(sentence: str) -> bytes:
    """Return a sentence as `grpc-message` has it: printable ASCII, all else as %XX of its UTF-8."""
    text = sentence.encode("utf-8", "backslashreplace")[:LONGEST]
    whole = text.decode("utf-8", "ignore").encode()  # a character at the end may be cut
    return quote_from_bytes(whole, safe=_AS_IT_IS).encode()
