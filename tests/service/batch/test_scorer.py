"""Tables are answered as POST /predict answers their rows, each value of each kind."""

import decimal
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from msgspec import structs

from service.batch import Scorer
from service.batch import scorer as module
from service.batch.inputs import values_of
from service.engine.columns import Column
from service.errors import CannotScore, InvalidInput, NotFound
from service.settings import Settings
from service.settings.verdicts import Verdicts
from tests.support.drawings import png
from tests.support.toys import Client, body, save_toy

pytestmark = pytest.mark.anyio

Open = Callable[[str], Scorer]

WHOLE = [0, -3, 2**53, 2**53 + 1, 10**39, None]
FLOATS = [0.0, -0.0, 1.5, -2.25e-30, 3.4028235e38, 3.5e38, 1e39, -1e300, math.inf, math.nan, None]
A_ROW = {"toy": [1.5, 2.0, -3.0, 4.0], "imputed": [1.5, 2.0], "bounded": [3.0, 4.0]}


def plainly(answers: pa.Table) -> list[dict[str, Any]]:
    """Return rows with the prediction of /predict, or with its sentence."""
    return [
        {"error": row["error"]} if row["error"] is not None else prediction(row)
        for row in answers.to_pylist()
    ]


def prediction(row: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in row.items() if name != "error"}
    if "probability" not in row:
        by_target: dict[str, Any] = {}
        for name, value in row.items():
            target, dot, what = name.rpartition(".")
            (by_target.setdefault(target, {}) if dot else by_target)[what] = value
        return by_target
    said = {name: row.pop(name) for name in ("label", "probability")}
    beside = {"twice": row.pop("twice")} if "twice" in row else {}
    return said | {"probabilities": row.pop("probabilities", row)} | beside


async def predicted(client: Client, model: str, instance: Any) -> dict[str, Any]:
    reply = (await client.post("/predict", content=body(model, [instance]))).json()
    if "error" in reply:
        return {"error": reply["error"].removeprefix("instances[0]").removeprefix(": ").lstrip(".")}
    return {name: alone(value) for name, value in reply["predictions"][0].items()}


def alone(value: Any) -> Any:
    """Return the only value of a list: an output of one has no lists."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def as_json(value: Any) -> Any:
    """Return a value as JSON says it: a missing number is null."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


@pytest.mark.parametrize("model", A_ROW)
@pytest.mark.parametrize(
    ("type", "values"),
    [
        (pa.float64(), FLOATS),
        (pa.float32(), [0.1, -0.0, 3.4028235e38, math.inf, None]),
        (pa.float16(), [np.float16(0.1), None]),
        (pa.int64(), [each for each in WHOLE if each is None or each < 2**63]),
        (pa.uint64(), [0, 2**64 - 1]),
        (pa.int8(), [-128, None]),
        (pa.decimal128(38, 2), [decimal.Decimal("0.10"), decimal.Decimal("123456789012345678.91")]),
        (pa.null(), [None]),
    ],
    ids=str,
)
async def test_numbers_are_answered_as_by_predict(
    scorer: Open, batch_client: Client, model: str, type: pa.DataType, values: list[Any]
) -> None:
    opened = scorer(model)
    names = opened.model.column_names
    columns = {
        name: pa.array([value] * len(values))
        for name, value in zip(names, A_ROW[model], strict=True)
    }
    columns[names[0]] = pa.array(values, type)
    table = pa.table({"id": ["x"] * len(values)} | dict(reversed(columns.items())))
    for value, answer in zip(columns[names[0]].to_pylist(), plainly(opened(table)), strict=True):
        said = float(value) if isinstance(value, decimal.Decimal) else as_json(value)
        if value is not None and isinstance(said, float) and not math.isfinite(said):
            assert answer["error"].startswith(f"{names[0]}: expected a finite number")
        elif isinstance(value, float) and math.isnan(value) and model != "imputed":
            assert answer["error"].startswith(f"{names[0]}: expected a finite number"), value
        else:
            expected = await predicted(batch_client, model, [said, *A_ROW[model][1:]])
            assert answer == expected


