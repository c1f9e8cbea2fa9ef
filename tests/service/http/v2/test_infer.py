import asyncio
import json
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from service.formats.tensors import DATATYPES
from service.settings import Settings
from tests.support.classifiers import ANSWERS, NUMBERS, save_classifier
from tests.support.classifiers import ROWS as OF_KINDS
from tests.support.toys import body as predict_body
from tests.support.toys import (
    save_fussy,
    save_imputed,
    save_kinds,
    save_lengths,
    save_mean,
    save_same,
    save_toy,
    serving,
    toy_answer,
    toy_card,
)

pytestmark = pytest.mark.anyio

TOY = "/v2/models/toy/infer"
KINDS = "/v2/models/kinds/infer"
LENGTH = "Inference-Header-Content-Length"
MAX_BODY_BYTES = 1_000_000
MAX_ROWS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_kinds(folder)
    save_same(folder, [2, 3], name="fixed")
    save_same(folder, [], name="scalar")
    save_same(folder, ["batch", 1], TensorProto.STRING, name="word")
    save_same(folder, ["batch", 3], TensorProto.BOOL, name="flags")
    save_lengths(folder)
    save_fussy(folder)
    return folder


@pytest.fixture(scope="module")
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One service for the whole file: what a test did shall not show in the next."""
    settings = Settings(
        models_dir=folder, max_body_bytes=MAX_BODY_BYTES, max_request_rows=MAX_ROWS, watch=False
    )
    async with serving(settings) as client:
        yield client


def given(name: str, datatype: str, shape: list[Any], data: Any = None, **more: Any) -> Any:
    """Return one input as it stands in the JSON."""
    described = {"name": name, "datatype": datatype, "shape": shape, **more}
    return described if data is None else {**described, "data": data}


def four(data: Any = (1, 2, 3, 4), **changes: Any) -> Any:
    """Return the toy's input of one row, with changes."""
    fields = {"name": "input", "datatype": "FP32", "shape": [1, 4]} | changes
    return given(data=data, **fields)


def asked(*inputs: Any, **fields: Any) -> bytes:
    """Return the JSON of a request."""
    return json.dumps({"inputs": inputs, **fields}).encode()


def sized(size: Any, **changes: Any) -> Any:
    """Return the toy's input of one row whose data is binary."""
    return four(None, parameters={"binary_data_size": size}, **changes)


ROW = np.array([1, 2, 3, 4], "<f4").tobytes()
GOOD = asked(four())
EXPECTED = toy_answer(np.array([[1, 2, 3, 4]]))[0]
NOT_FINITE = {"error": "the model answered NaN or infinity for this input: ask /v2 in binary"}


def text(characters: str) -> bytes:
    """Return an element of BYTES as binary data."""
    encoded = characters.encode()
    return len(encoded).to_bytes(4, "little") + encoded


def answered(reply: httpx.Response) -> dict[str, NDArray[Any]]:
    """Read a reply as clients do, by the protocol's text and nothing of ours: name -> array."""
    assert reply.status_code == 200, reply.text
    if "content-encoding" not in reply.headers:
        assert int(reply.headers["content-length"]) == len(reply.content)
    length = reply.headers.get(LENGTH)
    head = json.loads(
        reply.content[: None if length is None else int(length)],
        parse_constant=lambda name: pytest.fail(name),
    )
    place, binary = 0, b"" if length is None else reply.content[int(length) :]
    arrays = {}
    for output in head["outputs"]:
        assert set(output) in (
            {"name", "datatype", "shape", "data"},
            {"name", "datatype", "shape", "parameters"},
        )
        size = output.get("parameters", {}).get("binary_data_size")
        dtype = np.dtype(DATATYPES[output["datatype"]])
        if size is None:
            array = np.array(output["data"], dtype)
        elif output["datatype"] == "BYTES":
            array = np.array(texts_in(binary[place : place + size]), dtype)
        else:
            array = np.frombuffer(binary[place : place + size], dtype)
        place += size or 0
        arrays[output["name"]] = array.reshape(output["shape"])
    assert place == len(binary)
    assert reply.headers["content-type"] == (
        "application/json" if length is None else "application/octet-stream"
    )
    return arrays


