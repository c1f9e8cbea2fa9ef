from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from service.engine.model import Model
from service.errors import InvalidInput, TooLarge
from service.formats import json_bodies, mlflow
from service.formats.message import LARGEST_IN_LOOP, Slow
from tests.support.bodies import limits
from tests.support.toys import save_same


def read(body: bytes, model: Model, **changes: Any) -> Any:
    return mlflow.read(body, mlflow.FIELDS, "").rows(model, limits(10_000, **changes)).tolist()


def test_nan_is_null_but_in_texts(tmp_path: Path) -> None:
    model = Model.open(save_same(tmp_path, ["batch", 2], TensorProto.STRING))
    body = rb'{"params": {"t": NaN}, "inputs": [["NaN, \"NaN\\", ",NaN,"]]}'
    assert read(body, model) == [['NaN, "NaN\\', ",NaN,"]]


def test_a_text_without_end_is_found_at_once() -> None:
    for end in (b"", b"\\"):
        with pytest.raises(InvalidInput, match=r"^body: expected JSON, got"):
            mlflow.read(b'{"inputs": NaN, "' + b'\\"' * 100_000 + end, mlflow.FIELDS, "")


def test_what_takes_long_is_left_to_a_thread(toy: Model) -> None:
    many = LARGEST_IN_LOOP // len("[1,2,3,4],") + 1
    for body in (
        b'{"inputs": [%b]}' % b",".join([b"[1,2,3,4]"] * many),
        b'{"inputs": {"a": [%b], "b": [], "c": [], "d": []}}' % b",".join([b"1"] * 9999),
    ):
        with pytest.raises(Slow):
            read(body, toy, in_loop=True)
    assert len(read(b'{"inputs": [%b]}' % b",".join([b"[1,2,3,4]"] * many), toy)) == many


def test_a_large_value_is_refused_unless_it_is_a_text(columns: Model) -> None:
    body = b'{"inputs": {"age": [1], "rooms": [2], "city": ["%b"], "paid": [%b]}}'
    text = b"x" * 300_000
    assert read(body % (text, b"true"), columns) == [[1, 2, text.decode(), True]]
    with pytest.raises(
        InvalidInput, match=r"^inputs\.paid\[0\]: expected a value, got 600006 bytes$"
    ):
        read(body % (b"rome", b"[%b]" % b",".join([b"[]"] * 200_001)), columns)


MANY = 20_000


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{%b}", '"0": unknown field; expected dataframe_records, '),
        (b"\xef\xbb\xbf{%b}", '"0": unknown field; expected dataframe_records, '),
        (b'{"inputs": {%b}}', "inputs: expected at most 10004 columns, got more"),
        (b'{"dataframe_split": {%b}}', 'dataframe_split: "0": unknown field; expected columns, '),
    ],
)
def test_many_fields_are_refused_before_they_are_read(
    body: bytes, sentence: str, toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "_decoder", None)
    monkeypatch.setattr(json_bodies, "_decoder", None)
    with pytest.raises(InvalidInput) as raised:
        read(body % b",".join(b'"%d": 1' % n for n in range(MANY)), toy)
    assert str(raised.value).startswith(sentence)


def test_many_names_of_columns_are_refused_before_they_are_read(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "parsed", None)
    body = b'{"dataframe_split": {"columns": [%b], "data": []}}' % b",".join([b'"x"'] * MANY)
    why = r"^dataframe_split\.columns: expected at most 10004 columns, got more$"
    with pytest.raises(InvalidInput, match=why):
        read(body, toy)


def test_what_looks_like_many_columns_is_none(toy: Model, columns: Model) -> None:
    body = b'{"inputs": {"age": [%b], "rooms": [%b], "city": [%b], "paid": [%b]}}'
    city = rb'"\":", ":", "{", "]"'  # four texts
    few = (b"1,1,1,1", b"1,1,1,1", city, b"true,true,true,true")
    times = MANY // 8  # of four
    rows = read(body % tuple(b",".join([each] * times) for each in few), columns)
    assert [row[2] for row in rows] == ['":', ":", "{", "]"] * times
    row = b'{"a": 1, "b": 2, "c": 3, "d": 4}'
    assert len(read(b'{"inputs": {"input": [%b]}}' % b",".join([row] * 9000), toy)) == 9000
    name = b'"d%b"' % (b"," * MANY)
    split = b'{"dataframe_split": {"columns": ["a","b","c","d",%b], "data": [[1,2,3,4,5]]}}'
    assert read(split % name, toy) == [[1, 2, 3, 4]]


def test_rows_beyond_those_of_a_request_are_not_arranged(
    toy: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_ones: list[Any] = []
    way = json_bodies.row_or_image
    monkeypatch.setattr(
        json_bodies, "row_or_image", lambda *given: read_ones.append(given) or way(*given)
    )
    rows = b",".join([b"[4,3,2,1]"] * MANY)
    split = b'{"dataframe_split": {"columns": ["d","c","b","a"], "data": [%b]}}' % rows
    named = b",".join(b'{"d":4,"c":3,"b":2,"a":1,"x%d":0}' % n for n in range(MANY))
    for body in (split, b'{"dataframe_records": [%b]}' % named):
        read_ones.clear()
        with pytest.raises(TooLarge, match=r"at most 10000 in one request, got 20000$"):
            read(body, toy)
        assert len(read_ones) == 10_000
