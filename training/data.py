"""Rows to train on: read them from the data folder, verify, download, parse, split."""

import csv
import gzip
import hashlib
import io
import math
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import torch
from msgspec import Struct
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm import tqdm

from training.errors import DataUnavailable, InvalidData

LARGEST = torch.finfo(torch.float32).max
DOWNLOAD_ROUNDS = 3  # how often every mirror is asked before giving up


class File(Struct, frozen=True, kw_only=True):
    """A data file: its place in the data folder, its digest, and where it can be had.

    `sha256` is that of the content, in hex: of the unpacked bytes when `path` ends in `.gz`,
    because the packed bytes differ from mirror to mirror.
    """

    path: str
    sha256: str
    urls: tuple[str, ...]


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


def data_dir() -> Path:
    """Return the data folder: `TORCHLIT_DATA_DIR`, or `data` where that is not set."""
    return Path(os.environ.get("TORCHLIT_DATA_DIR") or "data")


def read(file: File) -> bytes:
    """Read the verified content of a data file; download it first where it is missing.

    Raises DataUnavailable, or InvalidData when the file is not the one expected.
    """
    path = data_dir() / file.path
    if not path.exists():
        with httpx.Client(follow_redirects=True, timeout=30) as client:
            download(file, path, client)
    return _verified(read_unverified(file.path), file, str(path))


def read_unverified(name: str) -> bytes:
    """Read a file of the data folder whose digest nobody knows. Raises DataUnavailable."""
    path = data_dir() / name
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataUnavailable(f"{path} is missing: put the file there") from error
    except OSError as error:
        raise DataUnavailable(f"{path}: cannot be read: {error.strerror}") from error


def download(file: File, path: Path, client: httpx.Client, backoff_s: float = 1.0) -> None:
    """Fetch a data file from the first mirror that has the right bytes, and put it at `path`.

    It is written beside, checked, then renamed. Asks every mirror DOWNLOAD_ROUNDS times,
    waiting `backoff_s`, then twice that, between the rounds. Raises DataUnavailable.
    """
    reason = "no mirror is known"
    for attempt in range(DOWNLOAD_ROUNDS):
        time.sleep(backoff_s * attempt)
        for url in file.urls:
            try:
                return _fetch(url, file, path, client)
            except (httpx.HTTPError, InvalidData) as error:
                reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            except OSError as error:
                raise DataUnavailable(f"{path}: cannot be written: {error.strerror}") from error
    unpacked = "unpacked " if path.suffix == ".gz" else ""
    raise DataUnavailable(
        f"{path} is missing and could not be downloaded ({reason}): put the file there, from "
        f"{' or '.join(file.urls)}, its {unpacked}content having SHA-256 {file.sha256}"
    )


def _fetch(url: str, file: File, path: Path, client: httpx.Client) -> None:
    # Not encoded, and raw: a .gz must arrive as it is, not unpacked on the way.
    with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            staged = Path(folder) / path.name
            _write(response, staged)
            _verified(staged.read_bytes(), file, url)
            staged.replace(path)


def _write(response: httpx.Response, path: Path) -> None:
    total = int(response.headers.get("Content-Length", 0)) or None
    with (
        path.open("wb") as out,
        tqdm(desc=path.name, total=total, unit="B", unit_scale=True, disable=None) as bar,
    ):
        for chunk in response.iter_raw():
            bar.update(out.write(chunk))


def _verified(packed: bytes, file: File, where: str) -> bytes:
    content = packed
    if file.path.endswith(".gz"):
        try:
            content = gzip.decompress(packed)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidData(f"{where}: expected a whole gzip file, got: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        raise InvalidData(f"{where}: expected content with SHA-256 {file.sha256}, got {digest}")
    return content


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
    """Parse a CSV file of whole numbers from 0 to 255: uint8 (n, columns).

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
    """Say which line, counted from `first`, is not so many whole numbers from 0 to 255."""
    for number, line in enumerate(lines, start=first):
        cells = line.decode(errors="replace").split(",")
        if len(cells) != columns:
            return f"line {number}: expected {columns} values, got {len(cells)}"
        for cell in cells:
            if not cell.strip().isdecimal() or int(cell) > 255:
                return f"line {number}: expected a whole number from 0 to 255, got {cell[:40]!r}"
    return f"expected lines of {columns} whole numbers from 0 to 255, got what NumPy cannot read"


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
    parts = train_test_split(
        range(len(rows.inputs)),
        train_size=train_rows,
        random_state=seed,
        stratify=rows.targets.numpy() if stratify else None,
    )
    train, held_out = (rows.take(torch.tensor(part)) for part in parts)
    return train, held_out