def texts_in(data: bytes) -> list[str]:
    texts, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "little")
        texts.append(data[place + 4 : place + 4 + size].decode())
        place += 4 + size
    return texts


def binary_output(name: str, **parameters: Any) -> Any:
    return {"name": name, "parameters": {"binary_data": True, **parameters}}


async def post_binary(
    client: httpx.AsyncClient, path: str, head: bytes, data: bytes = b""
) -> httpx.Response:
    return await client.post(path, content=head + data, headers={LENGTH: str(len(head))})


async def test_a_reply_says_model_version_id_and_outputs(client: httpx.AsyncClient) -> None:
    reply = await client.post(TOY, content=asked(four(), id="mine"))
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    assert LENGTH not in reply.headers
    assert reply.json() == {
        "model_name": "toy",
        "model_version": "1",
        "id": "mine",
        "outputs": [
            {
                "name": "probabilities",
                "datatype": "FP32",
                "shape": [1, 3],
                "data": pytest.approx(EXPECTED, abs=1e-6),
            }
        ],
    }


@pytest.mark.parametrize("path", [TOY, TOY + "/", "/v2/models/toy/versions/1/infer"])
async def test_the_version_may_be_named(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.post(path, content=GOOD)).json()["model_version"] == "1"


async def test_the_highest_version_answers_if_none_is_named(tmp_path: Path) -> None:
    save_toy(tmp_path, 1, scale=2)
    save_toy(tmp_path, 3)
    row = np.array([[1, 2, 3, 4]])
    async with serving(Settings(models_dir=tmp_path)) as client:
        for path, version, expected in (
            (TOY, "3", toy_answer(row)),
            ("/v2/models/toy/versions/3/infer", "3", toy_answer(row)),
            ("/v2/models/toy/versions/1/infer", "1", toy_answer(row * 2)),
        ):
            reply = await client.post(path, content=GOOD)
            assert reply.json()["model_version"] == version
            np.testing.assert_allclose(answered(reply)["probabilities"], expected, atol=1e-6)


async def test_data_may_be_nested_or_flat(client: httpx.AsyncClient) -> None:
    rows = np.random.default_rng(1).uniform(0, 10, (3, 4)).round(3)
    for data in (rows.tolist(), rows.ravel().tolist()):
        reply = await client.post(TOY, content=asked(four(data, shape=[3, 4])))
        np.testing.assert_allclose(answered(reply)["probabilities"], toy_answer(rows), atol=1e-6)


