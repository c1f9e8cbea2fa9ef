"""The Open Inference Protocol as its real client speaks it: tritonclient, not changed.

Most tests run twice, with the client of asyncio (`tritonclient.http.aio`, over aiohttp) and, among
the slow ones, with that of threads (`tritonclient.http`, over gevent). Both need real sockets, so
one server process serves all graphs of tests/onnx_graphs.py. The oracle is NumPy.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from service.card import Example
from tests.support import onnx_graphs
from tests.support.clients import counted
from tests.support.processes import Process, running
from tests.support.toys import save_dear, save_toy, toy_answer, toy_card
from tests.support.triton_cases import FOUR, REFUSALS, ROW, TOY, VALUES, given, wanted

# As slow as it is large: the client imports gevent, and test_infer.py holds the same wire format.
pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FORMS = pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])


class Awaited:
    """The client of threads, in the form of that of asyncio: so one test drives both."""

    def __init__(self, client: triton.InferenceServerClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return method(*arguments, **named)

        return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every kind, and toy in two versions, with cards."""
    folder = tmp_path_factory.mktemp("models")
    for datatype in onnx_graphs.ONNX_TYPES:
        onnx_graphs.save_typed(folder, datatype)
    onnx_graphs.save_several(folder)
    onnx_graphs.save_turned(folder)
    onnx_graphs.save_three_rows(folder)
    onnx_graphs.save_series(folder)
    onnx_graphs.save_scalar(folder)
    onnx_graphs.save_labels(folder)
    onnx_graphs.save_logarithm(folder)
    onnx_graphs.save_positive(folder)
    save_toy(folder, card=toy_card())
    twice = Example(name="one", input=ROW[0].tolist(), output=toy_answer(2 * ROW)[0].tolist())
    save_toy(folder, 2, card=toy_card(examples=[twice]), scale=2)
    save_dear(folder, 1000)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Process]:
    with running(
        models_dir=folder, model_control=True, watch=False, max_body_bytes=1_000_000
    ) as service:
        yield service


@pytest.fixture
def address(service: Process) -> str:
    """Host and port: the clients want no scheme."""
    return service.url.removeprefix("http://")


@pytest.fixture(params=[pytest.param("threads", marks=pytest.mark.slow), "asyncio"])
async def client(address: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "threads":
        with triton.InferenceServerClient(address) as client:
            yield Awaited(client)
    else:
        async with triton_aio.InferenceServerClient(address) as client:
            yield client


def texts(array: NDArray[Any]) -> list[Any]:
    """BYTES as strings; they come as bytes if binary, as strings if JSON."""
    return [
        each.decode() if isinstance(each, bytes) else each for each in array.reshape(-1).tolist()
    ]


async def refused(status: int, sentence: str, answer: Any) -> None:
    """Check that what is awaited fails with this status, and a sentence that begins so."""
    with pytest.raises(triton.InferenceServerException) as caught:
        await answer
    assert caught.value.status() == str(status)
    assert caught.value.message().startswith(sentence)


# The server and its models


async def test_the_server_tells_that_it_lives_and_what_it_can(client: Any) -> None:
    assert await client.is_server_live() is True
    assert await client.is_server_ready() is True
    metadata = await client.get_server_metadata()
    assert metadata["name"] == "torchlit"
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])
    assert metadata["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "statistics",
        "model_repository",
        "model_repository(unload_dependents)",
    ]


async def test_a_model_is_ready_if_it_is_there(client: Any) -> None:
    assert await client.is_model_ready("toy") is True
    assert await client.is_model_ready("toy", "1") is True
    assert await client.is_model_ready("toy", "3") is False
    assert await client.is_model_ready("toy", "one") is False
    assert await client.is_model_ready("tyo") is False


