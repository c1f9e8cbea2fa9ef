import csv
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from service.engine.model import Model
from service.errors import DeadlineExceeded, InvalidInput, RequestError, TooLarge
from service.formats import csv_rows
from service.formats.csv_rows import CsvRows
from service.formats.lines import Bad, Row
from service.formats.message import LARGEST_IN_LOOP, Slow
from service.formats.numbers import NOT_MISSING
from tests.support.bodies import file_rows, limits, told
from tests.support.toys import save_same

MAX_ROWS = 10
GOOD, FOUR = b"1,2,3,4\n", [1.0, 2.0, 3.0, 4.0]


class SlowWay(Exception):
    """The slow way was taken."""


@pytest.fixture
def four(same: dict[str, Model]) -> Model:
    return same["float32"]


def read(text: bytes, model: Model, **changes: Any) -> Any:
    return csv_rows.read(text, frozenset(), "text/csv").rows(model, limits(MAX_ROWS, **changes))


def one_way(text: bytes, model: Model, *, fast: bool) -> Any:
    """Return what came of reading in one of the two ways: rows, the words of an error, or nothing.

    Nothing is where the fast way cannot be gone.
    """

    def refuse(*_: object, **__: object) -> None:
        raise SlowWay

    with pytest.MonkeyPatch.context() as patch:
        if fast:
            patch.setattr(csv, "reader", refuse)
        else:
            patch.setattr(csv_rows, "read_lists", refuse)
        try:
            return read(text, model).tolist()
        except SlowWay:
            return None
        except RequestError as error:
            return f"{type(error).__name__}: {error}"


# A body.

cells = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).flatmap(
        lambda number: st.sampled_from(
            [f"{number!r}", f"{number:g}", f"{number:.9e}", f"{number:+}", f"{number:.3f}"]
        )
    ),
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(["1.", ".5", "00", "-0", "1e3", "1E+3", "1e", "", "x", "true", "null", "1e99"]),
)
padded = st.builds(
    "{}{}{}".format, st.sampled_from(["", " ", "\t"]), cells, st.sampled_from(["", " ", "\r", '"'])
)
lines = st.lists(st.one_of(cells, padded), min_size=3, max_size=5).map(",".join)
fitting = st.lists(cells, min_size=4, max_size=4).map(",".join)
ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\n \n", "\n\t\r\n"])
tables = st.lists(
    st.tuples(st.one_of(fitting, lines, st.just("")), ends), max_size=MAX_ROWS + 1
).map(lambda parts: "".join(line + end for line, end in parts))
quick = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=100, deadline=None, suppress_health_check=quick)
@given(text=tables)
def test_what_goes_the_fast_way_gives_the_rows_of_the_slow_one(text: str, four: Model) -> None:
    fast, slow = (one_way(text.encode(), four, fast=fast) for fast in (True, False))
    if fast is not None:
        assert fast == slow or (fast[:9] == "TooLarge:" and slow[:13] == "InvalidInput:")


@settings(max_examples=30, deadline=None, suppress_health_check=quick)
@given(
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4
        ),
        min_size=1,
        max_size=MAX_ROWS,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    form=st.sampled_from(["{!r}", "{:.17g}", " {!r}", "{!r} "]),
    last=st.booleans(),
)
def test_plain_csv_goes_the_fast_way(
    rows: list[list[float]], end: str, form: str, last: bool, four: Model
) -> None:
    text = end.join(",".join(map(form.format, row)) for row in rows) + (end if last else "")
    expected = np.array(rows, np.float32).tolist()
    assert one_way(text.encode(), four, fast=True) == expected
    assert one_way(text.encode(), four, fast=False) == expected


def test_one_that_cannot_go_the_fast_way_leaves_it_free(four: Model) -> None:
    """A parser of simdjson refuses while something that it parsed is alive."""
    for bad in (b"1,2,3\n", b"1,2,3,x\n", GOOD * (MAX_ROWS + 1), b"1,2,3,true\n"):
        with pytest.raises((InvalidInput, TooLarge)):
            read(bad, four)
        assert one_way(GOOD, four, fast=True) == [FOUR]