def of_all_kinds() -> dict[str, NDArray[Any]]:
    """Return two rows of each datatype, with the least and the largest of each type."""
    kinds: dict[str, NDArray[Any]] = {}
    for name, dtype in DATATYPES.items():
        kind = np.dtype(dtype).kind
        if kind in "iu":
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            kinds[name] = np.array([[low, high], [1, high // 3]], dtype)
        elif kind == "f":
            limits = np.finfo(dtype)
            kinds[name] = np.array([[limits.min, limits.max], [limits.tiny, -1 / 3]], dtype)
    kinds["BOOL"] = np.array([[True, False], [False, False]])
    kinds["BYTES"] = np.array([["", "ä€😀"], ["two words\n", '[1, "2"]']], object)
    return kinds


def as_binary(array: NDArray[Any]) -> bytes:
    if array.dtype == object:
        return b"".join(map(text, array.ravel()))
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


async def test_each_datatype_comes_and_goes_as_json_and_binary(client: httpx.AsyncClient) -> None:
    arrays = of_all_kinds()
    assert list(arrays) != []
    for is_binary_in in (True, False):
        for is_binary_out in (True, False):
            inputs, data, outputs = [], b"", []
            for name, array in arrays.items():
                if is_binary_in or name == "FP16":
                    raw = as_binary(array)
                    parameters = {"binary_data_size": len(raw)}
                    inputs.append(given(name, name, [2, 2], parameters=parameters))
                    data += raw
                else:
                    inputs.append(given(name, name, [2, 2], array.tolist()))
                as_bytes = {"binary_data": is_binary_out or name == "FP16"}
                outputs.append({"name": f"{name}_out", "parameters": as_bytes})
            reply = await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data)
            back = answered(reply)
            assert list(back) == [f"{name}_out" for name in arrays]
            for name, array in arrays.items():
                assert back[f"{name}_out"].dtype == array.dtype
                np.testing.assert_array_equal(back[f"{name}_out"], array)


async def test_inputs_may_come_in_any_order_json_and_binary_mixed(
    client: httpx.AsyncClient,
) -> None:
    arrays = of_all_kinds()
    names = list(arrays)
    for seed in range(5):
        chance = random.Random(seed)
        chance.shuffle(names)
        wanted = names[: chance.randint(1, 13)]
        inputs, data = [], b""
        for name in names:
            if name == "FP16" or chance.random() < 0.5:
                raw = as_binary(arrays[name])
                data += raw
                size = {"binary_data_size": len(raw)}
                inputs.append(given(name, name, [2, 2], parameters=size))
            else:
                inputs.append(given(name, name, [2, 2], arrays[name].tolist()))
        outputs = [
            {
                "name": f"{name}_out",
                "parameters": {"binary_data": name == "FP16" or chance.random() < 0.5},
            }
            for name in wanted
        ]
        back = answered(await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data))
        assert list(back) == [f"{name}_out" for name in wanted]  # as asked
        for name in wanted:
            np.testing.assert_array_equal(back[f"{name}_out"], arrays[name])


@pytest.mark.parametrize("padding", range(9))
async def test_binary_data_may_begin_anywhere(client: httpx.AsyncClient, padding: int) -> None:
    rows = np.random.default_rng(2).uniform(0, 10, (2, 4)).astype("<f4")
    head = asked(sized(32, shape=[2, 4])) + b" " * padding
    reply = await post_binary(client, TOY, head, rows.tobytes())
    np.testing.assert_allclose(answered(reply)["probabilities"], toy_answer(rows), atol=1e-6)


@pytest.mark.parametrize("datatype", ["UINT8", "INT8", "UINT16", "INT16"])
async def test_narrow_numbers_may_be_sent_for_wide_ones(
    client: httpx.AsyncClient, datatype: str
) -> None:
    numbers = np.array([[1, 2, 3, 4]], DATATYPES[datatype])
    raw = numbers.tobytes()
    binary = await post_binary(client, TOY, asked(sized(len(raw), datatype=datatype)), raw)
    flat = await client.post(TOY, content=asked(four(datatype=datatype)))
    for reply in (binary, flat):
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
async def test_a_raw_body_is_rows_of_the_only_input(client: httpx.AsyncClient, count: int) -> None:
    rows = np.random.default_rng(3).uniform(0, 10, (count, 4)).astype("<f4")
    reply = await post_binary(client, TOY, b"", rows.tobytes())
    back = answered(reply)
    np.testing.assert_allclose(back["probabilities"], toy_answer(rows), atol=1e-6)
    assert LENGTH in reply.headers


async def test_a_raw_body_may_be_of_any_datatype(client: httpx.AsyncClient) -> None:
    words = await post_binary(client, "/v2/models/word/infer", b"", "raw ä".encode())
    assert answered(words)["output"].tolist() == [["raw ä"]]
    nothing = await post_binary(client, "/v2/models/word/infer", b"", b"")
    assert answered(nothing)["output"].tolist() == [[""]]
    flags = await post_binary(client, "/v2/models/flags/infer", b"", b"\1\0\1\0\0\1")
    assert answered(flags)["output"].tolist() == [[True, False, True], [False, False, True]]
    numbers = np.arange(6, dtype="<f4").reshape(2, 3)
    fixed = await post_binary(client, "/v2/models/fixed/infer", b"", numbers.tobytes())
    np.testing.assert_array_equal(answered(fixed)["output"], numbers)
    scalar = await post_binary(client, "/v2/models/scalar/infer", b"", numbers[0, 1].tobytes())
    assert answered(scalar)["output"] == 1


@pytest.mark.parametrize("is_binary", [False, True])
async def test_rows_may_be_empty_inside_where_that_is_open(
    client: httpx.AsyncClient, is_binary: bool
) -> None:
    """As the past of a decoder is, in its first step."""
    nothing: dict[str, Any] = {"parameters": {"binary_data_size": 0}} if is_binary else {"data": []}
    empty = asked(given("input", "FP32", [2, 0], **nothing))
    full = asked(given("input", "FP32", [1, 2], [3, 4]))
    replies = await asyncio.gather(
        *(post_binary(client, "/v2/models/lengths/infer", each, b"") for each in (empty, full) * 2)
    )
    assert [answered(reply)["output"].tolist() for reply in replies] == [[0, 0], [7]] * 2


@pytest.mark.parametrize("shape", [[], [1]])  # Triton's clients send [1]
async def test_a_tensor_without_dimensions_is_a_list_of_one(
    client: httpx.AsyncClient, shape: list[int]
) -> None:
    path = "/v2/models/scalar/infer"
    reply = await client.post(path, content=asked(given("input", "FP32", shape, [2.5])))
    assert answered(reply)["output"] == 2.5
    assert reply.json()["outputs"][0] == {
        "name": "output",
        "datatype": "FP32",
        "shape": [],
        "data": [2.5],
    }


@pytest.mark.parametrize(
    ("parameters", "outputs", "is_binary"),
    [
        (None, None, False),
        ({}, [], False),
        ({"binary_data_output": None}, None, False),
        ({"binary_data_output": True}, None, True),
        ({"binary_data_output": True}, [], True),
        ({"binary_data_output": True}, [{"name": "probabilities"}], True),
        ({"binary_data_output": True}, [{"name": "probabilities", "parameters": None}], True),
        (
            {"binary_data_output": True},
            [{"name": "probabilities", "parameters": {"binary_data": False}}],
            False,
        ),
        (None, [{"name": "probabilities", "parameters": {"binary_data": True}}], True),
        (
            {"binary_data_output": False},
            [{"name": "probabilities", "parameters": {"binary_data": True}}],
            True,
        ),
        ({"binary_data_output": False}, [{"name": "probabilities", "parameters": {}}], False),
    ],
)
async def test_an_output_is_binary_as_it_says_or_as_the_request_says(
    client: httpx.AsyncClient, parameters: Any, outputs: Any, is_binary: bool
) -> None:
    reply = await client.post(TOY, content=asked(four(), parameters=parameters, outputs=outputs))
    np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)
    assert (LENGTH in reply.headers) is is_binary