async def test_columns_of_each_kind_are_answered_as_by_predict(
    scorer: Open, batch_client: Client
) -> None:
    rows = [
        [30.5, 3, "rome", True],
        [None, 3, "rome", True],
        [30.5, None, "Łódź", False],
        [30.5, 3, None, False],
        [30.5, -(2**63), "", None],
        [1e39, None, None, None],
    ]
    ages, rooms, cities, paid = zip(*rows, strict=True)
    table = pa.table(
        {
            "paid": paid,
            "city": pa.array(cities).dictionary_encode(),
            "rooms": rooms,
            "age": pa.chunked_array([ages[:2], ages[2:]]),
        }
    )
    expected = [await predicted(batch_client, "columns", row) for row in rows]
    assert plainly(scorer("columns")(table)) == expected
    for type in (pa.large_string(), pa.string_view()):
        again = table.set_column(1, "city", pa.array(cities, type))
        assert plainly(scorer("columns")(again)) == expected


async def test_whole_numbers_are_answered_as_by_predict(scorer: Open, batch_client: Client) -> None:
    values = [3.0, 2.5, -3.0, 2.0**53, 1e19, None, math.inf]
    table = pa.table({"age": [1.0] * 7, "rooms": values, "city": ["x"] * 7, "paid": [False] * 7})
    *answers, of_infinity = plainly(scorer("columns")(table))
    expected = [
        await predicted(batch_client, "columns", [1.0, each, "x", False]) for each in values[:-1]
    ]
    assert answers == expected
    assert of_infinity["error"].startswith("rooms: expected a whole number from -92233")
    small = pa.table({"a": pa.array([255, 256, -1, None, 0])})
    answers = plainly(scorer("bytes")(small.append_column("b", small["a"])))
    assert [each.get("output") for each in answers] == [[255, 255], None, None, None, [0, 0]]
    assert answers[1]["error"] == "[0]: expected a whole number from 0 to 255, got 256"


@pytest.mark.parametrize(
    "type",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.list_(pa.int32())),
        pa.list_view(pa.float64()),
        pa.list_(pa.list_(pa.float64(), 3), 2),
    ],
    ids=str,
)
async def test_lists_are_answered_as_by_predict(
    scorer: Open, batch_client: Client, type: pa.DataType
) -> None:
    rows: list[Any] = [[1, 2, 3, 4, 5, 6], [0] * 6, [1, 2, 3, None, 5, 6], None, [1, 2, 3, 4, 5]]
    if pa.types.is_nested(type.value_type):
        rows = [each and [each[:3], each[3:]] for each in rows]
    if pa.types.is_fixed_size_list(type):
        rows = rows[:-1]  # it holds no shorter ones
    answers = plainly(scorer("same")(pa.table({"x": pa.array(rows, type)})))
    for row, answer in zip(rows, answers, strict=True):
        assert answer == await predicted(batch_client, "same", row), row


async def test_lists_of_any_length_are_answered_as_by_predict(
    scorer: Open, batch_client: Client
) -> None:
    rows = [[1.0], [1.0, 2.0, 3.0], None, [None]]
    expected = [await predicted(batch_client, "lengths", row) for row in rows]
    assert plainly(scorer("lengths")(pa.table({"x": rows}))) == expected


async def test_answers_of_each_kind_are_those_of_predict(
    scorer: Open, batch_client: Client
) -> None:
    rows = [[1.0, 2, 3, 4], [0.0, 9, 0, 0]]
    table = pa.table([list(each) for each in zip(*rows, strict=True)], names=list("abcd"))
    for model in ("kinds", "taken"):
        expected = [await predicted(batch_client, model, row) for row in rows]
        if model == "taken":  # classes that are called as other columns are
            for each in expected:
                each["probabilities"] = list(each["probabilities"].values())
        assert plainly(scorer(model)(table)) == expected
    assert scorer("kinds").schema.names == ["label", "probability", "7", "-1", "3", "twice"]
    assert scorer("kinds").schema.field("label").type == pa.int64()
    words = pa.table({"w": ["a", "Łódź", None]})
    assert plainly(scorer("words")(words))[:2] == [{"output": "a"}, {"output": "Łódź"}]
    halves = pa.table({"a": [0.1, 7e4], "b": [1.0, 1.0]})
    first, second = plainly(scorer("halves")(halves))
    assert first == await predicted(batch_client, "halves", [0.1, 1.0])
    assert second == await predicted(batch_client, "halves", [7e4, 1.0])


