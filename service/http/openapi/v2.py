"""The part of the OpenAPI document that says what is served below /v2, as v2/ does.

Bodies: https://github.com/kserve/open-inference-protocol (inference_rest.md) and, in Triton's
docs/protocol/, the extensions that v2/infer.py and v2/metadata.py name.
"""

import math
from collections.abc import Sequence

import numpy as np

from service.card import VERSION, Example, Value
from service.catalog.served import ServedModel
from service.engine.model import Model
from service.engine.spec import Tensor
from service.formats.tensors import DATATYPES, NAMES, widened
from service.http.openapi.parts import (
    CONTENT_ENCODING_PARAMETER,
    OF_INFERENCE,
    TEXT,
    TIMEOUT_PARAMETER,
    Context,
    Document,
    Json,
    answer,
    as_json,
    error,
    in_path,
    json_object,
    list_of,
    operation,
    parameter,
    ref,
    zeros_fit,
)
from service.http.route import Route

WHOLE: Json = {"type": "integer", "minimum": 0}
FLAG_OR_NULL: Json = {"type": ["boolean", "null"]}
OBJECT_OR_NULL: Json = {"type": ["object", "null"]}
SWITCHED_OFF = "Loading and unloading is off: TORCHLIT_MODEL_CONTROL, or several workers"

HEADER_LENGTH_PARAMETER = parameter(
    "header",
    "Inference-Header-Content-Length",
    WHOLE,
    "The bytes of the JSON, when binary data follows it; 0: there is only data, that of the one "
    "input, and the outputs come as binary data",
)
ACCEPT_ENCODING_PARAMETER = parameter(
    "header",
    "Accept-Encoding",
    TEXT | {"examples": ["gzip"]},
    "Whether a long reply is to be compressed with gzip or deflate",
)


def index(route: Route, context: Context) -> Json:
    """Describe POST /v2/repository/index."""
    described = operation(
        "v2_repository_index",
        route.summary,
        answer("Name, version and state of each", list_of(ref("IndexEntry"))),
        ("400", "408", "413", "415", "431"),
        requestBody=_body_or_none(json_object({}, ready={"type": "boolean"})),
    )
    return {route.path: described}


def control(route: Route, context: Context) -> Json:
    """Describe the loading and unloading of a model."""
    what = route.path.rpartition("/")[2]
    described = operation(
        f"v2_repository_{what}",
        route.summary,
        answer("It is done", {"type": "object"}),
        ("400", "404", "408", "413", "415", "431", "503"),
        parameters=[in_path("model", TEXT)],
        requestBody=_body_or_none(json_object({}, parameters=ref("Parameters"))),
    )
    described["responses"]["501"] = error(SWITCHED_OFF)
    return {route.path: described}


def _body_or_none(schema: Json) -> Json:
    return {"required": False, "content": as_json(schema)}


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
    request = ref(f"{name}_infer_request")
    return _infer(f"v2_infer_{name}", f"Infer with {name}", request, _examples(served))


def _infer(operation_id: str, summary: str, request: Json, examples: Json | None = None) -> Json:
    """Describe inference. Each body is JSON, or JSON and the data of tensors behind it."""
    replied = answer("The outputs", ref("InferReply"))
    replied["content"]["application/octet-stream"] = {}
    length = "The bytes of the JSON, when binary data follows it"
    encoding = "How the reply is compressed, if it is"
    replied["headers"] = {
        HEADER_LENGTH_PARAMETER["name"]: {"description": length, "schema": WHOLE},
        "Content-Encoding": {"description": encoding, "schema": {"enum": ["gzip", "deflate"]}},
    }
    binary = {
        "format": "binary",
        "description": "JSON, then the data of those inputs that have parameters.binary_data_size "
        "instead of data, in their order: little-endian, row-major, BYTES each behind its length "
        "in four bytes",
    }
    content = as_json(request, examples) | {"application/octet-stream": {"schema": TEXT | binary}}
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
        requestBody={"required": True, "content": content},
    )