def test_what_is_plain_is_read_in_the_loop_however_large_it_is(four: Model) -> None:
    many = LARGEST_IN_LOOP // len(GOOD) + 1
    plain, other = GOOD * many, b"+1,2,3,4\n" * many
    in_loop, in_thread = limits(many, in_loop=True), limits(many)
    assert len(csv_rows.CsvMessage(plain).rows(four, in_loop)) == many
    message = csv_rows.CsvMessage(other)
    with pytest.raises(Slow):
        message.rows(four, in_loop)
    assert message.rows(four, in_thread).tolist() == [FOUR] * many


def long_text(*last: str) -> bytes:
    """Return CSV of several blocks: 40,000 lines, a blank one, and those."""
    return "\n".join(["1,2,3,4"] * 40_000 + ["", *last]).encode()


def read_long(text: bytes, model: Model, max_rows: int = 50_000, **changes: Any) -> Any:
    message = csv_rows.read(text, frozenset(), "text/csv")
    return message.rows(model, limits(max_rows, **changes))


@pytest.mark.parametrize("last", [["5,6,7,8"], ['"5",6,7,8'], ["5, 6,7,8\r"], ["+5,6,7,8", ""]])
def test_long_csv_is_read_in_a_thread_and_right(last: list[str], four: Model) -> None:
    text = long_text(*last)
    rows = read_long(text, four)
    assert rows.shape == (40_001, 4)
    assert rows[-2:].tolist() == [FOUR, [5, 6, 7, 8]]
    with pytest.raises(Slow):
        read_long(text, four, in_loop=True)


def test_what_does_not_fit_in_long_csv_is_refused_with_its_line(four: Model) -> None:
    for last in ("1,2,3,x", '1,2,3,"x"'):
        with pytest.raises(InvalidInput, match=r"^line 40002\[3\]: expected a number, got \"x\""):
            read_long(long_text(last), four)
    with pytest.raises(TooLarge, match=r"at most 40000 in one request, got 40001"):
        read_long(long_text("1,2,3,4"), four, 40_000)
    with pytest.raises(DeadlineExceeded):
        read_long(long_text("1,2,3,4"), four, deadline=0.0)
    for last in (b"\xff", b'"\xff"'):
        place = 320_007 + last.index(b"\xff")
        with pytest.raises(InvalidInput, match=f"in UTF-8, got byte {place} that is not"):
            read_long(long_text("1,2,3") + b"," + last, four)


def test_so_many_lines_cannot_be_rows_and_are_not_read(four: Model) -> None:
    for line in (b"\n", b"\r", b"x\n"):
        with pytest.raises(TooLarge, match=r"^body: expected at most 10 rows .*, got 21 lines$"):
            read(line * (2 * MAX_ROWS + 1), four)


@pytest.mark.parametrize(
    "text",
    [
        b"A,B,C,D\n1,2,3,4\n5,6,7,8\n",  # in the order of the model: the rest is read fast
        b'"d","c","b","a"\n4,3,2,1\n8,7,6,5\n',
        b"\xef\xbb\xbf\n,d,a (cm),b,c,class\r\n0,4,1,2,3,x\r\n1,8,5,6,7,y\r\n",
        b"sep=,\n1,2,3,4\n5,6,7,8\n",
        b"1;2;3;4\n5;6;7;8\n",
        b"sep=;\na;b;c;d\n1,0;2;3;4\n5;6;7;8\n",
        b"sep=|\nd|c|b|a\n4|3|2|1\n8|7|6|5\n",
        b"a\tb\tc\td\n1,0\t2\t3\t4\n5\t6\t7\t8\n",
        b"d;c;b;a;note\n4,0;3;2;1;x, y\n8;7;6;5;\n",
    ],
)
def test_a_body_is_read_as_people_write_it(text: bytes, toy: Model) -> None:
    assert read(text, toy).tolist() == [FOUR, [5, 6, 7, 8]]
    assert [row for _, row in of_file(text, toy)] == [FOUR, [5, 6, 7, 8]]


def test_what_stands_below_a_header_is_read_fast_where_it_can_be(toy: Model) -> None:
    text = b"a,b,c,d\n" + GOOD * 40_000
    with pytest.raises(Slow):
        read_long(text, toy, in_loop=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_rows, "_slow_rows", None)
        assert read_long(text, toy).shape == (40_000, 4)
    with pytest.raises(InvalidInput, match=r"^line 40002\.d: expected a number, got \"x\"$"):
        read_long(text + b"1,2,3,x\n", toy)


