"""What stands in an ONNX file beside its numbers, and the files of weights that it names.

An ONNX file is a ModelProto of protobuf (onnx.proto; protobuf's documentation, "Encoding"). It is
read field by field, and weights are passed over: a file of gigabytes costs milliseconds.
ONNX Runtime reports none of this, and the `onnx` package would read every weight. All of it is one
walk over one format, so it stands in one module, though that has more than 400 lines.
"""

import errno
import math
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeAlias

from msgspec import Struct

from service.errors import ModelError

_LARGEST_TEXT = 2**16  # bytes of a name; more is none
_BITS = {  # of a number, by TensorProto.DataType
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    14: 64,
    15: 128,
    16: 16,
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
    23: 4,
    24: 8,
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


# The value of a field: a number, or where its bytes begin and end.
_Value: TypeAlias = int | tuple[int, int]


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
            raise ModelError(
                f"{path.name}: its weights are in {name!r}, expected in the folder "
                f"{_folder(path)}: {got}"
            ) from error
        if len(data) < expected:
            raise ModelError(
                f"{path.name}: its weights in {name!r}: expected {expected} bytes or more, "
                f"got {len(data)}: it is cut off, or of another model"
            )
        contents[name] = data
    return contents


def names_of(path: Path) -> list[str]:
    """Return the names of the model's files, from its folder: its own, then those of its weights.

    Of a file that cannot be read it is its own.
    """
    names = {path.name: None}
    try:
        for name in read(path).weights if path.is_file() else ():  # a pipe would never end
            _inside(path, name)
            names[name] = None
    except (ModelError, OSError):
        pass  # opening it says why
    return list(names)


def _folder(path: Path) -> str:
    """Return a folder as people find it: <name>/<version>."""
    return "/".join(path.absolute().parts[-3:-1])


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
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS to it: run `git lfs pull`"
    if head.startswith(b"\x1f\x8b"):
        return "a file compressed with gzip: decompress it"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive, as PyTorch saves: unpack it, or export it with torch.onnx.export"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file, as Keras saves: convert it with tf2onnx"
    if head[4:8] == b"ORTM":
        return "ONNX Runtime's own format (.ort): give it the .onnx file that this was made of"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "a page of HTML or XML, as a download that failed leaves"
    if head.startswith(b"\x80") and head[2:3] in (b"c", b"}", b"]", b"\x95", b"("):
        return "a pickle of Python: convert it, of scikit-learn with skl2onnx"
    return ""


class _Reader:
    """Walks the messages of a file. Each method takes where a message begins and ends.

    Raises EOFError where a message ends too early, or is none.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._weights: dict[str, int] = {}
        self._has_inner_weights = False
        self._depth = 0  # of the graph that is read, in others

    def model(self, size: int) -> ModelFile:
        """Read a ModelProto."""
        ir_version: int | None = None
        texts = {2: "", 3: ""}
        opsets: dict[str, int] = {}
        graph: Graph | None = None
        functions: dict[tuple[str, str], Graph] = {}
        for number, value in self._fields((0, size)):
            if number == 1 and isinstance(value, int):
                ir_version = value
            elif isinstance(value, int):
                continue
            elif number in texts:
                texts[number] = self._text(value)
            elif number == 7:
                graph = self._graph(value)
            elif number == 8:
                domain, version = self._opset(value)
                opsets[domain or "ai.onnx"] = version
            elif number == 25:
                key, body = self._function(value)
                functions[key] = body
        if graph is None:
            raise EOFError
        return ModelFile(
            *(graph, functions, self._weights, self._has_inner_weights),
            *(ir_version, opsets, texts[2], texts[3]),
        )

    def _opset(self, place: tuple[int, int]) -> tuple[str, int]:
        domain, version = "", 0
        for number, value in self._fields(place):
            if number == 1 and not isinstance(value, int):
                domain = self._text(value)
            elif number == 2 and isinstance(value, int):
                version = value
        return domain, version

    def _graph(self, place: tuple[int, int]) -> Graph:
        graph = Graph([], [], set(), set(), set())
        self._depth += 1
        for number, value in self._fields(place):
            if isinstance(value, int):
                continue
            if number == 1:
                graph.nodes.append(self._node(value))
            elif number == 5:
                name, sizes = self._tensor(value)
                graph.constants.add(name)
                graph.sizes.update(sizes)
            elif number == 15:
                self._sparse(value)
            elif number in (11, 12):
                name, has_shape = self._value_info(value)
                if not has_shape:
                    graph.without_shape.add(name)
                if number == 11:
                    graph.inputs.append(name)
        self._depth -= 1
        return graph

    def _function(self, place: tuple[int, int]) -> tuple[tuple[str, str], Graph]:
        """Read a FunctionProto."""
        name = domain = ""
        body = Graph([], [], set(), set(), set())
        for number, value in self._fields(place):
            if isinstance(value, int):
                continue
            if number == 1:
                name = self._text(value)
            elif number == 4:
                body.inputs.append(self._text(value))
            elif number == 7:
                body.nodes.append(self._node(value))
            elif number == 10:
                domain = self._text(value)
        return (_domain(domain), name), body

    def _node(self, place: tuple[int, int]) -> Node:
        op = domain = ""
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[str] = []
        graphs: list[Graph] = []
        for number, value in self._fields(place):
            if isinstance(value, int):
                continue
            if number == 1:
                inputs.append(self._text(value))
            elif number == 2:
                outputs.append(self._text(value))
            elif number == 4:
                op = self._text(value)
            elif number == 7:
                domain = self._text(value)
            elif number == 5:
                name, inner = self._attribute(value)
                attributes.append(name)
                graphs += inner
        return Node(op, _domain(domain), inputs, outputs, attributes, graphs)

    def _attribute(self, place: tuple[int, int]) -> tuple[str, list[Graph]]:
        """Return the name of an attribute and the graphs in it; note the weights of its tensors."""
        name = ""
        graphs: list[Graph] = []
        for number, value in self._fields(place):
            if isinstance(value, int):
                continue
            if number == 1:
                name = self._text(value)
            elif number in (6, 11):
                graphs.append(self._graph(value))
            elif number in (5, 10):
                self._tensor(value)
            elif number in (22, 23):
                self._sparse(value)
        return name, graphs

    def _sparse(self, place: tuple[int, int]) -> None:
        for number, value in self._fields(place):
            if number in (1, 2) and not isinstance(value, int):
                self._tensor(value)

    def _tensor(self, place: tuple[int, int]) -> tuple[str, list[int]]:
        """Return name and shape of a TensorProto; note the file that has its numbers, if any."""
        name = ""
        sizes: list[int] = []
        kind = 0
        is_outside = False
        outside: dict[str, str] = {}
        for number, value in self._fields(place):
            if number == 1 and isinstance(value, int):
                sizes.append(value)
            elif number == 1 and not isinstance(value, int):  # packed
                inner = BytesIO(self._bytes(value))
                while inner.tell() < value[1] - value[0]:
                    sizes.append(_varint(inner))
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 14 and isinstance(value, int):
                is_outside = value == 1  # else what it says of a file is left over
            elif number == 8 and not isinstance(value, int):
                name = self._text(value)
            elif number == 13 and not isinstance(value, int):
                key, text = self._entry(value)
                outside[key] = text
        if (location := outside.get("location")) and is_outside:
            needed = math.prod(sizes) * _BITS.get(kind, 0) // 8
            start, length = outside.get("offset", "0"), outside.get("length", str(needed))
            end = int(start) + int(length) if (start + length).isdecimal() else 0
            self._weights[location] = max(end, self._weights.get(location, 0))
            self._has_inner_weights |= self._depth > 1
        return name, sizes

    def _entry(self, place: tuple[int, int]) -> tuple[str, str]:
        """Read a StringStringEntryProto."""
        texts = {1: "", 2: ""}
        for number, value in self._fields(place):
            if number in texts and not isinstance(value, int):
                texts[number] = self._text(value)
        return texts[1], texts[2]

    def _value_info(self, place: tuple[int, int]) -> tuple[str, bool]:
        """Return a name, and whether its type says a shape; what is no tensor counts as if."""
        name, has_shape = "", True
        for number, value in self._fields(place):
            if isinstance(value, int):
                continue
            if number == 1:
                name = self._text(value)
            elif number == 2:
                for kind, tensor in self._fields(value):
                    if kind == 1 and not isinstance(tensor, int):
                        has_shape = any(field == 2 for field, _ in self._fields(tensor))
        return name, has_shape

    def _text(self, place: tuple[int, int]) -> str:
        return os.fsdecode(self._bytes(place))

    def _bytes(self, place: tuple[int, int]) -> bytes:
        start, end = place
        if end - start > _LARGEST_TEXT:
            raise EOFError
        self._file.seek(start)
        return self._file.read(end - start)

    def _fields(self, place: tuple[int, int]) -> Iterator[tuple[int, _Value]]:
        """Yield the number and the value of each field of a message."""
        at, end = place
        while at < end:
            self._file.seek(at)
            key = _varint(self._file)
            number, wire = key >> 3, key & 7
            if wire == 0:
                number_value = _varint(self._file)
                at = self._file.tell()
                yield number, number_value
            elif wire == 2:
                length = _varint(self._file)
                start = self._file.tell()
                at = start + length
                if at > end:
                    raise EOFError
                yield number, (start, at)
            elif wire in (1, 5):
                at = self._file.tell() + (8 if wire == 1 else 4)
            else:
                raise EOFError  # groups are no part of ONNX
        if at != end:
            raise EOFError


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
