from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate
from toys import save_bounded, save_pictured, save_toy, serving

from service.settings import Settings

pytestmark = pytest.mark.anyio

NAMES = ("mean", "toy")


async def test_the_document_is_valid_openapi(client: httpx.AsyncClient) -> None:
    validate((await client.get("/schema/openapi.json")).json())


async def test_keys_are_in_the_document_where_they_are_needed(
    models_dir: Path, client: httpx.AsyncClient
) -> None:
    assert "security" not in (await client.get("/schema/openapi.json")).json()
    key = "a-key-of-16-chars"
    async with serving(Settings(models_dir=models_dir, api_keys=key)) as guarded:
        reply = await guarded.get("/schema/openapi.json", headers={"x-api-key": key})
    validate(reply.json())
    assert reply.json()["security"] == [{"bearer": []}, {"header": []}]


async def test_every_example_is_valid_and_answered_by_the_schema(client: httpx.AsyncClient) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    tried: Counter[str] = Counter()
    for path, item in document["paths"].items():
        if "post" not in item:
            continue
        content = item["post"]["requestBody"]["content"]["application/json"]
        reply_schema = item["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        for example in content.get("examples", {}).values():
            check(example["value"], content["schema"], document)
            reply = await client.post(path, json=example["value"])
            assert reply.status_code == 200
            check(reply.json(), reply_schema, document)
            tried[path] += 1
    alone = [path % name for path in ("/predict/%s", "/v2/models/%s/infer") for name in NAMES]
    assert tried == {"/predict": len(NAMES)} | dict.fromkeys(alone, 1)


@pytest.mark.parametrize(
    "instance",
    [[1, 2, 3], [1, 2, 3, "4"], {"a": 1}, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, 1, None],
)
async def test_what_the_schema_refuses_the_service_refuses(
    client: httpx.AsyncClient, instance: Any
) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    item = document["paths"]["/predict/toy"]["post"]
    schema = item["requestBody"]["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError):
        check({"instances": [instance]}, schema, document)
    reply = await client.post("/predict/toy", json={"instances": [instance]})
    assert reply.status_code == 400


async def test_the_other_routes_answer_as_their_schemas_say(client: httpx.AsyncClient) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    checked = 0
    for path, item in document["paths"].items():
        content = item.get("get", {"responses": {"200": {}}})["responses"]["200"].get("content", {})
        if "application/json" not in content:
            continue
        reply = await client.get(path.format(model="toy", version=1))
        assert reply.status_code == 200
        check(reply.json(), content["application/json"]["schema"], document)
        checked += 1
    assert checked == 4 + 13  # those of /v2


async def test_a_feature_tells_its_unit_and_training_range(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/schema/openapi.json")).json()["components"]["schemas"]
    _, named = schemas["toy_instance"]["anyOf"]
    assert named["properties"]["a"]["description"] == "a (cm); 0 to 10 in training"


async def test_a_model_without_card_is_in_the_document(tmp_path: Path) -> None:
    save_toy(tmp_path, card=None)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
    validate(document)
    assert "/predict/toy" in document["paths"]


@pytest.mark.parametrize("targets", [1, 2])
async def test_intervals_are_in_the_document(tmp_path: Path, targets: int) -> None:
    save_bounded(tmp_path, targets)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
        reply = await client.post("/predict/bounded", json={"instances": [[1] * targets]})
    validate(document)
    schema = document["components"]["schemas"]["bounded_reply"]
    check(reply.json(), schema, document)
    wrong = reply.json()
    wrong["predictions"][0] = {"value": 1}
    with pytest.raises(jsonschema.ValidationError):
        check(wrong, schema, document)


async def test_pictures_are_in_the_document(models_dir: Path) -> None:
    save_pictured(models_dir)
    async with serving(Settings(models_dir=models_dir)) as client:
        document = (await client.get("/schema/openapi.json")).json()
        shown = (await client.get("/models/toy")).json()
        (picture,) = shown["versions"][0]["pictures"]
        found = await client.get(picture["url"])
        wrong = await client.get("/models/toy/1/model.onnx")
    validate(document)
    schema = document["components"]["schemas"]["Model"]
    check(shown, schema, document)
    del picture["url"]
    with pytest.raises(jsonschema.ValidationError):
        check(shown, schema, document)
    responses = document["paths"]["/models/{model}/{version}/{picture}"]["get"]["responses"]
    assert list(responses["200"]["content"]) == [found.headers["content-type"]]
    error = responses[str(wrong.status_code)]["content"][wrong.headers["content-type"]]
    check(wrong.json(), error["schema"], document)


def check(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> None:
    """Validate with JSON Schema, the document's components within reach."""
    jsonschema.validate(value, schema | {"components": document["components"]})
