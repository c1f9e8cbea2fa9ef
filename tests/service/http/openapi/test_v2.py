import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from openapi_spec_validator import validate

from service.http.routes import ROUTES
from service.settings import Settings
from service.settings.verdicts import MissingValues
from tests.support.schemas import check_value
from tests.support.toys import (
    WEIGHTS,
    save_bounded,
    save_graph,
    save_imputed,
    save_mean,
    save_same,
    save_sum,
    save_toy,
    serving,
    tensor,
    toy_card,
)

pytestmark = pytest.mark.anyio

KEY = "a-key-of-16-chars"
ROW = {"name": "input", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a card and without, with several inputs, of whole numbers, and one that fails."""
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_toy(folder, 2, card=toy_card())
    save_mean(folder)
    save_bounded(folder)
    save_sum(folder)
    save_same(folder, ["batch", 2], TensorProto.INT64)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    return folder


@pytest.fixture(scope="module")
async def client(models_dir: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(Settings(models_dir=models_dir)) as client:
        yield client


async def document_of(client: httpx.AsyncClient) -> Any:
    reply = await client.get("/schema/openapi.json")
    return reply.json()


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield path, method and operation of all there are."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def check(reply: httpx.Response, path: str, document: Any) -> None:
    """Hold a reply against the document, in which it is to be complete: no field is left out."""
    method = reply.request.method.lower()
    described = document["paths"][path][method]["responses"][str(reply.status_code)]
    content = described["content"][reply.headers["content-type"]]
    components = {"components": closed(document["components"])}
    check_value(reply.json(), closed(content["schema"]) | components)


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no other fields than those it names."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: closed(each) for name, each in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        changed["additionalProperties"] = False
    return changed


async def test_the_document_is_valid_openapi(client: httpx.AsyncClient) -> None:
    document = await document_of(client)
    validate(document)
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)


async def test_generators_of_clients_can_read_each_schema(client: httpx.AsyncClient) -> None:
    """openapi-python-client leaves out what is in itself, and lists of it does not know what."""
    schemas = (await document_of(client))["components"]["schemas"]
    named = {name: re.findall(r"schemas/([^/']+)'", str(each)) for name, each in schemas.items()}
    assert "toy_infer_request" in TopologicalSorter(named).static_order()  # else CycleError
    lists = [each for each in parts(schemas) if each.get("type") == "array"]
    assert [each for each in lists if "items" not in each] == []


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in a schema, itself too."""
    if isinstance(schema, dict):
        yield schema
    for each in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(each, dict | list):
            yield from parts(each)


async def test_every_route_below_v2_is_in_the_document(client: httpx.AsyncClient) -> None:
    served = {(each.path, each.method.lower()) for each in ROUTES if each.path.startswith("/v2")}
    served |= {(f"/v2/models/{name}/infer", "post") for name in (await names(client))}
    found = {(path, method) for path, method, _ in operations(await document_of(client))}
    assert {(path, method) for path, method in found if path.startswith("/v2")} == served


async def names(client: httpx.AsyncClient) -> list[str]:
    """Return the names of the models that answer."""
    return (await client.get("/v2/models")).json()["models"]


async def test_replies_have_the_fields_of_the_document_and_no_others(
    client: httpx.AsyncClient,
) -> None:
    document = await document_of(client)
    await client.post("/v2/models/toy/infer", json={"inputs": [ROW]})  # so that there is something
    tried = 0
    for path, method, _ in operations(document):
        if not path.startswith("/v2") or method != "get":
            continue
        for name in await names(client) if "{model}" in path else ["none"]:
            reply = await client.get(path.replace("{model}", name).replace("{version}", "1"))
            assert reply.status_code == (503 if path == "/v2/health/ready" else 200)
            check(reply, path, document)
            tried += 1
    assert tried == 5 + 8 * 5
    for sent in (None, {}, {"ready": True}):
        check(
            await client.post("/v2/repository/index", json=sent), "/v2/repository/index", document
        )


async def test_refusals_are_in_the_document(client: httpx.AsyncClient) -> None:
    document = await document_of(client)
    for end in ("", "/ready", "/config", "/stats"):
        for model, status in (("nobody", 404), ("broken", 503)):
            reply = await client.get(f"/v2/models/{model}{end}")
            assert reply.status_code == status
            check(reply, "/v2/models/{model}" + end, document)
    for model, status in (("nobody", 404), ("broken", 503), ("toy", 400)):
        reply = await client.post(f"/v2/models/{model}/infer", json={"inputs": []})
        assert reply.status_code == status
        check(reply, "/v2/models/{model}/infer", document)
    unknown = await client.post("/v2/models/toy/infer", headers={"content-encoding": "br"})
    assert unknown.status_code == 415
    check(unknown, "/v2/models/toy/infer", document)


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_what_changes_models_is_in_the_document(models_dir: Path, is_allowed: bool) -> None:
    async with serving(Settings(models_dir=models_dir, model_control=is_allowed)) as client:
        document = await document_of(client)
        for end in ("unload", "load"):
            path = "/v2/repository/models/{model}/" + end
            done = await client.post(path.replace("{model}", "toy"))
            assert done.status_code == (200 if is_allowed else 501)
            check(done, path, document)
            unknown = await client.post(path.replace("{model}", "nobody"))
            assert unknown.status_code == (404 if is_allowed else 501)
            check(unknown, path, document)
        broken = await client.post("/v2/repository/models/broken/load")
        assert broken.status_code == (400 if is_allowed else 501)
        check(broken, "/v2/repository/models/{model}/load", document)


async def test_every_example_is_valid_and_answered(client: httpx.AsyncClient) -> None:
    document = await document_of(client)
    tried = 0
    for path, _, operation in operations(document):
        if not path.startswith("/v2") or "requestBody" not in operation:
            continue
        content = operation["requestBody"]["content"]["application/json"]
        for example in content.get("examples", {}).values():
            components = {"components": document["components"]}
            check_value(example["value"], content["schema"] | components)
            reply = await client.post(path, json=example["value"])
            assert reply.status_code == 200
            check(reply, path, document)
            tried += 1
    assert tried == 3 + 2  # from the cards of toy, mean and bounded; zeros for the others


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "inputs"},
        {"datatype": "FP64"},
        {"datatype": "FP16"},
        {"datatype": "STRING"},
        {"shape": [1, 3]},
        {"shape": [4]},
        {"shape": [0, 4]},
        {"shape": [-1, 4]},
        {"shape": None},
        {"data": None},
        {"data": 1},
        {"data": [1, 2, 3, None]},
    ],
)
async def test_what_the_schema_of_a_model_refuses_the_service_refuses(
    client: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    document = await document_of(client)
    schema = {"$ref": "#/components/schemas/toy_infer_request"}
    schema["components"] = document["components"]
    check_value({"inputs": [ROW]}, schema)
    wrong = {"inputs": [ROW | changes]}
    with pytest.raises(jsonschema.ValidationError):
        check_value(wrong, schema)
    assert (await client.post("/v2/models/toy/infer", json=wrong)).status_code == 400


async def test_narrower_numbers_fit_by_schema_and_service(client: httpx.AsyncClient) -> None:
    schemas = (await document_of(client))["components"]["schemas"]
    (described,) = schemas["toy_infer_request"]["properties"]["inputs"]["items"]["anyOf"]
    taken = described["properties"]["datatype"]["enum"]
    assert taken == ["UINT8", "UINT16", "INT8", "INT16", "FP32"]
    for datatype in schemas["Datatype"]["enum"]:
        sent = {"inputs": [ROW | {"datatype": datatype}]}
        reply = await client.post("/v2/models/toy/infer", json=sent)
        assert reply.status_code == (200 if datatype in taken else 400)


async def test_binary_replies_are_in_the_document(client: httpx.AsyncClient) -> None:
    document = await document_of(client)
    rows = np.zeros((300, 4), "<f4").tobytes()
    sent = ROW | {"shape": [300, 4], "parameters": {"binary_data_size": len(rows)}}
    del sent["data"]
    asked = {"inputs": [sent], "parameters": {"binary_data_output": True}}
    head = json.dumps(asked).encode()
    operation = document["paths"]["/v2/models/toy/infer"]["post"]
    headers = {"inference-header-content-length": str(len(head)), "accept-encoding": "gzip"}
    headers |= {"content-encoding": "gzip"}
    assert set(headers) <= {each["name"].lower() for each in operation["parameters"]}
    compressed = gzip.compress(head + rows)
    reply = await client.post("/v2/models/toy/infer", content=compressed, headers=headers)
    assert reply.status_code == 200
    described = operation["responses"]["200"]
    assert reply.headers["content-type"] in described["content"]
    length = int(reply.headers["inference-header-content-length"])
    components = {"components": document["components"]}
    schema = {"$ref": "#/components/schemas/InferReply"} | components
    with pytest.raises(jsonschema.ValidationError, match="'data' is a required property"):
        check_value(json.loads(reply.content[:length]), schema)
    assert len(reply.content) == length + 300 * 3 * 4
    for name, said in described["headers"].items():
        value = reply.headers[name]
        check_value(int(value) if value.isdigit() else value, said["schema"])


async def test_models_that_predict_cannot_ask_are_in_the_document_below_v2_only(
    client: httpx.AsyncClient,
) -> None:
    paths = (await document_of(client))["paths"]
    assert "/v2/models/sum/infer" in paths
    assert "/predict/sum" not in paths
    assert "broken" not in json.dumps(paths)


async def test_fp16_has_no_example_as_json_cannot_carry_it(tmp_path: Path) -> None:
    save_graph(
        tmp_path / "half" / "1" / "model.onnx",
        [
            helper.make_node("Cast", ["input"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["wide", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        [tensor("input", ["batch", 4], TensorProto.FLOAT16)],
        [tensor("probabilities", ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
        toy_card(),
    )
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = await document_of(client)
    validate(document)
    content = document["paths"]["/v2/models/half/infer"]["post"]["requestBody"]["content"]
    assert "examples" not in content["application/json"]
    assert "examples" in json.dumps(document["paths"]["/predict/half"])


@pytest.mark.parametrize("health", [False, True])
@pytest.mark.parametrize("metrics", [False, True])
async def test_who_needs_a_key_is_in_the_document(
    models_dir: Path, health: bool, metrics: bool
) -> None:
    settings = Settings(
        models_dir=models_dir, api_keys=KEY, protect_health=health, protect_metrics=metrics
    )
    async with serving(settings) as client:
        reply = await client.get("/schema/openapi.json", headers={"x-api-key": KEY})
        for path, method, operation in operations(reply.json()):
            is_open = operation.get("security") == []
            assert is_open != ("401" in operation["responses"])
            refused = (await client.request(method, path)).status_code == 401
            assert refused != is_open


@pytest.mark.parametrize("takes_missing", [False, True])
async def test_elements_may_be_null_where_a_model_takes_missing_values(
    tmp_path: Path, takes_missing: bool
) -> None:
    save_imputed(tmp_path)
    missing = MissingValues("" if takes_missing else "imputed=refuse")
    async with serving(Settings(models_dir=tmp_path, missing=missing)) as client:
        document = await document_of(client)
    element = document["components"]["schemas"]["TensorData"]["items"]
    takes_null = jsonschema.Draft202012Validator(element).is_valid(None)
    assert takes_null is takes_missing
    (_, named) = document["components"]["schemas"]["imputed_instance"]["anyOf"]
    kinds = [each["type"] for each in named["properties"].values()]
    assert kinds == [["number", "null"] if takes_missing else "number", "number"]
