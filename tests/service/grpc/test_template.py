"""A message that is read by a template is read as any other is."""

import gc
import math
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.catalog.reload import Reloader
from service.engine.protobuf import head
from service.errors import InvalidInput, RequestError
from service.grpc import infer
from service.grpc.messages import ModelInferRequest
from service.grpc.outline import LONG
from service.grpc.template import LONGEST, MOST_TEMPLATES, Templates
from service.inference import Call, Inference, Work
from service.settings import Settings
from tests.support import onnx_graphs
from tests.support.catalogs import reloader
from tests.support.grpc_client import infer_request
from tests.support.toys import save_same, save_toy

pytestmark = pytest.mark.anyio

ROW = np.array([[1, 2, 3, 4]], np.float32)
MOST_ROWS = 100


def services_of(models: Reloader, settings: Settings) -> Any:
    inference = Inference(models.catalog, models.metrics)
    return SimpleNamespace(inference=inference, settings=settings, bodies=None)


@pytest.fixture(scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder)
    save_toy(folder, 2)
    for datatype in onnx_graphs.ONNX_TYPES:
        onnx_graphs.save_typed(folder, datatype)
    onnx_graphs.save_several(folder)
    onnx_graphs.save_series(folder)
    onnx_graphs.save_scalar(folder)
    onnx_graphs.save_turned(folder)
    settings = Settings(models_dir=folder, watch=False, max_request_rows=MOST_ROWS)
    async with reloader(settings) as models:
        yield services_of(models, settings)


def call() -> Call:
    return Call(0.0, math.inf, lambda: False)


def outcome(read: Callable[[Call, bytes], Any], data: bytes) -> Any:
    """Return what was read, or why not, in a form that can be compared."""
    asked = call()
    try:
        work = read(asked, data)
    except RequestError as error:
        return type(error), str(error)
    assert isinstance(work, Work)
    assert asked.served is work.served
    return (
        *(work.served, [(each.dtype, each.shape, each.tobytes()) for each in work.inputs]),
        *(work.rows, work.kind, work.answers_rows, work.asked, work.reply_bytes, work.parts),
        asked.deadline,
    )


def turned(data: bytes, size: int) -> bytes:
    """Return a message with other numbers: its last bytes."""
    return data[: len(data) - size] + data[len(data) - size :][::-1]


def typed() -> Any:
    message = ModelInferRequest(model_name="toy")
    message.inputs.add(name="input", datatype="FP32", shape=[1, 4])
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    return message


def with_parameter() -> Any:
    message = infer_request("toy", ROW)
    message.parameters["timeout"].int64_param = 9_000_000
    return message


def of_two_outputs() -> Any:
    message = infer_request("series", np.ones((2, 3), np.float32))
    message.outputs.add(name="doubled")
    return message


def classified() -> Any:
    message = infer_request("toy", ROW)
    message.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
    return message


