"""The protocol's own OpenAPI documents, from the wheel of MLServer, and the service's replies."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.support.processes import running, schemathesis
from tests.support.toys import save_sum, save_toy, toy_card

ROOT = Path(__file__).parents[3]
DOCUMENTS = ".venv/kserve/lib/python*/site-packages/mlserver/rest/openapi/"
STREAMS = ("infer_stream", "generate", "generate_stream")  # not of the protocol but of MLServer
SENT = {
    "id": "42",
    "inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}],
    "outputs": [{"name": "probabilities"}],
}

pytestmark = pytest.mark.kserve


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    save_toy(folder, card=toy_card())
    save_sum(folder)
    with running(models_dir=folder) as service:
        yield service.url


def load(name: str) -> dict[str, Any]:
    """Return a document of MLServer, without what only MLServer has."""
    (path,) = ROOT.glob(DOCUMENTS + name)
    text = path.read_text().replace('"type": "bytes"', '"type": "string"')  # there is no such type
    document: dict[str, Any] = json.loads(text)
    paths = document["paths"]
    document["paths"] = {path: paths[path] for path in paths if not path.endswith(STREAMS)}
    return document


def check(value: Any, name: str, document: dict[str, Any]) -> None:
    """Hold a body against a schema of a document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.validate(value, schema)


@pytest.mark.parametrize("name", ["dataplane.json", "model_repository.json"])
def test_every_path_of_the_protocol_is_in_our_document(url: str, name: str) -> None:
    ours = httpx.get(url + "/schema/openapi.json").json()["paths"]
    theirs = load(name)["paths"]
    assert theirs
    for path, item in theirs.items():
        own = path.replace("{model_name}", "{model}").replace("{model_version}", "{version}")
        assert ours[own].keys() == item.keys() - {"parameters"}


def test_replies_are_as_the_protocol_says(url: str) -> None:
    document = load("dataplane.json")
    check(SENT, "InferenceRequest", document)
    for path in ("/v2/models/toy/infer", "/v2/models/toy/versions/1/infer"):
        reply = httpx.post(url + path, json=SENT)
        assert reply.status_code == 200
        check(reply.json(), "InferenceResponse", document)
        wrong = httpx.post(url + path, json=SENT | {"inputs": []})
        assert wrong.status_code == 400
        check(wrong.json(), "InferenceErrorResponse", document)
    check(httpx.get(url + "/v2").json(), "MetadataServerResponse", document)
    for model in ("toy", "sum"):
        reply = httpx.get(f"{url}/v2/models/{model}")
        check(reply.json(), "MetadataModelResponse", document)
    unknown = httpx.get(url + "/v2/models/nobody")
    assert unknown.status_code == 404
    check(unknown.json(), "MetadataModelErrorResponse", document)
    index = httpx.post(url + "/v2/repository/index")
    check(index.json(), "RepositoryIndexResponse", load("model_repository.json"))


def test_requests_made_of_the_protocols_document_are_answered_as_it_says(
    url: str, tmp_path: Path
) -> None:
    """What it forbids may be taken: it forbids null, which clients send for what they leave out."""
    document = load("dataplane.json")
    known = {"model_name": "toy", "model_version": "1"}
    for item in document["paths"].values():
        for parameter in item.get("parameters", ()):
            parameter["schema"]["enum"] = [known[parameter["name"]]]
            if "get" in item:  # the protocol's text says 4xx for a model that is not ready
                item["get"]["responses"]["404"] = {"description": "unknown"}
    (tmp_path / "dataplane.json").write_text(json.dumps(document))
    options = ["--generation-deterministic", "--max-examples=30", "--url", url]
    left_out = "--exclude-checks=positive_data_acceptance,negative_data_rejection"
    schemathesis(tmp_path, "run", str(tmp_path / "dataplane.json"), *options, left_out)
