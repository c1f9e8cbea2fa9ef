"""What goes into a model and comes out of it, as its graph says."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from msgspec import Struct

from service.engine.file import Graph
from service.errors import ModelError

DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}

_CARRIED = "numbers, booleans or strings"

# What a person says of a model: its rows are independent, or each request runs as it is sent.
Batching: TypeAlias = Literal["rows", "requests"]

# The same of values that are missing: they may go in as NaN, or not.
Missing: TypeAlias = Literal["allow", "refuse"]

# The dimensions of an input: a size, or the name of an open one, "" if it has none.
Dimensions: TypeAlias = tuple[int | str, ...]


class Tensor(Struct, frozen=True):
    """An input or output of the graph: `shape` as the graph says it, -1 where it is open.

    Strings are arrays of objects, each a `str`.
    """

    name: str
    dtype: type[np.generic]
    shape: tuple[int, ...]
    has_shape: bool = True  # False: the file says none, and `shape` is empty; any may be right

    @property
    def shown_shape(self) -> list[int]:
        """The shape for people and protocols: [-1] where any may be right."""
        return list(self.shape) if self.has_shape else [-1]


class Spec(Struct, frozen=True):
    """The inputs and outputs of a model."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    dimensions: list[Dimensions]  # of each input, with the names of those that are open
    left_out: dict[str, str] = {}  # outputs that no protocol can carry: name -> type

    @property
    def has_strings(self) -> bool:
        """Whether strings go in or come out."""
        kinds = [each.dtype for each in self.inputs + self.outputs]
        return np.object_ in kinds or any("string" in kind for kind in self.left_out.values())

    @property
    def is_open_inside(self) -> bool:
        """Whether a dimension of an input is open that is not the first, or not known."""
        return any(-1 in each.shape[1:] or not each.has_shape for each in self.inputs)

    @property
    def is_closed(self) -> bool:
        """Whether the size of every input is known."""
        return all(each.has_shape and -1 not in each.shape for each in self.inputs)

    @property
    def is_fixed_at_one(self) -> bool:
        """Whether the first dimension of every input is 1: one row a run."""
        return all(each.shape[:1] == (1,) and len(each.shape) > 1 for each in self.inputs)

    @property
    def why_no_batch(self) -> str:
        """Why rows cannot be run together, as far as the shapes say; empty if they may be.

        All inputs must have an open first dimension, of one name, as for Triton (its
        documentation, "Auto-Generated Model Configuration").
        """
        for each in self.inputs:
            if not each.has_shape:
                return f"the file says no shape for input {each.name}"
            if not each.shape:
                return f"input {each.name} is a single number, without rows"
            if each.shape[0] != -1:
                return (
                    f"the first dimension of input {each.name} is fixed at {each.shape[0]}; an "
                    "export with dynamic_shapes lets it vary"
                )
        names = {each[0] for each in self.dimensions}
        if len(names) > 1:
            shown = ", ".join(str(name) or "none" for name in sorted(names, key=str))
            return f"the first dimensions of its inputs have different names: {shown}"
        return ""


def spec_of(session: Any, graph: Graph) -> Spec:
    """Read what a session takes and answers.

    Raises ModelError for an input that no protocol can carry, or where there is no output or no
    input that one can.
    """
    nodes = session.get_inputs()
    inputs = [_tensor(node, graph) for node in nodes]
    outputs = [_tensor(node, graph) for node in session.get_outputs() if node.type in DTYPES]
    left_out = {node.name: node.type for node in session.get_outputs() if node.type not in DTYPES}
    if not inputs:
        raise ModelError("expected an input, got a graph that has none")
    if not outputs:
        raise ModelError(f"expected an output that is a tensor of {_CARRIED}, got {left_out}")
    return Spec(inputs, outputs, [_dimensions(node.shape) for node in nodes], left_out)


def _dimensions(shape: Sequence[Any]) -> Dimensions:
    return tuple(size if isinstance(size, int | str) else "" for size in shape)


def _tensor(node: Any, graph: Graph) -> Tensor:
    if node.type not in DTYPES:
        raise ModelError(f"{node.name}: expected a tensor of {_CARRIED}, got {node.type}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    # ONNX Runtime shows [] both for a scalar and where the file says nothing.
    has_shape = bool(shape) or node.name not in graph.without_shape
    return Tensor(node.name, DTYPES[node.type], shape, has_shape)
