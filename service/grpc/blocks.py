"""Header blocks that come and go again and again (HPACK, RFC 7541).

The two of nearly every answer are written without HPACK's tables: hpack looks each field up, writes
it with Huffman's code and keeps it, a sixth of a small call. What is a literal that no table keeps
is right whatever the tables hold. A block that a client sends again means the same as long as the
table is the same: it is read, and checked, once.
"""

from typing import Any

from h2.exceptions import ProtocolError
from h2.utilities import HeaderValidationFlags, validate_headers
from hpack import Decoder, Encoder, HeaderTuple, OversizedHeaderListError
from hpack.table import HeaderTable

_STATUS_200 = b"\x88"  # indexed: appendix A
_NEW_NAME, _NEVER_KEPT = b"\x00", b"\x10"  # sections 6.2.2 and 6.2.3
_MOST_OF_A_BYTE = 127  # of a length, section 5.1
MALFORMED = b":malformed"  # in place of headers that are not allowed; no header is called so
_BLANKS = b" \t"
_REQUEST, _TRAILERS = (
    HeaderValidationFlags(
        is_client=False, is_trailer=each, is_response_header=False, is_push_promise=False
    )
    for each in (False, True)
)
MOST_KNOWN, LONGEST_KNOWN = 16, 1024  # blocks of a connection, and bytes of one
# Of a block, as Envoy has it: one of a byte takes hpack 3 us, and copies what is behind it.
MOST_FIELDS = 100


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


class BlockDecoder(Decoder):
    """hpack's decoder, and h2's checks of what a client may send, that know blocks again."""

    def __init__(self, most_bytes: int) -> None:
        """Begin with an empty table. A list of headers may have so many bytes."""
        super().__init__(most_bytes)
        self._table = self.header_table = Table()
        self._known: dict[bytes, Any] = {}
        self._fields = 0  # of the block that is read

    @property
    def header_table_size(self) -> int:
        """How many bytes the table may have."""
        return self._table.maxsize

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        self._table.changes += 1
        self._table.maxsize = size

    def known(self, data: bytes) -> Any:
        """Return the headers of a block that came before and means the same now; or None."""
        return self._known.get(data)

    def decode(self, data: bytes, raw: bool = True) -> Any:
        """Return the headers of a block, as bytes; MALFORMED and why, if they are not allowed.

        What has no pseudo-header is checked as trailers; a request has some. Blanks around values
        are taken away, as gRPC allows ("PROTOCOL-HTTP2.md", ASCII-Value). Raises HPACKError, which
        ends the connection, also for more than MOST_FIELDS, or more bytes than a list may have.
        """
        known = self.known(data)
        if known is not None:
            return known
        if len(data) > self.max_header_list_size:  # it may be huge, and hpack reads it first
            raise OversizedHeaderListError(f"expected at most {self.max_header_list_size} bytes")
        changes = self._table.changes
        self._fields = 0
        read: Any = [(name, value.strip(_BLANKS)) for name, value in super().decode(data, raw=True)]
        kind = _REQUEST if any(name.startswith(b":") for name, _ in read) else _TRAILERS
        try:
            headers = list(validate_headers(read, kind))
        except ProtocolError as error:
            headers = [(MALFORMED, _without_values(str(error)).encode())]
        if changes != self._table.changes:
            self._known.clear()
        elif len(data) <= LONGEST_KNOWN:
            if len(self._known) == MOST_KNOWN:
                self._known.clear()
            self._known[data] = headers
        return headers

    # Before hpack reads one: it says what it read when it has read all

    def _decode_indexed(self, data: Any) -> tuple[HeaderTuple, int]:
        self._count_field()
        return super()._decode_indexed(data)

    def _decode_literal(self, data: Any, should_index: bool) -> tuple[HeaderTuple, int]:
        self._count_field()
        return super()._decode_literal(data, should_index)

    def _update_encoding_context(self, data: Any) -> int:
        self._count_field()  # as it may come as often
        return super()._update_encoding_context(data)

    def _count_field(self) -> None:
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise OversizedHeaderListError(f"expected at most {MOST_FIELDS} header fields")


def _without_values(sentence: str) -> str:
    """Return what h2 says without the value of a header, which may be a key."""
    return sentence.partition(": ")[0] if " value" in sentence else sentence


class Table(HeaderTable):
    """hpack's table, that counts what is put in."""

    changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """Put a field in front."""
        self.changes += 1
        super().add(name, value)


def literal(name: bytes, value: bytes, kind: bytes = _NEW_NAME) -> bytes:
    """Return a field that no table keeps."""
    return b"".join((kind, _length(name), name, _length(value), value))


def _length(text: bytes) -> bytes:
    size = len(text)
    if size < _MOST_OF_A_BYTE:
        return bytes((size,))
    return bytes((_MOST_OF_A_BYTE, size - _MOST_OF_A_BYTE))  # below 255: ids are short


def written(block: bytes) -> list[HeaderTuple]:
    """Return a block as `H2Connection.send_headers` takes headers."""
    return [Written(b"written", block)]


def begin_of_answer(*common: tuple[bytes, bytes]) -> bytes:
    """Return the beginning of the block of an answer: status 200, and the headers of all."""
    return _STATUS_200 + b"".join(literal(*each) for each in common)


def with_id(begin: bytes, id: bytes) -> bytes:
    """Return the block of an answer: what all have, and the id of its request."""
    return begin + literal(b"x-request-id", id, _NEVER_KEPT)
