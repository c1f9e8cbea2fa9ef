from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from service.engine.model import Model
from service.errors import InvalidInput
from service.formats import mlflow
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
