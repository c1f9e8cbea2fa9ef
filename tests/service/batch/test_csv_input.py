import io
from collections.abc import Callable
from typing import Any

import pytest

from service.batch import Scorer, csv_input
from service.batch.csv_input import CsvInput
from service.errors import InvalidInput

Open = Callable[[str], Scorer]
HEAD = b"a,b,c,d,id\n"


class Pipe(io.BytesIO):
    """What comes bit by bit, and only once."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 13))


@pytest.fixture
def given(scorer: Open, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CsvInput]:
    """Return what opens a file; a block is about 100 bytes."""
    monkeypatch.setattr(csv_input, "BLOCK_BYTES", 100)
    toy = scorer("toy")

    def given(data: bytes, file: Callable[[bytes], Any] = io.BytesIO) -> CsvInput:
        return CsvInput(file(data), toy.model, toy.settings, keep=True)

    return given


@pytest.mark.parametrize("file", [io.BytesIO, Pipe])
def test_blocks_are_the_file_in_order(
    given: Callable[..., CsvInput], file: Callable[[bytes], Any]
) -> None:
    rows = b"".join(b'%d,2,3,4,"x,%d"\n' % (n, n) for n in range(100))
    opened = given(HEAD + rows, file)
    assert opened.kept_names == ["id"]
    blocks = list(opened)
    assert b"".join(block.data for block, _ in blocks) == rows
    assert all(block.data.endswith(b"\n") and len(block.data) <= 100 for block, _ in blocks)
    before = [1, *(position.number for _, position in blocks)]
    assert [block.before for block, _ in blocks] == before[:-1]
    assert before[-1] == 101


def test_a_row_of_several_lines_is_in_one_block(given: Callable[..., CsvInput]) -> None:
    long = b'1,2,3,4,"' + b"line\n" * 60 + b'"\n'
    plain = b"1,2,3,4,x\n" * 30
    blocks = [block for block, _ in given(HEAD + plain + long + plain)]
    read = [block for block in blocks if block.rows is not None]
    assert 1 <= len(read) <= 2
    assert [row.line for block in read for row in block.rows or ()][-1] >= 32
    assert sum(len(block.data) for block in blocks) >= len(plain)  # it goes on in columns


def test_it_goes_on_behind_any_block(given: Callable[..., CsvInput]) -> None:
    data = HEAD + b'1,2,3,4,"x\ny"\n' * 20 + b"1,2,3,4,x\n" * 50
    complete = list(given(data))
    for place, (_, position) in enumerate(complete):
        again = given(data)
        assert again.pass_to(position)
        rest = list(again)
        assert rest[-1:] == complete[-1:] or place == len(complete) - 1
        assert again.position == complete[-1][1]
    other = given(data.replace(b"1", b"5", 1))
    assert not other.pass_to(complete[2][1])


def test_a_header_that_does_not_fit_is_refused(given: Callable[..., CsvInput]) -> None:
    with pytest.raises(InvalidInput, match="expected a column d"):
        given(b"a,b,c\n1,2,3\n")


def test_a_line_that_is_too_long_is_a_bad_row(scorer: Open) -> None:
    toy = scorer("toy")
    settings = type(toy.settings)(models_dir=toy.settings.models_dir, max_body_bytes=20)
    data = b"a,b,c,d\n1,2,3,4\n" + b"1" * 50 + b",2,3,4\n5,6,7,8\n"
    blocks = [block for block, _ in CsvInput(io.BytesIO(data), toy.model, settings, keep=False)]
    answers = [block.answer(toy) for block in blocks]
    assert [each for answer in answers for each in answer.bad] == [
        "line 3: expected at most 20 bytes, got more"
    ]
    assert [row["line"] for answer in answers for row in answer.table.to_pylist()] == [2, 4]
