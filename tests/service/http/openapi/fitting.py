"""A hook of Schemathesis: makes requests fit where JSON Schema cannot say what fits.

What the document leaves open: that there are as many elements as the shape says, as many rows in
each input, each input and output once, and that a body is what the headers say. Only requests that
are to be taken are changed.
"""

import base64
import io
import json
import math
from typing import Any

import msgspec
import numpy as np
import schemathesis
from PIL import Image
from schemathesis import Case, HookContext
from schemathesis.transport import SerializationContext

from service.formats.tensors import DATATYPES

INVOCATIONS = "/invocations"
CSV, JSON_LINES, MSGPACK = "text/csv", "application/jsonlines", "application/msgpack"
IMAGES, FORM = ("image/png", "image/jpeg"), "multipart/form-data"
PREDICT_ROUTE = "/v1/endpoints/1/deployedModels/2:predict"  # as test_conformance.py sets it
HEADER_LENGTH = "Inference-Header-Content-Length"
MOST_ROWS = 9
LARGEST = 1e6  # a model may answer the largest numbers of all with infinity, which is a 500


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Make a request fit that is to be taken, if its path is that of one model."""
    if case.meta is None or not case.meta.generation.mode.is_positive or "{" in case.path:
        return
    for name in (HEADER_LENGTH, "Content-Encoding"):
        case.headers.pop(name, None)
    schemas = case.operation.schema.raw_schema["components"]["schemas"]
    takes_rows = case.path.startswith(("/predict", "/prepare"))
    takes_rows |= case.path in (INVOCATIONS, PREDICT_ROUTE)
    if case.path.startswith(("/predict/", "/prepare/")):
        paint(case, schemas[case.path.split("/")[2] + "_instance"])
    if takes_rows and isinstance(case.body, dict):
        case.query.pop("version", None)  # the body may say another
        case.body["instances"] = tame(case.body.get("instances"))
        write_whole_numbers(case.body)
        write_whole_numbers(case.body.get("parameters") or {})
    if case.media_type in (CSV, JSON_LINES) and isinstance(case.body, str):
        (body,) = [each for each in case.operation.body if each.media_type == case.media_type]
        described = body.definition["schema"]["description"]
        flat = schemas[described.split()[-1] + "_instance"]["anyOf"][0]
        case.body = lines(case.body, flat, case.media_type)
    if case.media_type == MSGPACK:
        case.body = packed(case, schemas)
    if not case.path.endswith("/infer"):
        return
    described = schemas[case.path.split("/")[3] + "_infer_request"]["properties"]["inputs"]
    inputs = [each["properties"] for each in described["items"]["anyOf"]]
    if case.media_type == "application/octet-stream":
        case.body, length = binary_request(inputs)
        case.headers[HEADER_LENGTH] = str(length)
    elif isinstance(case.body, dict) and "inputs" in case.body:  # not so if the method is wrong
        names = [each["name"]["const"] for each in inputs]
        case.body["inputs"] = fitting(case.body["inputs"], names)
        if case.body.get("outputs"):
            case.body["outputs"] = list({one["name"]: one for one in case.body["outputs"]}.values())
        for asked in [case.body, *(case.body.get("outputs") or [])]:
            write_whole_numbers(asked.get("parameters") or {})


@schemathesis.serializer(CSV, JSON_LINES)
def write_lines(context: SerializationContext, value: Any) -> bytes:
    """Write lines as they are, and what is no text as JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")


