"""Bodies that are packed with gzip or deflate, in both directions (RFC 9110, section 8.4)."""

import asyncio
import re
import zlib

from service.errors import InvalidInput, TooLarge, UnsupportedEncoding

ENCODINGS = ("gzip", "deflate")
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}  # deflate is zlib's format in HTTP
LEVEL = 1  # numbers pack badly at any level; this one costs the least
SHORTEST = 1024  # bytes of a reply that is worth packing
LARGEST_IN_LOOP = 4096  # bytes that are packed or unpacked in the event loop


async def unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Return the body that was packed; no more than `limit` bytes are ever unpacked.

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
        return await asyncio.to_thread(_unpack, body, name, limit)
    return _unpack(body, name, limit)


def _unpack(body: bytes, name: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(WINDOW_BITS[name])
    expected = f"body: expected it packed with {name.decode()}"
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidInput(f"{expected}, got: {error}") from error
    if len(unpacked) > limit:
        raise TooLarge(f"body: expected at most {limit} bytes unpacked, got more")
    if not unpacker.eof:
        raise InvalidInput(f"{expected}, got only a part of that")
    if unpacker.unused_data:  # a second gzip member too: a body of empty ones would take for ever
        raise InvalidInput(f"{expected} in one piece, got more behind its end")
    return unpacked


def wanted(accept: bytes) -> str | None:
    """Return the encoding that an Accept-Encoding header asks for, of those there are."""
    qualities: dict[str, float] = {}
    for each in accept.decode("latin-1").lower().split(","):
        name, _, parameter = each.partition(";")
        found = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameter)
        qualities[name.strip()] = float(found[1]) if found else 1.0
    others = qualities.get("*", 0.0)
    best = max(ENCODINGS, key=lambda name: qualities.get(name, others))
    quality = qualities.get(best, others)
    return best if quality > 0 and quality >= qualities.get("identity", 0.0) else None


async def packed(body: bytes, encoding: str) -> bytes:
    """Return the body packed."""
    if len(body) > LARGEST_IN_LOOP:
        return await asyncio.to_thread(_pack, body, encoding)
    return _pack(body, encoding)


def _pack(body: bytes, encoding: str) -> bytes:
    packer = zlib.compressobj(LEVEL, wbits=WINDOW_BITS[encoding.encode()])
    return packer.compress(body) + packer.flush()