def test_a_header_is_one_if_the_media_type_says_so(four: Model) -> None:
    def said(header: str, text: bytes) -> Any:
        message = csv_rows.read(text, frozenset(), f"text/csv; header={header}")
        return message.rows(four, limits(MAX_ROWS)).tolist()

    assert said("present", b"p,q,r,s\n" + GOOD) == [FOUR]
    assert said("Present", b"0,1,2,3\n" + GOOD) == [FOUR]
    assert said('"absent"', GOOD + GOOD) == [FOUR, FOUR]


# A file.


def of_file(text: bytes, model: Model, **options: Any) -> list[tuple[int, list[float] | str]]:
    return told(file_rows(CsvRows, text, model, **options))


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        (b"a,b,c,d\n1.5,2,3,4\n0,-1,2.25,0.001\n", 2, 3),
        (b"1.5,2,3,4\n0,-1,2.25,0.001", 1, 2),
        (b"\n1.5,2,3,4\r\n   \r\n0,-1,2.25,0.001\r\n", 2, 4),
        (b"\xef\xbb\xbfa,b,c,d\r\n1.5,2,3,4\r\n0,-1,2.25,0.001\r\n", 2, 3),
        (b"\xef\xbb\xbf1.5,2,3,4\n0,-1,2.25,0.001\n", 1, 2),
        (b'd,note, b ,c,a\n4,"x, ""y""\nz",2,3,1.5\n1e-3,,-1,2.25,"0"\n', 2, 4),
        (b'"b","a","d","c"\n"2"," 1.5 ",4,"3"\n-1,0,.001,2.25\n', 2, 3),
    ],
    ids=["header", "no header", "blank lines", "signature", "signature alone", "others", "quoted"],
)
def test_ways_of_writing_the_same_csv(text: bytes, first: int, second: int, toy: Model) -> None:
    assert of_file(text, toy) == [(first, [1.5, 2, 3, 4]), (second, [0, -1, 2.25, 0.001])]


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("a,b,c,e", "line 1: expected a column d, got none"),
        ("a,b,cc,d", 'line 1: expected a column c, got none; is it "cc"?'),
        ("a,b,c,d,b", "line 1: expected one column b, got 2"),
        ("x,y,z,w", "line 1: expected a column a, got none"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(header: str, sentence: str, toy: Model) -> None:
    with pytest.raises(InvalidInput) as raised:
        file_rows(CsvRows, f"{header}\n1,2,3,4,5\n".encode(), toy)
    assert str(raised.value) == sentence


def test_columns_without_names_may_have_a_header_of_as_many(four: Model) -> None:
    assert of_file(b"p,q,r,s\n" + GOOD, four) == [(2, FOUR)]
    with pytest.raises(InvalidInput, match=r"^line 1: expected a header of 4 columns, got 3$"):
        file_rows(CsvRows, b"p,q,r\n" + GOOD, four)


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf\n  \n", b"a,b,c,d\n", b"sep=;\n"])
def test_a_file_of_nothing_has_no_rows(text: bytes, toy: Model) -> None:
    assert list(file_rows(CsvRows, text, toy)) == []


def test_what_is_beside_the_features_is_kept(toy: Model) -> None:
    text = b'id,a,b,"the, note",c,d\n7,1,2,"x\ny",3,4\n8,0,0,,0,0\n'
    rows = file_rows(CsvRows, text, toy)
    assert rows.kept_names == ["id", "the, note"]
    assert list(rows) == [Row(2, FOUR, ["7", "x\ny"]), Row(4, [0, 0, 0, 0], ["8", ""])]


def test_bad_rows_are_told_with_their_place(toy: Model) -> None:
    text = b"a,b,c,d\n1,2,3,4\n1,wide,3,4\n1,2,3\n0,0,0,nan\n0,0,0,1_0\n0,0,0,0"
    finite = "expected a finite number that fits float32 (at most 3.4e+38), got NaN"
    assert of_file(text, toy) == [
        (2, FOUR),
        (3, 'line 3.b: expected a number, got "wide"'),
        (4, "line 4: expected 4 values, got 3"),
        (5, f"line 5.d: {finite}"),
        (6, 'line 6.d: expected a number, got "1_0"'),
        (7, [0, 0, 0, 0]),
    ]


def test_whole_numbers_are_exact(same: dict[str, Model]) -> None:
    text = b"9007199254740993,-9007199254740993,1.0,2e3\n1,2,2.5,3\n"
    (_, numbers), (_, why) = of_file(text, same["int64"])
    assert numbers == [9007199254740993, -9007199254740993, 1, 2000]
    assert why == (
        "line 2[2]: expected a whole number from -9223372036854775808 to 9223372036854775807, "
        "got 2.5"
    )


def test_a_first_row_that_does_not_fit_is_no_header(toy: Model) -> None:
    assert of_file(b"1,wide,3,4\n" + GOOD, toy) == [
        (1, 'line 1.b: expected a number, got "wide"'),
        (2, FOUR),
    ]


def test_what_cannot_be_read_costs_its_own_line_only(toy: Model) -> None:
    text = b"".join([GOOD, b'"' + GOOD, GOOD, b'1,2"3,4,"x"y\n', GOOD, b"1,2,3,\xff\n", GOOD])
    text += b"1," * 60 + b"\n" + GOOD + b'1,2,3,"4'
    rows = of_file(text, toy, longest=100)
    assert [line for line, row in rows if row == FOUR] == [1, 3, 5, 7, 9]
    bad = {line: why for line, why in rows if isinstance(why, str)}
    assert [(line, why.split(":")[0]) for line, why in bad.items()] == [
        (line, f"line {line}") for line in (2, 4, 6, 8, 10)
    ]
    assert bad[6] == "line 6: expected CSV in UTF-8, got byte 6 that is not"
    assert bad[8] == "line 8: expected at most 100 bytes, got more"


@pytest.mark.parametrize("bad", [b'"1,2,3,4"x\n', b"1,2,3,\xff\n", b'"1,2,3,4\n'])
def test_a_bad_first_line_is_a_bad_row_unless_it_may_be_a_header(bad: bytes, toy: Model) -> None:
    (line, why), second = of_file(bad + GOOD, toy)
    assert (line, second) == (1, (2, FOUR))
    assert str(why).startswith("line 1: expected ")
    for number, name in zip(b"1234", b"abcd", strict=True):
        bad = bad.replace(bytes([number]), bytes([name]))
    with pytest.raises(
        InvalidInput, match=r"^line 1: expected "
    ):  # its columns may be in any order
        file_rows(CsvRows, bad + GOOD, toy)


def test_a_first_row_that_numbers_the_columns_or_is_empty_is_no_row_of_its_own(
    four: Model,
) -> None:
    with pytest.raises(InvalidInput) as raised:
        file_rows(CsvRows, b"0,1,2,3\n7,8,9,10\n", four)
    assert str(raised.value) == (
        "line 1: expected a row, got 0,1,2,... as pandas numbers columns: leave that line "
        "out (header=False), or write 0.0 if it is a row"
    )
    assert of_file(b"0.0,1,2,3\n", four) == [(1, [0, 1, 2, 3])]
    assert of_file(b",,,\n7,8,9,10\n", four) == [
        (1, f'line 1[0]: expected a number, got ""{NOT_MISSING}'),
        (2, [7, 8, 9, 10]),
    ]


def test_a_row_that_goes_on_over_lines_has_the_number_of_its_first(toy: Model) -> None:
    text = b'a,b,c,d,note\n1,2,3,4,"x\n\ny"\n1,2,3,z,"x\ny"\n1,2,3,4,\n'
    rows = list(file_rows(CsvRows, text, toy))
    assert [each.line for each in rows] == [2, 5, 7]
    assert isinstance(rows[1], Bad)


# Columns of several types.

HOUSES = [[1.5, 2, "rome", True], [0, -1, "", False], [7, 3, '7, "x"', True]]
AS_CSV = b'1.5,2,rome,true\n0,-1,,0\n7,3.0,"7, ""x""",TRUE\n'


def test_cells_are_of_the_types_of_their_columns(columns: Model) -> None:
    assert read(AS_CSV, columns).tolist() == HOUSES
    assert read(AS_CSV.replace(b'"7, ""x"""', b"7"), columns)[2].tolist() == [7, 3, "7", True]


@pytest.mark.parametrize("header", [b"", b"age,rooms,city,paid\n"])
def test_a_file_of_columns_may_have_a_header(header: bytes, columns: Model) -> None:
    assert [row for _, row in of_file(header + AS_CSV, columns)] == HOUSES


def test_the_columns_of_a_file_stand_in_any_order(columns: Model) -> None:
    text = b"paid,note,city,age,rooms\n1,age,rome,1.5,2\nFalse,,,0,-1\n"
    assert [row for _, row in of_file(text, columns)] == HOUSES[:2]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"1.5,2,rome,yes", 'paid: expected true or false, got "yes"'),
        (b"1.5,2,rome,2", 'paid: expected true or false, got "2"'),
        (b"x,2,rome,1", 'age: expected a number, got "x"'),
        (b",2,rome,1", 'age: expected a number, got ""'),
        (b"1.5,2.5,rome,1", "rooms: expected a whole number from"),
    ],
)
def test_a_cell_that_does_not_fit_its_column_is_named(
    line: bytes, why: str, columns: Model
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"line 1.{why}")):
        read(line, columns)
    (_, said), *_ = of_file(b"age,rooms,city,paid\n" + line, columns)
    assert str(said).startswith(f"line 2.{why}")


