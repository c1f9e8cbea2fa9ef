"""What stands in an ONNX file beside its numbers, and the files of weights that it names.

An ONNX file is a ModelProto of protobuf (onnx.proto). It is read field by field, and weights are
passed over: a file of gigabytes costs milliseconds.
ONNX Runtime reports none of this, and the `onnx` package would read every weight.
"""

import errno
import math
import os
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from msgspec import Struct

from service.engine.attributes import MOST_LABELS, Labels, attribute_of
from service.engine.protobuf import Messages
from service.errors import ModelError, OutOfResources

# What is wrong with a file or its folder, until somebody changes it. Any other error of the system
# may pass: too many open files, a disk that does not answer.
_OF_THE_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL),
}
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


_STRING = 8  # of TensorProto.DataType
_INTEGERS = {
    6: (5, 4),
    7: (7, 8),
}  # the same; with the field of their numbers, and raw bytes of one


class Node(Struct, frozen=True):
    """One operation of a graph: the names of what goes in and out, and the graphs inside it."""

    op: str
    domain: str  # "" is ai.onnx
    inputs: list[str]
    outputs: list[str]
    attributes: list[str]
    graphs: list["Graph"]
    labels: Labels = []  # of a classifier, or of the maps that it makes
    words: list[str] = []  # that strings which go in are compared with
    numbers: list[float] = []  # and numbers
    whole_numbers: list[int] = []  # and those that encoders know
    tracks_missing: bool = False  # whether a tree in it says where NaN goes


class Graph(Struct, frozen=True):
    """A graph, or the body of a function, without its numbers."""

    nodes: list[Node]
    inputs: list[str]
    constants: set[str]  # the names of its weights
    without_shape: set[str]  # inputs and outputs of which the file says no shape: any may be right
    sizes: set[int]  # of the dimensions of its weights
    outputs: list[str] = []
    sequences: set[str] = set()  # outputs that are lists, of maps or of tensors
    lists: dict[str, Labels] = {}  # its weights that are a short list of texts or whole numbers


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
    labels: dict[str, Labels] = {}  # of the columns of outputs, where they were maps


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


def read(path: Path) -> ModelFile:
    """Read the file at `path`. Raises ModelError that says what it is instead, OSError."""
    with path.open("rb") as file:
        return said_by(file, os.fstat(file.fileno()).st_size, path.name)


def said_by(file: BinaryIO, size: int, name: str) -> ModelFile:
    """Read a model of so many bytes. Raises ModelError that says what it is instead, OSError."""
    if other := _other_format(file.read(256)):
        raise ModelError(f"{name}: expected an ONNX file, got {other}")
    try:
        return parsed(file, size)
    except (EOFError, RecursionError, ValueError):
        raise ModelError(
            f"{name}: not a model that ONNX Runtime can open: it is cut off, or no ONNX "
            f"file ({size} bytes)"
        ) from None


def parsed(file: BinaryIO, size: int) -> ModelFile:
    """Read a ModelProto of so many bytes. Raises EOFError and others where it is none."""
    return _Reader(file).model(size)


def names_of(path: Path) -> list[str]:
    """Return the names of the model's files, from its folder: its own, then those of its weights.

    Of a file that is no model, or cannot be read, it is its own. Raises OSError if it may be read
    later: then it is not known what else belongs to it.
    """
    names = {path.name: None}
    try:
        for name in read(path).weights if path.is_file() else ():  # a pipe would never end
            inside(path, name)
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