async def test_a_row_that_the_model_fails_on_does_not_hurt_the_others(
    scorer: Open, batch_client: Client
) -> None:
    values = [1, 2, 3, 0, 1, 5, *[2] * 100]
    expected = [await predicted(batch_client, "table", [each]) for each in values]
    assert plainly(scorer("table")(pa.table({"x": values}))) == expected
    assert sum("error" in each for each in expected) == 2
    infinite = plainly(scorer("fussy")(pa.table({"x": [7.0, 8.0]})))
    assert infinite == [await predicted(batch_client, "fussy", [each]) for each in (7.0, 8.0)]


def test_images_come_as_bytes_and_as_paths(scorer: Open, tmp_path: Path) -> None:
    grey = png(np.full((2, 2), 7, np.uint8))
    Path(tmp_path, "a.png").write_bytes(grey)
    path, none = str(tmp_path / "a.png"), str(tmp_path / "none.png")
    expected = [{"value": 7.0}, {"error": "expected a PNG or JPEG image, got other bytes"}]
    seen = scorer("seen")
    of_bytes = pa.table({"id": [1, 2], "bytes": [grey, b"GIF89a"]})
    assert plainly(seen(of_bytes))[0] == expected[0]
    assert "expected" in plainly(seen(of_bytes))[1]["error"]
    by_path, missing = plainly(seen(pa.table({"path": [path, none]})))
    assert by_path == expected[0]
    assert missing["error"].startswith('expected the path of an image, got "/')
    assert missing["error"].endswith("No such file or directory")
    as_datasets = pa.table(
        {"image": [{"bytes": grey, "path": None}, {"bytes": None, "path": path}]}
    )
    assert plainly(seen(as_datasets)) == expected[:1] * 2
    os.mkfifo(tmp_path / "pipe")  # reading it would never end
    of_pipe = seen(pa.table({"path": [str(tmp_path / "pipe")]}))
    assert of_pipe["error"][0].as_py().endswith("not a file")
    pixels = pa.table({"pixels": [[7.0] * 4]})  # images that are numbers already
    assert plainly(seen(pixels)) == expected[:1]