async def test_metadata_is_what_the_graph_says(client: Any) -> None:
    assert await client.get_model_metadata("several") == {
        "name": "several",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "price", "datatype": "FP32", "shape": [-1]},
            {"name": "counts", "datatype": "INT64", "shape": [-1, 3]},
            {"name": "name", "datatype": "BYTES", "shape": [-1, 1]},
        ],
        "outputs": [
            {"name": "less", "datatype": "FP32", "shape": [-1]},
            {"name": "more", "datatype": "FP32", "shape": [-1]},
            {"name": "counts_twice", "datatype": "INT64", "shape": [-1, 3]},
            {"name": "greeting", "datatype": "BYTES", "shape": [-1, 1]},
        ],
    }
    for name, inner, outer in (
        ("turned", [2, 3], [3, 2]),
        ("three_rows", [3, 2], [3, 2]),
        ("scalar", [], []),
    ):
        metadata = await client.get_model_metadata(name)
        assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": inner}]
        assert metadata["outputs"] == [{"name": "output", "datatype": "FP32", "shape": outer}]
    both = await client.get_model_metadata("toy")
    assert both["versions"] == ["1", "2"]
    assert await client.get_model_metadata("toy", "1") == both


async def test_the_configuration_says_which_models_take_batches(client: Any) -> None:
    config = await client.get_model_config("several", "1")
    assert config["name"] == "several"
    assert config["max_batch_size"] == 4096
    assert "dynamic_batching" in config
    assert config["input"] == [
        {"name": "price", "data_type": "TYPE_FP32", "dims": []},
        {"name": "counts", "data_type": "TYPE_INT64", "dims": [3]},
        {"name": "name", "data_type": "TYPE_STRING", "dims": [1]},
    ]
    config = await client.get_model_config("turned")
    assert config["max_batch_size"] == 0
    assert "dynamic_batching" not in config
    assert config["output"] == [{"name": "output", "data_type": "TYPE_FP32", "dims": [3, 2]}]


async def test_what_does_not_exist_is_refused_by_name(client: Any) -> None:
    unknown = "model: expected one of bool, "
    version = "model toy: version: expected one of 1, 2; got 3"
    await refused(404, unknown, client.get_model_metadata("tyo"))
    await refused(404, version, client.get_model_metadata("toy", "3"))
    await refused(404, unknown, client.get_model_config("tyo"))
    await refused(404, version, client.get_model_config("toy", "3"))
    await refused(404, unknown, client.get_inference_statistics("tyo"))
    await refused(404, version, client.get_inference_statistics("toy", "3"))
    await refused(404, unknown, client.infer("tyo", [given("input", ROW)]))
    await refused(404, version, client.infer("toy", [given("input", ROW)], model_version="3"))
    number = "version: expected a whole number from 1 to 9223372036854775807, got 'v1'"
    await refused(404, number, client.infer("toy", [given("input", ROW)], model_version="v1"))
    await refused(404, unknown, client.infer("tö y", [given("input", ROW)]))
    await refused(404, "POST /v2/models/to/y/infer: ", client.infer("to/y", [given("input", ROW)]))
    assert (await client.infer("toy", [given("input", ROW)])).as_numpy("probabilities").size == 3


async def test_statistics_count_requests_rows_and_failures(client: Any) -> None:
    async def counts(model: str, version: str = "") -> dict[str, list[int]]:
        answer = await client.get_inference_statistics(model, version)
        return {
            f"{each['name']}/{each['version']}": [
                each["inference_count"],
                each["inference_stats"]["success"]["count"],
                each["inference_stats"]["fail"]["count"],
            ]
            for each in answer["model_stats"]
        }

    before = await counts("toy")
    await client.infer("toy", [given("input", np.repeat(ROW, 3, axis=0))])
    await client.infer("toy", [given("input", ROW)], model_version="1")
    await refused(400, "inputs: ", client.infer("toy", [], model_version="1"))
    after = await counts("toy")
    gained = {each: np.subtract(after[each], before[each]).tolist() for each in after}
    assert gained == {"toy/1": [1, 1, 1], "toy/2": [3, 1, 0]}
    assert await counts("toy", "1") == {"toy/1": after["toy/1"]}
    every = await counts("")
    assert after.items() <= every.items()
    assert {"several/1", "scalar/1"} <= set(every)


