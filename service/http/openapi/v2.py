"""The part of the OpenAPI document that says what is served below /v2, as oip.py and infer.py do.

Bodies: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in Triton's
docs/protocol/, the extensions that those two modules name.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from service.catalog.folder import VERSION
from service.catalog.served import ServedModel
from service.engine.spec import Tensor
from service.formats.tensors import DATATYPES, NAMES, widened
from service.http.openapi.parts import (
    CONTENT_ENCODING_PARAMETER,
    OF_INFERENCE,
    TIMEOUT_PARAMETER,
    Json,
    answer,
    error,
    in_path,
    json_object,
    list_of,
    operation,
    ref,
    zeros_fit,
)

TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer", "minimum": 0}
FLAG: Json = {"type": "boolean"}
SWITCHED_OFF = "Loading and unloading is off: TORCHLIT_MODEL_CONTROL, or several workers"

HEADER_LENGTH_PARAMETER = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "The bytes of the JSON, when binary data follows it; 0: there is only data, "
    "that of the one input, and the outputs come as binary data",
    "schema": WHOLE,
}
ACCEPT_ENCODING_PARAMETER = {
    "name": "Accept-Encoding",
    "in": "header",
    "description": "Whether a long reply is to be packed with gzip or deflate",
    "schema": TEXT | {"examples": ["gzip"]},
}


def paths(served: list[ServedModel]) -> Json:
    """Return what is served below /v2, by path."""
    names = [each.name for each in served]
    model = in_path("model", TEXT | ({"enum": names} if names else {}))
    alone = {f"/v2/models/{each.name}/infer": {"post": _infer_with(each)} for each in served}
    return _of_server() | _of_repository() | _of_models(model) | alone


def _of_server() -> Json:
    ready = operation(
        "v2_ready", "Whether every model answers", answer("All do", ref("ServerReady"))
    )
    ready["responses"]["503"] = answer("Some do not, or it is told to stop", ref("ServerReady"))
    return {
        "/v2": _get("v2_server_metadata", "The server", "ServerMetadata"),
        "/v2/health/live": _get("v2_live", "Whether the process runs", "ServerLive"),
        "/v2/health/ready": {"get": ready},
        "/v2/models": _get("v2_models", "The models that answer", "ModelNames"),
        "/v2/models/stats": _get(
            "v2_statistics_of_all", "The statistics of all models", "Statistics"
        ),
    }


def _of_repository() -> Json:
    index = operation(
        "v2_repository_index",
        "Every version there is, also those that do not answer",
        answer("Name, version and state of each", ref("RepositoryIndex")),
        ("400", "408", "413", "431"),
        requestBody=_body_or_none(json_object({}, ready=FLAG)),
    )
    return {
        "/v2/repository/index": {"post": index},
        "/v2/repository/models/{model}/load": {"post": _control("load")},
        "/v2/repository/models/{model}/unload": {"post": _control("unload")},
    }


def _control(what: str) -> Json:
    described = operation(
        f"v2_repository_{what}",
        f"{what.capitalize()} all versions of a model, where the settings allow that",
        answer("It is done", {"type": "object"}),
        ("400", "404", "408", "413", "431", "503"),
        parameters=[in_path("model", TEXT)],
        requestBody=_body_or_none(json_object({}, parameters=ref("Parameters"))),
    )
    described["responses"]["501"] = error(SWITCHED_OFF)
    return described


def _body_or_none(schema: Json) -> Json:
    return {"required": False, "content": {"application/json": {"schema": schema}}}


def _of_models(model: Json) -> Json:
    found: Json = {}
    for at, kind, in_paths in _places(model):
        for end, name, summary, reply in (
            ("", "metadata", "Inputs and outputs of a model", "ModelMetadata"),
            ("/ready", "ready", "Whether a model answers", "ModelReady"),
            ("/config", "config", "The configuration of a model, in Triton's words", "ModelConfig"),
            ("/stats", "statistics", "The statistics of a model", "Statistics"),
        ):
            errors = ("404", "503")
            found[at + end] = _get(f"v2_{kind}_{name}", summary, reply, errors, parameters=in_paths)
        infer = _infer(f"v2_{kind}_infer", "Infer", ref("InferRequest"))
        infer["parameters"] = in_paths + infer["parameters"]
        found[at + "/infer"] = {"post": infer}
    return found


def _places(model: Json) -> list[tuple[str, str, list[Json]]]:
    """Return where a model is, without and with its version: path, name, parameters."""
    version = in_path("version", TEXT | {"pattern": f"^{VERSION.pattern}$", "examples": ["1"]})
    return [
        ("/v2/models/{model}", "model", [model]),
        ("/v2/models/{model}/versions/{version}", "version", [model, version]),
    ]


def _get(
    operation_id: str, summary: str, reply: str, errors: Iterable[str] = (), **more: Any
) -> Json:
    return {"get": operation(operation_id, summary, answer(summary, ref(reply)), errors, **more)}


def _infer_with(served: ServedModel) -> Json:
    name = served.name
    described = _infer(f"v2_infer_{name}", f"Infer with {name}", ref(f"{name}_infer_request"))
    if examples := _examples(served):
        described["requestBody"]["content"]["application/json"]["examples"] = examples
    return described


def _infer(operation_id: str, summary: str, request: Json) -> Json:
    """Describe inference. Each body is JSON, or JSON and the data of tensors behind it."""
    replied = answer("The outputs", ref("InferReply"))
    replied["content"]["application/octet-stream"] = {}
    replied["headers"] = {
        HEADER_LENGTH_PARAMETER["name"]: {
            "description": "The bytes of the JSON, when binary data follows it",
            "schema": WHOLE,
        },
        "Content-Encoding": {
            "description": "How the reply is packed, if it is",
            "schema": {"enum": ["gzip", "deflate"]},
        },
    }
    binary = {
        "schema": {
            "type": "string",
            "format": "binary",
            "description": "JSON, then the data of those inputs that have "
            "parameters.binary_data_size instead of data, in their order: little-endian, "
            "row-major, BYTES each behind its length in four bytes",
        }
    }
    return operation(
        operation_id,
        summary,
        replied,
        OF_INFERENCE,
        parameters=[
            TIMEOUT_PARAMETER,
            HEADER_LENGTH_PARAMETER,
            CONTENT_ENCODING_PARAMETER,
            ACCEPT_ENCODING_PARAMETER,
        ],
        requestBody={
            "required": True,
            "content": {
                "application/json": {"schema": request},
                "application/octet-stream": binary,
            },
        },
    )


def schemas(served: list[ServedModel]) -> Json:
    """Return the schemas of all bodies below /v2, by name."""
    tensor = {"name": TEXT, "datatype": ref("Datatype"), "shape": list_of(WHOLE)}
    names = list_of(TEXT)
    described = {
        "Datatype": {"enum": list(DATATYPES)},
        "ServerMetadata": json_object({"name": TEXT, "version": TEXT, "extensions": names}),
        "ServerLive": json_object({"live": FLAG}),
        "ServerReady": json_object({"live": FLAG, "ready": FLAG}),
        "ModelNames": json_object({"models": names}),
        "ModelReady": json_object({"name": TEXT, "ready": FLAG}),
        "ModelMetadata": json_object(
            {
                "name": TEXT,
                "versions": names,
                "platform": TEXT,
                "inputs": list_of(ref("TensorMetadata")),
                "outputs": list_of(ref("TensorMetadata")),
            }
        ),
        "TensorMetadata": json_object(
            tensor | {"shape": list_of({"type": "integer", "minimum": -1})}
        ),
        "ModelConfig": _config(),
        "Statistics": json_object({"model_stats": list_of(_statistics())}),
        "RepositoryIndex": list_of(
            json_object(
                {"name": TEXT, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": TEXT},
                version=TEXT,
            )
        ),
        "TensorData": list_of(
            {"anyOf": [{"type": ["number", "boolean", "string"]}, ref("TensorData")]}
        )
        | {"description": "The elements in row-major order, flat or nested as the shape"},
        "Parameters": {"type": ["object", "null"]},
        "InferRequest": _request(
            json_object(tensor | {"data": ref("TensorData")}, parameters=ref("Parameters")), TEXT
        ),
        "InferReply": json_object(
            {
                "model_name": TEXT,
                "model_version": TEXT,
                "id": TEXT | {"description": "that of the request, if it had one"},
                "outputs": list_of(json_object(tensor | {"data": ref("TensorData")})),
            }
        ),
    }
    for each in served:
        described[f"{each.name}_infer_request"] = _request_of(each)
    return described


def _request(inputs: Json, output_name: Json, count: int | None = None) -> Json:
    """Describe a request: what each of its inputs is, and how outputs are called."""
    asked = {
        "binary_data": {"type": ["boolean", "null"]},
        "classification": WHOLE | {"description": "how many of the highest, as BYTES; 0: as it is"},
    }
    reserved = {
        "timeout": WHOLE | {"description": "a deadline in microseconds; 0 is none"},
        "binary_data_output": {"type": ["boolean", "null"]},
    }
    limits: Json = {"minItems": 1} if count is None else {"minItems": count, "maxItems": count}
    output = json_object(
        {"name": output_name}, parameters={"type": ["object", "null"], "properties": asked}
    )
    return json_object(
        {"inputs": list_of(inputs) | limits},
        id={"type": ["string", "null"]},
        parameters={"type": ["object", "null"], "properties": reserved},
        outputs={
            "type": ["array", "null"],
            "items": output,
            "description": "each once; all if none",
        },
    )


def _request_of(served: ServedModel) -> Json:
    """Describe a request to a model: the names, datatypes and shapes that fit."""
    inputs = []
    for tensor in served.model.inputs:
        taken = [
            name
            for name, dtype in DATATYPES.items()
            if name != "FP16" and widened(np.empty(0, dtype), tensor.dtype) is not None
        ]
        sizes = [
            {"const": size} if size != -1 else WHOLE | {"minimum": 1 if place == 0 else 0}
            for place, size in enumerate(tensor.shape)
        ]
        shape: Json = {"type": "array"}
        if tensor.has_shape:
            shape |= {"minItems": len(sizes), "maxItems": max(1, len(sizes))}
        if tensor.has_shape and not sizes:
            sizes = [{"const": 1}]  # a single number, which may also be sent as [1]
        if sizes:
            shape["prefixItems"] = sizes
        fields = {
            "name": {"const": tensor.name},
            "datatype": {"enum": taken},
            "shape": shape,
            "data": ref("TensorData"),
        }
        inputs.append(json_object(fields, parameters=ref("Parameters")))
    names = [each.name for each in served.model.outputs]
    return _request({"anyOf": inputs}, {"enum": names}, len(inputs))


def _examples(served: ServedModel) -> Json:
    """Return requests from the card's examples, by name; none if JSON cannot carry them.

    Without a card it is one row of zeros.
    """
    model, card = served.model, served.card
    if any(each.dtype is np.float16 for each in model.inputs + model.outputs):
        return {}
    if card is None:
        zeros = {"inputs": [_zeros(each) for each in model.inputs]}
        return {"zeros": {"value": zeros}} if zeros_fit(model) else {}
    fields = {
        "name": model.input.name,
        "datatype": NAMES[model.input.dtype],
        "shape": [1, *model.input.shape[1:]],
    }
    return {
        each.name: {"value": {"inputs": [fields | {"data": each.input}]}} for each in card.examples
    }


def _zeros(tensor: Tensor) -> Json:
    shape = [1 if size == -1 else size for size in tensor.shape]
    zero = {np.object_: "", np.bool_: False}.get(tensor.dtype, 0)
    data = [zero] * math.prod(shape)
    return {"name": tensor.name, "datatype": NAMES[tensor.dtype], "shape": shape, "data": data}


def _config() -> Json:
    tensor = json_object(
        {
            "name": TEXT,
            "data_type": TEXT | {"pattern": "^TYPE_"},
            "dims": list_of({"type": "integer", "minimum": -1}),
        }
    )
    batching = json_object(
        {"preferred_batch_size": list_of(WHOLE), "max_queue_delay_microseconds": WHOLE}
    )
    text = json_object({"string_value": TEXT})
    return json_object(
        {
            "name": TEXT,
            "platform": TEXT,
            "backend": TEXT,
            "version_policy": {"type": "object"},
            "max_batch_size": WHOLE | {"description": "rows of one request; 0: it has no rows"},
            "input": list_of(tensor),
            "output": list_of(tensor),
            "instance_group": list_of(
                json_object(
                    {"name": TEXT, "kind": {"enum": ["KIND_CPU", "KIND_GPU"]}, "count": WHOLE}
                )
            ),
            "default_model_filename": TEXT,
            "parameters": json_object({"batching": text, "batching_reason": text}),
        },
        dynamic_batching=batching,
    )


def _statistics() -> Json:
    durations = (
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"),
        *("cache_hit", "cache_miss"),
    )
    duration = json_object({"count": WHOLE, "ns": WHOLE})
    return json_object(
        {
            "name": TEXT,
            "version": TEXT,
            "last_inference": WHOLE | {"description": "in milliseconds since 1970; 0: never"},
            "inference_count": WHOLE | {"description": "rows"},
            "execution_count": WHOLE | {"description": "batches"},
            "inference_stats": json_object(dict.fromkeys(durations, duration)),
            "response_stats": {"type": "object"},
            "batch_stats": {"type": "array"},
            "memory_usage": {"type": "array"},
        }
    )
