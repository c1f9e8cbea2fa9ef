"""Files of rows, read from front to back in bounded memory, so that reading can go on later.

A row that does not fit is a `Bad` row and the next one is read; what does not fit at all, as a
header of other names, raises InvalidInput.
"""

from collections import deque
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, BinaryIO, Protocol

from msgspec import Raw, Struct
from numpy.typing import NDArray

from service.errors import InvalidInput

CHUNK_BYTES = 1 << 20
MOST_BYTES, MOST_LINES = 1 << 20, 1000  # of a row of several lines: one that never ends costs these


class Row(Struct):
    """A row that fits: its line, from 1, its values, and what stood beside them."""

    line: int
    values: list[Any] | NDArray[Any]
    kept: list[str] | Raw


class Bad(Struct):
    """A row that does not: its line, from 1, and the sentence that says why."""

    line: int
    why: str


class Options(Struct, frozen=True, kw_only=True):
    """How a file is read."""

    longest: int  # bytes of a line, or of a row where there are no lines
    keep: bool  # what stands beside the features
    max_image_pixels: int


class Rows(Protocol):
    """The rows of a file."""

    unit: str  # what they are counted in: "line" or "row"
    kept_names: list[str]  # of columns beside the features

    def __iter__(self) -> Iterator[Row | Bad]:
        """Yield each row."""


class Tape:
    """A binary file that is read from front to back.

    `number` lines (rows, where there are no lines), `offset` bytes of the digest `sha256`, are
    passed.
    """

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        """Begin where `file` is, at the byte `start` of it."""
        self.file = file
        self._start = start
        self.number = self.offset = 0
        self.sha256 = sha256()
        self.again: deque[bytes] = deque()  # lines that were read and given back

    def passed(self, data: bytes, lines: int = 0) -> None:
        """Note that bytes that were read, so many lines, are done with."""
        self.sha256.update(data)
        self.offset += len(data)
        self.number += lines

    def pass_to(self, number: int, offset: int) -> None:
        """Pass `number` lines, `offset` bytes in all, without a check; fewer if it is shorter."""
        self.again.clear()
        self.file.seek(self._start + self.offset)
        while (left := offset - self.offset) > 0 and (
            chunk := self.file.read(min(CHUNK_BYTES, left))
        ):
            self.passed(chunk)
        self.number = number


class Lines:
    """The lines of a tape. Those taken are of one row, until it is passed or given back."""

    def __init__(self, tape: Tape, longest: int) -> None:
        """Begin where the tape is. A line has up to `longest` bytes."""
        self._tape = tape
        self._longest = longest
        self._taken: list[bytes] = []
        self._taken_bytes = 0
        self._again = tape.again

    @property
    def number(self) -> int:
        """How many lines are passed."""
        return self._tape.number

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Take a line as text. Raises InvalidInput for one that is too long or not UTF-8."""
        line = self.take()
        if not line:
            raise StopIteration
        try:
            return line.decode("utf-8-sig" if self._is_first() else "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"line {self.number + len(self._taken)}: expected CSV in UTF-8, "
                f"got byte {error.start} that is not"
            ) from error

    def ahead(self) -> Iterator[bytes]:
        """Yield the next lines, which are not taken by that, up to about MOST_BYTES.

        Raises InvalidInput at one that is too long.
        """
        place = size = 0
        while size < MOST_BYTES:
            if place == len(self._again):
                self._again.append(self._tape.file.readline(self._longest + 1))
            line = self._again[place]
            if not line:
                self._again.pop()
                return
            place += 1
            size += len(line)
            if self._is_too_long(line):
                raise self._too_long(self.number + place)
            yield line

    def take(self) -> bytes:
        """Take a line; nothing at the end.

        Raises InvalidInput past a line that is too long, and before one that makes a row of
        several lines too long: what was taken of that row may be passed or given back.
        """
        line = self._again.popleft() if self._again else self._tape.file.readline(self._longest + 1)
        if self._taken and self._is_too_much(line):
            self._again.appendleft(line)
            raise InvalidInput(
                f"line {self.number + 1}: expected a row of at most {MOST_LINES} lines and "
                f"{min(self._longest, MOST_BYTES)} bytes, got one that goes on: is there a "
                "quotation mark that nobody closes?"
            )
        if line:
            self._taken.append(line)
            self._taken_bytes += len(line)
        if self._is_too_long(line):
            self.pass_row()
            self._pass_rest()
            raise self._too_long(self.number)
        return line

    def _is_too_long(self, line: bytes) -> bool:
        return len(line) > self._longest and not line.endswith(b"\n")

    def _too_long(self, number: int) -> InvalidInput:
        return InvalidInput(f"line {number}: expected at most {self._longest} bytes, got more")

    def _is_too_much(self, line: bytes) -> bool:
        """Whether a further line makes the row of those that were taken too long."""
        most_bytes = min(self._longest, MOST_BYTES)
        return len(self._taken) == MOST_LINES or self._taken_bytes + len(line) > most_bytes

    def _is_first(self) -> bool:
        return self.number == 0 and len(self._taken) == 1

    def _pass_rest(self) -> None:
        while rest := self._tape.file.readline(CHUNK_BYTES):
            self._tape.passed(rest)
            if rest.endswith(b"\n"):
                return

    def pass_row(self) -> None:
        """Pass the lines that were taken."""
        for line in self._taken:
            self._tape.passed(line, 1)
        self._clear()

    def pass_first(self) -> None:
        """Pass the first of the lines that were taken, and give the others back.

        A quotation mark that nobody closes would take the rows below with it.
        """
        again = self._taken[1:]
        del self._taken[1:]
        self.pass_row()
        self._again.extendleft(reversed(again))

    def give_back(self) -> None:
        """Give back the lines that were taken."""
        self._again.extendleft(reversed(self._taken))
        self._clear()

    def _clear(self) -> None:
        self._taken.clear()
        self._taken_bytes = 0
