import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from openapi_spec_validator import validate

from service.__main__ import main
from service.formats.registry import FORMATS
from service.settings import Settings
from service.settings.shadows import ShadowVersions
from tests.support.classifiers import NAMES as LABELS
from tests.support.classifiers import NUMBERS, ROWS, save_classifier
from tests.support.schemas import check_document, check_value
from tests.support.toys import (
    save_bounded,
    save_columns,
    save_pictured,
    save_toy,
    serving,
    toy_card,
)

pytestmark = pytest.mark.anyio

NAMES = ("mean", "toy")
JSON, CSV, LINES = "application/json", "text/csv", "application/jsonlines"
MSGPACK = "application/msgpack"
PICTURES = ["image/png", "image/jpeg", "multipart/form-data"]
PREDICT = "/v1/endpoints/123/deployedModels/456:predict"
HEALTH = "/v1/endpoints/123/deployedModels/456"
KEY = "a-key-of-16-chars"


@pytest.fixture(scope="module")
def client(shared_client: httpx.AsyncClient) -> httpx.AsyncClient:
    return shared_client


async def test_the_document_is_valid_openapi(client: httpx.AsyncClient) -> None:
    validate((await client.get("/schema/openapi.json")).json())


async def test_keys_are_in_the_document_where_they_are_needed(
    models_dir: Path, client: httpx.AsyncClient
) -> None:
    assert "security" not in (await client.get("/schema/openapi.json")).json()
    async with serving(Settings(models_dir=models_dir, api_keys=KEY)) as guarded:
        reply = await guarded.get("/schema/openapi.json", headers={"x-api-key": KEY})
    check_document(reply.json())
    assert reply.json()["security"] == [{"bearer": []}, {"header": []}]


async def test_versions_have_64_bits_in_the_document(client: httpx.AsyncClient) -> None:
    """Clients that are generated from it take 32 where nothing is said."""
    document = (await client.get("/schema/openapi.json")).json()
    found: list[Any] = []

    def collect(part: Any) -> None:
        if isinstance(part, list):
            for each in part:
                collect(each)
        elif isinstance(part, dict):
            found.extend(part[name] for name in ("version", "default_version") if name in part)
            if part.get("name") == "version":
                found.append(part["schema"])
            for each in part.values():
                collect(each)

    collect([document["components"], document["paths"]])
    numbers = [
        integer
        for each in found
        if isinstance(each, dict)
        for integer in each.get("anyOf", [each])
        if integer.get("type") == "integer"
    ]
    assert len(numbers) > 8
    for number in numbers:
        assert (number["format"], number["minimum"]) == ("int64", 1), number
        assert number["maximum"] == 9223372036854775807, number


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
    any_of_them = dict.fromkeys(("/predict", "/invocations"), len(NAMES))
    with_pictures = dict.fromkeys(("/predict/mean", "/prepare/mean"), 2)
    assert tried == any_of_them | dict.fromkeys(alone, 1) | with_pictures


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


async def test_the_largest_number_of_the_schema_is_the_largest_that_is_taken(
    client: httpx.AsyncClient,
) -> None:
    """One that is larger than float32's largest may be rounded to it."""
    document = (await client.get("/schema/openapi.json")).json()
    instance = document["components"]["schemas"]["toy_instance"]["anyOf"]
    (named,) = (each for each in instance if each["type"] == "object")
    largest = named["properties"]["b"]["maximum"]
    assert largest > float(np.finfo(np.float32).max)
    for number, status in ((largest, 200), (math.nextafter(largest, math.inf), 400)):
        for sign in (1, -1):
            row = {"a": 0, "b": sign * number, "c": 0, "d": 0}
            content = {"model": "toy", "instances": [row]}
            assert (await client.post("/predict", json=content)).status_code == status


async def test_the_other_routes_answer_as_their_schemas_say(models_dir: Path) -> None:
    save_toy(models_dir, 2, card=toy_card())
    settings = Settings(models_dir=models_dir, shadow=ShadowVersions("toy/1=2"))
    async with serving(settings) as client:
        document = (await client.get("/schema/openapi.json")).json()
        checked = 0
        for path, item in document["paths"].items():
            answered = item.get("get", {"responses": {"200": {}}})["responses"]["200"]
            content = answered.get("content", {})
            if "application/json" not in content:
                continue
            reply = await client.get(path.format(model="toy", version=1))
            assert reply.status_code == 200
            check(reply.json(), content["application/json"]["schema"], document)
            checked += 1
    assert checked == 7 + 13  # those of /v2


