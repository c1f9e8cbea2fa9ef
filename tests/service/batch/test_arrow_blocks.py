import io
import pickle
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather

from service.batch import Scorer, table_blocks
from service.batch.arrow_blocks import ArrowInput
from service.errors import CannotScore

Open = Callable[[str], Scorer]
ROWS = pa.table({"id": list("uvwxyz")} | {each: [float(n) for n in range(6)] for each in "abcd"})


def stream(rows: pa.Table = ROWS) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as out:
        out.write_table(rows, max_chunksize=5)
    return sink.getvalue()


def as_file(rows: pa.Table = ROWS, **options: Any) -> bytes:
    sink = io.BytesIO()
    feather.write_feather(rows, sink, chunksize=5, **options)
    return sink.getvalue()


@pytest.fixture
def given(scorer: Open, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], ArrowInput]:
    """Return what opens a file; a block is two rows."""
    monkeypatch.setattr(table_blocks, "MOST_ROWS", 2)

    def given(data: bytes) -> ArrowInput:
        return ArrowInput(io.BufferedReader(io.BytesIO(data)), "in", scorer("toy"), keep=True)

    return given


@pytest.mark.parametrize("data", [stream(), as_file(), as_file(compression="zstd")])
def test_files_and_streams_are_read_in_slices(
    given: Callable[[bytes], ArrowInput], scorer: Open, data: bytes
) -> None:
    toy = scorer("toy")
    blocks = [pickle.loads(pickle.dumps(block)) for block, _ in given(data)]
    batches = [each.answer(toy).table for each in blocks]
    assert [each.num_rows for each in batches] == [2, 2, 1, 1]
    found = pa.Table.from_batches(batches)
    assert found.column("row").to_pylist() == [1, 2, 3, 4, 5, 6]
    assert found.column("id").to_pylist() == list("uvwxyz")
    assert found.column("label").to_pylist() == toy(ROWS.drop_columns("id"))["label"].to_pylist()
    assert len(blocks[0].data) < len(stream())  # a slice carries its own rows alone


def test_a_position_is_that_of_the_same_rows_alone(given: Callable[[bytes], ArrowInput]) -> None:
    blocks = list(given(stream()))
    for place, (_, position) in enumerate(blocks):
        again = given(stream())
        assert again.pass_to(position)
        assert list(again) == blocks[place + 1 :]
        changed = ROWS.set_column(1, "a", pa.array([9.0, *range(1, 6)]))
        assert not given(stream(changed)).pass_to(position)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "expected Arrow, got"),
        (b"no table", "expected Arrow, got"),
        (as_file()[:-30], "expected Arrow, got"),
        (stream()[:-300], "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    given: Callable[[bytes], ArrowInput], data: bytes, why: str
) -> None:
    with pytest.raises(CannotScore, match=rf"^in: {why}: [^\n]+$"):
        list(given(data))


NUMBERS = {name: [1.0, 2.0] for name in "abcd"}
NOT_UTF8 = pa.array([b"a", b"\xff"]).view(pa.string())


def of_stream(table: pa.Table, scorer: Scorer) -> ArrowInput:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    file = io.BufferedReader(io.BytesIO(sink.getvalue().to_pybytes()))
    return ArrowInput(file, "rows", scorer, keep=True)


def test_a_file_in_a_pipe_says_that_it_is_read_from_its_end(scorer: Open) -> None:
    class Pipe(io.BufferedReader):
        def seekable(self) -> bool:
            return False

    with pytest.raises(CannotScore, match="-: cannot be read: expected a stream of Arrow, got a"):
        ArrowInput(Pipe(io.BytesIO(as_file())), "-", scorer("toy"), keep=False)


def test_dictionaries_within_lists_are_kept_as_their_values(scorer: Open) -> None:
    words = pa.array(["x", "y"]).dictionary_encode()
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), words)
    table = pa.table(
        NUMBERS | {"lists": lists, "structs": pa.StructArray.from_arrays([words], "w")}
    )
    given = of_stream(table, scorer("toy"))
    ((block, _),) = given
    kept = block.answer(scorer("toy")).table.select(["lists", "structs"])
    assert kept.schema == given.kept
    assert given.kept.types == [pa.list_(pa.string()), pa.struct({"w": pa.string()})]
    assert kept.to_pydict() == {"lists": [["x"], ["y"]], "structs": [{"w": "x"}, {"w": "y"}]}


def test_what_cannot_be_without_dictionaries_is_refused_at_once(scorer: Open) -> None:
    type = pa.list_(pa.dictionary(pa.int8(), pa.list_(pa.int8())))
    table = pa.table(NUMBERS | {"x": pa.nulls(2, type)})
    with pytest.raises(CannotScore, match="column 'x': cannot be kept: Unsupported cast from dict"):
        of_stream(table, scorer("toy"))


def test_strings_that_are_none_are_not_kept(scorer: Open) -> None:
    ((block, _),) = of_stream(pa.table(NUMBERS | {"word": NOT_UTF8}), scorer("toy"))
    with pytest.raises(CannotScore, match=r"column 'word': cannot be kept: .*UTF8"):
        block.answer(scorer("toy"))