def test_a_header_that_names_no_column_is_one_where_no_value_fits(columns: Model) -> None:
    with pytest.raises(InvalidInput, match='line 1: expected a column age, got none; is it "ages"'):
        of_file(b"ages,Beds,Town,Sold\n" + AS_CSV, columns)


def test_a_line_of_strings_is_a_header_only_if_it_names_a_column(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch", 1], TensorProto.STRING))
    assert of_file(b"rome\ninput\n", model) == [(1, ["rome"]), (2, ["input"])]
    assert of_file(b"input\nrome\n", model) == [(2, ["rome"])]
    assert read(b"rome\ninput\n", model).tolist() == [["rome"], ["input"]]


def test_many_empty_cells_are_as_many_rows(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch", 2], TensorProto.STRING))
    assert read(b",\n" * MAX_ROWS, model).tolist() == [["", ""]] * MAX_ROWS


# Rows of any length.


def test_a_line_is_as_long_as_it_is(series: Model) -> None:
    assert read(b"1,2,3\n4,5,6\n", series).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert [row.tolist() for row in read(b"1,2,3\n4,5\n", series)] == [[1, 2, 3], [4, 5]]
    assert of_file(b"a,b\n1,2,3\n4,5\n", series) == [(2, [1, 2, 3]), (3, [4, 5])]


def test_rows_of_several_dimensions_are_no_lines(any_width: Model) -> None:
    why = "line 1: expected nested lists of 2 x any numbers, which a line of CSV cannot say: send J"
    with pytest.raises(InvalidInput, match=why):
        read(b"1,2\n", any_width)


# What one line may cost.


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        (b"%b", 1, "1000001"),
        (b"\xef\xbb\xbf%b", 1, "1000001"),
        (b"sep=,\n%b", 2, "1000001"),
        (b"1,2,3,4\r\n\r\n%b\n1,2,3,4", 3, "1000001"),
        (b'"1",2,3,4\n%b', 2, "1000001"),
        (b'1,2,3,",,\n,"%b', 2, "1000001 or more"),
        (b'"1"%b"4,",5', 1, "1000001 or more"),
    ],
)
def test_a_line_of_far_too_many_cells_is_not_read(
    text: bytes, line: int, got: str, four: Model
) -> None:
    """The reader would take 16 bytes for each comma, and hold the process."""
    commas = b"," * 1_000_000
    message = csv_rows.read(text % commas, frozenset(), "text/csv")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as raised:
            message.rows(four, limits(MAX_ROWS))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(raised.value) == f"line {line}: expected 4 values, got {got}"
    assert peak < 7 * len(commas)


def test_commas_in_a_text_are_no_cells(toy: Model) -> None:
    text = ",\n" + "," * 50_000
    body = f'a,b,c,d,note\n1,2,3,4,"{text}"\n5,6,7,8,"{text[::-1]}"\n'.encode()
    assert read(body, toy).tolist() == [FOUR, [5, 6, 7, 8]]