@pytest.mark.parametrize("default", ["toy", "mean"])
async def test_what_platforms_ask_is_in_the_document(models_dir: Path, default: str) -> None:
    settings = Settings(
        models_dir=models_dir, default_model=default, predict_route=PREDICT, health_route=HEALTH
    )
    async with serving(settings) as client:
        document = (await client.get("/schema/openapi.json")).json()
        check_document(document)
        described = document["paths"]["/invocations"]["post"]
        sent = described["requestBody"]["content"]
        given = described["responses"]["200"]["content"]
        assert list(given) == [JSON, CSV, LINES]
        assert list(sent) == [*given, MSGPACK, *(PICTURES if default == "mean" else [])]
        for accept in given:
            for content_type in given:
                content = sent[content_type]
                for example in content["examples"].values():
                    check(example["value"], content["schema"], document)
                    reply = await client.post(
                        "/invocations",
                        content=as_sent(example["value"]),
                        headers={"content-type": content_type, "accept": accept},
                    )
                    assert reply.status_code == 200
                    assert reply.headers["content-type"] == accept
                    said = reply.json() if accept == JSON else reply.text
                    check(said, given[accept]["schema"], document)
        vertex = document["paths"][PREDICT]["post"]
        content = vertex["requestBody"]["content"][JSON]
        assert list(content["examples"]) == list(NAMES)
        for example in content["examples"].values():
            check(example["value"], content["schema"], document)
            reply = await client.post(PREDICT, json=example["value"])
            check(reply.json(), vertex["responses"]["200"]["content"][JSON]["schema"], document)
            assert reply.status_code == 200
        for path in ("/ping", HEALTH):
            described = document["paths"][path]["get"]["responses"]
            reply = await client.get(path)
            check(reply.json(), described["200"]["content"][JSON]["schema"], document)
            assert "503" in described


@pytest.mark.parametrize("path", ["/predict", "/predict/toy", "/invocations"])
async def test_a_path_of_ours_and_of_vertex_has_the_bodies_of_both(
    models_dir: Path, path: str
) -> None:
    settings = Settings(models_dir=models_dir, default_model="toy", predict_route=path)
    async with serving(settings) as client:
        document = (await client.get("/schema/openapi.json")).json()
        check_document(document)
        described = document["paths"][path]["post"]
        sent = described["requestBody"]["content"]
        given = described["responses"]["200"]["content"][JSON]["schema"]
        assert list(sent)[:2] == [JSON, CSV]
        instances = {"instances": [[1, 2, 3, 4]]}
        for more in ({"model": "toy"}, {"parameters": {"model": "toy", "other": 1}}, {}):
            check(instances | more, sent[JSON]["schema"], document)
            reply = await client.post(path, json=instances | more)
            check(reply.json(), given, document)
            assert ("model" in reply.json()) == ("model" in more)


@pytest.mark.parametrize("path", ["/invocations", "/predict", "/predict/mean", "/prepare/mean"])
async def test_errors_of_routes_for_rows_are_in_the_document(
    client: httpx.AsyncClient, path: str
) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    responses = document["paths"][path]["post"]["responses"]
    for content_type, status in ((JSON, 400), ("image/webp", 415)):
        headers = {"content-type": content_type}
        reply = await client.post(path, content=b"{}", headers=headers)
        assert reply.status_code == status
        check(reply.json(), responses[str(status)]["content"][JSON]["schema"], document)


async def test_every_format_is_in_the_document_of_every_route_that_takes_it(
    models_dir: Path,
) -> None:
    async with serving(Settings(models_dir=models_dir, default_model="mean")) as client:
        paths = (await client.get("/schema/openapi.json")).json()["paths"]
    every = {media_type for each in FORMATS for media_type in each.named}
    for path in ("/predict", "/predict/mean", "/invocations"):
        assert set(paths[path]["post"]["requestBody"]["content"]) == every, path
    prepared = set(paths["/prepare/mean"]["post"]["requestBody"]["content"])
    assert prepared == {JSON, *PICTURES}
    assert set(paths["/predict/toy"]["post"]["requestBody"]["content"]) == every - {*PICTURES}