@schemathesis.serializer(MSGPACK)
def write_msgpack(context: SerializationContext, value: Any) -> bytes:
    """Write what `packed` put there, bytes as Latin-1, and what is no text as JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode("latin-1", "replace")


@schemathesis.serializer(*IMAGES)
def write_picture(context: SerializationContext, value: Any) -> bytes:
    """Write what `paint` put there, bytes as Latin-1, and anything else as text."""
    return str(value).encode("latin-1", "replace")


def paint(case: Case, instance: dict[str, Any]) -> None:
    """Put pictures where a request is to have some, of the size that the model takes."""
    nested = [each["items"] for each in instance["anyOf"] if "items" in each.get("items", {})]
    if not nested:
        return
    width = nested[0]["minItems"]
    (height,) = [each["minItems"] for each in instance["anyOf"] if each.get("items") == nested[0]]

    def picture(text: Any) -> bytes:
        file = io.BytesIO()
        Image.new("L", (width, height), len(str(text)) % 256).save(file, "PNG")
        return file.getvalue()

    if case.media_type in IMAGES:
        case.body = picture(case.body).decode("latin-1")
    elif case.media_type == FORM and isinstance(case.body, dict):
        case.body = {"file": [picture(each) for each in case.body.get("file") or [""]]}
    elif isinstance(case.body, dict):
        case.body["instances"] = [
            {"b64": base64.b64encode(picture(each["b64"])).decode()}
            if isinstance(each, dict) and "b64" in each
            else each
            for each in case.body.get("instances") or []
        ]


def packed(case: Case, schemas: dict[str, Any]) -> str:
    """Return rows in MessagePack, bytes as Latin-1, for the model of a path or else for any."""
    any_name = next(name for name in schemas if name.endswith("_instance"))
    below = case.path.split("/")[2:]
    name = below[0] if below and below[0] else any_name.removesuffix("_instance")
    size = schemas[f"{name}_instance"]["anyOf"][0]["maxItems"]
    rows = [[n] * size for n in range(1 + len(str(case.body)) % MOST_ROWS)]
    return msgspec.msgpack.encode({"model": name, "instances": rows}).decode("latin-1")


def lines(text: str, flat: dict[str, Any], media_type: str) -> str:
    """Return lines of numbers that depend on a text, each a row as a schema of one says."""
    size, part = flat["maxItems"], 1 if flat["items"]["type"] == "integer" else 1 / 8
    rows = [
        [(len(text) + 7 * n + m) * part for m in range(size)] for n in range(len(text) % MOST_ROWS)
    ]
    write = json.dumps if media_type == JSON_LINES else lambda row: ",".join(map(repr, row))
    return "".join(write(row) + "\n" for row in rows or [[0] * size])


def tame(data: Any) -> Any:
    """Return instances with no number beyond LARGEST."""
    if isinstance(data, list):
        return [tame(each) for each in data]
    if isinstance(data, dict):
        return {name: tame(each) for name, each in data.items()}
    return data % LARGEST if type(data) is float else data


def fitting(inputs: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Return inputs of these names with as many elements as they have room for."""
    rows = 1 + int(inputs[0]["shape"][0]) % MOST_ROWS
    fitted = []
    for each, name in zip(inputs, names, strict=True):
        shape = [rows, *map(int, each["shape"][1:])]
        numbers = [number % 100 for number in numbers_in(each["data"])] or [0]
        is_real = each["datatype"].startswith("FP")
        data = [number if is_real else int(number) for number in numbers]
        count = math.prod(shape)
        fitted.append(each | {"name": name, "shape": shape, "data": (data * count)[:count]})
    return fitted


def numbers_in(data: Any) -> list[float]:
    """Return the numbers of nested lists."""
    if isinstance(data, list):
        return [number for inner in data for number in numbers_in(inner)]
    return [data] if type(data) in (int, float) else []


def write_whole_numbers(fields: dict[str, Any]) -> None:
    """Write 4.0 as 4: for JSON Schema they are the same, here they are not."""
    for name in fields.keys() & {"version", "timeout", "classification"}:
        fields[name] = int(fields[name])


def binary_request(inputs: list[dict[str, Any]]) -> tuple[bytes, int]:
    """Return a request of two rows of zeros as binary data, and the length of its JSON."""
    sent, data = [], b""
    for each in inputs:
        shape = [size.get("maximum", 2) for size in each["shape"]["prefixItems"]]
        datatype = each["datatype"]["enum"][-1]
        zeros = np.zeros(shape, DATATYPES[datatype]).tobytes()
        described = {"name": each["name"]["const"], "datatype": datatype, "shape": shape}
        sent.append(described | {"parameters": {"binary_data_size": len(zeros)}})
        data += zeros
    head = json.dumps({"inputs": sent}).encode()
    return head + data, len(head)