@pytest.mark.parametrize(
    ("model", "table", "sentence"),
    [
        ("toy", {"a": [1.0], "b": [1.0], "c": [1.0]}, "table: expected a column d, got none"),
        (
            "toy",
            {each: [1.0] for each in "abc"} | {"d": ["x"]},
            "d: expected a column with a number in",
        ),
        (
            "columns",
            {"age": [1.0], "rooms": [1], "city": [1], "paid": [True]},
            "city: expected a co",
        ),
        (
            "columns",
            {"age": [1.0], "rooms": [1], "city": ["x"], "paid": [1]},
            "paid: expected a co",
        ),
        (
            "same",
            {"a": [1.0]},
            "table: expected one column, each value of it a list of 6 numbers or",
        ),
        (
            "same",
            {"a": [[1.0]], "b": [[1.0]]},
            "or 6 columns of one value each, got 2 columns of l",
        ),
        ("same", {"a": [[[["x"]]]]}, "a: expected a column of lists of 6, got list"),
        ("lengths", {"a": [1.0]}, "each value of it a list of numbers, got 1 columns"),
    ],
)
def test_columns_that_fit_no_row_are_refused(
    scorer: Open, model: str, table: dict[str, list[Any]], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as raised:
        scorer(model)(pa.table(table))
    assert sentence in str(raised.value)


def with_index(table: pa.Table, name: str, *, is_said: bool) -> pa.Table:
    """Return a table as pandas makes it of a frame with an index of strings."""
    table = table.append_column(name, pa.array(["i"] * table.num_rows))
    about = json.dumps({"index_columns": [name], "columns": []}).encode()
    return table.replace_schema_metadata({"pandas": about} if is_said else None)


@pytest.mark.parametrize(("name", "is_said"), [("__index_level_0__", False), ("id", True)])
@pytest.mark.parametrize(
    ("model", "columns"),
    [
        ("same", {each: [1.0, 2.0] for each in "abcdef"}),
        ("same", {"rows": [[1.0] * 6]}),
        ("toy", {"rows": [A_ROW["toy"]]}),
        ("words", {"text": ["x"]}),
    ],
)
def test_the_index_of_a_frame_is_no_feature(
    scorer: Open, model: str, columns: dict[str, list[Any]], name: str, is_said: bool
) -> None:
    table = pa.table(columns)
    answers = scorer(model)(with_index(table, name, is_said=is_said))
    assert answers == scorer(model)(table)
    assert answers["error"].null_count == table.num_rows


def test_an_index_that_is_called_as_a_feature_is_one(scorer: Open) -> None:
    table = pa.table({each: [1.0] for each in "abcd"})
    about = json.dumps({"index_columns": ["a", {"kind": "range"}], "columns": []})
    assert scorer("toy")(table.replace_schema_metadata({"pandas": about})) == scorer("toy")(table)


@pytest.mark.parametrize("about", ["", "{", "[]", '{"index_columns": "id"}'])
def test_what_is_said_of_no_frame_of_pandas_is_passed_over(scorer: Open, about: str) -> None:
    table = pa.table({each: [1.0] for each in "abcdef"})
    answers = scorer("same")(table.replace_schema_metadata({"pandas": about}))
    assert answers == scorer("same")(table)


def test_a_table_without_rows_has_the_columns_of_answers(scorer: Open) -> None:
    empty = pa.table({name: pa.array([], pa.float64()) for name in "abcd"})
    answers = scorer("toy")(empty)
    assert answers.schema == scorer("toy").schema.append(pa.field("error", pa.string()))
    assert answers.num_rows == 0


def test_what_is_no_table_yet_becomes_one(scorer: Open) -> None:
    columns = {name: [1.0, 2.0] for name in "abcd"}
    expected = scorer("toy")(pa.table(columns))
    for given in (columns, pa.record_batch(columns), pa.table(columns).to_reader()):
        assert scorer("toy")(given) == expected


class Frame:
    """As one that pyarrow cannot read."""

    def __arrow_c_stream__(self, schema: object = None) -> object:
        raise AttributeError("no such thing")


Frame.__module__ = "pandas.core.frame"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (Frame(), "got pandas.core.frame.Frame: no such thing; pyarrow.Table.from_pandas(frame, "),
        ([[1.0]], "got builtins.list: Must pass names"),
        ({"a": 1.0}, "got builtins.dict: "),
        ({"a": [1.0], "b": []}, "got builtins.dict: "),
        ("flowers.csv", "got builtins.str: "),
        (pa.array([1.0]), "got pyarrow.lib.DoubleArray: "),
    ],
)
def test_what_is_no_table_is_a_sentence(scorer: Open, given: object, sentence: str) -> None:
    with pytest.raises(TypeError) as raised:
        scorer("toy")(given)
    assert str(raised.value).startswith("expected a pyarrow.Table, or what pyarrow.table makes")
    assert sentence in str(raised.value)


def test_answers_do_not_depend_on_where_a_table_is_cut(
    scorer: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(22)
    table = pa.table({name: chance.normal(size=1000) for name in "abcd"})
    complete = scorer("toy")(table)
    monkeypatch.setattr(module, "MOST_ROWS", 70)
    assert scorer("toy")(table) == complete
    pieces = [scorer("toy")(table.slice(start, 37)) for start in range(0, 1000, 37)]
    assert pa.concat_tables(pieces) == complete


def test_a_run_has_as_many_rows_as_were_tried_together(batch_dir: Path) -> None:
    for least, name, rows in ((64, "toy", 512), (700, "toy", 700), (64, "table", 512)):
        settings = Settings(models_dir=batch_dir, max_batch_size=least)
        assert Scorer(name, settings).rows == rows
    alone = Settings(models_dir=batch_dir, batching=Verdicts("toy=requests"))
    assert Scorer("toy", alone).rows == 1


def test_a_model_is_not_tried_again_in_another_process(batch_dir: Path) -> None:
    settings = Settings(models_dir=batch_dir)
    scorer = Scorer("toy", settings)
    seen = structs.replace(scorer.model.trial, largest_batch=7, row_s=0.5)
    assert Scorer("toy", settings, trial=seen).model.trial == seen
    scorer.model.trial = seen
    other = pickle.loads(pickle.dumps(scorer))
    assert (other.model.trial, other.rows, other.model.row_s) == (seen, 1, 0.5)


def test_another_process_answers_with_no_other_model(tmp_path: Path) -> None:
    save_toy(tmp_path)
    sent = pickle.dumps(Scorer("toy", Settings(models_dir=tmp_path)))
    save_toy(tmp_path, scale=2)
    with pytest.raises(CannotScore) as raised:
        pickle.loads(sent)
    assert str(raised.value) == (
        "toy/1: model.onnx: expected the file that was opened before, got another: it was changed "
        "since, or is another one on this machine"
    )


@pytest.mark.slow
def test_a_scorer_goes_to_other_processes(scorer: Open, tmp_path: Path) -> None:
    table = pa.table({name: [1.0] for name in "abcd"})
    opened = scorer("toy")
    code = (
        "import pickle, sys; import pyarrow as pa; opened = pickle.load(sys.stdin.buffer);"
        "print(opened(pa.table({name: [1.0] for name in 'abcd'}))['label'][0])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(opened),
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(module.__file__).parents[2])},
        capture_output=True,
        check=True,
    )
    assert said.stdout.decode().strip() == opened(table)["label"][0].as_py()
    assert pickle.loads(pickle.dumps(opened)) is pickle.loads(pickle.dumps(opened))  # opened once


