"""Triton's client over gRPC, of threads and of asyncio: the same data as over HTTP."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as over_http
from numpy.typing import NDArray

from tests.support import onnx_graphs
from tests.support.clients import counted
from tests.support.processes import Process, running
from tests.support.toys import save_dear, save_toy, toy_answer, toy_card
from tests.support.triton_cases import REFUSALS, ROW, TOY, VALUES, given

pytest.importorskip("grpc", reason="grpcio is not here")  # what is below asks for it otherwise
grpc = pytest.importorskip("tritonclient.grpc")
aio = pytest.importorskip("tritonclient.grpc.aio")

pytestmark = [pytest.mark.anyio, pytest.mark.grpc]

CODES = {400: "INVALID_ARGUMENT", 413: "RESOURCE_EXHAUSTED", 404: "NOT_FOUND"}
# What is said of data is of the fields that hold it.
OTHERS = {
    "inputs[0]: expected either data": "inputs[0].contents.fp32_contents: expected 4 elements",
}


class Awaited:
    """The client of threads, in the form of that of asyncio: so one test drives both."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return method(*arguments, **named)

        return call


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("models")
    for datatype in onnx_graphs.ONNX_TYPES:
        onnx_graphs.save_typed(folder, datatype)
    onnx_graphs.save_several(folder)
    onnx_graphs.save_series(folder)
    onnx_graphs.save_scalar(folder)
    save_toy(folder, card=toy_card())
    save_dear(folder, 1000)
    with running(
        models_dir=folder, model_control=True, watch=False, max_body_bytes=4_000_000, drain_s=0
    ) as service:
        yield service


@pytest.fixture(scope="module", autouse=True)
async def one_loop() -> None:
    """Let all tests here have the same event loop: grpc.aio polls for it in a thread."""


@pytest.fixture
def address(service: Process) -> str:
    return service.url.removeprefix("http://")


