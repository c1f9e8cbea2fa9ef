"""Long lists in JSON, a block of whole elements at a time: nobody waits long, little is in memory.

simdjson takes up to 21 bytes of memory for each byte of a text, and what reads a long text at once
holds the whole process. So each block is read by itself, the fast way, and the elements of one that
does not fit are decoded one by one.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from service.errors import InvalidInput
from service.formats.json_text import TOO_DEEP, TOO_MANY_DIGITS, decoder_for
from service.formats.turns import Turns, check_deadline

LONG = 262_144  # bytes of a text that is read in blocks
BLOCK = 65_536  # bytes of a block; more where an element is larger

_SPACE = rb"[ \t\r\n]*"
_OPENING = re.compile(rb"[\[{ \t\r\n]{0,64}")  # of the first element, and of those in it
_DEEPEST = 4  # of those; a pattern of many brackets is slow where they do not end an element
_SEPARATOR = re.compile(_SPACE + b"," + _SPACE)
_REST = re.compile(_SPACE)
_CLOSERS = {ord("["): rb"\]", ord("{"): rb"\}"}

Text: TypeAlias = bytes | memoryview
Part: TypeAlias = NDArray[Any] | Sequence[Any]


class Elements(Protocol):
    """What the elements of a list are read as."""

    def fast(self, block: bytes) -> NDArray[Any]:
        """Return an array of those in a list; raises anything where `slow` is needed."""

    def slow(self, value: Any, index: int) -> Any:
        """Return one that was decoded. Raises RequestError with its place."""

    def check_large(self, text: bytes, index: int) -> None:
        """Look at one that is larger than some blocks before it is read. Raises InvalidInput."""


def parts(text: Text, elements: Elements, where: str, deadline: float) -> Iterator[Part]:
    """Yield the elements of the list that a text is, from its "[" to its "]", in parts.

    Raises InvalidInput with the place if the text is no JSON, DeadlineExceeded, and what
    `elements` raises.
    """
    end = len(text) - 1
    place = _REST.match(text, 1, end).end()  # type: ignore[union-attr]
    index, ends, give_way = 0, _end_of_elements(text, place), Turns()
    while place < end:
        give_way()
        check_deadline(deadline)
        stop = _stop(text, place, end, ends)
        if stop == place:  # two commas
            raise _no_json("Expecting value", place, where)
        block = b"[%b]" % bytes(text[place:stop])
        part: Part
        if len(block) > 4 * BLOCK:
            elements.check_large(block, index)
        try:
            part = elements.fast(block)
        except Exception:  # simdjson's are of many kinds
            part = []
            for value, behind in _decoded(text, place, stop, end, where):
                part.append(elements.slow(value, index + len(part)))
                give_way()
                stop = behind
        yield part
        index += len(part)
        place = _next(text, stop, end, where)


def _end_of_elements(text: Text, place: int) -> bytes:
    """Return a pattern of the end of an element, by how the first one begins."""
    opening: bytes = _OPENING.match(text, place).group()  # type: ignore[union-attr]
    closers = [_CLOSERS[each] for each in reversed(bytes(opening)) if each in _CLOSERS]
    del closers[:-_DEEPEST]
    return _SPACE.join(closers) + b"(?=" + _SPACE + b",)"


def _stop(text: Text, place: int, end: int, ends: bytes) -> int:
    """Return where a block ends that begins at a place: behind an element, as it seems."""
    if end - place <= BLOCK:
        return end
    found = re.compile(b"(?s).*" + ends).match(text, place, place + BLOCK)
    first, start = re.compile(ends), place
    while not found and start < end:  # an element that is larger
        found = first.search(text, start, min(start + 2 * BLOCK, end))
        start += BLOCK
    return found.end() if found else end


def _decoded(text: Text, place: int, stop: int, end: int, where: str) -> Iterator[tuple[Any, int]]:
    """Yield each element that begins before `stop`, and the place behind it."""
    bound = stop
    piece, at = _text(text, place, bound, where), 0  # the element at `place` is at piece[at]
    decode = decoder_for(piece).raw_decode
    while place < stop:
        try:
            value, behind = decode(piece, at)
        except json.JSONDecodeError as error:
            if bound == end:
                raise _no_json(error.msg, place + _size(piece[at : error.pos]), where) from error
            bound = end  # it ended within a string, or a list in the element
            piece, at = _text(text, place, bound, where), 0
            decode = decoder_for(piece).raw_decode
            continue
        except RecursionError as error:
            raise InvalidInput(f"{where}: {TOO_DEEP}") from error
        except ValueError as error:
            raise InvalidInput(f"{where}: {TOO_MANY_DIGITS}") from error
        place += _size(piece[at:behind])
        yield value, place
        after = _next(text, place, end, where)
        at, place = behind + after - place, after


def _next(text: Text, place: int, end: int, where: str) -> int:
    """Return where the element behind a place begins, `end` if there is none.

    Raises InvalidInput.
    """
    found = _SEPARATOR.match(text, place, end)
    if found and found.end() < end:
        return found.end()
    if found:
        raise _no_json("Expecting value", found.end(), where)
    behind: int = _REST.match(text, place, end).end()  # type: ignore[union-attr]
    if behind < end:
        raise _no_json("Expecting ',' delimiter", behind, where)
    return end


def _text(text: Text, place: int, stop: int, where: str) -> str:
    try:
        return str(text[place:stop], "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: expected JSON in UTF-8, got byte {place + error.start} that is not"
        ) from error


def _size(text: str) -> int:
    """Return how many bytes a text has."""
    return len(text) if text.isascii() else len(text.encode())


def _no_json(what: str, place: int, where: str) -> InvalidInput:
    return InvalidInput(f"{where}: expected JSON, got: {what}: byte {place} of it")
