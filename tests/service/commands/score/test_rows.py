import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from service.commands.score.output import Mark
from service.commands.score.rows import Source, are_batched
from service.engine.model import Model
from service.errors import InvalidInput
from service.formats.registry import CSV, JSON, JSON_LINES, MSGPACK
from service.settings import Settings
from tests.support.bodies import told
from tests.support.toys import save_same, save_toy, toy_card

ROWS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
CONTENTS = {
    "csv": b"a,b,c,d\n1,2,3,4\n5,6,7,8\n9,10,11,12\n",
    "headless": b"1,2,3,4\n5,6,7,8\n9,10,11,12\n",
    "jsonl": b"[1,2,3,4]\n[5,6,7,8]\n[9,10,11,12]\n",
    "msgpack": b"".join(map(msgspec.msgpack.encode, ROWS)),
}
FORMATS = {"csv": CSV, "headless": CSV, "jsonl": JSON_LINES, "msgpack": MSGPACK}


@pytest.fixture
def toy(tmp_path: Path) -> Model:
    return Model.open(save_toy(tmp_path, card=toy_card()), max_batch_size=2)


def source(file: Any, format: Any, model: Model, **settings: Any) -> Source:
    return Source(file, format, model, Settings(max_batch_size=2, **settings), keep=False)


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("start", [0, 5])
def test_rows_are_read_from_where_the_file_is_and_again_from_a_mark(
    toy: Model, tmp_path: Path, kind: str, start: int
) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"x" * start + CONTENTS[kind])
    marks = []
    with path.open("rb") as file:
        file.seek(start)
        first = source(file, FORMATS[kind], toy)
        assert (first.is_file, first.size) == (True, len(CONTENTS[kind]))
        rows = []
        for row in first.rows:
            rows.append(row)
            tape = first.tape
            digest = tape.sha256.hexdigest()
            marks.append(
                Mark(job={}, input_sha256=digest, input_bytes=tape.offset, lines=tape.number)
            )
    assert [numbers for _, numbers in told(rows)] == ROWS
    assert marks[-1].input_sha256 == hashlib.sha256(CONTENTS[kind]).hexdigest()
    for index, mark in enumerate(marks, 1):
        with path.open("rb") as file:
            file.seek(start)
            again = source(file, FORMATS[kind], toy)
            assert again.pass_to(mark)
            assert told(again.rows) == told(rows[index:])
            assert again.tape.sha256.hexdigest() == marks[-1].input_sha256


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_that_changed_is_read_from_the_beginning_again(
    toy: Model, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "in"
    path.write_bytes(CONTENTS[kind])
    with path.open("rb") as file:
        changed = source(file, FORMATS[kind], toy)
        for mark in (Mark(job={}, input_sha256="0", input_bytes=9, lines=1), Mark(job={})):
            assert not changed.pass_to(mark)
        assert [numbers for _, numbers in told(changed.rows)] == ROWS


def test_a_pipe_cannot_be_gone_on_with(toy: Model) -> None:
    reader, writer = os.pipe()
    os.write(writer, CONTENTS["csv"])
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        piped = source(file, CSV, toy)
        assert (piped.is_file, piped.size) == (False, 0)
        assert not piped.pass_to(Mark(job={}))
        assert [numbers for _, numbers in told(piped.rows)] == ROWS


def test_a_header_that_does_not_fit_is_refused(toy: Model, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"a,b,c,e\n")
    with path.open("rb") as file, pytest.raises(InvalidInput, match="a column d, got none"):
        source(file, CSV, toy)
    with path.open("rb") as file, pytest.raises(RuntimeError, match="This is a bug"):
        source(file, JSON, toy)


def test_only_whole_batches_that_were_tried_are_run_together(toy: Model, tmp_path: Path) -> None:
    alone = Model.open(save_same(tmp_path, [1, 4]), max_batch_size=2)
    path = tmp_path / "in"
    path.write_bytes(b"1,2,3,4\n")
    for model, settings, is_batched in (
        (toy, Settings(max_batch_size=2), True),
        (toy, Settings(max_batch_size=4), False),  # of so many nobody knows
        (alone, Settings(max_batch_size=2), False),
    ):
        assert are_batched(model, settings) == is_batched
        with path.open("rb") as file:
            found = Source(file, CSV, model, settings, keep=False)
        assert found.batch_size == (2 if is_batched else 1)