SEVERAL = (
    np.ones(2, np.float32),
    np.ones((2, 3), np.int64),
    np.array([["a"], ["b"]], np.object_),
)
LOOKS_LIKE_A_HEAD = head(7, 16).decode()
# A message, and how many bytes at its end are other ones each time.
MESSAGES: dict[str, tuple[bytes, int]] = {
    name: (message.SerializeToString() + behind, size)
    for name, message, behind, size in [
        ("a row", infer_request("toy", ROW), b"", 16),
        ("rows", infer_request("toy", np.ones((5, 4), np.float32)), b"", 80),
        ("a version", infer_request("toy", ROW, model_version="1"), b"", 16),
        ("no such version", infer_request("toy", ROW, model_version="9"), b"", 16),
        ("no such model", infer_request("none", ROW), b"", 16),
        ("an id", infer_request("toy", ROW, id="7"), b"", 16),
        ("a timeout", with_parameter(), b"", 16),
        ("typed contents", typed(), b"", 16),
        ("an output of two", of_two_outputs(), b"", 24),
        ("classes", classified(), b"", 16),
        ("narrow numbers", infer_request("toy", ROW.astype("u1")), b"", 4),
        ("wide numbers", infer_request("toy", ROW.astype("f8")), b"", 32),
        ("too many rows", infer_request("toy", np.ones((101, 4), np.float32)), b"", 16),
        ("another shape", infer_request("toy", np.ones((1, 3), np.float32)), b"", 12),
        ("a single number", infer_request("scalar", np.ones(1, np.float32)), b"", 4),
        ("no batch", infer_request("turned", np.ones((2, 3), np.float32)), b"", 24),
        ("open sizes", infer_request("series", np.ones((1, 3), np.float32)), b"", 12),
        ("several inputs", infer_request("several", *SEVERAL, names=["price", "counts", "name"]),
         b"", 5),
        ("a field behind", infer_request("toy", ROW), head(99, 16) + bytes(16), 16),
        ("as long a field behind", infer_request("toy", ROW), head(99, 13) + bytes(13), 8),
        ("a name behind", infer_request("toy", ROW), head(1, 3) + b"toy", 3),
        ("contents behind", infer_request("toy", ROW), head(7, 16) + bytes(16), 16),
        ("a head in a text", infer_request("toy", ROW),
         head(99, 18) + head(7, 16) + bytes(16), 16),
        ("a broken end", infer_request("toy", ROW), b"\x3a\x20", 3),
        ("BOOL", infer_request("bool", np.ones((2, 2), "?")), b"", 2),
        ("FP16", infer_request("fp16", np.ones((2, 2), "f2")), b"", 8),
        ("INT64", infer_request("int64", np.ones((2, 2), "i8")), b"", 32),
        ("texts", infer_request("bytes", np.array([["a", "b"]], np.object_)), b"", 1),
        ("long", infer_request("series", np.ones((1, 20_000), np.float32)), b"", 99),
    ]
}  # fmt: skip
MESSAGES["a long field before"] = (
    head(99, LONGEST) + bytes(LONGEST) + MESSAGES["a row"][0],
    16,
)


@pytest.mark.parametrize("name", MESSAGES)
async def test_it_is_read_as_without_a_template(services: Any, name: str) -> None:
    data, size = MESSAGES[name]
    templates = Templates(services)
    for each in (data, turned(data, size), data, data[:-1] + b"\x03", data + b"\0"):
        for _ in range(2):
            expected = outcome(lambda *what: infer.read(services, *what), each)
            got = outcome(templates.read, each)
            assert got == expected


USUAL = ["a row", "rows", "a version", "an output of two", "classes", "narrow numbers", "no batch",
         "a single number", "open sizes", "BOOL", "FP16", "INT64"]  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
async def test_what_is_usual_is_parsed_once(
    services: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, size = MESSAGES[name]
    templates = Templates(services)
    outcome(templates.read, data)
    parsed: list[bytes] = []
    read = infer.read

    def noted(services: Any, call: Call, data: bytes) -> Any:
        parsed.append(data)
        return read(services, call, data)

    monkeypatch.setattr(infer, "read", noted)
    outcome(templates.read, turned(data, size))
    assert (not parsed) == (name in USUAL)


async def test_what_only_looks_like_a_head_is_none(services: Any) -> None:
    """The contents stand elsewhere; what is behind the head is within a field of no meaning."""
    data, _ = MESSAGES["a head in a text"]
    templates = Templates(services)
    for each in (data, turned(data, 16), data[:-1] + b"\x07"):
        work = templates.read(call(), each)
        assert isinstance(work, Work)
        assert work.inputs[0].tolist() == ROW.tolist()


async def test_another_model_is_checked_anew_and_the_one_before_let_go(tmp_path: Path) -> None:
    data, _ = MESSAGES["a row"]
    save_toy(tmp_path)
    settings = Settings(models_dir=tmp_path, watch=False)
    async with reloader(settings) as models:
        services = services_of(models, settings)
        templates = Templates(services)
        before = weakref.ref(templates.read(call(), data).served)
        save_toy(tmp_path, scale=2)
        await models.reload()
        gc.collect()
        assert before() is None
        served = templates.read(call(), data).served
        assert served is services.inference.model(call(), "toy", None)
        save_same(tmp_path, ["batch", 3])  # a row of four is none of its
        (tmp_path / "same/1").rename(tmp_path / "toy/2")
        await models.reload()
        expected = outcome(lambda *what: infer.read(services, *what), data)
        assert expected[0] is InvalidInput
        assert outcome(templates.read, data) == expected


async def test_few_are_kept(services: Any) -> None:
    templates = Templates(services)
    for rows in range(1, MOST_ROWS):
        templates.read(call(), infer_request("toy", np.ones((rows, 4), "f4")).SerializeToString())
        assert len(templates._of_length) <= MOST_TEMPLATES
    assert len(MESSAGES["long"][0]) > LONG
