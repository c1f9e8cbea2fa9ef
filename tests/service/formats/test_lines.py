import hashlib
import io

import pytest

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats import lines
from service.formats.csv_rows import CsvRows
from service.formats.lines import Bad, Lines, Tape
from tests.support.bodies import file_rows, told


def lines_of(content: bytes, longest: int = 100) -> tuple[Tape, Lines]:
    tape = Tape(io.BytesIO(content))
    return tape, Lines(tape, longest)


def test_lines_that_are_given_back_come_again_in_their_order() -> None:
    tape, rows = lines_of(b"a\nb\nc\nd\n")
    assert [rows.take() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
    rows.give_back()
    assert [rows.take() for _ in range(3)] == [b"a\n", b"b\n", b"c\n"]
    rows.pass_first()
    assert (rows.number, tape.number, tape.offset) == (1, 1, 2)
    assert [rows.take() for _ in range(4)] == [b"b\n", b"c\n", b"d\n", b""]


def test_lines_ahead_are_not_taken() -> None:
    tape, rows = lines_of(b"a\nb\nc\n" + b"x" * 101 + b"\n")
    ahead = rows.ahead()
    assert [next(ahead) for _ in range(2)] == [b"a\n", b"b\n"]
    assert (rows.take(), rows.number) == (b"a\n", 0)
    rows.pass_row()
    with pytest.raises(InvalidInput, match=r"^line 4: expected at most 100 bytes, got more$"):
        list(rows.ahead())
    assert [rows.take(), rows.take(), tape.number] == [b"b\n", b"c\n", 1]


def test_a_tape_knows_what_was_passed_and_its_digest() -> None:
    tape, rows = lines_of(b"ab\ncd\nef")
    rows.take()
    assert (tape.number, tape.offset) == (0, 0)  # taken, but not passed
    rows.pass_row()
    rows.take()
    rows.pass_row()
    assert (tape.number, tape.offset) == (2, 6)
    assert tape.sha256.digest() == hashlib.sha256(b"ab\ncd\n").digest()


@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("looked_at", [0, 1, 2])
def test_reading_goes_on_where_it_was_whatever_was_looked_at_before(
    start: int, looked_at: int
) -> None:
    content = b"others"[:start] + b"a\nb\nc\nd\n"
    tape = Tape(io.BytesIO(content), start)
    tape.file.seek(start)
    rows = Lines(tape, 100)
    for _ in range(looked_at):
        rows.take()
    rows.give_back()
    tape.pass_to(2, 4)
    assert (rows.number, tape.offset) == (2, 4)
    assert tape.sha256.digest() == hashlib.sha256(b"a\nb\n").digest()
    assert [rows.take() for _ in range(3)] == [b"c\n", b"d\n", b""]


def test_a_tape_that_is_shorter_is_passed_to_its_end() -> None:
    tape, _ = lines_of(b"a\nb\n")
    tape.pass_to(4, 8)
    assert tape.sha256.digest() == hashlib.sha256(b"a\nb\n").digest()


def test_lines_are_text_without_the_mark_that_may_stand_first() -> None:
    _, rows = lines_of(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n\xff\n")
    assert next(rows) == "a\n"
    rows.pass_row()
    assert next(rows) == "\ufeffb\n"
    rows.pass_row()
    with pytest.raises(InvalidInput, match=r"^line 3: expected CSV in UTF-8, got byte 0 that is"):
        next(rows)
    rows.pass_row()
    with pytest.raises(StopIteration):
        next(rows)


@pytest.mark.parametrize("length", [100, 101, 3 << 20])
def test_a_line_that_is_too_long_is_passed(length: int) -> None:
    _, rows = lines_of(b"x" * length + b"\nb\n")
    if length > 100:
        with pytest.raises(InvalidInput, match=r"^line 1: expected at most 100 bytes, got more$"):
            rows.take()
    else:
        assert len(rows.take()) == 101  # and the end of the line
        rows.pass_row()
    assert rows.number == 1
    assert rows.take() == b"b\n"


def test_a_long_line_costs_no_row_before_it(toy: Model) -> None:
    good = b"1,2,3,4\n"
    text = good + b'"' + good + good + b"1," * 60 + b"\n" + good
    rows = dict(told(file_rows(CsvRows, text, toy, longest=100)))
    assert [line for line, row in rows.items() if isinstance(row, list)] == [1, 3, 5]
    assert str(rows[2]).startswith(
        "line 2: expected a row of at most 1000 lines and 100 bytes, got one that goes on"
    )
    assert rows[4] == "line 4: expected at most 100 bytes, got more"


@pytest.mark.parametrize(
    ("line", "limit", "most_taken"),
    [(b'x","\n', "MOST_LINES", 40), (b"x" * 96 + b'","\n', "MOST_BYTES", 40)],
)
def test_a_row_that_never_ends_costs_little(
    toy: Model, monkeypatch: pytest.MonkeyPatch, line: bytes, limit: str, most_taken: int
) -> None:
    """Each line closes a quotation mark and opens another, whichever of them is the first."""
    assert (lines.MOST_LINES, lines.MOST_BYTES) == (1000, 2**20)
    monkeypatch.setattr(lines, limit, 40 if limit == "MOST_LINES" else 4000)
    taken = []
    take = Lines.take
    monkeypatch.setattr(Lines, "take", lambda self: taken.append(None) or take(self))
    rows = list(file_rows(CsvRows, b"a,b,c,d,note\n" + line * 300, toy))
    assert len(rows) == 300
    assert all(isinstance(each, Bad) for each in rows)
    assert 300 * most_taken / 2 < len(taken) < 301 * (most_taken + 2)
