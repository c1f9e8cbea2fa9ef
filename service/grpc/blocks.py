"""The two header blocks of nearly every answer, as HPACK has them without its tables (RFC 7541).

hpack looks each field up, writes it with Huffman's code and keeps it: a sixth of a small call. What
is a literal that no table keeps is right whatever the tables hold.
"""

from typing import Any

from hpack import Encoder, HeaderTuple

_STATUS_200 = b"\x88"  # indexed: appendix A
_NEW_NAME, _NEVER_KEPT = b"\x00", b"\x10"  # sections 6.2.2 and 6.2.3
_MOST_OF_A_BYTE = 127  # of a length, section 5.1


class Written(HeaderTuple):
    """A name that says nothing, and a block: in place of the headers that it is."""

    __slots__ = ()


class BlockEncoder(Encoder):
    """hpack's encoder, that takes what is written for what it is."""

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        """Return the block of headers."""
        if type(headers[0]) is not Written:
            block: bytes = super().encode(headers, huffman)
        elif self.header_table.resized:  # the client has to be told of that first
            block = super().encode([]) + headers[0][1]
        else:
            block = headers[0][1]
        return block


def literal(name: bytes, value: bytes, kind: bytes = _NEW_NAME) -> bytes:
    """Return a field that no table keeps."""
    return b"".join((kind, _length(name), name, _length(value), value))


def _length(text: bytes) -> bytes:
    size = len(text)
    if size < _MOST_OF_A_BYTE:
        return bytes((size,))
    return bytes((_MOST_OF_A_BYTE, size - _MOST_OF_A_BYTE))  # below 255: ids are short


def written(block: bytes) -> list[HeaderTuple]:
    """Return headers as `H2Connection.send_headers` takes them."""
    return [Written(b"written", block)]


def begin_of_answer(*common: tuple[bytes, bytes]) -> bytes:
    """Return the beginning of the block of an answer: status 200, and the headers of all."""
    return _STATUS_200 + b"".join(literal(*each) for each in common)


def with_id(begin: bytes, id: bytes) -> list[HeaderTuple]:
    """Return the headers of an answer: what all have, and the id of its request."""
    return written(begin + literal(b"x-request-id", id, _NEVER_KEPT))
