import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from service.commands.score.columns.unpacked import is_compressed, open_unpacked

Compress = Callable[[bytes], bytes]
DATA = b"".join(b"line %d\n" % n for n in range(10_000))


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(("name", "compress"), [("in.csv.gz", gzipped), ("in.csv.ZST", zstd)])
def test_a_file_of_several_members_is_what_they_hold(
    tmp_path: Path, name: str, compress: Compress
) -> None:
    path = tmp_path / name
    path.write_bytes(compress(DATA[:777]) + compress(DATA[777:]))
    assert is_compressed(name)
    with open_unpacked(path) as file:
        assert file.readline() == b"line 0\n"
        assert file.read() == DATA[7:]
        for place in (5, 50_000, 40_000, 0):
            assert file.seek(place) == place
            assert file.read(100) == DATA[place : place + 100]
        file.seek(2**62)  # as far as it goes
        assert file.read() == b""


@pytest.mark.parametrize(("name", "compress"), [("in.csv.gz", gzipped), ("in.csv.zst", zstd)])
@pytest.mark.parametrize("damage", ["cut", "none"])
def test_a_file_that_is_damaged_cannot_be_read(
    tmp_path: Path, name: str, compress: Compress, damage: str
) -> None:
    path = tmp_path / name
    path.write_bytes(compress(DATA)[:-9] if damage == "cut" else b"not compressed at all")
    with open_unpacked(path) as file, pytest.raises(OSError):  # noqa: PT011  # of many words
        file.read()


@pytest.mark.parametrize(("name", "compress"), [("in.csv.gz", gzipped), ("in.csv.zst", zstd)])
def test_a_file_that_is_cut_behind_a_member_cannot_be_read(
    tmp_path: Path, name: str, compress: Compress
) -> None:
    path = tmp_path / name
    data = np.random.default_rng(0).bytes(2**21)  # more than is read at once
    first = compress(data)
    path.write_bytes(first + compress(data))
    with open_unpacked(path) as file:
        assert file.read(10) == data[:10]
        os.truncate(path, len(first))
        with pytest.raises(OSError, match=f"got {len(first)}: it was cut while it was read"):
            file.read()