async def test_a_model_is_to_be_named_only_where_there_is_no_default(models_dir: Path) -> None:
    """Held against the service: what the schema takes is answered, what it refuses is not."""
    for default in (None, "toy"):
        settings = Settings(models_dir=models_dir, default_model=default, predict_route=PREDICT)
        async with serving(settings) as client:
            document = (await client.get("/schema/openapi.json")).json()
            check_document(document)
            for path in ("/predict", "/invocations", PREDICT):
                content = document["paths"][path]["post"]["requestBody"]["content"]
                bodies: list[Any] = [{"instances": [[1, 2, 3, 4]]}]
                if path == PREDICT:
                    bodies += [bodies[0] | {"parameters": each} for each in (None, {})]
                elif path == "/invocations":
                    assert (CSV in content) == (LINES in content) == (default is not None)
                for each in bodies:
                    reply = await client.post(path, json=each)
                    assert reply.status_code == (400 if default is None else 200)
                    assert is_valid(each, content[JSON]["schema"], document) == (
                        reply.status_code == 200
                    )


async def test_the_only_model_need_not_be_named(tmp_path: Path) -> None:
    save_toy(tmp_path, card=None)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
    content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert content[JSON]["schema"]["required"] == ["instances"]
    assert content[JSON]["schema"]["properties"]["model"]["description"] == "toy if absent"
    assert content[CSV]["schema"]["description"].endswith("for the model toy")
    assert content[CSV]["examples"] == {"zeros": {"value": "0,0,0,0\n"}}  # it has no card


async def test_a_path_of_two_methods_is_described_by_each(models_dir: Path) -> None:
    settings = Settings(
        models_dir=models_dir, predict_route=PREDICT, health_route=PREDICT, api_keys=KEY
    )
    async with serving(settings) as client:
        reply = await client.get("/schema/openapi.json", headers={"x-api-key": KEY})
    check_document(reply.json())
    described = reply.json()["paths"][PREDICT]
    assert list(described) == ["post", "get"]
    assert "401" in described["post"]["responses"]
    assert "401" not in described["get"]["responses"]


@pytest.mark.parametrize("protect", [False, True])
async def test_probes_of_platforms_need_a_key_only_if_they_are_protected(
    models_dir: Path, protect: bool
) -> None:
    settings = Settings(
        models_dir=models_dir,
        api_keys=KEY,
        protect_health=protect,
        predict_route=PREDICT,
        health_route=HEALTH,
    )
    headers = {"x-api-key": KEY}
    async with serving(settings) as client:
        paths = (await client.get("/schema/openapi.json", headers=headers)).json()["paths"]
        for path in ("/ping", HEALTH):
            described = paths[path]["get"]
            assert ("401" in described["responses"]) == protect
            assert ("security" not in described) == protect
            assert ((await client.get(path)).status_code == 401) == protect
    for path in ("/invocations", PREDICT):
        assert "401" in paths[path]["post"]["responses"]
    assert "401" in paths["/execution-parameters"]["get"]["responses"]