@pytest.mark.parametrize("sent", ["mine", "a b", "ä€😀", '"\\\n', "x" * 1000])
async def test_the_id_comes_back(client: httpx.AsyncClient, sent: str) -> None:
    reply = await client.post(TOY, content=asked(four(), id=sent))
    assert reply.json()["id"] == sent
    binary = await client.post(
        TOY, content=asked(four(), id=sent, outputs=[binary_output("probabilities")])
    )
    assert json.loads(binary.content[: int(binary.headers[LENGTH])])["id"] == sent


@pytest.mark.parametrize("fields", [{}, {"id": ""}, {"id": None}])
async def test_who_gives_no_id_gets_that_of_the_reply(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    reply = await client.post(TOY, content=asked(four(), **fields))
    assert reply.json()["id"] == reply.headers["x-request-id"] != ""
    named = await client.post(TOY, content=asked(four()), headers={"X-Request-Id": "header-7"})
    assert named.json()["id"] == "header-7"


@pytest.mark.parametrize(
    "content",
    [
        asked(four(), model_name="toy", model_version="9", anything={"a": [1]}),
        asked(four(), id=None, parameters=None, outputs=None),
        asked({**four(), "parameters": None, "note": "mine"}),
        asked(four(parameters={"binary_data_size": None, "mine": [1, {}]})),
        asked(four(), parameters={"mine": {"a": 1}, "content_type": "np", "headers": {}}),
        asked(four(), outputs=[{"name": "probabilities", "parameters": None, "mine": 1}]),
        asked(
            four(),
            outputs=[
                {
                    "name": "probabilities",
                    "parameters": {"binary_data": None, "classification": 0, "mine": 1},
                }
            ],
        ),
        asked(
            four(),
            parameters={
                "priority": 0,
                "sequence_id": 0,
                "sequence_start": False,
                "sequence_end": False,
                "timeout": 0,
            },
        ),
        asked(four(), parameters={"sequence_id": ""}),
        asked(four(), parameters={"timeout": 5_000_000}),
        asked(four(), parameters={"timeout": 5e6}),
        asked(four(), parameters={"timeout": 1e300}),
        asked(four(), parameters={"timeout": None, "priority": None, "sequence_id": None}),
        b'{"inputs":[%b],"parameters":{"timeout":%b}}' % (json.dumps(four()).encode(), b"9" * 400),
        b" \n\t" + GOOD + b"\r\n ",
        GOOD.replace(b'"data": [1, 2, 3, 4]', b'"data" : [ 1.0e0,2 ,\n3.0, 0.4E+1 ]'),
        GOOD.replace(b'"name"', b'"n\\u0061me"'),
        GOOD.replace(b'"inputs"', b'"inputs": 5, "inputs"').replace(b"5, ", b"[], "),
        GOOD.replace(b'"data"', b'"data": ["no"], "data"'),
        asked(four(), id="binary_data_size"),
    ],
    ids=[
        *("unknown fields", "nulls", "nulls in an input", "custom parameters of an input"),
        *("custom parameters", "custom parameters of an output", "nulls of an output"),
        *("values that ask for nothing", "no sequence", "timeout", "timeout with a point"),
        *("timeout of 10^300", "nulls of parameters", "timeout of 400 digits"),
        *("blanks around", "blanks within", "escaped name", "inputs twice", "data twice"),
        "id that is a parameter's name",
    ],
)
async def test_what_clients_send_besides_is_tolerated(
    client: httpx.AsyncClient, content: bytes
) -> None:
    reply = await client.post(TOY, content=content)
    np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


async def test_a_string_may_be_the_name_of_a_parameter(client: httpx.AsyncClient) -> None:
    content = asked(given("input", "BYTES", [1, 1], ["binary_data_size"]))
    reply = await client.post("/v2/models/word/infer", content=content)
    assert answered(reply)["output"].tolist() == [["binary_data_size"]]


@pytest.mark.parametrize("word", ["a\0b", "\0", "", "line\r\n", "\ufeff", "\U0010ffff", "é" * 5000])
async def test_a_string_comes_back_whole(client: httpx.AsyncClient, word: str) -> None:
    path = "/v2/models/word/infer"
    flat = asked(given("input", "BYTES", [1, 1], [word]))
    assert answered(await client.post(path, content=flat))["output"].tolist() == [[word]]
    size = {"binary_data_size": len(text(word))}
    head = asked(
        given("input", "BYTES", [1, 1], parameters=size), outputs=[binary_output("output")]
    )
    reply = await post_binary(client, path, head, text(word))
    assert answered(reply)["output"].tolist() == [[word]]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/octet-stream", "multipart/form-data", "?"]
)
async def test_the_content_type_does_not_matter(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    for content, length in ((GOOD, None), (asked(sized(16)) + ROW, str(len(asked(sized(16)))))):
        more = {} if length is None else {LENGTH: length}
        reply = await client.post(TOY, content=content, headers=headers | more)
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


async def test_the_header_may_say_that_all_is_json(client: httpx.AsyncClient) -> None:
    for length in (str(len(GOOD)), f" {len(GOOD)} ", f"000{len(GOOD)}"):
        reply = await client.post(TOY, content=GOOD, headers={LENGTH: length})
        np.testing.assert_allclose(answered(reply)["probabilities"], [EXPECTED], atol=1e-6)


@pytest.mark.parametrize("is_binary", [False, True])
async def test_a_classification_names_the_highest_with_their_labels(
    client: httpx.AsyncClient, is_binary: bool
) -> None:
    rows = np.array([[1, 2, 3, 4], [0, 9, 0, 0]], np.float32)
    probabilities = toy_answer(rows)
    for most, count in ((1, 1), (2, 2), (3, 3), (10**30, 3)):
        parameters = {"classification": most, "binary_data": is_binary}
        outputs = [{"name": "probabilities", "parameters": parameters}]
        reply = await client.post(
            TOY, content=asked(four(rows.tolist(), shape=[2, 4]), outputs=outputs)
        )
        classes = answered(reply)["probabilities"]
        assert classes.shape == (2, count)
        for row, texts in zip(probabilities, classes.tolist(), strict=True):
            order = np.argsort(-row)[:count].tolist()
            for index, said in zip(order, texts, strict=True):
                value, place, label = said.split(":")
                assert (int(place), label) == (index, ["red", "green", "blue"][index])
                assert float(value) == pytest.approx(row[index], abs=1e-6)


@pytest.mark.parametrize("is_zipped", [True, False])
async def test_a_classification_has_the_labels_of_a_file_without_a_card(
    tmp_path: Path, is_zipped: bool
) -> None:
    save_classifier(tmp_path, NUMBERS, is_zipped=is_zipped, beside="twice")
    parameters = {"classification": 1}
    outputs = [{"name": name, "parameters": parameters} for name in ("probabilities", "twice")]
    rows = four(OF_KINDS.tolist(), shape=[3, 4])
    async with serving(Settings(models_dir=tmp_path)) as client:
        reply = await client.post("/v2/models/kinds/infer", content=asked(rows, outputs=outputs))
    said = answered(reply)
    for texts, expected in zip(said["probabilities"].tolist(), ANSWERS, strict=True):
        value, place, label = texts[0].split(":")
        assert float(value) == pytest.approx(expected.max(), abs=1e-6)
        assert (int(place), label) == (expected.argmax(), str(NUMBERS[expected.argmax()]))
    assert [len(texts[0].split(":")) for texts in said["twice"].tolist()] == [2, 2, 2]


async def test_a_classification_without_card_and_rows_has_no_labels(
    client: httpx.AsyncClient,
) -> None:
    outputs = [{"name": "output", "parameters": {"classification": 2}}]
    content = asked(given("input", "FP32", [2, 3], [1, 5, 3, -1, 5, 0]), outputs=outputs)
    reply = await client.post("/v2/models/fixed/infer", content=content)
    assert answered(reply)["output"].tolist() == ["5.000000:1", "5.000000:4"]
    outputs = [{"name": "INT8_out", "parameters": {"classification": 1}}]
    arrays = of_all_kinds()
    inputs = [
        given(name, name, [2, 2], parameters={"binary_data_size": len(as_binary(array))})
        for name, array in arrays.items()
    ]
    data = b"".join(map(as_binary, arrays.values()))
    reply = await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data)
    assert answered(reply)["INT8_out"].tolist() == [["127:1"], ["42:1"]]


