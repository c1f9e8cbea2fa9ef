"""Calls of gRPC over real sockets, by a client that is made of h2."""

import asyncio
import gzip
import logging
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.grpc import infer
from service.grpc.messages import HEALTH, SERVICE, ModelInferRequest, message
from service.grpc.status import Code
from service.grpc.tensors import FIELDS
from service.settings import Settings
from tests.support import onnx_graphs
from tests.support.grpc_client import INFER, Client, framed, infer_request, outputs_of
from tests.support.sockets import Listening, listening
from tests.support.toys import save_toy, toy_answer, toy_card

pytestmark = pytest.mark.anyio

ROW = np.array([[1, 2, 3, 4]], np.float32)
ASKED = infer_request("toy", ROW).SerializeToString()
KEY = "a-key-of-16-letters"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    onnx_graphs.save_several(folder)
    onnx_graphs.save_series(folder)
    for datatype in onnx_graphs.ONNX_TYPES:
        onnx_graphs.save_typed(folder, datatype)
    return folder


@pytest.fixture(scope="module")
async def service(folder: Path) -> AsyncIterator[Listening]:
    async with listening(Settings(models_dir=folder, max_body_bytes=1_000_000)) as service:
        yield service


@pytest.fixture
async def client(service: Listening) -> AsyncIterator[Client]:
    async with Client(service.port) as client:
        yield client


def counted(service: Listening, outcome: str) -> float:
    """Return how many requests to toy ended so."""
    metrics = service.app.services.metrics.models["toy", "1"]
    return float(metrics._requests[metrics._outcomes[outcome]])


def unmatched(service: Listening, outcome: str) -> float:
    from service.metrics.instruments import UNMATCHED_OUTCOMES

    metrics = service.app.services.metrics
    return float(metrics._unmatched[UNMATCHED_OUTCOMES.index(outcome)])


async def test_an_inference_is_answered_and_counted(service: Listening, client: Client) -> None:
    before = counted(service, "ok")
    answer = await client.infer(infer_request("toy", ROW, id="7").SerializeToString())
    assert (answer.model_name, answer.model_version, answer.id) == ("toy", "1", "7")
    assert np.abs(outputs_of(answer)[0] - toy_answer(ROW)).max() < 1e-6
    assert counted(service, "ok") == before + 1
    assert not service.by_asgi


async def test_the_id_of_a_request_comes_back(client: Client) -> None:
    answered = await client.call(INFER, ASKED, x_request_id="mine", x_request_timing="true")
    assert answered.headers["x-request-id"] == "mine"
    assert answered.headers["server-timing"].startswith("queue;dur=")
    answer = await client.infer(ASKED)
    assert answer.id  # made up


