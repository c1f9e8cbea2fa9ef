"""The requests that are sent again and again, made from the committed models' examples."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from benchmarks.processes import JSON, ROOT


class Workload(Struct, frozen=True):
    """A request of `rows` rows; the query in its path tells the ceiling which reply is wanted."""

    name: str
    path: str
    body: bytes
    rows: int
    headers: Mapping[str, str] = JSON

    @property
    def query(self) -> str:
        """What stands behind the question mark of the path."""
        return self.path.partition("?")[2]


def iris(rows: int = 1, model: str = "iris") -> Workload:
    """Return `rows` flowers as lists of 4 numbers; `model` may be a copy of iris."""
    flower = list(_example("iris/1").values())
    return _workload(f"iris, {_rows(rows)}", model, [flower] * rows)


def housing() -> Workload:
    """Return one house as an object of 13 named numbers."""
    return _workload("housing, 1 row of named features", "housing", [_example("housing/1")])


def mnist(version: int, rows: int = 1) -> Workload:
    """Return `rows` images as lists of 784 numbers: to the perceptron, 1, or the CNN, 2."""
    image = [grey for line in _example(f"mnist/{version}") for grey in line]  # (28, 28) -> (784,)
    name = f"MNIST {'MLP' if version == 1 else 'CNN'}, {_rows(rows)} of 784"
    return _workload(name, "mnist", [image] * rows, version=version)


def mnist_tensor(rows: int, datatype: str) -> Workload:
    """Return `rows` images for the perceptron as binary data of the Open Inference Protocol."""
    image = [grey for line in _example("mnist/1") for grey in line]  # (28, 28) -> (784,)
    numbers = np.tile(np.array(image, {"FP32": "<f4", "UINT8": "u1"}[datatype]), (rows, 1))
    sent = {
        "name": "input",
        "shape": numbers.shape,  # (rows, 784)
        "datatype": datatype,
        "parameters": {"binary_data_size": numbers.nbytes},
    }
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    head = json.dumps({"inputs": [sent], "outputs": [wanted]}).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    path = f"/v2/models/mnist/versions/1/infer?{datatype}{rows}"
    name = f"MNIST MLP, {_rows(rows)} of 784, {datatype}"
    return Workload(name, path, head + numbers.tobytes(), rows, headers)


def tensor(work: Workload, version: int) -> Workload:
    """Return the same rows as a JSON request of the Open Inference Protocol."""
    model = work.path.partition("?")[0].rpartition("/")[2]
    rows = json.loads(work.body)["instances"]
    data = [number for row in rows for number in row]
    shape = [len(rows), len(data) // len(rows)]
    sent = {"name": "input", "datatype": "FP32", "shape": shape, "data": data}
    body = json.dumps({"id": "same", "inputs": [sent]}).encode()
    path = f"/v2/models/{model}/versions/{version}/infer?{work.query}v2"
    return Workload(f"{work.name}, /v2", path, body, work.rows)


def binary(work: Workload) -> Workload:
    """Return a request of `tensor` with binary data, which also comes back."""
    request = json.loads(work.body)
    (sent,) = request["inputs"]
    data = np.array(sent.pop("data"), "<f4").tobytes()
    sent["parameters"] = {"binary_data_size": len(data)}
    request["parameters"] = {"binary_data_output": True}
    head = json.dumps(request).encode()
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    return Workload(f"{work.name} binary", f"{work.path}binary", head + data, work.rows, headers)


def tensor_workloads() -> list[Workload]:
    """Return the workloads of /v2, in JSON and in binary."""
    in_json = [tensor(iris(), 1), tensor(mnist(1), 1), tensor(mnist(1, 64), 1)]
    return [*in_json, binary(in_json[0]), binary(in_json[1])]


def all_workloads() -> list[Workload]:
    """Return the workloads on which the rivals are compared."""
    return [iris(), housing(), mnist(1), mnist(1, 64), mnist(2)]


def _workload(name: str, model: str, instances: list[Any], **fields: object) -> Workload:
    query = "".join(filter(str.isalnum, name))
    body = json.dumps(fields | {"instances": instances}).encode()
    return Workload(name, f"/predict/{model}?{query}", body, len(instances))


def _example(place: str) -> Any:
    return json.loads((ROOT / "models" / place / "request.json").read_text())["instances"][0]


def _rows(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"
