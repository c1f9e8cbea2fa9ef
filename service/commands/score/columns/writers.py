"""Answers as bytes, written block by block, and what these become in the end.

CSV is text; a block of compressed CSV is a member of gzip, or a frame of zstd. Everything else is
a stream of Arrow, of which Parquet or a file of Arrow is made when it is complete: neither can be
gone on with before its end is written.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from pyarrow import parquet

from service.batch.inputs import is_binary
from service.batch.scorer import Scorer
from service.commands.score.conversion import Convert, Growing
from service.commands.score.layout import check_names, columns_of
from service.commands.score.suffixes import CSV, PARQUET, Kind
from service.errors import CannotScore

_END = b"\xff\xff\xff\xff\0\0\0\0"  # of a stream of Arrow (specification, "IPC Streaming Format")
_GROUP_ROWS, _GROUP_BYTES = 2**18, 2**25  # of a row group of Parquet
_MARKS = (b'"', b",", b"\r", b"\n")  # cells with one of these are quoted
_TO_QUOTE = f"[{b''.join(_MARKS).decode()}]"
_GZIP_LEVEL = 1  # 6 takes longer than the model


class Writer(Struct, frozen=True):
    """Makes bytes of answers. It is pickled, and works in each worker."""

    kind: Kind
    compression: str  # "gz", "zst" or ""
    schema: pa.Schema
    names: list[str]  # of CSV, where a list stands in several columns

    def head(self) -> bytes:
        """Return what stands before all answers."""
        if self.kind != CSV:
            return bytes(self.schema.serialize())
        return self._compressed(_lines([pa.array([each]) for each in self.names]))

    def encode(self, batch: pa.RecordBatch) -> bytes:
        """Return the answers to some rows."""
        if self.kind == CSV:
            columns = [each for column in batch.columns for each in _flat(column)]
            return self._compressed(_lines(columns)) if batch.num_rows else b""
        if not batch.num_rows:
            return b""
        batch = pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
        return bytes(batch.serialize())

    def tail(self) -> bytes:
        """Return what stands behind them."""
        return b"" if self.kind == CSV else _END

    def _compressed(self, text: bytes) -> bytes:
        if self.compression == "gz":
            return gzip.compress(text, _GZIP_LEVEL, mtime=0)
        if self.compression == "zst":
            return bytes(pa.Codec("zstd").compress(text, asbytes=True))
        return text

    @property
    def convert(self) -> Convert | None:
        """What makes the result of a complete part; None where the part is the result."""
        if self.kind == CSV or self.kind.name == "arrows":
            return None
        return _to_parquet if self.kind == PARQUET else _to_file


def writer_of(kind: Kind, suffix: str, before: pa.Schema, scorer: Scorer) -> Writer:
    """Return what writes some columns, and behind them the answers.

    Raises CannotScore where two have one name, or one has values that the kind does not hold.
    """
    names = before.names
    if kind == CSV:
        for each in before:
            if not _is_a_cell(each.type):
                raise CannotScore(
                    f"column {each.name!r}: expected single values for CSV, got {each.type}: write "
                    "Parquet or Arrow"
                )
        names += columns_of(scorer.model)
        check_names("column", names, "rename one, or write JSON Lines (.jsonl)")
    else:
        for each in before:
            if kind == PARQUET and not _is_of_parquet(each):
                raise CannotScore(
                    f"column {each.name!r}: expected values of a type that Parquet has, got "
                    f"{each.type}: write Arrow"
                )
        names += scorer.schema.names
        check_names("column", names, "rename one in INPUT")
    compression = suffix.rpartition(".")[2] if kind == CSV and suffix.count(".") > 1 else ""
    return Writer(kind, compression, pa.schema([*before, *scorer.schema]), names)


def _is_a_cell(type: pa.DataType) -> bool:
    """Whether the values of a kept column have a form as text."""
    if isinstance(type, pa.BaseExtensionType):
        return False
    if is_binary(type) or pa.types.is_fixed_size_binary(type):
        return False  # bytes may be no text
    try:
        values = pa.nulls(0, type)
        if pa.types.is_timestamp(type):  # its zone is looked up for a value
            values = pa.array([0], pa.int64()).cast(type)
        values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _is_of_parquet(field: pa.Field) -> bool:
    """Whether Parquet has such values as those of a kept column."""
    try:
        parquet.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
    except (OSError, pa.ArrowException):
        return False
    return True


def _flat(column: pa.Array) -> Iterator[pa.Array]:
    """Yield the columns of single values in a column of lists."""
    if not pa.types.is_fixed_size_list(column.type):
        yield column
        return
    for place in range(column.type.list_size):
        yield from _flat(pc.list_element(column, place))


def _lines(columns: list[pa.Array]) -> bytes:
    """Return columns as lines of CSV."""
    texts = [_texts(each) for each in columns]
    cells = pc.binary_join_element_wise(*texts, pa.scalar(",", pa.large_string()))
    empty, end = pa.scalar("", pa.large_string()), pa.scalar("\n", pa.large_string())
    lines = pc.binary_join_element_wise(cells, empty, end)
    return bytes(lines.buffers()[2])  # a text after the other


def _texts(column: pa.Array) -> pa.Array:
    """Return values as cells: floats as those of the JSON, booleans as Python has them."""
    type = column.type
    if pa.types.is_boolean(type):
        texts = pc.if_else(column, "True", "False")
    elif pa.types.is_floating(type):
        texts = column.cast(pa.float64()).cast(pa.string())
    elif pa.types.is_integer(type):
        texts = column.cast(pa.string())
    else:
        texts = _quoted(column.cast(pa.large_string()))
    return pc.fill_null(texts.cast(pa.large_string()), "")


def _quoted(texts: pa.Array) -> pa.Array:
    """Return cells (large_string) in quotation marks where they need them."""
    data = texts.buffers()[2]  # with those of other rows, of a slice
    if data is None or not any(mark in memoryview(data).tobytes() for mark in _MARKS):
        return texts
    are_special = pc.match_substring_regex(texts, _TO_QUOTE)
    if not pc.any(are_special).as_py():
        return texts
    doubled = pc.replace_substring(texts, '"', '""')
    mark, empty = pa.scalar('"', pa.large_string()), pa.scalar("", pa.large_string())
    return pc.if_else(are_special, pc.binary_join_element_wise(mark, doubled, mark, empty), texts)


def _to_parquet(part: Growing, result: Path) -> None:
    """Write a stream of Arrow as Parquet. Raises OSError, also for a value that is too large."""
    with pa.ipc.open_stream(part) as stream:
        texts = [
            each.name
            for each in stream.schema
            if pa.types.is_string(each.type) or pa.types.is_large_string(each.type)
        ]
        with parquet.ParquetWriter(result, stream.schema, use_dictionary=texts) as out:
            for group in _groups(stream):
                try:
                    out.write_table(pa.Table.from_batches(group), row_group_size=_GROUP_ROWS)
                except pa.ArrowException as error:
                    raise OSError(str(error)) from error


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield batches that make a row group."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _to_file(part: Growing, result: Path) -> None:
    """Write a stream of Arrow as a file. Raises OSError."""
    with (
        pa.ipc.open_stream(part) as stream,
        pa.OSFile(str(result), "wb") as sink,
        pa.ipc.new_file(sink, stream.schema) as out,
    ):
        for batch in stream:
            out.write_batch(batch)
