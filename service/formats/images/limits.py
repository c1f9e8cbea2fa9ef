"""PNG and JPEG files, as far as they can be judged before a decoder reads them.

A decoder reads all that stands beside the pixels too, and there is no end to what may stand there:
a small file can keep it busy for minutes. So the parts are counted first, and those of a PNG that
say nothing of its pixels never reach the decoder.
"""

from service.errors import InvalidInput

EXPECTED = "expected a PNG or JPEG image"
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
MOST_CHUNKS = 100  # of a PNG, beside those of the pixels
BYTES_OF_A_CHUNK = 256  # those of the pixels hold this at least, on average
MOST_SEGMENTS = 600  # of a JPEG: a colour profile and metadata may have 255 each
MOST_SCANS = 32  # of a JPEG: each is a pass over all its pixels; progressive ones have about 10

# What people send instead, by how it begins.
_OTHERS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"%PDF": "a PDF",
    b"<": "XML or HTML",
    b"{": "JSON",
}
_PIXEL_CHUNKS = frozenset({b"IDAT", b"fdAT", b"fcTL"})
_USED = frozenset({b"tRNS", b"eXIf"})  # of the chunks that a decoder may leave out
_END, _SCAN, _END_OF_IMAGE = b"IEND", b"\xff\xda", b"\xff\xd9"


def is_image(data: bytes) -> bool:
    """Whether it begins as a PNG or JPEG does."""
    return data.startswith((PNG, JPEG))


def check(data: bytes, where: str) -> None:
    """Raise InvalidInput for what is no PNG and no JPEG, or one of too many parts."""
    if not data:
        raise InvalidInput(f"{where}: {EXPECTED}, got nothing")
    if not is_image(data):
        got = next((kind for begin, kind in _OTHERS.items() if data.startswith(begin)), "")
        if data[8:12] == b"WEBP":
            got = "a WebP"
        if data[4:8] == b"ftyp":
            got = "a HEIC, an AVIF or a film"
        raise InvalidInput(f"{where}: {EXPECTED}, got {got or 'something else'}")
    if data.startswith(PNG):
        _check_chunks(data, where)
    else:
        _check_segments(data, where)


def without_extras(data: bytes) -> bytes:
    """Return a file that was checked, without the chunks of a PNG that it can be decoded without.

    Those are texts, colour profiles, the frames of an animation, and whatever programs add: a small
    letter begins the type (section 5.4 of its specification). Pillow decompresses them, calls a PNG
    broken where one is large, and takes words of a text for facts of the image.
    """
    if not data.startswith(PNG):
        return data
    view, start, place = memoryview(data), 0, len(PNG)
    kept: list[memoryview] = []
    while (kind := data[place + 4 : place + 8]) and kind != _END:
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if end > len(data):
            break  # it is cut off, as the decoder will say
        if kind.isalpha() and kind[:1].islower() and kind not in _USED:
            kept.append(view[start:place])
            start = end
        place = end
    return b"".join([*kept, view[start:]]) if start else data


def _check_chunks(data: bytes, where: str) -> None:
    """Count the chunks of a PNG (its specification, section 5.3: length, type, data, CRC)."""
    most = MOST_CHUNKS + len(data) // BYTES_OF_A_CHUNK
    others, place = 0, len(PNG)
    for _ in range(most):
        kind = data[place + 4 : place + 8]
        others += kind not in _PIXEL_CHUNKS
        if not kind or kind == _END:
            return
        if others > MOST_CHUNKS:
            break
        place += 12 + int.from_bytes(data[place : place + 4])
    raise InvalidInput(f"{where}: {EXPECTED}, got a PNG of too many chunks")


def _check_segments(data: bytes, where: str) -> None:
    """Count the segments of a JPEG up to its pixels, and its scans (ITU-T T.81, annex B)."""
    place = 2
    for _ in range(MOST_SEGMENTS):
        marker = data[place : place + 2]
        if marker == _SCAN:
            end = data.find(_END_OF_IMAGE, place)  # phones put films behind it
            scans = data.count(_SCAN, place, end if end >= 0 else len(data))
            if scans > MOST_SCANS:
                raise InvalidInput(
                    f"{where}: {EXPECTED}, got a JPEG of more than {MOST_SCANS} scans"
                )
            return
        if place >= len(data):
            return  # it is cut off, as the decoder will say
        if marker[:1] != b"\xff" or marker[1:] == b"\xff":
            place += 1  # filling
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4])
    raise InvalidInput(f"{where}: {EXPECTED}, got a JPEG of too many segments")
