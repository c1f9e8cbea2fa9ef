"""The node cases of onnx as graphs whose number of rows is open, and ONNX Runtime as their oracle.

onnx makes the cases in Python when they are collected: a small graph and inputs for it, for nearly
every operator, and again with the operator expanded into simpler ones.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cached_property, reduce
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

NEWEST_OPSET, NEWEST_IR = 26, 13  # of ONNX Runtime 1.31; onnx 1.23 writes up to 28 and 14
TYPES = "float double float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string"
CARRIED = {f"tensor({name})" for name in TYPES.split()}  # by the protocol
RANDOM = re.compile("Bernoulli|Multinomial|Random.*")  # operators
CONSTANTS = " with constants"  # the end of the name of a graph all but whose first input are
SINGLE_ROWS = 4  # how many rows of a case are also requests of one row

Arrays = dict[str, NDArray[Any]]


class Graph:
    """A graph with open rows, and an array for each of its inputs, by name."""

    def __init__(self, case: str, model: onnx.ModelProto, inputs: Arrays) -> None:
        """Open the graph as the service does. Raises ONNX Runtime's own errors."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.case = case
        self.content = model.SerializeToString()
        self.inputs = inputs
        # Chance decides the values, so only shapes are compared. Dropout may be in training.
        self.is_random = any(
            RANDOM.fullmatch(node.op_type) or (node.op_type == "Dropout" and len(node.input) > 2)
            for node in model.graph.node
        )
        self._session = ort.InferenceSession(self.content, options, ["CPUExecutionProvider"])
        outputs = self._session.get_outputs()
        self._output_names = [each.name for each in outputs]
        self.is_carried = CARRIED.issuperset(
            each.type for each in [*self._session.get_inputs(), *outputs]
        )

    def run(self, inputs: Arrays) -> Arrays | None:
        """Return the outputs by name, None where ONNX Runtime raises."""
        try:
            return dict(zip(self._output_names, self._session.run(None, inputs), strict=True))
        except Exception:  # ONNX Runtime raises its own, undocumented classes
            return None

    @cached_property
    def rows(self) -> int:
        """How many rows its inputs have, without those that have no dimension; 0 if they differ."""
        counts = {len(array) for array in self.inputs.values() if array.ndim}
        return counts.pop() if len(counts) == 1 else 0

    @cached_property
    def requests(self) -> list[Arrays]:
        """The inputs of the case, and others of the same values: other orders, rows cut, joined."""
        own = self.inputs
        mirrored = {name: array.ravel()[::-1].reshape(array.shape) for name, array in own.items()}
        requests = [own, mirrored, cut(own, slice(None, None, -1))]
        if self.rows:
            requests.append(joined(own, mirrored))
        if self.rows > 1:
            requests += [row(own, place) for place in range(min(self.rows, SINGLE_ROWS))]
        return requests

    def is_independent(self) -> bool | None:
        """Whether rows have answers of their own, by ONNX Runtime; None where nothing can say."""
        if not self.rows or self.is_random or self._is_constant():
            return None
        return all(array.ndim for array in self.inputs.values()) and all(
            self._is_independent(inputs)
            for inputs in [*self.requests, reduce(joined, self.requests)]
        )

    def _is_constant(self) -> bool:
        """Whether all rows of all requests have one and the same answer, which shows nothing."""
        every = self.run(reduce(joined, self.requests))
        if every is None or not all(len(array.shape) for array in every.values()):
            return False
        first = row(every, 0)
        places = range(1, min(map(len, every.values())))
        return all(not difference(row(every, place), first) for place in places)

    def _is_independent(self, inputs: Arrays) -> bool:
        rows, outputs = len(next(iter(inputs.values()))), self.run(inputs)
        if outputs is None or any(array.shape[:1] != (rows,) for array in outputs.values()):
            return False
        return not any(
            difference(self.run(row(inputs, place)), row(outputs, place)) for place in range(rows)
        )


def cut(arrays: Arrays, rows: slice) -> Arrays:
    """Return these rows; arrays without dimensions as they are."""
    return {name: array[rows] if array.ndim else array for name, array in arrays.items()}


