"""Asks a service with KServe's client; runs in the environment of requirements.txt.

    client.py URL < questions

Prints a JSON object: `probes`; `metadata`, by path, as KServe's own types read it; `answers`, what
the client gave for each question, or its error.
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.errors import InferenceError
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest import v2_datamodels

DTYPES = {"FP16": np.float16, "FP32": np.float32, "INT64": np.int64, "BYTES": np.object_}
METADATA = {
    "/v2": v2_datamodels.ServerMetadataResponse,
    "/v2/health/live": v2_datamodels.ServerLiveResponse,
    "/v2/health/ready": v2_datamodels.ServerReadyResponse,
    "/v2/models": v2_datamodels.ListModelsResponse,
    "/v2/models/toy": v2_datamodels.ModelMetadataResponse,
    "/v2/models/toy/ready": v2_datamodels.ModelReadyResponse,
}


async def main(url: str, questions: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the client says of the service at `url`."""
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
        probes = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "toy": await client.is_model_ready(url, "toy"),
            "nobody": await client.is_model_ready(url, "nobody"),
        }
        answers = [await ask(client, url, question) for question in questions]
    metadata = {
        path: model(**httpx.get(url + path).json()).dict() for path, model in METADATA.items()
    }
    return {"probes": probes, "metadata": metadata, "answers": answers}


async def ask(client: InferenceRESTClient, url: str, question: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one question."""
    inputs = []
    for each in question["inputs"]:
        array = np.array(each["data"], DTYPES[each["datatype"]]).reshape(each["shape"])
        sent = InferInput(each["name"], list(array.shape), each["datatype"])
        sent.set_data_from_numpy(array, binary_data=question["binary_inputs"])
        inputs.append(sent)
    asked = [RequestedOutput(**each) for each in question.get("outputs", [])]
    request = InferRequest(
        question["model"],
        inputs,
        request_id=question.get("id"),
        parameters=question.get("parameters"),
        request_outputs=asked or None,
    )
    headers: dict[str, str] = {}
    try:
        reply = await client.infer(url, request, question["model"], response_headers=headers)
    except (httpx.HTTPStatusError, InferenceError) as error:
        return {"error": str(error)}
    return {
        "model": reply.model_name,
        "id": reply.id,
        "content_type": headers["content-type"],
        "outputs": {each.name: readable(each.as_numpy()) for each in reply.outputs},
        "datatypes": {each.name: each.datatype for each in reply.outputs},
    }


def readable(array: np.ndarray) -> list[Any]:
    """Return an array as lists, its bytes as text."""
    if array.dtype == np.object_:
        array = np.vectorize(lambda each: each.decode() if isinstance(each, bytes) else each)(array)
    return array.tolist()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.load(sys.stdin)))))
