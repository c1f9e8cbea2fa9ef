"""Messages as gRPC sends them: whether it is compressed, its length, and itself.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message".
"""

from collections.abc import Sequence

from service.errors import InvalidInput, TooLarge

PREFIX_BYTES = 5
ENCODINGS = frozenset({b"identity", b"gzip"})
ACCEPTED = b"identity,gzip"


def check_length(buffer: bytes | bytearray, most: int) -> None:
    """Raise TooLarge as soon as a message says that it has more than `most` bytes."""
    length = int.from_bytes(buffer[1:PREFIX_BYTES])
    if length > most:
        raise TooLarge(f"message: expected at most {most} bytes, got {length}")


def message_in(buffer: bytes | bytearray) -> tuple[bytes, bool]:
    """Return the only message of a call, and whether it is compressed. Raises InvalidInput."""
    length = int.from_bytes(buffer[1:PREFIX_BYTES])
    got = len(buffer) - PREFIX_BYTES
    if got != length:
        if got < 0:
            raise InvalidInput(f"message: expected one, got {len(buffer)} bytes")
        if got < length:
            raise InvalidInput(f"message: expected {length} bytes, got {got}")
        raise InvalidInput(f"message: expected one, got {got - length} bytes behind it")
    flag = buffer[0]
    if flag > 1:
        raise InvalidInput(f"message: expected a first byte of 0 or 1, got {flag}")
    return bytes(memoryview(buffer)[PREFIX_BYTES:]), flag == 1


def framed(parts: Sequence[bytes | memoryview]) -> bytes:
    """Return a message, which is of several parts, as it is sent."""
    length = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
    return b"".join((b"\0", length.to_bytes(4), *parts))