async def test_infinity_goes_out_as_binary_and_mates_get_their_answers(
    client: httpx.AsyncClient,
) -> None:
    async def ask(number: float, is_binary: bool) -> httpx.Response:
        parameters = {"binary_data_output": is_binary}
        content = asked(given("input", "FP32", [1, 1], [number]), parameters=parameters)
        return await client.post("/v2/models/fussy/infer", content=content)

    numbers = [7, 8, 9, 7, 11, 7]
    replies = await asyncio.gather(
        *(ask(number, index % 2 == 0) for index, number in enumerate(numbers))
    )
    for index, (number, reply) in enumerate(zip(numbers, replies, strict=True)):
        if number == 7 and index % 2:
            assert (reply.status_code, reply.json()) == (500, NOT_FINITE)
        else:
            expected = math.inf if number == 7 else 1 / (number - 7)
            assert answered(reply)["output"] == pytest.approx(expected)


async def test_nan_comes_in_as_binary(client: httpx.AsyncClient) -> None:
    numbers = np.array([[np.nan, np.inf, 0], [-np.inf, -0.0, 1]], "<f4")
    size = {"binary_data_size": numbers.nbytes}
    described = given("input", "FP32", [2, 3], parameters=size)
    head = asked(described, outputs=[binary_output("output")])
    reply = await post_binary(client, "/v2/models/fixed/infer", head, numbers.tobytes())
    assert answered(reply)["output"].tobytes() == numbers.tobytes()
    reply = await post_binary(client, "/v2/models/fixed/infer", asked(described), numbers.tobytes())
    assert (reply.status_code, reply.json()) == (500, NOT_FINITE)


