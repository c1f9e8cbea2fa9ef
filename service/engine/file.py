"""What stands in an ONNX file beside its numbers, and the files of weights that it names.

An ONNX file is a ModelProto of protobuf (onnx.proto; protobuf's documentation, "Encoding"). It is
read field by field, and weights are passed over: a file of gigabytes costs milliseconds.
ONNX Runtime reports none of this, and the `onnx` package would read every weight.
"""

import errno
import math
import os
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from msgspec import Struct

from service.errors import ModelError, OutOfResources

# What is wrong with a file or its folder, until somebody changes it. Any other error of the system
# may pass: too many open files, a disk that does not answer.
_OF_THE_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL),
}
_LARGEST_TEXT = 2**16  # bytes of a name; more is none
_BITS = {  # of a number, by TensorProto.DataType
    kind: bits
    for bits, kinds in {
        4: (21, 22, 23),
        8: (2, 3, 9, 17, 18, 19, 20, 24),
        16: (4, 5, 10, 16),
        32: (1, 6, 12),
        64: (7, 11, 13, 14),
        128: (15,),
    }.items()
    for kind in kinds
}


class Node(Struct, frozen=True):
    """One operation of a graph: the names of what goes in and out, and the graphs inside it."""

    op: str
    domain: str  # "" is ai.onnx
    inputs: list[str]
    outputs: list[str]
    attributes: list[str]
    graphs: list["Graph"]


class Graph(Struct, frozen=True):
    """A graph, or the body of a function, without its numbers."""

    nodes: list[Node]
    inputs: list[str]
    constants: set[str]  # the names of its weights
    without_shape: set[str]  # inputs and outputs of which the file says no shape: any may be right
    sizes: set[int]  # of the dimensions of its weights


class ModelFile(Struct, frozen=True):
    """What an .onnx file says."""

    graph: Graph
    functions: dict[tuple[str, str], Graph]  # by domain and name
    weights: dict[str, int]  # files that it names -> how many bytes they must have, 0 if not said
    has_inner_weights: bool = False  # whether some of those are of a graph inside a node
    ir_version: int | None = None
    opsets: dict[str, int] = {}
    producer: str = ""
    producer_version: str = ""


_OTHERS = {  # what a file is that begins like this
    rb"\Z": "an empty file",
    rb"version https://git-lfs": "a pointer of Git LFS to it: run `git lfs pull`",
    rb"\x1f\x8b": "a file compressed with gzip: decompress it",
    rb"PK\x03\x04": (
        "a zip archive, as PyTorch saves: unpack it, or export it with torch.onnx.export"
    ),
    rb"\x89HDF": "an HDF5 file, as Keras saves: convert it with tf2onnx",
    rb"....ORTM": "ONNX Runtime's own format (.ort): give it the .onnx file that this was made of",
    rb"[\xef\xbb\xbf \t\r\n]*(?i:<!doctype html|<html|<\?xml|<head)": (
        "a page of HTML or XML, as a download that failed leaves"
    ),
    rb"\x80.[c}\]\x95(]": "a pickle of Python: convert it, of scikit-learn with skl2onnx",
}
_FIXED = {1: 8, 5: 4}  # bytes of a value, by protobuf's wire type

# The value of a field: a number, or where its bytes are.
_Value = TypeVar("_Value", int, range)


