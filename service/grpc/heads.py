"""What the headers of a call say.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Requests".
"""

import re

from service.errors import InvalidInput, UnsupportedEncoding
from service.grpc.blocks import MALFORMED
from service.grpc.framing import ENCODINGS
from service.words import shown

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def check_allowed(headers: dict[bytes, bytes]) -> None:
    """Raise InvalidInput for headers that are not allowed in HTTP/2, or malformed."""
    why = headers.get(MALFORMED)
    if why is not None:
        raise InvalidInput(f"headers: expected what RFC 9113 allows, got: {shown(why.decode())}")


def check_trailers(headers: dict[bytes, bytes]) -> None:
    """Raise InvalidInput for headers behind the messages that are not allowed there."""
    check_allowed(headers)
    if any(name.startswith(b":") for name in headers):
        raise InvalidInput("trailers: expected no pseudo-headers")


def is_grpc(headers: dict[bytes, bytes]) -> bool:
    """Whether a request is a call of gRPC, with messages of protobuf."""
    if headers.get(b":method") != b"POST":
        return False
    content_type = headers.get(b"content-type", b"")
    if content_type == b"application/grpc":
        return True
    kind = content_type.partition(b";")[0].strip().lower()
    return kind in (b"application/grpc", b"application/grpc+proto")


def timeout_s(headers: dict[bytes, bytes], longest_s: float) -> float:
    """Return how long the answer may take: `longest_s` at most. Raises InvalidInput."""
    text = headers.get(b"grpc-timeout")
    if text is None:
        return longest_s
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        got = shown(text.decode("latin-1"))
        raise InvalidInput(
            f"grpc-timeout: expected up to 8 digits and one of H, M, S, m, u, n; got {got}"
        )
    return min(longest_s, int(found[1]) * _SECONDS[found[2]])


def check_encoding(headers: dict[bytes, bytes]) -> None:
    """Raise UnsupportedEncoding unless messages are compressed with gzip, or not at all."""
    encoding = headers.get(b"grpc-encoding", b"identity")
    if encoding not in ENCODINGS:
        got = shown(encoding.decode("latin-1"))
        raise UnsupportedEncoding(f"grpc-encoding: expected identity or gzip, got {got}")


def check_compressed(headers: dict[bytes, bytes]) -> None:
    """Raise InvalidInput for a message that is compressed, unless the headers say how."""
    encoding = headers.get(b"grpc-encoding")
    if encoding != b"gzip":
        got = "none" if encoding is None else encoding.decode("latin-1")
        raise InvalidInput(
            f"grpc-encoding: expected gzip, as the message says that it is compressed; got {got}"
        )
