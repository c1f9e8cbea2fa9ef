import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from service.batch import Scorer, table_blocks
from service.batch.answered import Position
from service.batch.parquet_blocks import ParquetInput
from service.errors import CannotScore, InvalidInput

Open = Callable[[str], Scorer]
COUNT = 50


def rows(count: int = COUNT) -> pa.Table:
    random = np.random.default_rng(0)
    town = pa.array([f"t{n % 3}" for n in range(count)]).dictionary_encode()
    return pa.table({"town": town} | {each: random.uniform(0, 9, count) for each in "dcba"})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Row groups of 20, 20 and 10 rows; a block is 8 of them."""
    monkeypatch.setattr(table_blocks, "MOST_ROWS", 8)
    path = tmp_path / "in.parquet"
    parquet.write_table(rows(), path, row_group_size=20)
    return path


def answers(blocks: list[Any], scorer: Scorer) -> pa.Table:
    return pa.Table.from_batches([each.answer(scorer).table for each in blocks])


def test_blocks_are_the_rows_in_order_in_whatever_order_they_are_answered(
    file: Path, scorer: Open
) -> None:
    toy = scorer("toy")
    given = list(ParquetInput(file, toy, keep=True))
    blocks = [pickle.loads(pickle.dumps(block)) for block, _ in given]
    sizes = [8, 8, 4, 8, 8, 4, 8, 2]
    assert [each.stop - each.start for each in blocks] == sizes
    assert [position.number for _, position in given] == np.cumsum(sizes).tolist()
    positions = [position.bytes for _, position in given]
    assert positions == sorted(positions)
    assert positions[-1] <= file.stat().st_size

    found = answers(blocks, toy)
    assert found.column("row").to_pylist() == list(range(1, COUNT + 1))
    assert found.column("town").to_pylist() == rows().column("town").to_pylist()
    expected = toy(rows().drop_columns("town"))
    assert found.drop_columns(["row", "town"]) == expected.drop_columns("error").combine_chunks()
    other = [5, 0, 2, 1, 7, 6, 3, 4]
    again = answers([blocks[each] for each in other], toy).sort_by("row")
    assert again.to_pylist() == found.to_pylist()


def test_a_position_is_that_of_the_same_rows_alone(file: Path, scorer: Open) -> None:
    toy = scorer("toy")
    given = list(ParquetInput(file, toy, keep=False))
    for place, (_, position) in enumerate(given):
        again = ParquetInput(file, toy, keep=False)
        assert again.pass_to(position)
        assert list(again) == given[place + 1 :]
    changed = pa.concat_tables([rows().slice(1), rows(1)])
    parquet.write_table(changed, file, row_group_size=20)
    assert not ParquetInput(file, toy, keep=False).pass_to(given[0][1])
    parquet.write_table(rows().slice(0, 5), file)
    assert not ParquetInput(file, toy, keep=False).pass_to(given[4][1])
    assert not ParquetInput(file, toy, keep=False).pass_to(Position(2**62, 2**62, ""))


def test_what_is_appended_changes_nothing_that_was_passed(file: Path, scorer: Open) -> None:
    toy = scorer("toy")
    position = [each for _, each in ParquetInput(file, toy, keep=False)][4]
    parquet.write_table(pa.concat_tables([rows(), rows(9)]), file, row_group_size=20)
    assert ParquetInput(file, toy, keep=False).pass_to(position)


def test_blocks_of_wide_rows_are_few_rows(
    tmp_path: Path, scorer: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_blocks, "MOST_BYTES", 4 * 8 * 5)
    path = tmp_path / "in.parquet"
    parquet.write_table(rows().drop_columns("town"), path)
    blocks = [block for block, _ in ParquetInput(path, scorer("toy"), keep=False)]
    assert 1 <= blocks[0].size <= 5


def test_a_file_that_cannot_be_read_is_one_sentence(file: Path, scorer: Open) -> None:
    toy = scorer("toy")
    blocks = [block for block, _ in ParquetInput(file, toy, keep=False)]
    data = file.read_bytes()
    file.write_bytes(data[:-9])
    with pytest.raises(CannotScore, match=r"in\.parquet: expected Parquet, got: "):
        ParquetInput(file, toy, keep=False)
    with pytest.raises(CannotScore, match=r"in\.parquet: cannot be read: "):
        blocks[0].answer(toy)
    parquet.write_table(rows(3), file)
    with pytest.raises(CannotScore, match=r"in\.parquet: cannot be read: it changed while"):
        blocks[0].answer(toy)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"a": [1.0], "b": [1.0], "c": [1.0]}, "in.parquet: table: expected a column d, got none"),
        (
            {"a": [1.0], "b": [1.0], "c": [1.0], "d": ["x"]},
            "in.parquet: d: expected a column with a number in each row, got string",
        ),
    ],
)
def test_columns_that_fit_no_row_are_refused_before_any_is_read(
    tmp_path: Path, scorer: Open, columns: dict[str, Any], sentence: str
) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "in.parquet")
    with pytest.raises(InvalidInput) as raised:
        ParquetInput(tmp_path / "in.parquet", scorer("toy"), keep=False)
    assert str(raised.value).replace(f"{tmp_path}/", "") == sentence


def test_the_index_of_a_frame_is_kept_but_no_feature(scorer: Open, tmp_path: Path) -> None:
    table = pa.table({each: [1.0] for each in "abcdef"} | {"id": ["x"]})
    path = tmp_path / "in.parquet"
    said = {"pandas": '{"index_columns": ["id"]}'}
    parquet.write_table(table.replace_schema_metadata(said), path)
    (answered,) = answers(
        [each for each, _ in ParquetInput(path, scorer("same"), keep=True)], scorer("same")
    ).to_pylist()
    assert answered["id"] == "x"


def test_a_page_that_is_not_as_it_was_written_is_refused(scorer: Open, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({name: [1.0, 2.0, 3.0, 4.0] for name in "abcd"})
    parquet.write_table(
        table, path, write_page_checksum=True, use_dictionary=False, compression="none"
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(np.float64(3).tobytes(), np.float64(5).tobytes(), 1))
    toy = scorer("toy")
    ((block, _),) = ParquetInput(path, toy, keep=False)
    with pytest.raises(CannotScore, match=r"cannot be read: .*CRC"):
        block.answer(toy)


def test_a_file_that_takes_the_place_of_another_is_not_mixed_in(file: Path, scorer: Open) -> None:
    toy = scorer("toy")
    blocks = [block for block, _ in ParquetInput(file, toy, keep=False)]
    blocks[0].answer(toy)
    other = file.with_name("other.parquet")
    parquet.write_table(pa.concat_tables([rows().slice(1), rows(1)]), other, row_group_size=20)
    other.replace(file)
    with pytest.raises(CannotScore, match="it changed while it was read"):
        blocks[3].answer(toy)  # of the next row group