def read(path: Path) -> ModelFile:
    """Read the file at `path`. Raises ModelError that says what it is instead, OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if other := _other_format(file.read(256)):
            raise ModelError(f"{path.name}: expected an ONNX file, got {other}")
        try:
            return _Reader(file).model(size)
        except (EOFError, RecursionError, ValueError):
            raise ModelError(
                f"{path.name}: not a model that ONNX Runtime can open: it is cut off, or no ONNX "
                f"file ({size} bytes)"
            ) from None


def read_weights(path: Path, weights: Mapping[str, int]) -> dict[str, bytes]:
    """Read the files of weights that the model at `path` names (`ModelFile.weights`), by name.

    ONNX Runtime would map them into memory, and then a file that is overwritten or cut short
    while it is served ends the process (SIGBUS), or changes the answers.
    Raises ModelError for one that is missing, too short, or outside the model's folder.
    """
    contents = {}
    for name, expected in weights.items():
        place = _inside(path, name)
        try:
            if not place.is_file() and place.exists():  # reading a pipe would never end
                raise OSError(errno.EINVAL, "not a file")
            data = place.read_bytes()
        except OSError as error:
            got = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            folder = "/".join(path.absolute().parts[-3:-1])  # <name>/<version>
            sentence = (
                f"{path.name}: its weights are in {name!r}, expected in the folder {folder}: {got}"
            )
            raise unreadable(error, sentence) from error
        if len(data) < expected:
            raise ModelError(
                f"{path.name}: its weights in {name!r}: expected {expected} bytes or more, "
                f"got {len(data)}: it is cut off, or of another model"
            )
        contents[name] = data
    return contents


def names_of(path: Path) -> list[str]:
    """Return the names of the model's files, from its folder: its own, then those of its weights.

    Of a file that is no model, or cannot be read, it is its own. Raises OSError if it may be read
    later: then it is not known what else belongs to it.
    """
    names = {path.name: None}
    try:
        for name in read(path).weights if path.is_file() else ():  # a pipe would never end
            _inside(path, name)
            names[name] = None
    except ModelError:
        pass  # opening it says why
    except OSError as error:
        if may_pass(error):
            raise
    return list(names)


def may_pass(error: OSError) -> bool:
    """Whether the same file may be read later, without a change of it."""
    return error.errno not in _OF_THE_FILE


def unreadable(error: OSError, sentence: str) -> ModelError:
    """Return what to raise where a file of a model cannot be read."""
    return OutOfResources(sentence) if may_pass(error) else ModelError(sentence)


def _inside(path: Path, name: str) -> Path:
    """Return the path of a file of weights. Raises ModelError where that is not in the folder.

    onnx.proto, external_data: "location" is relative to the folder of the model.
    """
    parts = PurePosixPath(os.path.normpath(name)).parts
    if not name or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise ModelError(
            f"{path.name}: its weights are in {name[:80]!r}: expected a file in the model's folder"
        )
    return path.parent / name


def _other_format(head: bytes) -> str:
    """Say what a file is that begins like this, nothing if it may be ONNX."""
    found = (name for begin, name in _OTHERS.items() if re.match(begin, head, re.DOTALL))
    return next(found, "")


class _Reader:
    """Walks the messages of a file. Each method takes where a message is.

    Raises EOFError where a message ends too early, or is none.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._weights: dict[str, int] = {}
        self._has_inner_weights = False
        self._depth = 0  # of the graph that is read, in others

    def model(self, size: int) -> ModelFile:
        """Read a ModelProto."""
        place = range(size)
        (ir_versions,) = self._fields(int, place, 1)
        producers, versions, graphs, opsets, functions = self._fields(range, place, 2, 3, 7, 8, 25)
        if not graphs:
            raise EOFError
        return ModelFile(
            graph=self._graph(graphs[-1]),
            functions=dict(map(self._function, functions)),
            weights=self._weights,
            has_inner_weights=self._has_inner_weights,
            ir_version=ir_versions[-1] if ir_versions else None,
            opsets=dict(map(self._opset, opsets)),
            producer=self._text(producers),
            producer_version=self._text(versions),
        )

    def _opset(self, place: range) -> tuple[str, int]:
        (domains,), (versions,) = self._fields(range, place, 1), self._fields(int, place, 2)
        return self._text(domains) or "ai.onnx", versions[-1] if versions else 0

    def _graph(self, place: range) -> Graph:
        nodes, weights, inputs, outputs, sparse = self._fields(range, place, 1, 5, 11, 12, 15)
        self._depth += 1
        graph = Graph(list(map(self._node, nodes)), [], set(), set(), set())
        for name, sizes in map(self._tensor, weights):
            graph.constants.add(name)
            graph.sizes.update(sizes)
        self._note_sparse(sparse)
        infos = [self._value_info(each) for each in inputs + outputs]
        graph.inputs.extend(name for name, _ in infos[: len(inputs)])
        graph.without_shape.update(name for name, has_shape in infos if not has_shape)
        self._depth -= 1
        return graph

    def _function(self, place: range) -> tuple[tuple[str, str], Graph]:
        """Read a FunctionProto."""
        names, inputs, nodes, domains = self._fields(range, place, 1, 4, 7, 10)
        body = Graph(list(map(self._node, nodes)), self._texts(inputs), set(), set(), set())
        return (_domain(self._text(domains)), self._text(names)), body

    def _node(self, place: range) -> Node:
        inputs, outputs, ops, inner, domains = self._fields(range, place, 1, 2, 4, 5, 7)
        attributes = [self._attribute(each) for each in inner]
        return Node(
            op=self._text(ops),
            domain=_domain(self._text(domains)),
            inputs=self._texts(inputs),
            outputs=self._texts(outputs),
            attributes=[name for name, _ in attributes],
            graphs=[graph for _, graphs in attributes for graph in graphs],
        )

    def _attribute(self, place: range) -> tuple[str, list[Graph]]:
        """Return the name of an attribute and the graphs in it; note the weights of its tensors."""
        names, *values = self._fields(range, place, 1, 5, 10, 6, 11, 22, 23)
        tensor, tensors, graph, graphs, sparse, sparses = values
        for each in tensor + tensors:
            self._tensor(each)
        self._note_sparse(sparse + sparses)
        return self._text(names), list(map(self._graph, graph + graphs))

    def _note_sparse(self, places: list[range]) -> None:
        for place in places:
            values, indices = self._fields(range, place, 1, 2)
            for each in values + indices:
                self._tensor(each)

    def _tensor(self, place: range) -> tuple[str, list[int]]:
        """Return name and shape of a TensorProto; note the file that has its numbers, if any."""
        packed, names, entries = self._fields(range, place, 1, 8, 13)
        sizes, kinds, locations = self._fields(int, place, 1, 2, 14)
        for each in packed:
            inner = BytesIO(self._bytes(each))
            while inner.tell() < len(each):
                sizes.append(_varint(inner))
        outside = dict(map(self._entry, entries))
        # Where it says that its numbers are in itself, what it says of a file is left over.
        if (location := outside.get("location")) and locations[-1:] == [1]:
            needed = math.prod(sizes) * _BITS.get(kinds[-1] if kinds else 0, 0) // 8
            start, length = outside.get("offset", "0"), outside.get("length", str(needed))
            end = int(start) + int(length) if (start + length).isdecimal() else 0
            self._weights[location] = max(end, self._weights.get(location, 0))
            self._has_inner_weights |= self._depth > 1
        return self._text(names), sizes

    def _entry(self, place: range) -> tuple[str, str]:
        """Read a StringStringEntryProto."""
        keys, values = self._fields(range, place, 1, 2)
        return self._text(keys), self._text(values)

    def _value_info(self, place: range) -> tuple[str, bool]:
        """Return a name, and whether its type says a shape; what is no tensor counts as if."""
        names, types = self._fields(range, place, 1, 2)
        tensors = [each for kind in types for each in self._fields(range, kind, 1)[0]]
        return self._text(names), all(self._fields(range, each, 2)[0] for each in tensors)

    def _text(self, places: list[range]) -> str:
        """Return the last of a field's texts, which counts; "" if there is none."""
        return "".join(self._texts(places[-1:]))

    def _texts(self, places: list[range]) -> list[str]:
        return [os.fsdecode(self._bytes(each)) for each in places]

    def _bytes(self, place: range) -> bytes:
        if len(place) > _LARGEST_TEXT:
            raise EOFError
        self._file.seek(place.start)
        return self._file.read(len(place))

    def _fields(self, kind: type[_Value], place: range, *numbers: int) -> list[list[_Value]]:
        """Return the values of the fields of these numbers in a message, where they are `kind`."""
        found: dict[int, list[_Value]] = {number: [] for number in numbers}
        at = place.start
        while at < place.stop:
            self._file.seek(at)
            number, wire = divmod(_varint(self._file), 8)
            value: int | range | None = None
            if wire == 0:
                value = _varint(self._file)
            elif wire == 2:
                length = _varint(self._file)
                value = range(self._file.tell(), self._file.tell() + length)
            elif wire not in _FIXED:
                raise EOFError  # groups are no part of ONNX
            at = value.stop if isinstance(value, range) else self._file.tell() + _FIXED.get(wire, 0)
            if at > place.stop:
                raise EOFError
            if number in found and isinstance(value, kind):
                found[number].append(value)
        return list(found.values())


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _varint(file: BinaryIO) -> int:
    """Read a number, 7 bits of each byte, the lowest first. Raises EOFError."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value
        if shift > 63:
            break
    raise EOFError
