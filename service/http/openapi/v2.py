"""The part of the OpenAPI document that says what is served below /v2, as v2/ does.

Bodies: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in Triton's
docs/protocol/, the extensions that v2/infer.py and v2/metadata.py name.
"""

import math

import numpy as np

from service.catalog.folder import VERSION
from service.catalog.served import ServedModel
from service.engine.spec import Tensor
from service.formats.tensors import DATATYPES, NAMES, widened
from service.http.openapi.parts import (
    CONTENT_ENCODING_PARAMETER,
    OF_INFERENCE,
    TIMEOUT_PARAMETER,
    Context,
    Document,
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
from service.http.route import Route

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
    "description": "Whether a long reply is to be compressed with gzip or deflate",
    "schema": TEXT | {"examples": ["gzip"]},
}


def index(route: Route, context: Context) -> Json:
    """Describe POST /v2/repository/index."""
    described = operation(
        "v2_repository_index",
        route.summary,
        answer("Name, version and state of each", list_of(ref("IndexEntry"))),
        ("400", "408", "413", "431"),
        requestBody=_body_or_none(json_object({}, ready=FLAG)),
    )
    return {route.path: described}


def control(route: Route, context: Context) -> Json:
    """Describe the loading and unloading of a model."""
    what = route.path.rpartition("/")[2]
    described = operation(
        f"v2_repository_{what}",
        route.summary,
        answer("It is done", {"type": "object"}),
        ("400", "404", "408", "413", "431", "503"),
        parameters=[in_path("model", TEXT)],
        requestBody=_body_or_none(json_object({}, parameters=ref("Parameters"))),
    )
    described["responses"]["501"] = error(SWITCHED_OFF)
    return {route.path: described}


def _body_or_none(schema: Json) -> Json:
    return {"required": False, "content": {"application/json": {"schema": schema}}}


def of_model(name: str, reply: str) -> Document:
    """Describe a route that reads something of a model, or of one of its versions."""

    def document(route: Route, context: Context) -> Json:
        kind, parameters = _places(route, context)
        described = operation(
            f"v2_{kind}_{name}", route.summary, answer(route.summary, ref(reply)), ("404", "503")
        )
        return {route.path: described | {"parameters": parameters}}

    return document


def _places(route: Route, context: Context) -> tuple[str, list[Json]]:
    """Return what a path leads to, a model or a version, and the parameters in it."""
    names = [each.name for each in context.served]
    model = in_path("model", TEXT | ({"enum": names} if names else {}))
    if "{version}" not in route.path:
        return "model", [model]
    version = in_path("version", TEXT | {"pattern": f"^{VERSION.pattern}$", "examples": ["1"]})
    return "version", [model, version]


def infer(route: Route, context: Context) -> Json:
    """Describe inference with any model, or a version of one; and with each model by itself."""
    kind, parameters = _places(route, context)
    described = _infer(f"v2_{kind}_infer", route.summary, ref("InferRequest"))
    described["parameters"] = parameters + described["parameters"]
    if kind == "version":
        return {route.path: described}
    alone = {route.path.format(model=each.name): _infer_with(each) for each in context.served}
    return {route.path: described} | alone


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
            "description": "How the reply is compressed, if it is",
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
    described = {
        "Datatype": {"enum": list(DATATYPES)},
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