def row(arrays: Arrays, place: int) -> Arrays:
    return cut(arrays, slice(place, place + 1))


def joined(one: Arrays, other: Arrays) -> Arrays:
    """Return the rows of both, as a batch has them; arrays without dimensions are those of one."""
    return {
        name: np.concatenate([array, other[name]]) if array.ndim else array
        for name, array in one.items()
    }


def difference(got: Arrays | None, expected: Arrays, *, shapes_only: bool = False) -> str:
    """Say where outputs differ, nothing if they are the same but for rounding."""
    if got is None or got.keys() != expected.keys():
        return "other outputs"
    for name, array in expected.items():
        one, other = (f"{each.dtype} {each.shape}" for each in (got[name], array))
        if one != other:
            return f"{name} is {one}, not {other}"
        tolerance = 1e-2 if array.dtype == np.float16 else 1e-4
        if array.dtype.kind != "f":
            is_same = np.array_equal(got[name], array)
        else:
            is_same = np.allclose(got[name], array, tolerance, tolerance, equal_nan=True)
        if not is_same and not shapes_only:
            return f"{name} has other values"
    return ""


def node_cases() -> Iterator[tuple[str, onnx.ModelProto, Arrays]]:
    """Yield name, model and inputs of each case that has inputs, all of them tensors."""
    with warnings.catch_warnings(action="ignore"):  # NumPy's: some cases divide by zero
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases()
    for case in cases:
        graph = case.model.graph
        if all(each.type.HasField("tensor_type") for each in [*graph.input, *graph.output]):
            names, arrays = [each.name for each in graph.input], map(as_array, case.data_sets[0][0])
            yield case.name, case.model, dict(zip(names, arrays, strict=True))


def as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    array = np.asarray(value)
    return array.astype(np.object_) if array.dtype.kind in "US" else array


def with_open_rows(model: onnx.ModelProto, constants: Arrays) -> onnx.ModelProto:
    """Return a copy that ONNX Runtime may open, its inputs open but for those of `constants`."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.ir_version = min(model.ir_version, NEWEST_IR)
    for opset in opened.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = min(opset.version, NEWEST_OPSET)
    graph = opened.graph
    for tensor in [each for each in graph.input if each.name in constants]:
        graph.initializer.append(numpy_helper.from_array(constants[tensor.name], tensor.name))
        graph.input.remove(tensor)
    for tensor in [*graph.input, *graph.output]:
        for first in tensor.type.tensor_type.shape.dim[:1]:
            first.dim_param = "batch"
    return opened


def graphs(left_out: Counter[str]) -> Iterator[Graph]:
    """Yield each graph that can be served; count the others by why they cannot."""
    for case, model, inputs in node_cases():
        yield from graph_of(case, model, inputs, {}, left_out)
        if len({array.shape[:1] for array in inputs.values()}) > 1:
            first, *others = inputs
            constants = {name: inputs[name] for name in others}
            case += CONSTANTS
            yield from graph_of(case, model, {first: inputs[first]}, constants, left_out)


def graph_of(
    case: str, model: onnx.ModelProto, inputs: Arrays, constants: Arrays, left_out: Counter[str]
) -> Iterator[Graph]:
    """Yield the graph of a case if it can be served; count it otherwise."""
    if not any(array.ndim for array in inputs.values()):
        left_out["without rows"] += 1
        return
    if any(array.shape[:1] == (0,) for array in inputs.values()):
        left_out["zero rows, which ONNX Runtime is never given"] += 1
        return
    try:
        graph = Graph(case, with_open_rows(model, constants), inputs)
    except Exception:  # ONNX Runtime raises its own, undocumented classes
        left_out["not opened by ONNX Runtime"] += 1
        return
    if not graph.is_carried:
        left_out["a datatype that the protocol has not"] += 1
    elif graph.run(inputs) is None:
        left_out["ONNX Runtime raises on the inputs of the case"] += 1
    else:
        yield graph