async def test_fp16_has_no_json_reply(client: httpx.AsyncClient) -> None:
    arrays = of_all_kinds()
    inputs = [
        given(name, name, [2, 2], parameters={"binary_data_size": len(as_binary(array))})
        for name, array in arrays.items()
    ]
    data = b"".join(map(as_binary, arrays.values()))
    for outputs in (None, [{"name": "FP16_out"}]):
        reply = await post_binary(client, KINDS, asked(*inputs, outputs=outputs), data)
        assert reply.status_code == 400
        assert reply.json() == {
            "error": "output FP16_out: FP16 has no form in JSON; use binary data"
        }


@pytest.mark.parametrize("is_binary", [False, True])
async def test_more_rows_than_a_batch_are_answered_in_order(
    tmp_path: Path, is_binary: bool
) -> None:
    save_toy(tmp_path)
    save_same(tmp_path, ["batch", 1], TensorProto.STRING, name="word")
    rows = np.random.default_rng(4).uniform(0, 10, (50, 4)).astype("<f4")
    words = [[f"word {number}"] for number in range(20)]
    parameters = {"binary_data_output": is_binary}
    async with serving(Settings(models_dir=tmp_path, max_batch_size=8)) as client:
        head = asked(sized(rows.nbytes, shape=[50, 4]), parameters=parameters)
        toy, word = await asyncio.gather(
            post_binary(client, TOY, head, rows.tobytes()),
            client.post(
                "/v2/models/word/infer",
                content=asked(given("input", "BYTES", [20, 1], words), parameters=parameters),
            ),
        )
    np.testing.assert_allclose(answered(toy)["probabilities"], toy_answer(rows), atol=1e-6)
    assert answered(word)["output"].tolist() == words