async def test_a_feature_tells_its_unit_and_training_range(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/schema/openapi.json")).json()["components"]["schemas"]
    _, named = schemas["toy_instance"]["anyOf"]
    assert named["properties"]["a"]["description"] == "a (cm); 0 to 10 in training"


async def test_what_a_card_does_not_say_is_not_in_the_document(tmp_path: Path) -> None:
    made, rows = save_columns(tmp_path / "made", has_town=False), tmp_path / "rows.csv"
    rows.write_text("age,rooms,city,paid\n30.5,2,rome,true\n")
    target = tmp_path / "models/houses/1/model.onnx"
    assert main(["card", *map(str, (made, "--examples", rows, "--output", target))]) == 0
    async with serving(Settings(models_dir=tmp_path / "models")) as client:
        document = (await client.get("/schema/openapi.json")).json()
    check_document(document)
    schemas = document["components"]["schemas"]
    _, named = schemas["houses_instance"]["anyOf"]
    described = [each["description"] for each in named["properties"].values()]
    ranges = ["30.5 to 30.5", "2 to 2", "rome", "boolean"]
    assert described == [f"{each} in training" for each in ranges]
    assert schemas["houses_prediction"]["properties"]["value"] == {"type": "number"}


async def test_a_model_without_card_is_in_the_document(tmp_path: Path) -> None:
    save_toy(tmp_path, card=None)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
        content = document["paths"]["/predict/toy"]["post"]["requestBody"]["content"]
        ((name, example),) = content["application/json"]["examples"].items()
        reply = await client.post("/predict/toy", json=example["value"])
    check_document(document)
    assert (name, reply.status_code) == ("zeros", 200)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": NUMBERS, "is_zipped": True},
        {"says_labels": False},
        {"labels": NUMBERS, "says_labels": False},
        {"are_margins": True, "beside": "twice"},
        {"are_margins": True, "says_labels": False},
    ],
    ids=str,
)
async def test_a_classifier_without_card_answers_as_the_document_says(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    save_classifier(tmp_path, **changes)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
        reply = await client.post("/predict/kinds", json={"instances": ROWS.tolist()})
        listed = await client.get("/models/kinds")
    check_document(document)
    schema = document["components"]["schemas"]["kinds_reply"]
    check(reply.json(), schema, document)
    for field in reply.json()["predictions"][0]:
        wrong = reply.json()
        wrong["predictions"][0] |= {field: None}
        if field == "twice":
            continue  # of which nothing is said
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, schema, document)
    if "are_margins" not in changes:
        wrong = reply.json()
        wrong["predictions"][0]["probability"] = 1.01
        with pytest.raises(jsonschema.ValidationError):
            check(wrong, schema, document)
    (version,) = listed.json()["versions"]
    assert version["classifier"] == {
        "labels": [] if "says_labels" in changes else changes.get("labels", LABELS),
        "answers": "scores" if "are_margins" in changes else "probabilities",
    }
    check(listed.json(), document["components"]["schemas"]["Model"], document)


@pytest.mark.parametrize(
    ("name", "good", "wrong"),
    [
        ("columns", {}, {"city": 3}),
        ("columns", {"rooms": 3}, {"paid": 0}),
        ("columns", {"age": 1.5}, {"rooms": 1.5}),
    ],
)
async def test_columns_are_in_the_document(
    tmp_path: Path, name: str, good: dict[str, Any], wrong: dict[str, Any]
) -> None:
    save_columns(tmp_path)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
        check_document(document)
        content = document["paths"][f"/predict/{name}"]["post"]["requestBody"]["content"]
        schema = content["application/json"]["schema"]
        for media_type, described in content.items():
            for example in described.get("examples", {}).values():
                sent, headers = as_sent(example["value"]), {"content-type": media_type}
                reply = await client.post(f"/predict/{name}", content=sent, headers=headers)
                assert reply.status_code == 200, reply.text
        (zeros,) = content["application/json"]["examples"]["example"]["value"]["instances"]
        assert zeros == {"age": 0, "rooms": 0, "city": "", "paid": False}
        for changes, status in ((good, 200), (wrong, 400)):
            house = zeros | changes
            for instance in (house, [*house.values()]):
                request = {"instances": [instance]}
                reply = await client.post(f"/predict/{name}", json=request)
                assert reply.status_code == status, reply.text
                assert is_valid(request, schema, document) is (status == 200)


@pytest.mark.parametrize("targets", [1, 2])
async def test_intervals_are_in_the_document(tmp_path: Path, targets: int) -> None:
    save_bounded(tmp_path, targets)
    async with serving(Settings(models_dir=tmp_path)) as client:
        document = (await client.get("/schema/openapi.json")).json()
        reply = await client.post("/predict/bounded", json={"instances": [[1] * targets]})
    check_document(document)
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
    check_document(document)
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
    check_value(value, schema | {"components": document["components"]})


def is_valid(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> bool:
    try:
        check(value, schema, document)
    except jsonschema.ValidationError:
        return False
    return True


def as_sent(example: Any) -> bytes:
    """Return an example as it goes over the wire."""
    return example.encode() if isinstance(example, str) else json.dumps(example).encode()