@pytest.mark.parametrize("datatype", onnx_graphs.ONNX_TYPES)
async def test_each_datatype_is_answered_bit_for_bit_as_over_http(
    service: Listening, client: Client, datatype: str
) -> None:
    name = datatype.lower()
    array: NDArray[Any]
    if datatype == "BYTES":
        array = np.array([["", "Grüße 🚀"], ["a", "b\0c"]], np.object_)
    else:
        random = np.random.default_rng(0).bytes(4 * 8)
        dtype = np.dtype({"FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(datatype, "u1"))
        array = np.frombuffer(random, dtype)[:4].reshape(2, 2)
        if datatype == "BOOL":
            array = array % 2 == 1
        elif dtype.kind == "u":
            array = array.astype(datatype.lower())
    request = infer_request(name, array)
    answer = await client.infer(request.SerializeToString())
    raw = b"".join(request.raw_input_contents)
    head = (
        f'{{"inputs":[{{"name":"input","datatype":"{datatype}","shape":[2,2],"parameters":'
        f'{{"binary_data_size":{len(raw)}}}}}],"parameters":{{"binary_data_output":true}}}}'
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as http:
        reply = await http.post(
            f"/v2/models/{name}/infer",
            content=head.encode() + raw,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
    length = int(reply.headers["inference-header-content-length"])
    assert b"".join(answer.raw_output_contents) == reply.content[length:]
    if datatype == "FP16":
        return
    typed = ModelInferRequest(model_name=name)
    tensor = typed.inputs.add(name="input", datatype=datatype, shape=[2, 2])
    values = array.ravel().tolist()
    values = [each.encode() for each in values] if datatype == "BYTES" else values
    getattr(tensor.contents, FIELDS[datatype]).extend(values)
    answer_typed = await client.infer(typed.SerializeToString())
    assert not answer_typed.raw_output_contents
    assert [each.datatype for each in answer_typed.outputs] == [
        each.datatype for each in answer.outputs
    ]
    if datatype != "BYTES":
        for one, other in zip(outputs_of(answer), answer_typed.outputs, strict=True):
            (_, values), *_ = other.contents.ListFields() or [(None, [])]
            if not np.isnan(one.astype(float)).any() and len(values):
                assert np.array_equal(np.array(values, one.dtype).reshape(one.shape), one)


async def test_several_inputs_outputs_and_classes(client: Client) -> None:
    request = infer_request("toy", ROW)
    output = request.outputs.add(name="probabilities")
    output.parameters["classification"].int64_param = 2
    answer = await client.infer(request.SerializeToString())
    assert answer.outputs[0].datatype == "BYTES"
    assert list(answer.outputs[0].shape) == [1, 2]
    best = [("red", "green", "blue")[place] for place in np.argsort(-toy_answer(ROW)[0])[:2]]
    assert [each.split(":")[2] for each in outputs_of(answer)[0][0]] == best
    price = np.array([1.5, 2.5], np.float32)
    counts = np.ones((2, 3), np.int64)
    names = np.array([["a"], ["b"]], np.object_)
    given = infer_request("several", names, price, counts, names=("name", "price", "counts"))
    given.outputs.add(name="greeting")
    given.outputs.add(name="more")
    answer = await client.infer(given.SerializeToString())
    assert [each.name for each in answer.outputs] == ["greeting", "more"]


def changed(**changes: Any) -> Any:
    request = infer_request("toy", ROW)
    for name, value in changes.items():
        setattr(request.inputs[0], name, value)
    return request


def with_typed(field: str, values: list[Any], **changes: Any) -> Any:
    request = changed(**changes)
    del request.raw_input_contents[:]
    getattr(request.inputs[0].contents, field).extend(values)
    return request


def with_parameter(name: str, **value: Any) -> Any:
    request = infer_request("toy", ROW)
    for field, each in value.items():
        setattr(request.parameters[name], field, each)
    return request


def with_region() -> Any:
    request = infer_request("toy", ROW)
    request.inputs[0].parameters["shared_memory_region"].string_param = "there"
    return request


REFUSED: list[tuple[str, Any, Code, str]] = [
    ("no message of the kind", b"\xff\xff", Code.INVALID_ARGUMENT, "message: expected a ModelInf"),
    ("model", infer_request("tyo", ROW), Code.NOT_FOUND, "model: expected one of bool, "),
    (
        "version",
        infer_request("toy", ROW, model_version="3"),
        Code.NOT_FOUND,
        "model toy: version: expected one of 1; got 3",
    ),
    ("name", changed(name="inputs"), Code.INVALID_ARGUMENT, "inputs[0].name: expected one of"),
    ("datatype", changed(datatype="BF16"), Code.INVALID_ARGUMENT, "inputs[0].datatype: expected"),
    (
        "size",
        infer_request("toy", ROW.astype(np.float64)),
        Code.INVALID_ARGUMENT,
        "inputs[0].datatype: expected FP32 for input input, got FP64",
    ),
    (
        "shape",
        infer_request("toy", np.ones((1, 5), np.float32)),
        Code.INVALID_ARGUMENT,
        "inputs[0].shape: expected [-1, 4] for input input, with sizes from 1 for -1; got [1, 5]",
    ),
    (
        "rows",
        infer_request("toy", np.ones((4097, 4), np.float32)),
        Code.RESOURCE_EXHAUSTED,
        "inputs: expected at most 4096 rows in one request, got 4097",
    ),
    ("nothing", ModelInferRequest(model_name="toy"), Code.INVALID_ARGUMENT, "inputs: expected in"),
    (
        "raw for half of it",
        infer_request("toy", ROW, raw_input_contents=[b""]),
        Code.INVALID_ARGUMENT,
        "raw_input_contents: expected one for each input, 1, got 2",
    ),
    (
        "count",
        with_typed("fp32_contents", [1, 2, 3]),
        Code.INVALID_ARGUMENT,
        "inputs[0].contents.fp32_contents: expected 4 elements as shape [1, 4] says, got 3",
    ),
    (
        "field",
        with_typed("fp64_contents", [1, 2, 3, 4]),
        Code.INVALID_ARGUMENT,
        "inputs[0].contents: expected fp32_contents for FP32, got fp64_contents",
    ),
    (
        "range",
        with_typed("int_contents", [1, 2, 300, 4], datatype="INT8"),
        Code.INVALID_ARGUMENT,
        "inputs[0].contents.int_contents[2]: expected -128 to 127, got 300",
    ),
    (
        "typed FP16",
        with_typed("fp32_contents", [1, 2, 3, 4], datatype="FP16"),
        Code.INVALID_ARGUMENT,
        "inputs[0].contents: FP16 has no typed contents; use raw_input_contents",
    ),
    (
        "sequence",
        with_parameter("sequence_id", int64_param=7),
        Code.INVALID_ARGUMENT,
        "parameters.sequence_id: expected none, as it is not served; got 7",
    ),
    (
        "timeout",
        with_parameter("timeout", int64_param=1),
        Code.DEADLINE_EXCEEDED,
        "the deadline passed ",
    ),
    (
        "shared memory",
        with_region(),
        Code.INVALID_ARGUMENT,
        "inputs[0]: expected data in the request, as shared memory is not served",
    ),
]


@pytest.mark.parametrize(
    ("request_", "code", "sentence"), [each[1:] for each in REFUSED], ids=[e[0] for e in REFUSED]
)
async def test_what_does_not_fit_is_refused_and_the_connection_goes_on(
    client: Client, request_: Any, code: Code, sentence: str
) -> None:
    data = request_ if isinstance(request_, bytes) else request_.SerializeToString()
    answered = await client.call(INFER, data)
    assert (answered.code, answered.sentence[: len(sentence)]) == (code, sentence)
    assert not answered.data
    assert answered.reset is None
    assert outputs_of(await client.infer(ASKED))


async def test_heads_that_do_not_fit_are_refused(client: Client) -> None:
    async def refused(code: Code, sentence: str, path: str = INFER, **headers: str) -> None:
        answered = await client.call(path, ASKED, **headers)
        assert answered.code == code
        assert answered.sentence.startswith(sentence)

    await refused(Code.INVALID_ARGUMENT, "grpc-timeout: expected ", grpc_timeout="1 s")
    await refused(Code.UNIMPLEMENTED, "grpc-encoding: expected identity or", grpc_encoding="zstd")
    await refused(Code.UNIMPLEMENTED, '"/a.B/C": no such method of inference.G', path="/a.B/C")
    stream = f"/{SERVICE}/ModelStreamInfer"
    await refused(Code.UNIMPLEMENTED, "streams of inferences are not served", path=stream)
    await refused(Code.UNIMPLEMENTED, "shared memory", path=f"/{SERVICE}/SystemSharedMemoryStatus")
    await refused(Code.DEADLINE_EXCEEDED, "the deadline passed", grpc_timeout="1n")
    assert (await client.call(INFER, ASKED, grpc_timeout="99999999H")).code == 0


async def test_a_request_that_is_no_call_gets_415(client: Client) -> None:
    for headers in ({"content_type": "application/json"}, {":method": "GET"}):
        answered = await client.call("/predict", b"{}", **headers)
        assert answered.headers[":status"] == "415"
        assert b"expected gRPC over HTTP/2" in answered.data


async def test_messages_may_be_compressed_with_gzip_and_are_bounded(client: Client) -> None:
    async def send(message: bytes, **headers: str) -> Any:
        id = client.begin(INFER, **headers)
        client.send(id, b"\1" + len(message).to_bytes(4) + message)
        return await client.answer(id)

    assert (await send(gzip.compress(ASKED), grpc_encoding="gzip")).code == 0
    unsaid = await send(gzip.compress(ASKED))
    assert unsaid.code == Code.INVALID_ARGUMENT
    assert unsaid.sentence.startswith("grpc-encoding: expected gzip, as the message says")
    bomb = await send(gzip.compress(bytes(20_000_000)), grpc_encoding="gzip")
    assert bomb.code == Code.RESOURCE_EXHAUSTED
    assert bomb.sentence == "message: expected at most 1000000 bytes decompressed, got more"
    broken = await send(b"no gzip", grpc_encoding="gzip")
    assert broken.code == Code.INVALID_ARGUMENT
    assert broken.sentence.startswith("message: expected it compressed with gzip, got: ")


@pytest.mark.parametrize("method", [f"{SERVICE}/ModelReady", f"{HEALTH}/Check", f"{HEALTH}/Watch"])
async def test_a_message_that_is_short_by_nature_is_bounded(client: Client, method: str) -> None:
    id = client.begin(f"/{method}")
    client.send(id, b"\0" + (65_537).to_bytes(4), end=False)
    answered = await client.answer(id)
    assert answered.code == Code.RESOURCE_EXHAUSTED
    assert answered.sentence == "message: expected at most 65536 bytes, got 65537"
    id = client.begin(f"/{method}", grpc_encoding="gzip")
    bomb = gzip.compress(bytes(65_537))
    client.send(id, b"\1" + len(bomb).to_bytes(4) + bomb)
    assert (await client.answer(id)).code == Code.RESOURCE_EXHAUSTED


async def test_what_is_not_served_is_refused_before_it_is_parsed(client: Client) -> None:
    answered = await client.call(f"/{SERVICE}/RepositoryModelLoad", b"\xff")
    assert answered.code == Code.UNIMPLEMENTED


async def test_a_message_that_is_too_long_is_refused_before_it_is_here(client: Client) -> None:
    id = client.begin(INFER)
    client.send(id, b"\0" + (1_000_001).to_bytes(4), end=False)
    answered = await client.answer(id)
    assert answered.code == Code.RESOURCE_EXHAUSTED
    assert answered.sentence == "message: expected at most 1000000 bytes, got 1000001"
    await client.until(lambda: answered.reset == 0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "message: expected one, got 0 bytes"),
        (b"\0\0", "message: expected one, got 2 bytes"),
        (framed(ASKED)[:-1], f"message: expected {len(ASKED)} bytes, got {len(ASKED) - 1}"),
        (framed(ASKED) * 2, f"message: expected one, got {len(ASKED) + 5} bytes behind it"),
        (b"\2" + framed(ASKED)[1:], "message: expected a first byte of 0 or 1, got 2"),
    ],
)
async def test_a_call_has_one_message(client: Client, data: bytes, sentence: str) -> None:
    id = client.begin(INFER)
    client.send(id, data)
    answered = await client.answer(id)
    assert (answered.code, answered.sentence) == (Code.INVALID_ARGUMENT, sentence)


async def test_large_messages_go_both_ways(service: Listening, client: Client) -> None:
    rows = np.random.default_rng(0).random((2, 60_000)).astype(np.float32)
    id = client.begin(INFER)
    await client.send_all(id, framed(infer_request("series", rows).SerializeToString()))
    from service.grpc.messages import ModelInferResponse

    answer = ModelInferResponse.FromString((await client.answer(id)).message)
    doubled = dict(zip((e.name for e in answer.outputs), outputs_of(answer), strict=True))
    assert np.array_equal(doubled["doubled"], rows * 2)
    assert service.app.services.memory.held == 0


async def test_typed_contents_that_are_many_are_read_in_a_thread(client: Client) -> None:
    rows = np.arange(40_000, dtype=np.float32).reshape(2, -1)
    request = ModelInferRequest(model_name="series")
    tensor = request.inputs.add(name="input", datatype="FP32", shape=rows.shape)
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    answer = await client.infer(request.SerializeToString())
    got = {each.name: each.contents.fp32_contents for each in answer.outputs}
    assert np.array_equal(got["doubled"], (rows * 2).ravel())


@pytest.mark.parametrize("asked", ["toy", "bytes", "int64"])
async def test_answers_that_are_many_are_written_in_a_thread(
    client: Client, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: NDArray[Any] = np.full((4000, 2), "a", np.object_)
    if asked == "toy":
        rows = np.ones((4000, 4), np.float32)
    request = infer_request(asked, rows)
    if asked == "toy":
        output = request.outputs.add(name="probabilities")
        output.parameters["classification"].int64_param = 2
    elif asked == "int64":
        rows = np.ones((4096, 2), np.int64)
        request = ModelInferRequest(model_name=asked)
        tensor = request.inputs.add(name="input", datatype="INT64", shape=rows.shape)
        tensor.contents.int64_contents.extend(rows.ravel().tolist())
    threads = []
    write = infer.written

    def written(*given: Any) -> Any:
        threads.append(threading.get_ident())
        return write(*given)

    monkeypatch.setattr(infer, "written", written)
    answer = await client.infer(request.SerializeToString())
    assert answer.outputs[0].shape[0] == len(rows)
    assert (threading.get_ident() in threads) == (asked == "int64")


async def test_the_other_methods(client: Client) -> None:
    named = message("inference.ModelMetadataRequest")(name="toy").SerializeToString()
    assert (await client.ask("ServerLive")).live
    assert (await client.ask("ServerReady")).ready
    assert (await client.ask("ServerMetadata")).name == "torchlit"
    assert (await client.ask("ModelReady", named)).ready
    assert (await client.ask("ModelMetadata", named)).inputs[0].shape == [-1, 4]
    config = (await client.ask("ModelConfig", named)).config
    assert config.max_batch_size == 4096
    assert config.parameters["nodes"].string_value == "2 of 2 nodes on cpu"
    assert (await client.ask("ModelStatistics", named)).model_stats[0].name == "toy"
    assert len((await client.ask("ModelStatistics")).model_stats) > 1
    assert "toy" in {each.name for each in (await client.ask("RepositoryIndex")).models}
    refused = await client.call(f"/{SERVICE}/RepositoryModelLoad")
    assert refused.code == Code.UNIMPLEMENTED
    unknown = message("inference.ModelReadyRequest")(name="tyo").SerializeToString()
    assert not (await client.ask("ModelReady", unknown)).ready
    assert (await client.call(f"/{SERVICE}/ModelMetadata", unknown)).code == Code.NOT_FOUND


async def test_health_is_that_of_the_service_or_of_a_model(client: Client) -> None:
    async def check(name: str) -> Any:
        request = message(f"{HEALTH.rpartition('.')[0]}.HealthCheckRequest")(service=name)
        return await client.call(f"/{HEALTH}/Check", request.SerializeToString())

    assert (await check("")).message == b"\x08\x01"
    assert (await check(SERVICE)).message == b"\x08\x01"
    assert (await check("toy")).message == b"\x08\x01"
    assert (await check("tyo")).code == Code.NOT_FOUND


async def test_who_watches_hears_what_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "torchlit.access")
    save_toy(tmp_path)
    async with (
        listening(Settings(models_dir=tmp_path, access_log=True)) as service,
        Client(service.port) as client,
    ):
        id = client.start(f"/{HEALTH}/Watch")
        watched = client.calls[id]
        await client.until(lambda: bytes(watched.data) == framed(b"\x08\x01"))
        service.host.is_draining = True
        service.later(0.5)
        await client.until(lambda: watched.is_ended)
        assert watched.data in (framed(b"\x08\x01") + framed(b"\x08\x02"), framed(b"\x08\x01"))
        assert watched.code == Code.UNAVAILABLE
        (logged,) = (each.getMessage() for each in caplog.records if "Watch" in each.getMessage())
        assert logged.startswith(f"POST /{HEALTH}/Watch UNAVAILABLE in ")


async def test_keys_come_in_metadata(folder: Path) -> None:
    async with (
        listening(Settings(models_dir=folder, api_keys=KEY)) as service,
        Client(service.port) as client,
    ):
        assert (await client.call(INFER, ASKED)).code == Code.UNAUTHENTICATED
        assert (await client.call(INFER, ASKED, x_api_key="another")).code == Code.UNAUTHENTICATED
        assert (await client.call(INFER, ASKED, x_api_key=KEY)).code == 0
        assert (await client.call(INFER, ASKED, authorization=f"Bearer {KEY}")).code == 0
        assert (await client.call(f"/{SERVICE}/ServerMetadata")).code == Code.UNAUTHENTICATED
        assert (await client.call(f"/{SERVICE}/ServerReady")).code == 0
        assert (await client.call(f"/{HEALTH}/Check")).code == 0
        assert unmatched(service, "unauthorized") == 3


async def test_many_calls_of_a_connection_have_each_its_own_answer(client: Client) -> None:
    random = np.random.default_rng(1)
    rows = [random.random((1 + n % 3, 4)).astype(np.float32) for n in range(100)]
    ids = [client.start(INFER, infer_request("toy", each).SerializeToString()) for each in rows]
    from service.grpc.messages import ModelInferResponse

    for each, id in zip(rows, ids, strict=True):
        answer = ModelInferResponse.FromString((await client.answer(id)).message)
        assert np.abs(outputs_of(answer)[0] - toy_answer(each)).max() < 1e-6


async def test_http_and_grpc_share_the_port(service: Listening, client: Client) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}") as http:
        answers = await asyncio.gather(
            client.infer(ASKED), http.get("/v2/models/toy"), client.infer(ASKED)
        )
    assert answers[1].status_code == 200


async def test_no_more_outputs_are_read_than_a_model_has(client: Client) -> None:
    tracemalloc.start()
    try:
        call = await client.call(INFER, ASKED + 20_000 * b"\x32\x00")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert call.code == Code.INVALID_ARGUMENT
    assert call.sentence.startswith("outputs[0].name: expected one of ")
    asked = infer_request("toy", ROW)
    for _ in range(2):
        asked.outputs.add(name="probabilities")
    call = await client.call(INFER, asked.SerializeToString())
    assert call.sentence.startswith("outputs[1].name: expected each output once")