async def test_many_callers_at_once_share_batches_and_get_their_own_answers(
    tmp_path: Path,
) -> None:
    save_toy(tmp_path)
    random_numbers = np.random.default_rng(5)
    sets = [random_numbers.uniform(0, 10, (1 + n % 3, 4)).astype("<f4") for n in range(90)]

    async def ask(rows: NDArray[Any], is_binary: bool) -> httpx.Response:
        if is_binary:
            head = asked(sized(rows.nbytes, shape=list(rows.shape)))
            return await post_binary(client, TOY, head, rows.tobytes())
        return await client.post(TOY, content=asked(four(rows.tolist(), shape=list(rows.shape))))

    async with serving(Settings(models_dir=tmp_path)) as client:
        replies = await asyncio.gather(*(ask(rows, n % 2 == 0) for n, rows in enumerate(sets)))
        (stats,) = (await client.get("/v2/models/toy/stats")).json()["model_stats"]
    for rows, reply in zip(sets, replies, strict=True):
        np.testing.assert_allclose(answered(reply)["probabilities"], toy_answer(rows), atol=1e-6)
    assert stats["inference_count"] == sum(map(len, sets))
    assert stats["execution_count"] < 30


@pytest.mark.parametrize(
    ("header_ms", "timeout_us", "is_late"),
    [
        (None, None, False),
        (None, 10_000, True),
        ("10", None, True),
        ("10", 60_000_000, True),
        ("60000", 10_000, True),
        ("60000", 60_000_000, False),
        ("60000", 0, False),
        ("10", 0, True),
    ],
)
async def test_the_shorter_of_two_deadlines_counts(
    tmp_path: Path, header_ms: str | None, timeout_us: int | None, is_late: bool
) -> None:
    save_mean(tmp_path)
    headers = {} if header_ms is None else {"X-Request-Timeout-Ms": header_ms}
    parameters = {} if timeout_us is None else {"timeout": timeout_us}
    content = asked(given("input", "FP32", [1, 6], [1, 2, 3, 4, 5, 6]), parameters=parameters)
    async with serving(Settings(models_dir=tmp_path, max_queue_delay_ms=100)) as client:
        reply = await client.post("/v2/models/mean/infer", content=content, headers=headers)
    if is_late:
        assert reply.status_code == 504
        assert reply.json()["error"].startswith("the deadline passed ")
    else:
        assert answered(reply)["value"].tolist() == [[3.5]]