async def test_a_model_is_unloaded_and_loaded_again(client: Any) -> None:
    async def entry() -> list[dict[str, str]]:
        index = await client.get_model_repository_index()
        return [each for each in index if each["name"] == "positive"]

    ready = {"name": "positive", "version": "1", "state": "READY", "reason": ""}
    assert await entry() == [ready]
    await client.unload_model("positive")
    assert await entry() == [ready | {"state": "UNAVAILABLE", "reason": "unloaded"}]
    assert await client.is_model_ready("positive") is False
    asked = given("input", np.ones(4, np.float32))
    await refused(404, "model: expected one of ", client.infer("positive", [asked]))
    assert await client.is_server_ready() is True
    await client.unload_model("positive", unload_dependents=True)
    await client.load_model("positive")
    assert await entry() == [ready]
    assert await client.is_model_ready("positive") is True
    assert (await client.infer("positive", [asked])).as_numpy("output").tolist() == [1, 1, 1, 1]


async def test_a_new_model_is_loaded_when_it_is_asked_for(client: Any, folder: Path) -> None:
    name = f"late-{type(client).__name__}.v1_x"
    await refused(404, "model: expected one of ", client.load_model(name))
    late = folder / name / "1" / "model.onnx"
    late.parent.mkdir(parents=True)
    late.write_bytes((folder / "toy/1/model.onnx").read_bytes())
    assert await client.is_model_ready(name) is False
    await client.load_model(name)
    assert await client.is_model_ready(name, "1") is True
    answer = await client.infer(name, [given("input", ROW)])
    assert np.abs(answer.as_numpy("probabilities") - toy_answer(ROW)).max() < 1e-6


async def test_a_model_that_cannot_be_loaded_is_refused_with_the_reason(
    client: Any, folder: Path
) -> None:
    name = f"broken-{type(client).__name__}"
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no model")
    reason = f"model {name}: could not be loaded: {name}/1: model.onnx: not a model that ONNX"
    await refused(400, reason, client.load_model(name))
    index = await client.get_model_repository_index()
    (entry,) = (each for each in index if each["name"] == name)
    assert entry["state"] == "UNAVAILABLE"
    assert entry["reason"].startswith(f"{name}/1: model.onnx: not a model")
    assert await client.is_server_ready() is True  # it came later: the others serve as before


async def test_models_are_loaded_only_from_the_folder(client: Any) -> None:
    sentence = "parameters.config: expected none: what is loaded is what the folder holds"
    await refused(400, sentence, client.load_model("toy", config="{}"))
    file = {"file:1/model.onnx": b"a model"}
    await refused(400, sentence, client.load_model("toy", config="{}", files=file))
    await refused(404, "model: expected one of ", client.unload_model("tyo"))


@pytest.mark.slow
def test_models_are_loaded_and_unloaded_only_if_the_settings_allow(tmp_path: Path) -> None:
    save_toy(tmp_path)
    sentence = "loading and unloading of models is off: set TORCHLIT_MODEL_CONTROL=true to allow it"
    with running(models_dir=tmp_path) as service:
        address = service.url.removeprefix("http://")
        with triton.InferenceServerClient(address) as client:
            for method in (client.load_model, client.unload_model):
                with pytest.raises(triton.InferenceServerException) as caught:
                    method("toy")
                assert (caught.value.status(), caught.value.message()) == ("501", sentence)
            assert "model_repository" not in client.get_server_metadata()["extensions"]
            assert [each["name"] for each in client.get_model_repository_index()] == ["toy"]


@pytest.mark.parametrize(
    ("method", "arguments", "path"),
    [
        ("get_trace_settings", [], "GET /v2/trace/setting"),
        ("get_trace_settings", ["toy"], "GET /v2/models/toy/trace/setting"),
        ("update_trace_settings", ["toy"], "POST /v2/models/toy/trace/setting"),
        ("get_log_settings", [], "GET /v2/logging"),
        ("update_log_settings", [{"log_info": True}], "POST /v2/logging"),
        ("get_system_shared_memory_status", [], "GET /v2/systemsharedmemory/status"),
        ("get_cuda_shared_memory_status", [], "GET /v2/cudasharedmemory/status"),
        (
            "register_system_shared_memory",
            ["region", "/key", 64],
            "POST /v2/systemsharedmemory/region/region/register",
        ),
        (
            "register_cuda_shared_memory",
            ["region", b"handle", 0, 64],
            "POST /v2/cudasharedmemory/region/region/register",
        ),
        ("unregister_system_shared_memory", [], "POST /v2/systemsharedmemory/unregister"),
        ("unregister_cuda_shared_memory", [], "POST /v2/cudasharedmemory/unregister"),
    ],
)
async def test_what_is_not_served_says_so(
    client: Any, method: str, arguments: list[Any], path: str
) -> None:
    await refused(404, f"{path}: no such path", getattr(client, method)(*arguments))
    assert await client.is_server_live() is True


