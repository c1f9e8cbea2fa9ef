import struct

import numpy as np
import pytest
import torch

from training.errors import InvalidData
from training.rows import Rows, parse_bytes_csv, parse_csv, parse_idx, parse_labels, split, to_idx

# Parsing


def idx(values: np.ndarray) -> bytes:
    """Write an IDX file by the format's description."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def test_idx_gives_back_what_was_written() -> None:
    values = np.arange(24).reshape(2, 3, 4) * 10 % 256
    read = parse_idx(idx(values), (2, 3, 4), "toy")
    assert np.array_equal(read.numpy(), values)
    assert to_idx(read) == idx(values)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "toy: expected an IDX file with magic number 00000802, got an empty file"),
        (b"P5 28", "toy: expected an IDX file with magic number 00000802, got 50352032"),
        (
            idx(np.zeros(6)),
            "toy: expected an IDX file with magic number 00000802, got 00000801",
        ),
        (idx(np.zeros((3, 3))), "toy: expected (2, 3) values in its header, got (3, 3)"),
        (idx(np.zeros((2, 3)))[:9], "toy: expected (2, 3) values in its header, got (2, 0)"),
        (idx(np.zeros((2, 3)))[:-1], "toy: expected 6 values, got 5"),
        (idx(np.zeros((2, 3))) + b"\0", "toy: expected 6 values, got 7"),
    ],
)
def test_bad_idx_is_named(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidData) as caught:
        parse_idx(content, (2, 3), "toy")
    assert str(caught.value) == sentence


def test_csv_columns_are_found_by_name() -> None:
    table = parse_csv(b'"a","b","c"\n1,"2",3\r\n4,5e-1,6\n', ["c", "b"], "toy")
    assert table.dtype == torch.float32
    assert table.tolist() == [[3, 2], [6, 0.5]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "toy: expected a header and rows, got 0 lines"),
        (b"a,b\n", "toy: expected a header and rows, got 1 lines"),
        (b"a,c\n1,2\n", "toy: expected one column 'b', got a, c"),
        (b"a,b,b\n1,2,3\n", "toy: expected one column 'b', got a, b, b"),
        (b"a,b\n1,2\n3\n", "toy: line 3: expected 2 values, got 1"),
        (b"a,b\n1,2\n3,4,5\n", "toy: line 3: expected 2 values, got 3"),
        (b"a,b\n1,wide\n", "toy: line 2: b: expected a finite number, got 'wide'"),
        (b"a,b\n1,\n", "toy: line 2: b: expected a finite number, got ''"),
        (b"a,b\nnan,2\n", "toy: line 2: a: expected a finite number, got 'nan'"),
        (b"a,b\n1,1e999\n", "toy: line 2: b: expected a finite number, got '1e999'"),
        (b"a,b\n1,1e39\n", "toy: line 2: b: expected a finite number, got '1e39'"),
        (b"a,b\n\n1,x\n", "toy: line 3: b: expected a finite number, got 'x'"),
    ],
)
def test_bad_csv_is_named_with_its_line(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidData) as caught:
        parse_csv(content, ["a", "b"], "toy")
    assert str(caught.value) == sentence


def test_mark_at_the_begin_and_empty_lines_are_passed_over() -> None:
    content = b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n3,4\r\n\r\n"
    assert parse_csv(content, ["a", "b"], "toy").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("content", [b"a,b\n\xff,2\n", b'a,b\n1,"2\n'])
def test_what_is_no_csv_is_named(content: bytes) -> None:
    with pytest.raises(InvalidData, match=r"^toy: expected a CSV file in UTF-8, got: "):
        parse_csv(content, ["a", "b"], "toy")


@pytest.mark.parametrize(
    "content",
    [b"7,0\n0,255", b"7,0\r\n0,255\r\n", b"label,1x1\n7,0\n0,255\n", b'"a","b"\n7,0\n0,255'],
)
def test_csv_of_bytes_is_read_with_and_without_a_header(content: bytes) -> None:
    values = parse_bytes_csv(content, 2, "toy")
    assert values.dtype == torch.uint8
    assert values.tolist() == [[7, 0], [0, 255]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "expected rows, got 0 lines"),
        (b"label,1x1\n", "expected rows, got 1 lines"),
        (b"label,1x1\n1,2\n3\n", "line 3: expected 2 values, got 1"),
        (b"1,2\n\n3,4\n", "line 2: expected 2 values, got 1"),
        (b"1,2,3\n4,5,6\n", "line 1: expected 2 values, got 3"),
        (b"1,2\n3,x\n", "line 2: expected an integer from 0 to 255, got 'x'"),
        (b"1,256\n", "line 1: expected an integer from 0 to 255, got '256'"),
        (b"1,-1\n", "line 1: expected an integer from 0 to 255, got '-1'"),
        (b"1,2.5\n", "line 1: expected an integer from 0 to 255, got '2.5'"),
        (b"1,nan\n", "line 1: expected an integer from 0 to 255, got 'nan'"),
        (b"1,#\n", "line 1: expected an integer from 0 to 255, got '#'"),
        (b"1,\xff\n", "line 1: expected an integer from 0 to 255, got '\ufffd'"),
    ],
)
def test_bad_csv_of_bytes_is_named_with_its_line(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidData) as caught:
        parse_bytes_csv(content, 2, "toy")
    assert str(caught.value) == f"toy: {sentence}"


def test_labels_become_their_indices() -> None:
    assert parse_labels(b"a,b\n1,no\n2,yes\n", "b", ["yes", "no"], "toy").tolist() == [1, 0]
    with pytest.raises(InvalidData, match="toy: line 2: b: expected one of yes, no, got 'nein'"):
        parse_labels(b"b\nnein\n", "b", ["yes", "no"], "toy")


# Splitting


def numbered(count: int) -> Rows:
    """Rows whose input is their number, and whose label is 1 for every fourth."""
    numbers = torch.arange(count)
    return Rows(inputs=numbers.float()[:, None], targets=(numbers % 4 == 0).long())


def test_split_gives_every_row_to_one_part() -> None:
    train, held_out = split(numbered(100), 70, seed=0)
    assert (len(train.inputs), len(held_out.inputs)) == (70, 30)
    together = torch.cat([train.inputs, held_out.inputs])[:, 0]
    assert together.sort().values.tolist() == list(range(100))


def test_split_keeps_inputs_and_targets_together() -> None:
    for part in split(numbered(100), 70, seed=0):
        assert torch.equal(part.targets, (part.inputs[:, 0] % 4 == 0).long())


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = (split(numbered(100), 70, seed)[0].inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_stratified_split_keeps_the_share_of_each_label() -> None:
    for seed in range(5):
        train, held_out = split(numbered(100), 60, seed, stratify=True)
        assert [int(part.targets.sum()) for part in (train, held_out)] == [15, 10]