async def test_no_deadline_is_longer_than_the_setting(tmp_path: Path) -> None:
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, max_queue_delay_ms=100, request_timeout_s=0.01)
    content = asked(four(), parameters={"timeout": 60_000_000})
    async with serving(settings) as client:
        assert (await client.post(TOY, content=content)).status_code == 504


async def test_predict_gives_the_same_numbers(client: httpx.AsyncClient) -> None:
    reply = await client.post("/predict", content=predict_body("toy", [[1, 2, 3, 4]]))
    (prediction,) = reply.json()["predictions"]
    assert list(prediction["probabilities"].values()) == pytest.approx(
        answered(await client.post(TOY, content=GOOD))["probabilities"][0], abs=0
    )


async def test_numbers_in_json_come_as_their_text_says(tmp_path: Path) -> None:
    save_same(tmp_path, ["batch", 2], name="fp32")
    save_same(tmp_path, ["batch", 2], TensorProto.DOUBLE, name="fp64")
    save_same(tmp_path, ["batch", 2], TensorProto.INT64, name="int64")

    async def ask(datatype: str, text: str) -> httpx.Response:
        content = asked(given("input", datatype, [1, 2], ["here"])).replace(
            b'["here"]', text.encode()
        )
        return await client.post(f"/v2/models/{datatype.lower()}/infer", content=content)

    async with serving(Settings(models_dir=tmp_path)) as client:
        for datatype, largest in (("FP32", "3.4028235e38"), ("FP64", "1.7976931348623158e308")):
            reply = await ask(datatype, f"[-0,{largest}]")
            numbers = reply.json()["outputs"][0]["data"]
            assert str(numbers[0]) == "-0.0"
            assert numbers[1] == np.finfo(DATATYPES[datatype]).max
        exact = await ask("INT64", "[9007199254740993,-0]")
        rounded = await ask("INT64", "[1,9007199254740993.0]")
    assert exact.json()["outputs"][0]["data"] == [9007199254740993, 0]
    assert rounded.status_code == 400
    assert "written without a fraction" in rounded.json()["error"]


async def test_null_is_a_missing_value_where_the_model_knows_what_to_do(tmp_path: Path) -> None:
    save_imputed(tmp_path)
    long = [None] * 60_000 + [1] * 60_000
    async with serving(
        Settings(models_dir=tmp_path, watch=False, max_request_rows=10**6)
    ) as client:
        for data, expected in (([None, 2], [8, 3]), ([[None], [2]], [8, 3]), (long, None)):
            sizes = [1] * len(data)
            inputs = [
                {"name": name, "datatype": "FP32", "shape": [len(data), 1], "data": values}
                for name, values in (("age", data), ("size", sizes))
            ]
            reply = await client.post("/v2/models/imputed/infer", json={"inputs": inputs})
            (output,) = reply.json()["outputs"]
            assert output["data"] == (expected or [8] * 60_000 + [2] * 60_000)
        inputs[0]["name"], inputs[1]["name"] = "size", "age"
        reply = await client.post("/v2/models/imputed/infer", json={"inputs": inputs})
        assert reply.status_code == 400
        error = "inputs[0].data[0]: expected a number, got null: the model takes no missing values"
        assert reply.json()["error"].startswith(error)