# Tensors


@pytest.mark.parametrize("datatype", VALUES)
@pytest.mark.parametrize("sent", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("answered", [True, False], ids=["to_binary", "to_json"])
async def test_every_datatype_keeps_its_values(
    client: Any, datatype: str, sent: bool, answered: bool
) -> None:
    values = VALUES[datatype]
    other = "twice" if datatype == "BYTES" else "as_double"
    asked = client.infer(
        datatype.lower(),
        [given("input", values, binary=sent)],
        outputs=[wanted("same", binary=answered), wanted(other, binary=answered)],
    )
    if datatype == "FP16" and not (sent and answered):
        where = "output same" if sent else "inputs[0].data"
        await refused(400, f"{where}: FP16 has no form in JSON; use binary data", asked)
        return
    answer = await asked
    assert answer.get_output("same")["datatype"] == datatype
    assert answer.get_output("same")["shape"] == [2, 2]
    assert ("data" in answer.get_output("same")) is not answered
    same, changed = answer.as_numpy("same"), answer.as_numpy(other)
    assert same.dtype == triton_to_np_dtype(datatype)
    if datatype == "BYTES":
        assert texts(same) == values.ravel().tolist()
        assert texts(changed) == (values + values).ravel().tolist()
    else:
        assert same.tobytes() == values.tobytes()  # of -0.0 and tiny values too
        assert changed.tobytes() == values.astype(np.float64).tobytes()


async def test_narrower_numbers_are_widened_and_wider_ones_refused(client: Any) -> None:
    pixels = np.array([[0, 255]], np.uint8)
    answer = await client.infer("fp32", [given("input", pixels)])
    assert answer.as_numpy("same").tolist() == [[0, 255]]
    sentence = "inputs[0].datatype: expected FP32 for input input, got FP64"
    await refused(400, sentence, client.infer("fp32", [given("input", np.ones((1, 2)))]))


@FORMS
async def test_several_inputs_and_outputs_keep_their_names(client: Any, binary: bool) -> None:
    """200 rows are more than one batch holds."""
    random = np.random.default_rng(0)
    price = random.uniform(0, 9, 200).astype(np.float32)
    counts = random.integers(-(2**40), 2**40, (200, 3))
    names = np.array([[f"Ł{row}"] for row in range(200)], np.object_)
    answer = await client.infer(
        "several",
        [  # not in the order of the graph
            given("name", names, binary=not binary),
            given("price", price, binary=binary),
            given("counts", counts, binary=not binary),
        ],
        outputs=[
            wanted("greeting", binary=binary),
            wanted("more", binary=not binary),
            wanted("counts_twice", binary=binary),
            wanted("less", binary=binary),
        ],
        request_id="1",
    )
    described = answer.get_response()["outputs"]
    assert [each["name"] for each in described] == ["greeting", "more", "counts_twice", "less"]
    assert ["data" in each for each in described] == [not binary, binary, not binary, not binary]
    assert answer.as_numpy("greeting").shape == (200, 1)
    assert texts(answer.as_numpy("greeting")) == [f"hello Ł{row}" for row in range(200)]
    assert np.array_equal(answer.as_numpy("less"), price - np.float32(1))
    assert np.array_equal(answer.as_numpy("more"), price + counts.sum(axis=1).astype(np.float32))
    assert np.array_equal(answer.as_numpy("counts_twice"), counts * 2)


async def test_all_outputs_come_as_binary_data_if_none_is_named(client: Any) -> None:
    """This is what most callers do: `infer(model, inputs)`."""
    answer = await client.infer(
        "several",
        [
            given("price", np.array([2.5], np.float32)),
            given("counts", np.array([[1, 2, 3]])),
            given("name", np.array([["Åsa"]], np.object_)),
        ],
    )
    described = answer.get_response()["outputs"]
    assert [each["name"] for each in described] == ["less", "more", "counts_twice", "greeting"]
    sizes = [each["parameters"]["binary_data_size"] for each in described]
    assert sizes == [4, 4, 24, 4 + len("hello Åsa".encode())]
    assert answer.as_numpy("less").tolist() == [1.5]
    assert answer.as_numpy("more").tolist() == [8.5]
    assert answer.as_numpy("counts_twice").tolist() == [[2, 4, 6]]
    assert texts(answer.as_numpy("greeting")) == ["hello Åsa"]
    assert answer.as_numpy("other") is None


@FORMS
async def test_a_model_without_a_batch_dimension_takes_its_shape(client: Any, binary: bool) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = await client.infer(
        "turned",
        [given("input", values, binary=binary)],
        outputs=[wanted("output", binary=binary)],
    )
    assert np.array_equal(answer.as_numpy("output"), values.T)


@FORMS
async def test_a_model_of_three_rows_takes_three_rows(client: Any, binary: bool) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    answer = await client.infer("three_rows", [given("input", rows, binary=binary)])
    assert np.array_equal(answer.as_numpy("output"), rows * 2)
    sentence = "inputs[0].shape: expected [3, 2] for input input, "
    for wrong in (rows[:2], np.repeat(rows, 2, axis=0)):
        await refused(400, sentence, client.infer("three_rows", [given("input", wrong)]))


@FORMS
async def test_a_scalar_has_no_dimensions(client: Any, binary: bool) -> None:
    answer = await client.infer(
        "scalar",
        [given("input", np.array(1.5, np.float32), binary=binary)],
        outputs=[wanted("output", binary=binary)],
    )
    assert answer.as_numpy("output").shape == ()
    assert answer.as_numpy("output") == 3


@FORMS
async def test_labels_are_whole_numbers_one_for_each_row(client: Any, binary: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
    answer = await client.infer(
        "labels", [given("input", rows)], outputs=[wanted("label", binary=binary)]
    )
    assert answer.as_numpy("label").dtype == np.int64
    assert np.array_equal(answer.as_numpy("label"), rows.argmax(axis=1))


@FORMS
async def test_an_output_may_be_empty(client: Any, binary: bool) -> None:
    asked = given("input", np.full(4, -1, np.float32))
    answer = await client.infer("positive", [asked], outputs=[wanted("output", binary=binary)])
    assert answer.as_numpy("output").shape == (0,)


async def test_nan_and_infinity_pass_as_binary_data_and_not_as_json(client: Any) -> None:
    rows = np.array([[-1, 0], [1, np.inf]], np.float32)
    with np.errstate(all="ignore"):
        expected = np.log(rows)
    answer = await client.infer("logarithm", [given("input", rows)])
    assert np.array_equal(answer.as_numpy("output"), expected, equal_nan=True)
    sentence = "the model answered NaN or infinity for this input: ask /v2 in binary"
    json = [wanted("output", binary=False)]
    await refused(500, sentence, client.infer("logarithm", [given("input", rows)], outputs=json))
    finite = await client.infer("logarithm", [given("input", ROW[:, 2:])], outputs=json)
    assert np.allclose(finite.as_numpy("output"), np.log(ROW[:, 2:]))
    asked = client.infer("logarithm", [given("input", rows, binary=False)])
    await refused(400, "", asked)


async def test_rows_of_other_lengths_are_never_mixed(address: str) -> None:
    """As many at once as meet in the queue; each has its own numbers and length."""
    random = np.random.default_rng(0)

    async def ask(client: Any, place: int) -> None:
        rows = random.normal(size=random.integers(1, 6, 2)).astype(np.float32)
        binary = place % 2 == 0
        answer = await client.infer(
            "series",
            [given("input", rows, binary=binary)],
            outputs=[wanted("sum", binary=binary), wanted("doubled", binary=not binary)],
        )
        assert np.allclose(answer.as_numpy("sum"), rows.sum(axis=1), atol=1e-6)
        assert np.array_equal(answer.as_numpy("doubled"), rows * 2)

    async with triton_aio.InferenceServerClient(address) as client:
        await asyncio.gather(*(ask(client, place) for place in range(100)))


# Requests


async def test_the_version_that_is_named_answers_else_the_highest(client: Any) -> None:
    for version, scale, said in (("", 2, "2"), ("1", 1, "1"), ("2", 2, "2")):
        answer = await client.infer("toy", [given("input", ROW)], model_version=version)
        assert answer.get_response()["model_name"] == "toy"
        assert answer.get_response()["model_version"] == said
        assert np.abs(answer.as_numpy("probabilities") - toy_answer(ROW * scale)).max() < 1e-6


async def test_the_id_of_a_request_is_that_of_its_reply(client: Any) -> None:
    for request_id in ("42", "Anfrage ü/東京"):  # its bytes are more than its characters
        answer = await client.infer("toy", [given("input", ROW)], request_id=request_id)
        assert answer.get_response()["id"] == request_id
        assert answer.as_numpy("probabilities").shape == (1, 3)
    one, other = [await client.infer("toy", [given("input", ROW)]) for _ in range(2)]
    assert one.get_response()["id"] != other.get_response()["id"]  # made up if there is none


@FORMS
async def test_the_most_likely_classes_come_with_their_labels(client: Any, binary: bool) -> None:
    rows = np.random.default_rng(0).uniform(0, 3, (5, 4)).astype(np.float32)
    answer = await client.infer(
        "toy",
        [given("input", rows)],
        model_version="1",
        outputs=[wanted("probabilities", binary=binary, classes=2)],
    )
    assert answer.get_output("probabilities")["datatype"] == "BYTES"
    classes = answer.as_numpy("probabilities")
    assert classes.shape == (5, 2)
    for row, expected in zip(classes, toy_answer(rows), strict=True):
        best = np.argsort(-expected)[:2]
        values, indices, labels = zip(*(text.split(":") for text in texts(row)), strict=True)
        assert np.allclose([float(value) for value in values], expected[best], atol=2e-6)
        assert [int(index) for index in indices] == best.tolist()
        assert list(labels) == [("red", "green", "blue")[index] for index in best]


async def test_classes_have_no_label_if_the_model_has_none(client: Any) -> None:
    values = np.array([[-7, 12], [3, 3]], np.int32)
    outputs = [wanted("same", classes=5), wanted("as_double", binary=False, classes=1)]
    answer = await client.infer("int32", [given("input", values)], outputs=outputs)
    assert answer.as_numpy("same").shape == (2, 2)
    assert texts(answer.as_numpy("same")) == ["12:1", "-7:0", "3:0", "3:1"]
    assert texts(answer.as_numpy("as_double")) == ["12.000000:1", "3.000000:0"]
    answer = await client.infer(
        "turned",
        [given("input", np.array([[0, 5, 1], [2, 3, 4]], np.float32))],
        outputs=[wanted("output", classes=2)],
    )
    assert texts(answer.as_numpy("output")) == ["5.000000:2", "4.000000:5"]
    asked = given("input", VALUES["BYTES"])
    sentence = "output same: expected numbers for a classification"
    await refused(400, sentence, client.infer("bytes", [asked], outputs=outputs[:1]))


async def test_a_request_that_takes_too_long_is_answered_with_504(client: Any) -> None:
    expected = (ROW + 1000).tolist()
    await refused(
        504, "the deadline passed ", client.infer("dear", [given("input", ROW)], timeout=1)
    )
    asked = client.infer("dear", [given("input", ROW)], timeout=2_000)
    await refused(504, "the deadline passed ", asked)
    answer = await client.infer("dear", [given("input", ROW)], timeout=30_000_000)
    assert answer.as_numpy("output").tolist() == expected


async def test_parameters_that_ask_for_what_is_not_there_are_refused(client: Any) -> None:
    asked = [given("input", ROW)]
    sentence = "parameters.sequence_id: expected none, as it is not served; got "
    await refused(400, f"{sentence}7", client.infer("toy", asked, sequence_id=7))
    await refused(400, f'{sentence}"a"', client.infer("toy", asked, sequence_id="a"))
    sentence = "parameters.priority: expected none, as it is not served; got 1"
    await refused(400, sentence, client.infer("toy", asked, priority=1))
    answer = await client.infer("toy", asked, parameters={"trace": "on", "depth": 3})
    assert answer.as_numpy("probabilities").shape == (1, 3)


async def test_shared_memory_is_refused(client: Any) -> None:
    shared = triton.InferInput("input", [1, 4], "FP32")
    shared.set_shared_memory("region", 16)
    sentence = "inputs[0]: expected data in the request, as shared memory is not served"
    await refused(400, sentence, client.infer("toy", [shared]))
    output = wanted("probabilities")
    output.set_shared_memory("region", 12)
    sentence = "outputs[0]: expected none, as shared memory is not served"
    await refused(400, sentence, client.infer("toy", [given("input", ROW)], outputs=[output]))


@pytest.mark.parametrize("answered", ["gzip", "deflate", None])
@pytest.mark.parametrize("sent", ["gzip", "deflate", None])
async def test_bodies_may_be_packed(client: Any, sent: str | None, answered: str | None) -> None:
    rows = np.random.default_rng(0).integers(0, 100, (2, 4_000)).astype(np.float32)
    for binary in (True, False):
        answer = await client.infer(
            "series",
            [given("input", rows, binary=binary)],
            outputs=[wanted("doubled", binary=binary), wanted("sum")],
            request_compression_algorithm=sent,
            response_compression_algorithm=answered,
        )
        assert np.array_equal(answer.as_numpy("doubled"), rows * 2)
        assert np.array_equal(answer.as_numpy("sum"), rows.sum(axis=1))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_the_client_reads_a_reply_that_is_packed(service: Process, algorithm: str) -> None:
    """Its static methods, for those who send requests by other means; here httpx."""
    rows = np.ones((2, 20_000), np.float32)
    body, json_size = triton.InferenceServerClient.generate_request_body(
        [given("input", rows)], outputs=[wanted("doubled")], request_id="packed"
    )
    headers = {"Inference-Header-Content-Length": str(json_size), "Accept-Encoding": algorithm}
    url = f"{service.url}/v2/models/series/infer"
    with httpx.stream("POST", url, content=body, headers=headers) as reply:
        packed = b"".join(reply.iter_raw())
    assert reply.status_code == 200
    assert reply.headers["content-encoding"] == algorithm
    assert int(reply.headers["content-length"]) == len(packed) < rows.nbytes / 20
    answer = triton.InferenceServerClient.parse_response_body(
        packed,
        header_length=int(reply.headers["inference-header-content-length"]),
        content_encoding=algorithm,
    )
    assert answer.get_response()["id"] == "packed"
    assert np.array_equal(answer.as_numpy("doubled"), rows * 2)


def test_a_request_of_json_alone_is_answered_with_json(service: Process) -> None:
    body, json_size = triton.InferenceServerClient.generate_request_body(
        [given("input", ROW, binary=False)], outputs=[wanted("probabilities", binary=False)]
    )
    assert json_size is None
    reply = service.post("/v2/models/toy/versions/1/infer", content=body)
    assert reply.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in reply.headers
    answer = triton.InferenceServerClient.parse_response_body(reply.content)
    assert np.abs(answer.as_numpy("probabilities") - toy_answer(ROW)).max() < 1e-6


@pytest.mark.parametrize(("status", "sentence", "inputs", "outputs"), REFUSALS)
async def test_what_does_not_fit_is_refused_and_the_client_goes_on(
    client: Any,
    status: int,
    sentence: str,
    inputs: list[triton.InferInput],
    outputs: list[triton.InferRequestedOutput],
) -> None:
    asked = client.infer("toy", inputs, model_version="1", outputs=outputs)
    await refused(status, sentence, asked)
    answer = await client.infer("toy", [given("input", ROW)], model_version="1")
    assert np.abs(answer.as_numpy(TOY) - toy_answer(ROW)).max() < 1e-6


async def test_inputs_that_do_not_fit_each_other_are_refused(client: Any) -> None:
    price, counts = given("price", FOUR), given("counts", np.ones((3, 3), np.int64))
    name = given("name", np.full((4, 1), "", np.object_))
    sentence = "inputs: expected as many rows in counts as in price, 4, got 3"
    await refused(400, sentence, client.infer("several", [price, counts, name]))
    sentence = "inputs: expected price, counts, name; got no counts"
    await refused(400, sentence, client.infer("several", [price, name]))
    garbled = given("name", np.array([["a"], ["b"], ["c"], [b"\xff"]], np.object_))
    counts = given("counts", np.ones((4, 3), np.int64))
    sentence = "inputs[2]: element 3: expected UTF-8, got byte 0 that is not"
    await refused(400, sentence, client.infer("several", [price, counts, garbled]))


# tritonclient.http.aio hands aiohttp its body as bytes, however large.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
async def test_a_body_that_is_too_large_is_refused_though_it_is_still_being_sent(
    client: Any,
) -> None:
    rows = np.zeros((1, 5_000_000), np.float32)
    sentence = "body: expected at most 1000000 bytes, got 2000"  # 20 MB and the JSON
    await refused(413, sentence, client.infer("series", [given("input", rows)]))
    packed = client.infer("series", [given("input", rows)], request_compression_algorithm="gzip")
    await refused(413, "body: expected at most 1000000 bytes decompressed, got more", packed)
    assert (await client.infer("toy", [given("input", ROW)])).as_numpy(TOY).shape == (1, 3)


# Many at once


def test_requests_that_do_not_wait_for_each_other_have_their_own_answers(address: str) -> None:
    rows = [np.full((1 + place % 3, 4), place / 8, np.float32) for place in range(12)]
    rows[5] = rows[5][:, :3]
    with triton.InferenceServerClient(address, concurrency=4) as client:
        asked = [
            client.async_infer("toy", [given("input", each)], request_id=str(place))
            for place, each in enumerate(rows)
        ]
        for place, each in enumerate(asked):
            if place == 5:
                with pytest.raises(triton.InferenceServerException, match=r"inputs\[0\]\.shape: "):
                    each.get_result()
                continue
            answer = each.get_result()
            assert answer.get_response()["id"] == str(place)
            assert np.abs(answer.as_numpy(TOY) - toy_answer(rows[place] * 2)).max() < 1e-6


@pytest.mark.slow
async def test_64_clients_at_once_each_have_their_own_answers(
    service: Process, address: str
) -> None:
    """A third sends binary data, a third JSON, a third asks /predict: they meet in the batches."""
    random = np.random.default_rng(0)
    start = asyncio.Event()

    async def ask_infer(
        client: Any, rows: NDArray[Any], request_id: str, *, binary: bool
    ) -> NDArray[Any]:
        answer = await client.infer(
            "toy",
            [given("input", rows, binary=binary)],
            model_version="1",
            outputs=[wanted(TOY, binary=binary)],
            request_id=request_id,
        )
        assert answer.get_response()["id"] == request_id
        return answer.as_numpy(TOY)

    async def ask_predict(client: Any, rows: NDArray[Any], request_id: str) -> NDArray[Any]:
        body = {"model": "toy", "version": 1, "instances": rows.tolist()}
        headers = {"X-Request-Id": request_id}
        reply = await client.post("/predict", json=body, headers=headers)
        assert reply.headers["x-request-id"] == request_id
        predictions = reply.json()["predictions"]
        return np.array([list(each["probabilities"].values()) for each in predictions])

    async def one(place: int) -> int:
        ask = (partial(ask_infer, binary=True), partial(ask_infer, binary=False), ask_predict)[
            place % 3
        ]
        opened: Any = (
            httpx.AsyncClient(base_url=service.url, timeout=20)
            if ask is ask_predict
            else triton_aio.InferenceServerClient(address)
        )
        async with opened as client:
            await start.wait()
            total = 0
            for turn in range(5):
                rows = random.uniform(0, 10, (1 + (place + turn) % 4, 4)).astype(np.float32)
                got = await ask(client, rows, f"{place}-{turn}")
                assert np.abs(got - toy_answer(rows)).max() < 1e-6
                total += len(rows)
            return total

    async with httpx.AsyncClient(base_url=service.url) as client:
        before = (await client.get("/metrics")).text
        asking = [asyncio.create_task(one(place)) for place in range(64)]
        await asyncio.sleep(0)
        start.set()
        rows = sum(await asyncio.gather(*asking))
        after = (await client.get("/metrics")).text

    def gained(series: str, labels: str = 'version="1"') -> float:
        chosen = f'{series}{{model="toy"', labels
        return counted(after, *chosen) - counted(before, *chosen)

    assert gained("torchlit_requests_total", 'outcome="ok",version="1"') == 64 * 5
    assert gained("torchlit_requests_total") == 64 * 5
    assert gained("torchlit_rows_total") == rows
    assert gained("torchlit_batches_total") < 64 * 5  # some did meet
