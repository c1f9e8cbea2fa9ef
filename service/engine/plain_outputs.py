"""Outputs that are lists of maps, or of tensors, become tensors, as protocols carry them.

Converters end a classifier with ZipMap: a map from label to probability for each row. Here it
becomes Identity, so that the output is the array that the maps were made of, under the same name,
and the labels of its columns are known. A list that SequenceConstruct makes of tensors becomes an
output for each. ONNX Runtime is given the rewritten bytes; the file stays as it is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO

from msgspec.structs import replace

from service.engine.attributes import Labels
from service.engine.contents import Contents
from service.engine.file import Graph, ModelFile, Node, parsed
from service.engine.protobuf import Messages, head, message, whole_number

# Numbers of fields, of onnx.proto.
_GRAPH, _OPSETS = 7, 8
_NODES, _OUTPUTS, _VALUE_INFOS = 1, 12, 13
_FLOAT = 1
_IDENTITY_SINCE = 1  # version of ONNX's operators; for a file that has none of them


def with_plain_outputs(contents: Contents) -> Contents:
    """Return a model with plain outputs: what it says then, and its bytes.

    It is `contents` itself where there is nothing to rewrite.
    """
    file = contents.file
    rewritten = _Rewritten(file.graph)
    if not rewritten.nodes:
        return contents
    try:
        own = _model(contents.own, file, rewritten)
        plain = parsed(BytesIO(own), len(own))
    except (EOFError, IndexError, RecursionError, ValueError):  # ONNX Runtime says what is wrong
        return contents
    return replace(contents, file=replace(plain, labels=rewritten.labels), own=own)


class _Rewritten:
    """What becomes of the nodes and outputs of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: dict[int, list[bytes]] = {}  # by its place: the nodes instead of one
        self.outputs: dict[str, list[str]] = {}  # the names of the outputs instead of one
        self.labels: dict[str, Labels] = {}
        uses = Counter(_inputs(graph.nodes)) + Counter(graph.outputs)
        names = {*_names(graph)}
        for place, node in enumerate(graph.nodes):
            name = node.outputs[0] if len(node.outputs) == 1 else ""
            if name not in graph.sequences or uses[name] > 1:
                continue
            if (node.domain, node.op) == ("ai.onnx.ml", "ZipMap") and len(node.inputs) == 1:
                self._put(place, node, [name])
                self.labels[name] = node.labels
            elif (node.domain, node.op) == ("", "SequenceConstruct"):
                several = [f"{name}_{number}" for number in range(len(node.inputs))]
                if names.isdisjoint(several):
                    self._put(place, node, several)

    def _put(self, place: int, node: Node, outputs: list[str]) -> None:
        pairs = zip(node.inputs, outputs, strict=True)
        self.nodes[place] = [_identity(*pair) for pair in pairs]
        self.outputs[node.outputs[0]] = outputs


def _inputs(nodes: Iterable[Node]) -> Iterator[str]:
    """Yield what nodes take, and the graphs inside them; and what those answer."""
    for node in nodes:
        yield from node.inputs
        for graph in node.graphs:
            yield from graph.outputs
            yield from _inputs(graph.nodes)


def _names(graph: Graph) -> Iterator[str]:
    yield from graph.inputs
    yield from graph.constants
    for node in graph.nodes:
        yield from node.outputs
        for inner in node.graphs:
            yield from _names(inner)


def _model(source: bytes, file: ModelFile, rewritten: _Rewritten) -> bytes:
    """Return a ModelProto with the rewritten graph; all else is as it is in the source."""
    messages = Messages(BytesIO(source))
    written = BytesIO()
    for field in messages.each(range(len(source))):
        if field.number == _GRAPH and isinstance(field.value, range):
            graph = _graph(messages, field.value, rewritten).getbuffer()
            written.write(head(_GRAPH, len(graph)))
            written.write(graph)
        else:
            messages.copy(field.place, written)
    if "ai.onnx" not in file.opsets:
        written.write(message(_OPSETS, whole_number(2, _IDENTITY_SINCE)))
    return written.getvalue()


def _graph(messages: Messages, place: range, rewritten: _Rewritten) -> BytesIO:
    written = BytesIO()
    nodes = 0
    for field in messages.each(place):
        info, name = field.value, ""
        if field.number in (_OUTPUTS, _VALUE_INFOS) and isinstance(info, range):
            name = messages.text(messages.fields(range, info, 1)[0])
        if field.number == _NODES and nodes in rewritten.nodes:
            written.writelines(rewritten.nodes[nodes])
        elif field.number == _OUTPUTS and isinstance(info, range) and name in rewritten.outputs:
            kind = message(2, _type(messages, info, rewritten.labels.get(name)))
            written.writelines(
                message(_OUTPUTS, message(1, each) + kind) for each in rewritten.outputs[name]
            )
        elif name not in rewritten.outputs:  # what is said of a list in between is left out
            messages.copy(field.place, written)
        nodes += field.number == _NODES
    return written


def _identity(source: str, name: str) -> bytes:
    """Return a node of a graph that copies a value."""
    return message(_NODES, message(1, source) + message(2, name) + message(4, "Identity"))


def _type(messages: Messages, place: range, labels: Labels | None) -> bytes:
    """Return the TypeProto of what was made a tensor: of the numbers of maps, or of a list."""
    if labels == []:
        return message(1, whole_number(1, _FLOAT))
    if labels:
        sizes = message(1, b"") + message(1, whole_number(1, len(labels)))  # (open, labels)
        return message(1, whole_number(1, _FLOAT) + message(2, sizes))
    for number in (2, 4, 1, 1):  # ValueInfoProto.type.sequence_type.elem_type.tensor_type
        place = messages.fields(range, place, number)[0][-1]
    kind = messages.fields(int, place, 1)[0][-1]
    return message(1, whole_number(1, kind))  # any shape: each tensor has its own
