"""What Vertex AI asks of a container, each demand named by the document that makes it.

"Custom container requirements for prediction", and of the API reference "ModelContainerSpec".
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidSetting
from service.http.app import create_app
from service.settings import Settings
from tests.support.drawings import png
from tests.support.platforms import HEALTH, JSON, KEY, PREDICT, ROW, of
from tests.support.toys import Client, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "instance", [[1, 2, 3, 4], {"a": 1, "b": 2, "c": 3, "d": 4}, [[0, 1, 2], [3, 4, 5]]]
)
async def test_vertex_gets_predictions_and_nothing_else(
    toy: Client, mean: Client, instance: Any
) -> None:
    """Vertex AI, "Custom container requirements for prediction", "Response requirements"."""
    client = mean if isinstance(instance, list) and isinstance(instance[0], list) else toy
    content = json.dumps({"instances": [instance] * 3}).encode()
    reply = await client.post(PREDICT, content=content, headers={"content-type": JSON})
    expected = await client.post("/predict", content=content)
    assert reply.status_code == 200
    assert reply.headers["content-type"] == JSON
    assert reply.json() == {"predictions": expected.json()["predictions"]}
    assert len(reply.json()["predictions"]) == 3


@pytest.mark.parametrize(
    "sent", ["", "text/plain", "text/csv", "image/png", "image/webp", "multipart/form-data", "x"]
)
async def test_vertex_sends_json_whatever_the_content_type_says(toy: Client, sent: str) -> None:
    """Vertex AI, as above, "Request requirements": a request is JSON."""
    content = json.dumps({"instances": [ROW]}).encode()
    reply = await toy.post(PREDICT, content=content, headers={"content-type": sent})
    expected = await toy.post(PREDICT, content=content)
    assert (reply.status_code, reply.content) == (200, expected.content)


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        {"model": "mean"},
        {"model": "mean", "version": 1},
        {"model": "mean", "version": 1.0},  # as a protobuf Value has it
        {"version": None, "model": None},
        {"confidenceThreshold": 0.5, "maxPredictions": 5},  # of others
    ],
)
async def test_vertex_may_name_a_model_in_its_parameters(
    mean: Client, toy: Client, parameters: Any
) -> None:
    """Vertex AI, as above, "Request requirements": parameters is an object of any content."""
    names = bool(parameters and parameters.get("model"))
    for row in ([0, 1, 2, 3, 4, 5], [[0, 1, 2], [3, 4, 5]]):
        content = json.dumps({"instances": [row], "parameters": parameters}).encode()
        reply = await (toy if names else mean).post(PREDICT, content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}


async def test_the_route_of_vertex_may_be_that_of_predict(folder: Path) -> None:
    settings = Settings(
        models_dir=folder, default_model="mean", predict_route="/predict", health_route="/health"
    )
    async with serving(settings) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        reply = await client.post("/predict", content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        reply = await client.post("/predict/mean", content=content)  # that is ours still
        assert reply.json()["model"] == "mean"
        ours = {"model": "mean", "version": 1, "predictions": [{"value": 2.5}]}
        for sent, body in (
            (JSON, b'{"model": "mean", "instances": [[0, 1, 2, 3, 4, 5]]}'),
            ("text/csv", b"0,1,2,3,4,5\n"),
            ("image/png", png(np.arange(6, dtype=np.uint8).reshape(2, 3))),
        ):
            reply = await client.post("/predict", content=body, headers={"content-type": sent})
            assert reply.json() == ours, sent
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]], "parameters": {"x": 1, "version": 1.0}}'
        reply = await client.post("/predict", content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        for body, why in (
            (b'{"model": "mean", "instances": [1]}', "instances[0]: expected a list of 6 numbers"),
            (b'{"parameters": {}, "instances": [1]}', "instances[0]: expected a list of 6 numbers"),
            (b'{"parameter": {}}', '"parameter": unknown field; did you mean parameters?'),
            (
                b'{"model": "mean", "parameters": {}}',
                'body: expected the fields of one protocol, got "model" and "parameters"',
            ),
        ):
            reply = await client.post("/predict", content=body)
            assert (reply.status_code, reply.json()["error"][: len(why)]) == (400, why)
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health/live")).json() == {"status": "live"}


async def test_the_route_of_vertex_may_name_the_model(folder: Path) -> None:
    settings = Settings(models_dir=folder, predict_route="/predict/mean")
    async with serving(settings) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        reply = await client.post("/predict/mean", content=content)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        reply = await client.post("/predict/toy", content=b'{"instances": [[0, 1, 2, 3]]}')
        assert reply.json()["model"] == "toy"


async def test_a_route_of_v2_stays_what_it_is(folder: Path) -> None:
    route = "/v2/models/mean/infer"
    settings = Settings(models_dir=folder, predict_route=route, health_route="/v2/health/ready")
    sent = {"name": "input", "shape": [1, 6], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5]}
    async with serving(settings) as client:
        assert (await client.post(route, json={"inputs": [sent]})).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200


async def test_both_routes_of_vertex_may_be_one_path(folder: Path) -> None:
    """Vertex AI, "ModelContainerSpec": both default to .../deployedModels/DEPLOYED_MODEL:predict.

    "Custom container requirements for prediction" has the health route without `:predict`.
    """
    settings = Settings(
        models_dir=folder,
        default_model="mean",
        predict_route=PREDICT,
        health_route=PREDICT,
        api_keys=KEY,
    )
    async with serving(settings) as client:
        content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
        assert (await client.get(PREDICT)).json()["status"] == "ready"
        assert (await client.post(PREDICT, content=content)).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        reply = await client.post(PREDICT, content=content, headers=headers)
        assert reply.json() == {"predictions": [{"value": 2.5}]}
        reply = await client.put(PREDICT, content=content, headers=headers)
        assert reply.status_code == 405


@pytest.mark.parametrize(
    "path", ["/", "/health", "/predict", "/predict/health", "/v2/models/x/infer"]
)
async def test_any_path_may_tell_health(folder: Path, path: str) -> None:
    async with of(folder, "mean", health_route=path) as client:
        reply = await client.get(path)
        assert (reply.status_code, reply.json()["status"]) == (200, "ready")


async def test_a_route_that_begins_like_a_probe_needs_its_key(folder: Path) -> None:
    for route in ("/pinged", "/healthy/predict", "/v2/healthy"):
        settings = Settings(
            models_dir=folder, default_model="mean", predict_route=route, api_keys=KEY
        )
        async with serving(settings) as client:
            content = b'{"instances": [[0, 1, 2, 3, 4, 5]]}'
            for method in ("POST", "GET"):
                reply = await client.request(method, route, content=content)
                assert reply.status_code == 401, route
            reply = await client.post(route, content=content, headers={"x-api-key": KEY})
            assert reply.status_code == 200, route


@pytest.mark.parametrize(
    "path", ["/ping", "/health", "/health/predict", "/metrics/predict", "/v2/health/ready"]
)
def test_the_path_of_a_probe_predicts_nothing(folder: Path, path: str) -> None:
    with pytest.raises(InvalidSetting, match=r"^TORCHLIT_PREDICT_ROUTE or AIP_PREDICT"):
        create_app(Settings(models_dir=folder, predict_route=path))


async def test_without_its_routes_there_are_none(toy: Client) -> None:
    assert (await toy.get(HEALTH)).status_code == 404
    assert (await toy.post(HEALTH, content=b"{}")).status_code == 404
    assert (await toy.post(PREDICT + "/more", content=b"{}")).status_code == 404
