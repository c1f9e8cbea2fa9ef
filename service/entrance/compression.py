"""Bodies that are compressed with gzip or deflate, in both directions (RFC 9110, section 8.4)."""

import asyncio
import zlib

from service.errors import InvalidInput, TooLarge, UnsupportedEncoding

ENCODINGS = ("gzip", "deflate")
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # deflate is zlib's format in HTTP
LEVEL = 1  # numbers compress badly at any level; this one costs the least
SHORTEST = 1024  # bytes of a reply that is worth compressing
LARGEST_IN_LOOP = 4096  # bytes that are compressed or decompressed in the event loop
MOST_ENCODINGS = 4  # of a body, one on the other
MOST_MEMBERS = 1024  # of gzip: an empty one is 20 bytes, and takes as long as any
_MEMBER = b"\x1f\x8b"  # how each begins
_PIECE = 65_536  # bytes given to zlib at a time: it copies what is behind the end of a member


async def decompressed(body: bytes, encoding: bytes, limit: int, what: str = "body") -> bytes:
    """Return the body that was compressed; no more than `limit` bytes are ever decompressed.

    encoding: as Content-Encoding says it, those that were applied, in their order; none is the body
    as it is. what: the name of the body in sentences. Raises UnsupportedEncoding, InvalidInput if
    it is not complete or not of that encoding, TooLarge.
    """
    names = _applied(encoding)
    if len(names) == 1 and len(body) <= LARGEST_IN_LOOP:
        return _decompress(body, names[0], limit, what)
    for name in reversed(names):
        body = await asyncio.to_thread(_decompress, body, name, limit, what)
    return body


def _applied(encoding: bytes) -> list[bytes]:
    """Return the encodings that change a body. Raises UnsupportedEncoding."""
    elements = [each.strip().lower() for each in encoding.split(b",")]
    names = [each for each in elements if each not in (b"", b"identity")]
    expected = f"Content-Encoding: expected {' or '.join(ENCODINGS)}"
    if not WINDOW_BITS.keys() >= set(names):
        got = ascii(encoding[:40].decode("latin-1"))
        raise UnsupportedEncoding(f"{expected}, got {got}")
    if len(names) > MOST_ENCODINGS:
        raise UnsupportedEncoding(f"{expected}, at most {MOST_ENCODINGS} times, got {len(names)}")
    return names


def _decompress(body: bytes, name: bytes, limit: int, what: str) -> bytes:
    """Return what was compressed with one encoding; gzip has members, one behind the other."""
    expected = f"{what}: expected it compressed with {name.decode()}"
    parts: list[bytes] = []
    left, place = limit, 0
    for _ in range(MOST_MEMBERS):
        decompressor = zlib.decompressobj(WINDOW_BITS[name])
        while not decompressor.eof:
            piece = body[place : place + _PIECE]
            if not piece:
                raise InvalidInput(f"{expected}, got only a part of that")
            try:
                part = decompressor.decompress(piece, left + 1)
            except zlib.error as error:
                raise InvalidInput(f"{expected}, got: {error}") from error
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise TooLarge(f"{what}: expected at most {limit} bytes decompressed, got more")
            place += len(piece) - len(decompressor.unused_data)
        if place == len(body):
            return b"".join(parts)
        if name == b"deflate" or not body.startswith(_MEMBER, place):
            raise InvalidInput(f"{expected} in one piece, got more behind its end")
    raise TooLarge(f"{what}: expected at most {MOST_MEMBERS} members of gzip, got more")


async def compressed(body: bytes, encoding: str) -> bytes:
    """Return the body compressed."""
    if len(body) > LARGEST_IN_LOOP:
        return await asyncio.to_thread(_compress, body, encoding)
    return _compress(body, encoding)


def _compress(body: bytes, encoding: str) -> bytes:
    compressor = zlib.compressobj(LEVEL, wbits=WINDOW_BITS[encoding.encode()])
    return compressor.compress(body) + compressor.flush()
