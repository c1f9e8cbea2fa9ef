"""Bodies that are compressed with gzip or deflate, in both directions (RFC 9110, section 8.4)."""

import asyncio
import zlib

from service.errors import InvalidInput, TooLarge, UnsupportedEncoding
from service.http.preferences import Preferences

ENCODINGS = ("gzip", "deflate")
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # deflate is zlib's format in HTTP
LEVEL = 1  # numbers compress badly at any level; this one costs the least
SHORTEST = 1024  # bytes of a reply that is worth compressing
LARGEST_IN_LOOP = 4096  # bytes that are compressed or decompressed in the event loop


async def decompressed(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return the body that was compressed; no more than `limit` bytes are ever decompressed.

    Raises UnsupportedEncoding, InvalidInput if it is not complete or not of that encoding,
    TooLarge.
    """
    name = encoding.strip().lower()
    if name == b"identity":
        return body
    if name not in WINDOW_BITS:
        got = ascii(encoding[:40].decode("latin-1"))
        raise UnsupportedEncoding(f"Content-Encoding: expected {' or '.join(ENCODINGS)}, got {got}")
    if len(body) > LARGEST_IN_LOOP:
        return await asyncio.to_thread(_decompress, body, name, limit)
    return _decompress(body, name, limit)


def _decompress(body: bytes, name: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(WINDOW_BITS[name])
    expected = f"body: expected it compressed with {name.decode()}"
    try:
        decompressed = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"{expected}, got: {error}") from error
    if len(decompressed) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes decompressed, got more")
    if not decompressor.eof:
        raise InvalidInput(f"{expected}, got only a part of that")
    if (
        decompressor.unused_data
    ):  # a second gzip member too: a body of empty ones would take for ever
        raise InvalidInput(f"{expected} in one piece, got more behind its end")
    return decompressed


def wanted(accept: bytes) -> str | None:
    """Return the encoding that an Accept-Encoding header wants, of those there are."""
    preferences = Preferences(accept)
    best = max(ENCODINGS, key=preferences.of)
    return best if 0 < preferences.of(best) >= preferences.of("identity") else None


async def compressed(body: bytes, encoding: str) -> bytes:
    """Return the body compressed."""
    if len(body) > LARGEST_IN_LOOP:
        return await asyncio.to_thread(_compress, body, encoding)
    return _compress(body, encoding)


def _compress(body: bytes, encoding: str) -> bytes:
    compressor = zlib.compressobj(LEVEL, wbits=WINDOW_BITS[encoding.encode()])
    return compressor.compress(body) + compressor.flush()
