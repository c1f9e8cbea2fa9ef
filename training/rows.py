"""Rows to train on: arrays of inputs and targets, how files become rows, and how they are split."""

import csv
import io
import math
import struct
from collections.abc import Sequence

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from training.errors import InvalidData

LARGEST = torch.finfo(torch.float32).max


class Rows(Struct, frozen=True, kw_only=True):
    """Rows and what is to be predicted from them.

    inputs: float32 (n, ...), raw units. targets: int64 (n,), the index of the label, or
    float32 (n, targets), raw units.
    """

    inputs: Tensor
    targets: Tensor

    def take(self, which: Tensor) -> "Rows":
        """Return the rows of these indices, int64 (m,), in this order."""
        return Rows(inputs=self.inputs[which], targets=self.targets[which])


def parse_idx(content: bytes, shape: tuple[int, ...], where: str) -> Tensor:
    """Parse an IDX file of unsigned bytes: uint8, of the shape expected.

    The format: two zero bytes, the type (8 = unsigned byte), the number of dimensions, each
    dimension as a big-endian uint32, then the values (http://yann.lecun.com/exdb/mnist/).
    Raises InvalidData naming `where`.
    """
    header = _idx_header(shape)
    if content[:4] != header[:4]:
        raise InvalidData(
            f"{where}: expected an IDX file with magic number {header[:4].hex()}, "
            f"got {content[:4].hex() or 'an empty file'}"
        )
    got = struct.unpack(f">{len(shape)}I", content[4 : len(header)].ljust(4 * len(shape), b"\0"))
    if got != shape:
        raise InvalidData(f"{where}: expected {shape} values in its header, got {got}")
    values = len(content) - len(header)
    if values != math.prod(shape):
        raise InvalidData(f"{where}: expected {math.prod(shape)} values, got {values}")
    flat = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header))
    return flat.reshape(shape)


def to_idx(values: Tensor) -> bytes:
    """Write what `parse_idx` reads: uint8, of any shape."""
    return _idx_header(tuple(values.shape)) + values.numpy().tobytes()


def _idx_header(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


def parse_bytes_csv(content: bytes, columns: int, where: str) -> Tensor:
    """Parse a CSV file of integers from 0 to 255: uint8 (n, columns).

    A first line that begins with a letter is a header and passed over. Raises InvalidData naming
    `where` and the line.
    """
    header = int(content.lstrip(b'"')[:1].isalpha())
    lines = content.splitlines()[header:]
    if not lines:
        raise InvalidData(f"{where}: expected rows, got {header} lines")
    try:
        values = np.loadtxt(lines, np.uint8, delimiter=",", ndmin=2, comments=None)
    except ValueError:
        values = np.empty((0, 0), np.uint8)
    if values.shape != (len(lines), columns):  # also where there is an empty line
        raise InvalidData(f"{where}: {_first_wrong(lines, columns, header + 1)}")
    return torch.from_numpy(values)


def _first_wrong(lines: Sequence[bytes], columns: int, first: int) -> str:
    """Return why a line, counted from `first`, is not so many integers from 0 to 255."""
    for number, line in enumerate(lines, start=first):
        cells = line.decode(errors="replace").split(",")
        if len(cells) != columns:
            return f"line {number}: expected {columns} values, got {len(cells)}"
        for cell in cells:
            if not cell.strip().isdecimal() or int(cell) > 255:
                return f"line {number}: expected an integer from 0 to 255, got {cell[:40]!r}"
    return f"expected lines of {columns} integers from 0 to 255, got what NumPy cannot read"


def parse_csv(content: bytes, columns: Sequence[str], where: str) -> Tensor:
    """Parse the named columns of a CSV file with a header: float32 (n, len(columns)).

    Raises InvalidData naming `where` and the line: a missing column, a line of another length,
    no rows, or a value that is not a finite number.
    """
    rows = []
    for number, cells in _cells(content, columns, where):
        named = zip(columns, cells, strict=True)
        rows.append([_number(cell, f"{where}: line {number}: {name}") for name, cell in named])
    return torch.tensor(rows, dtype=torch.float32)


def parse_labels(content: bytes, column: str, labels: Sequence[str], where: str) -> Tensor:
    """Parse one column of a CSV file with a header, of labels: int64 (n,), the index of each.

    Raises InvalidData as parse_csv does, and for a value that is none of the labels.
    """
    indices = []
    for number, (cell,) in _cells(content, [column], where):
        if cell not in labels:
            raise InvalidData(
                f"{where}: line {number}: {column}: expected one of {', '.join(labels)}, "
                f"got {cell[:40]!r}"
            )
        indices.append(labels.index(cell))
    return torch.tensor(indices)


def _cells(content: bytes, columns: Sequence[str], where: str) -> list[tuple[int, list[str]]]:
    """Return the number of each line, and what stands in these columns of it."""
    try:
        text = content.decode("utf-8-sig")  # spreadsheets begin a file with a mark
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidData(f"{where}: expected a CSV file in UTF-8, got: {error}") from error
    if len(lines) < 2:
        raise InvalidData(f"{where}: expected a header and rows, got {len(lines)} lines")
    header = lines[0]
    for column in columns:
        if header.count(column) != 1:
            raise InvalidData(
                f"{where}: expected one column {column!r}, got {', '.join(header) or 'no header'}"
            )
    places = [header.index(column) for column in columns]
    cells = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) not in (0, len(header)):
            raise InvalidData(
                f"{where}: line {number}: expected {len(header)} values, got {len(line)}"
            )
        if line:  # an empty line is passed over
            cells.append((number, [line[i] for i in places]))
    return cells


def _number(text: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not abs(number) <= LARGEST:
        raise InvalidData(f"{where}: expected a finite number, got {text!r}")
    return number


def split(rows: Rows, train_rows: int, seed: int, *, stratify: bool = False) -> tuple[Rows, Rows]:
    """Split into rows to train on and rows held out, at random but always alike.

    `stratify` keeps the share of each label the same in both parts.
    """
    from sklearn.model_selection import train_test_split  # not for those who only parse: it is slow

    parts = train_test_split(
        range(len(rows.inputs)),
        train_size=train_rows,
        random_state=seed,
        stratify=rows.targets.numpy() if stratify else None,
    )
    train, held_out = (rows.take(torch.tensor(part)) for part in parts)
    return train, held_out