def schemas(served: list[ServedModel]) -> Json:
    """Return the schemas of all bodies below /v2, by name."""
    data = {"data": ref("TensorData")}
    tensor = {"name": TEXT, "datatype": ref("Datatype"), "shape": list_of(WHOLE)} | data
    takes_missing = any(each.model.takes_missing for each in served)
    # Not what they are: generators of clients read no schema that is in itself, and make a class of
    # each element that has several types.
    element = {"not": {"type": "object" if takes_missing else ["object", "null"]}}
    order = "The elements in row-major order, flat or nested as the shape"
    reply = {
        "model_name": TEXT,
        "model_version": TEXT,
        "id": TEXT | {"description": "that of the request, if it had one"},
        "outputs": list_of(json_object(tensor)),
    }
    return {
        "Datatype": {"enum": list(DATATYPES)},
        "TensorData": list_of(element) | {"description": order},
        "Parameters": OBJECT_OR_NULL,
        "InferRequest": _request(
            list_of(json_object(tensor, parameters=ref("Parameters")), minItems=1), TEXT
        ),
        "InferReply": json_object(reply),
        **{f"{each.name}_infer_request": _request_of(each) for each in served},
    }


def _request(inputs: Json, output_name: Json) -> Json:
    """Describe a request: what its inputs are, and how outputs are called."""
    wanted = {
        "binary_data": FLAG_OR_NULL,
        "classification": WHOLE | {"description": "how many of the highest, as BYTES; 0: as it is"},
    }
    reserved = {
        "timeout": WHOLE | {"description": "a deadline in microseconds; 0 is none"},
        "binary_data_output": FLAG_OR_NULL,
    }
    output = json_object({"name": output_name}, parameters=OBJECT_OR_NULL | {"properties": wanted})
    outputs = {"type": ["array", "null"], "description": "each once; all if none"}
    return json_object(
        {"inputs": inputs},
        id={"type": ["string", "null"]},
        parameters=OBJECT_OR_NULL | {"properties": reserved},
        outputs=outputs | {"items": output},
    )


def _request_of(served: ServedModel) -> Json:
    """Describe a request to a model: the names, datatypes and shapes that fit."""
    inputs = [_input(each) for each in served.model.inputs]
    names = [each.name for each in served.model.outputs]
    all_inputs = list_of({"anyOf": inputs}, minItems=len(inputs), maxItems=len(inputs))
    return _request(all_inputs, {"enum": names})


def _input(tensor: Tensor) -> Json:
    taken = [
        name
        for name, dtype in DATATYPES.items()
        if name != "FP16" and widened(np.empty(0, dtype), tensor.dtype) is not None
    ]
    sizes = [
        _size(size) if size != -1 else WHOLE | {"minimum": 1 if place == 0 else 0}
        for place, size in enumerate(tensor.shape)
    ]
    shape = list_of(WHOLE)
    if tensor.has_shape:
        shape |= {"minItems": len(sizes), "maxItems": max(1, len(sizes))}
        # A single number may also be sent as [1].
        shape["prefixItems"] = sizes or [_size(1)]
    fields = {
        "name": TEXT | {"const": tensor.name},
        "datatype": {"enum": taken},
        "shape": shape,
        "data": ref("TensorData"),
    }
    return json_object(fields, parameters=ref("Parameters"))


def _size(size: int) -> Json:
    """Describe a number that is the only one: by `const`, clients would take no other for a row."""
    return WHOLE | {"minimum": size, "maximum": size}


def _examples(served: ServedModel) -> Json:
    """Return requests from the card's examples, by name; none if JSON cannot carry them.

    Without a card it is one row of zeros.
    """
    model, card = served.model, served.card
    if any(each.dtype is np.float16 for each in model.inputs + model.outputs):
        return {}
    if card is None:
        zeros = {"inputs": [_one_row(each) for each in model.inputs]}
        return {"zeros": zeros} if zeros_fit(model) else {}
    return {each.name: {"inputs": _inputs(model, each)} for each in card.examples}


def _inputs(model: Model, example: Example) -> list[Json]:
    """Return an example as tensors: one of all values, or one for each."""
    if len(model.inputs) == 1:
        return [_one_row(model.input, example.input)]
    pairs = zip(model.inputs, example.input, strict=True)
    return [_one_row(tensor, [value]) for tensor, value in pairs]


def _one_row(tensor: Tensor, data: Sequence[Value] | None = None) -> Json:
    """Return an input of one row; of zeros, false or empty strings if there is no data."""
    shape = [1 if size == -1 else size for size in tensor.shape]
    zero = {np.object_: "", np.bool_: False}.get(tensor.dtype, 0)
    return {
        "name": tensor.name,
        "datatype": NAMES[tensor.dtype],
        "shape": shape,
        "data": [*data] if data else [zero] * math.prod(shape),
    }