def test_a_pickled_scorer_has_no_api_keys(batch_dir: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    settings = Settings(models_dir=batch_dir, api_keys="secret", api_keys_file=keys)
    sent = pickle.dumps(Scorer("toy", settings))
    assert b"secret" not in sent
    assert str(keys).encode() not in sent


def test_what_cannot_be_opened_is_refused(batch_dir: Path, tmp_path: Path) -> None:
    settings = Settings(models_dir=batch_dir)
    with pytest.raises(NotFound, match="nor a file that ends in"):
        Scorer("none", settings)
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"broken")
    with pytest.raises(CannotScore, match="not a model that ONNX Runtime can open"):
        Scorer(broken, settings)


@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_strings_that_are_no_utf8_have_a_sentence(scorer: Open, type: pa.DataType) -> None:
    bad = pa.array([b"a", b"\xff", None]).view(pa.string()).cast(type)
    why = "expected a string that has a form in UTF-8"
    first, second, _ = plainly(scorer("words")(pa.table({"w": bad})))
    assert first == {"output": "a"}
    assert second["error"].endswith(why)
    columns = {"age": [1.0] * 3, "rooms": [1] * 3, "paid": [True] * 3}
    answers = plainly(scorer("columns")(pa.table(columns | {"city": bad})))
    assert answers[1] == {"error": f"city: {why}"}
    assert "error" not in answers[0]


def test_whole_decimals_are_exact(scorer: Open) -> None:
    values = [decimal.Decimal(2**53 + 1), decimal.Decimal("2.5"), decimal.Decimal(2**63)]
    table: dict[str, Any] = {"age": [1.0] * 3, "city": ["x"] * 3, "paid": [True] * 3}
    columns = scorer("columns")
    rooms = pa.array(values, pa.decimal128(38, 2))
    answers = plainly(columns(pa.table(table | {"rooms": rooms})))
    (expected,) = plainly(
        columns(pa.table({k: v[:1] for k, v in table.items()} | {"rooms": [2**53 + 1]}))
    )
    assert answers[0] == expected
    assert answers[1]["error"].endswith("got 2.5")
    assert answers[2]["error"].endswith(f"got {2**63}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("type", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_floats_of_whole_numbers_give_no_warning(scorer: Open, type: pa.DataType) -> None:
    values = pa.array([np.float16(3), np.float16(300), np.float16(math.inf), None]).cast(type)
    answers = plainly(scorer("bytes")(pa.table({"a": values, "b": values})))
    assert [each.get("output") for each in answers] == [[3, 3], None, None, None]
    column = Column("n", np.int32, False)
    assert np.array_equal(values_of(values, column, "n").sure, [True, True, False, False])
    limit = values_of(pa.array([2.0**31], pa.float32()), column, "n")
    assert np.array_equal(limit.sure, [False])


def test_lists_of_a_dictionary_are_lists(scorer: Open) -> None:
    lists = pa.array([[1.0, 2, 3, 4, 5, 6], [0.0] * 6])
    table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([1, 0, None]), lists)})
    expected = scorer("same")(pa.table({"x": lists.take(pa.array([1, 0, None]))}))
    assert scorer("same")(table) == expected