def inside(path: Path, name: str) -> Path:
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
        self._messages = Messages(file)
        self._weights: dict[str, int] = {}
        self._has_inner_weights = False
        self._depth = 0  # of the graph that is read, in others

    def model(self, size: int) -> ModelFile:
        """Read a ModelProto."""
        place = range(size)
        (ir_versions,) = self._messages.fields(int, place, 1)
        producers, versions, graphs, opsets, functions = self._messages.fields(
            range, place, 2, 3, 7, 8, 25
        )
        if not graphs:
            raise EOFError
        return ModelFile(
            graph=self._graph(graphs[-1]),
            functions=dict(map(self._function, functions)),
            weights=self._weights,
            has_inner_weights=self._has_inner_weights,
            ir_version=ir_versions[-1] if ir_versions else None,
            opsets=dict(map(self._opset, opsets)),
            producer=self._messages.text(producers),
            producer_version=self._messages.text(versions),
        )

    def _opset(self, place: range) -> tuple[str, int]:
        (domains,), (versions,) = (
            self._messages.fields(range, place, 1),
            self._messages.fields(int, place, 2),
        )
        return self._messages.text(domains) or "ai.onnx", versions[-1] if versions else 0

    def _graph(self, place: range) -> Graph:
        nodes, weights, inputs, outputs, sparse = self._messages.fields(
            range, place, 1, 5, 11, 12, 15
        )
        self._depth += 1
        read = list(map(self._node, nodes))
        tensors = list(map(self._tensor, weights))
        self._note_sparse(sparse)
        taken, answered = (
            [self._value_info(each) for each in infos] for infos in (inputs, outputs)
        )
        self._depth -= 1
        return Graph(
            nodes=read,
            inputs=[each.name for each in taken],
            constants={name for name, _ in tensors},
            without_shape={each.name for each in taken + answered if not each.has_shape},
            sizes={size for _, sizes in tensors for size in sizes},
            outputs=[each.name for each in answered],
            sequences={each.name for each in answered if each.is_sequence},
            lists={
                name: found
                for (name, sizes), each in zip(tensors, weights, strict=True)
                if math.prod(sizes) == max(sizes, default=0) and (found := self._list(each))
            },
        )

    def _function(self, place: range) -> tuple[tuple[str, str], Graph]:
        """Read a FunctionProto."""
        names, inputs, nodes, domains = self._messages.fields(range, place, 1, 4, 7, 10)
        body = Graph(
            list(map(self._node, nodes)), self._messages.texts(inputs), set(), set(), set()
        )
        return (_domain(self._messages.text(domains)), self._messages.text(names)), body

    def _node(self, place: range) -> Node:
        inputs, outputs, ops, inner, domains = self._messages.fields(range, place, 1, 2, 4, 5, 7)
        attributes = [attribute_of(self._messages, each) for each in inner]
        for each in attributes:
            for tensor in each.tensors:
                self._tensor(tensor)
            self._note_sparse(each.sparse)
        return Node(
            op=self._messages.text(ops),
            domain=_domain(self._messages.text(domains)),
            inputs=self._messages.texts(inputs),
            outputs=self._messages.texts(outputs),
            attributes=[each.name for each in attributes],
            graphs=[self._graph(graph) for each in attributes for graph in each.graphs],
            labels=next((each.labels for each in attributes if each.labels), []),
            words=next((each.words for each in attributes if each.words), []),
            numbers=next((each.numbers for each in attributes if each.numbers), []),
            whole_numbers=[n for each in attributes for n in each.whole_numbers],
            tracks_missing=any(each.tracks_missing for each in attributes),
        )

    def _list(self, place: range) -> Labels:
        """Return the texts or whole numbers of a TensorProto, nothing if it has others or many."""
        if len(place) > MOST_LABELS:
            return []
        texts, raw = self._messages.fields(range, place, 6, 9)
        kinds, locations = self._messages.fields(int, place, 2, 14)
        kind = kinds[-1] if kinds else 0
        if kind == _STRING:
            return self._messages.texts(texts)
        if kind not in _INTEGERS or locations[-1:] == [1]:
            return []
        field, size = _INTEGERS[kind]
        content = self._messages.bytes(raw[-1], MOST_LABELS) if raw else b""
        parts = (content[at : at + size] for at in range(0, len(content), size))
        found = [int.from_bytes(each, "little", signed=True) for each in parts]
        return found or self._messages.integers(place, field)

    def _note_sparse(self, places: list[range]) -> None:
        for place in places:
            values, indices = self._messages.fields(range, place, 1, 2)
            for each in values + indices:
                self._tensor(each)

    def _tensor(self, place: range) -> tuple[str, list[int]]:
        """Return name and shape of a TensorProto; note the file that has its numbers, if any."""
        names, entries = self._messages.fields(range, place, 8, 13)
        kinds, locations = self._messages.fields(int, place, 2, 14)
        sizes = self._messages.integers(place, 1)
        outside = dict(map(self._entry, entries))
        # Where it says that its numbers are in itself, what it says of a file is left over.
        if (location := outside.get("location")) and locations[-1:] == [1]:
            needed = math.prod(sizes) * _BITS.get(kinds[-1] if kinds else 0, 0) // 8
            start, length = outside.get("offset", "0"), outside.get("length", str(needed))
            end = int(start) + int(length) if (start + length).isdecimal() else 0
            self._weights[location] = max(end, self._weights.get(location, 0))
            self._has_inner_weights |= self._depth > 1
        return self._messages.text(names), sizes

    def _entry(self, place: range) -> tuple[str, str]:
        """Read a StringStringEntryProto."""
        keys, values = self._messages.fields(range, place, 1, 2)
        return self._messages.text(keys), self._messages.text(values)

    def _value_info(self, place: range) -> "_Value":
        """Read a ValueInfoProto."""
        names, types = self._messages.fields(range, place, 1, 2)
        kinds = [self._messages.fields(range, each, 1, 4) for each in types]
        tensors = [each for tensors, _ in kinds for each in tensors]
        return _Value(
            name=self._messages.text(names),
            has_shape=all(self._messages.fields(range, each, 2)[0] for each in tensors),
            is_sequence=any(sequences for _, sequences in kinds),
        )


class _Value(Struct, frozen=True):
    """An input or output of a graph."""

    name: str
    has_shape: bool  # whether its type says a shape; what is no tensor counts as if
    is_sequence: bool


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name
