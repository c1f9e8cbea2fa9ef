"""How many bytes an answer may have: the bound holds, and what exceeds it is refused before."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from service.engine.model import Model
from service.errors import TooLarge
from service.formats import reply_size
from service.formats.predictions import (
    csv_of,
    each_prediction,
    encode,
    json_lines_of,
    predictions,
    writer,
)
from service.formats.reply_size import UNKNOWN, WIDTH, check_outputs, check_size, slices
from service.formats.tensors import as_json
from tests.support.toys import save_bounded, save_same, save_toy, toy_card

FLOATS = [1e-45, -3.4028234663852886e38, 1.401298464324817e-45, -1.1754943508222875e-38, 0.1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    paths = {
        "classes": save_toy(folder / "a", card=toy_card()),
        "plain": save_toy(folder / "b"),
        "bounded": save_bounded(folder / "c"),
        "wide": save_same(folder / "d", ["batch", 500]),
        "whole": save_same(folder / "e", ["batch", 5], TensorProto.INT64),
        "words": save_same(folder / "f", ["batch", 5], TensorProto.STRING),
        "open": save_same(folder / "g", ["batch", "n"]),
    }
    return {name: Model.open(path) for name, path in paths.items()}


def outputs_of(model: Model, rows: int, seed: int = 0) -> list[Any]:
    """Return outputs of awkward numbers, as the model has them."""
    random = np.random.default_rng(seed)
    outputs = []
    for each in model.outputs:
        shape = (rows, *(5 if size == -1 else size for size in each.shape[1:]))
        if np.dtype(each.dtype).kind == "f":
            outputs.append(random.choice(FLOATS, shape).astype(each.dtype))
        else:
            outputs.append(np.full(shape, np.iinfo(np.int64).min, each.dtype))
    return outputs


@pytest.mark.parametrize("name", ["classes", "plain", "bounded", "wide", "whole"])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_no_answer_has_more_bytes_than_the_bound(
    models: dict[str, Model], name: str, rows: int
) -> None:
    model = models[name]
    write = writer(model, name, 1)
    assert write.bytes_of_row < UNKNOWN
    assert len(write(outputs_of(model, rows))) <= rows * write.bytes_of_row


@pytest.mark.parametrize("name", ["words", "open"])
def test_the_size_of_some_answers_is_not_known_before(models: dict[str, Model], name: str) -> None:
    assert writer(models[name], name, 1).bytes_of_row == UNKNOWN
    check_size(UNKNOWN, 10, 1, "instances")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_no_number_is_wider_than_its_type_allows(numbers: list[float]) -> None:
    for dtype in (np.float32, np.float64):
        text = encode(np.array(numbers, dtype).tolist())
        assert len(text) <= 1 + len(numbers) * WIDTH[dtype]


@pytest.mark.parametrize("name", ["classes", "plain", "bounded", "wide", "whole"])
def test_parts_give_what_a_whole_gives(
    models: dict[str, Model], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models[name]
    outputs = outputs_of(model, 50)
    whole = predictions(model, outputs)
    monkeypatch.setattr(reply_size, "MOST_NUMBERS_IN_LOOP", 40)
    assert len(slices(outputs)) > 3
    assert json.loads(writer(model, name, 1)(outputs)) == json.loads(encode(whole))
    parts = list(each_prediction(model, outputs))
    assert json_lines_of(parts) == json_lines_of(whole)
    assert csv_of(parts) == csv_of(whole)


def test_tensors_in_parts_are_what_a_whole_is() -> None:
    array = np.arange(100_000, dtype=np.float32).reshape(10, -1) / 7
    written = as_json(array)
    assert not isinstance(written, list)
    assert json.loads(bytes(written)) == array.ravel().tolist()
    assert as_json(array[:1]) == array[0].tolist()


@pytest.mark.parametrize(
    ("size", "rows", "sentence"),
    [
        (1001, 10, "here: expected at most 9 rows, as the reply to each may have 101 bytes, and "),
        (4000, 2, "here: expected a smaller output, as the reply to each may have 2000 bytes"),
    ],
)
def test_the_refusal_says_how_many_rows_would_fit(size: int, rows: int, sentence: str) -> None:
    check_size(1000, 1000, rows, "here")
    with pytest.raises(TooLarge) as raised:
        check_size(size, 1000, rows, "here")
    assert str(raised.value).startswith(sentence)
    assert str(raised.value).endswith(f"got {rows}")


def test_outputs_that_cannot_fit_are_not_written() -> None:
    check_outputs([np.zeros(50, np.float32)], 100)
    check_outputs([np.zeros(100, np.uint8)], 100)
    with pytest.raises(TooLarge, match=r"^reply: expected at most 100 bytes .* got at least 102"):
        check_outputs([np.zeros(51, np.float32)], 100)