@pytest.fixture(params=["threads", "asyncio"])
async def client(address: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "threads":
        with grpc.InferenceServerClient(address) as client:
            yield Awaited(client)
    else:
        async with aio.InferenceServerClient(address) as client:
            yield client


def as_grpc(sent: over_http.InferInput) -> Any:
    """Return what was made for HTTP as the client takes it over gRPC."""
    converted = grpc.InferInput(sent.name(), sent.shape(), sent.datatype())
    if "data" in (tensor := sent._get_tensor()):
        return converted.set_data_from_numpy(np.array(tensor["data"], object).reshape(sent.shape()))
    converted._raw_content = sent._get_binary_data()
    return converted


def of(name: str, array: NDArray[Any]) -> Any:
    return as_grpc(given(name, array))


def texts(array: NDArray[Any]) -> list[str]:
    return [each.decode() if isinstance(each, bytes) else each for each in array.ravel().tolist()]


async def test_the_server_and_its_models_say_what_they_say_over_http(
    client: Any, service: Process
) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("toy", "1")
    assert not await client.is_model_ready("toy", "3")
    assert not await client.is_model_ready("tyo")
    server = await client.get_server_metadata(as_json=True)
    assert server == service.get("/v2").json()
    for path, name in (("toy", "toy"), ("several", "several")):
        said = await client.get_model_metadata(name, as_json=True)
        expected = service.get(f"/v2/models/{path}").json()
        for tensor in [*said["inputs"], *said["outputs"]]:
            tensor["shape"] = [int(size) for size in tensor.get("shape", [])]
        assert said == expected
    config = (await client.get_model_config("several")).config
    assert config.max_batch_size == 4096
    assert [list(each.dims) for each in config.input] == [[], [3], [1]]
    index = (await client.get_model_repository_index()).models
    assert {each.name for each in index} > {"toy", "dear"}


async def test_models_are_unloaded_and_loaded(client: Any) -> None:
    await client.unload_model("scalar")
    assert not await client.is_model_ready("scalar")
    await client.load_model("scalar")
    assert await client.is_model_ready("scalar")
    with pytest.raises(grpc.InferenceServerException, match="expected none: what is loaded"):
        await client.load_model("scalar", config="{}")


@pytest.mark.parametrize("datatype", VALUES)
async def test_every_datatype_keeps_its_values(client: Any, datatype: str) -> None:
    values = VALUES[datatype]
    other = "twice" if datatype == "BYTES" else "as_double"
    answer = await client.infer(datatype.lower(), [of("input", values)])
    same, changed = answer.as_numpy("same"), answer.as_numpy(other)
    if datatype == "BYTES":
        assert texts(same) == values.ravel().tolist()
        assert texts(changed) == (values + values).ravel().tolist()
    else:
        assert same.tobytes() == values.tobytes()
        assert changed.tobytes() == values.astype(np.float64).tobytes()


@pytest.mark.parametrize(("status", "sentence", "inputs", "outputs"), REFUSALS)
async def test_what_does_not_fit_is_refused_and_the_client_goes_on(
    client: Any, status: int, sentence: str, inputs: list[Any], outputs: list[Any]
) -> None:
    wanted = [grpc.InferRequestedOutput(each.name()) for each in outputs]
    for theirs, ours in OTHERS.items():
        sentence = ours if sentence.startswith(theirs) else sentence
    with pytest.raises(grpc.InferenceServerException) as caught:
        await client.infer("toy", list(map(as_grpc, inputs)), outputs=wanted)
    if "expected one of BOOL" not in sentence:  # the client knows BF16, and sends it
        assert caught.value.message().startswith(sentence)
    assert caught.value.status() == f"StatusCode.{CODES[status]}"
    answer = await client.infer("toy", [of("input", ROW)])
    assert np.abs(answer.as_numpy(TOY) - toy_answer(ROW)).max() < 1e-6


async def test_classes_ids_deadlines_and_parameters(client: Any) -> None:
    wanted = [grpc.InferRequestedOutput(TOY, class_count=2)]
    answer = await client.infer("toy", [of("input", ROW)], outputs=wanted, request_id="Grüße")
    assert answer.get_response().id == "Grüße"
    assert len(texts(answer.as_numpy(TOY))[0].split(":")) == 3
    with pytest.raises(grpc.InferenceServerException, match="the deadline passed"):
        await client.infer("dear", [of("input", ROW)], timeout=1)
    with pytest.raises(grpc.InferenceServerException, match="sequence_id: expected none"):
        await client.infer("toy", [of("input", ROW)], sequence_id=7)
    with pytest.raises(grpc.InferenceServerException, match=r"Deadline Exceeded|deadline"):
        await client.infer("dear", [of("input", np.ones((64, 4), np.float32))], client_timeout=1e-3)
    packed = await client.infer("toy", [of("input", ROW)], compression_algorithm="gzip")
    assert packed.as_numpy(TOY).shape == (1, 3)


async def test_3_mb_go_both_ways(client: Any) -> None:
    rows = np.random.default_rng(0).random((1, 800_000)).astype(np.float32)
    answer = await client.infer("series", [of("input", rows)])
    assert np.array_equal(answer.as_numpy("doubled"), rows * 2)
    with pytest.raises(grpc.InferenceServerException, match="message: expected at most 4000000"):
        await client.infer("series", [of("input", np.ones((1, 1_100_000), np.float32))])


async def test_what_is_not_served_says_so(client: Any) -> None:
    for method, arguments, sentence in (
        ("get_trace_settings", [], "traces are not served"),
        ("get_log_settings", [], "the settings of logs"),
        ("get_system_shared_memory_status", [], "shared memory is not served"),
    ):
        with pytest.raises(grpc.InferenceServerException, match=sentence):
            await getattr(client, method)(*arguments)


async def test_64_clients_over_http_and_grpc_each_have_their_own_answers(
    service: Process, address: str
) -> None:
    random = np.random.default_rng(0)
    before = service.get("/metrics").text

    async def over_grpc(client: Any, rows: NDArray[Any]) -> NDArray[Any]:
        answer = await client.infer("toy", [of("input", rows)])
        got: NDArray[Any] = answer.as_numpy(TOY)
        return got

    async def over_http1(client: Any, rows: NDArray[Any]) -> NDArray[Any]:
        body = {"model": "toy", "instances": rows.tolist()}
        predictions = (await client.post("/predict", json=body)).json()["predictions"]
        return np.array([list(each["probabilities"].values()) for each in predictions])

    async def one(place: int) -> None:
        opened: Any = (
            aio.InferenceServerClient(address)
            if place % 2
            else httpx.AsyncClient(base_url=service.url, timeout=20)
        )
        async with opened as client:
            for turn in range(5):
                rows = random.uniform(0, 10, (1 + (place + turn) % 4, 4)).astype(np.float32)
                got = await (over_grpc if place % 2 else over_http1)(client, rows)
                assert np.abs(got - toy_answer(rows)).max() < 1e-6

    await asyncio.gather(*map(one, range(64)))
    after = service.get("/metrics").text
    labels = 'torchlit_requests_total{model="toy"', 'outcome="ok"'
    assert counted(after, *labels) - counted(before, *labels) == 64 * 5


def test_the_protoset_has_the_numbers_of_tritons_own_messages() -> None:
    from google.protobuf import descriptor_pb2
    from tritonclient.grpc import model_config_pb2, service_pb2

    from service.grpc.messages import PROTOSET

    def fields(files: Any) -> dict[tuple[str, str], tuple[int, int, int]]:
        found: dict[tuple[str, str], tuple[int, int, int]] = {}

        def walk(message: Any, within: str) -> None:
            name = f"{within}.{message.name}"
            for each in message.field:
                found[name, each.name] = (each.number, each.type, each.label)
            for each in message.nested_type:
                walk(each, name)

        for file, message in itertools.chain.from_iterable(
            ((file, message) for message in file.message_type) for file in files
        ):
            walk(message, file.package)
        return found

    theirs = []
    for module in (service_pb2, model_config_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        theirs.append(file)
    ours = descriptor_pb2.FileDescriptorSet.FromString(PROTOSET.read_bytes()).file
    expected = fields(theirs)
    for key, field in fields(ours[:1]).items():
        assert expected[key] == field, key
