"""What the operations of a graph say of a model before it runs."""

from collections.abc import Iterator

from service.engine.file import Graph, ModelFile, Node
from service.engine.spec import Spec

# They run other graphs, or as often as they like (ONNX Operators; ONNX Runtime, ContribOperators).
_CONTROL = {"Loop", "Scan", "If", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"}

# The size of what they answer, and so the cost of all behind them, is in the values of the inputs
# at these places. Reshape is none: it changes no size.
_SIZED_BY: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("CenterCropPad", "Col2Im", "DFT", "Expand", "OneHot", "Pad"), (1,)),
    **dict.fromkeys(("Tile", "TopK", "Upsample"), (1,)),
    **dict.fromkeys(("MaxUnpool", "RoiAlign"), (2,)),
    "STFT": (1, 3),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}
_SIZED_BY_ALL = {  # or of any input
    *("Compress", "ConstantOfShape", "ImageDecoder", "MelWeightMatrix", "NonMaxSuppression"),
    *("NonZero", "Range", "Unique", "BlackmanWindow", "HammingWindow", "HannWindow"),
}

_OF_STRINGS = {"RegexFullMatch", "TfIdfVectorizer", "Tokenizer"}  # and those with it in their name
_TEXT = 4  # words of a vectorizer that make a text

# They answer with the size of something, not with what is in it.
_MEASURING = {"Shape", "Size"}

# To them NaN is a value that is missing (ONNX-ML Operators; IsNaN is followed by a choice).
_OF_MISSING = {"Imputer", "IsNaN"}
_TREES = {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"}

# They take one scale from the numbers of all rows.
_OF_ALL_ROWS = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}


def why_cost_depends_on_values(file: ModelFile, spec: Spec) -> str:
    """Say why what a request costs depends on the values in it, nothing if it does not.

    Such a model must not run in the event loop, whatever its trial rows cost.
    """
    if why := why_values_are_sizes(file):
        return why
    if spec.has_strings:
        return "it has strings"
    for node in _nodes(file):
        if "Sequence" in node.op or node.op == "ZipMap":
            return f"it has sequences ({node.op})"
        if "String" in node.op or node.op in _OF_STRINGS:
            return f"it has strings ({node.op})"
    return ""


def why_values_are_sizes(file: ModelFile) -> str:
    """Say why values that go in decide how much is computed, nothing if they do not."""
    for node in _nodes(file):
        if node.op in _CONTROL:
            return f"it has the operator {node.op}"
    for graph in (file.graph, *file.functions.values()):
        if named := _sized_by_values(graph):
            return f"the size of what {named} answers depends on values"
    return ""


def why_rows_mix(file: ModelFile) -> str:
    """Say which operation makes one thing of all rows of a batch, nothing if none is known to."""
    for node in _nodes(file):
        if node.op in _OF_ALL_ROWS:
            return f"{node.op} takes one scale from all rows of a batch"
        if node.op == "StringNormalizer" and "stopwords" in node.attributes:
            return "StringNormalizer leaves out rows that are stop words"
    for graph in (file.graph, *file.functions.values()):
        if op := _chooses_by_values(graph, set(graph.inputs) - graph.constants):
            return f"{op} goes on by one condition, which values of all rows decide"
    return ""


def known_words(file: ModelFile) -> list[list[str]]:
    """Return the lists of words that operations compare strings with; of vectorizers texts."""
    known = [(node.op, node.words) for node in _nodes(file) if node.words]
    return [
        [" ".join(words[at : at + _TEXT]) for at in range(0, len(words), _TEXT)]
        if op in _OF_STRINGS
        else words
        for op, words in known
    ]


def known_numbers(file: ModelFile) -> list[float]:
    """Return numbers that trees compare what goes in with."""
    return [number for node in _nodes(file) for number in node.numbers]


def known_whole_numbers(file: ModelFile) -> list[list[int]]:
    """Return the lists of whole numbers that encoders know."""
    return [node.whole_numbers for node in _nodes(file) if node.whole_numbers]


def takes_missing_values(file: ModelFile, name: str) -> bool:
    """Whether NaN in an input means to an operation that a value is not known, on each way there.

    Trees that say nowhere where NaN goes would send it somewhere: skl2onnx 1.20 leaves that out of
    the trees of scikit-learn's forests, a 0 for each node, which other converters mean.
    """
    reached, is_taken = {name}, False
    for node in file.graph.nodes:  # in the order in which they can run
        if not reached.intersection(node.inputs):
            continue
        if node.op in _TREES:
            if not node.tracks_missing and file.producer == "skl2onnx":
                return False
            is_taken = True
        elif node.op in _OF_MISSING:
            is_taken = True
        else:
            reached.update(filter(None, node.outputs))
    return is_taken


def _nodes(file: ModelFile) -> Iterator[Node]:
    for graph in (file.graph, *file.functions.values()):
        yield from _nodes_in(graph)


def _nodes_in(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for inner in node.graphs:
            yield from _nodes_in(inner)


def _chooses_by_values(graph: Graph, from_values: set[str]) -> str:
    """Return the first If or Loop whose condition values decide, "" if there is none.

    from_values: what depends on values of the inputs; all that does is added. A condition is one
    value, whatever the number of rows. An inner graph sees the names of those around it.
    """
    for node in graph.nodes:
        deciding = {"If": node.inputs[:1], "Loop": node.inputs[:2]}.get(node.op, [])
        if from_values.intersection(deciding):
            return node.op
        is_reached = bool(from_values.intersection(node.inputs))
        for inner in node.graphs:
            inside = from_values - set(inner.inputs)
            if node.op == "Loop":
                first = zip(inner.inputs[2:], node.inputs[2:], strict=False)
                inside |= {name for name, outer in first if outer in from_values}
                op = _chooses_in_turns(inner, inside)
            else:
                inside |= set(inner.inputs) if is_reached else set()
                op = _chooses_by_values(inner, inside)
            if op:
                return op
            is_reached |= bool(inside.intersection(inner.outputs))
        if is_reached and node.op not in _MEASURING:
            from_values.update(filter(None, node.outputs))
    return ""


def _chooses_in_turns(body: Graph, inside: set[str]) -> str:
    """As `_chooses_by_values`, of the body of a Loop: what one turn makes is carried to the next.

    Its inputs are a number, a condition and what is carried; its outputs a condition and that.
    """
    before = -1
    while len(inside) > before:
        before = len(inside)
        if op := _chooses_by_values(body, inside):
            return op
        again = zip(body.inputs[2:], body.outputs[1:], strict=False)
        inside.update(name for name, last in again if last in inside)
    return "Loop" if inside.intersection(body.outputs[:1]) else ""


def _sized_by_values(graph: Graph) -> str:
    """Return the first operation whose size is decided by values of the inputs, "" if none is.

    The nodes of a graph stand in the order in which they can run (onnx.proto, GraphProto).
    """
    from_values = set(graph.inputs) - graph.constants
    for node in graph.nodes:
        places = _SIZED_BY.get(node.op, ())
        deciding = [name for place, name in enumerate(node.inputs) if place in places]
        if node.op in _SIZED_BY_ALL:
            deciding = node.inputs
        if from_values.intersection(deciding):
            return node.op
        if node.op not in _MEASURING and from_values.intersection(node.inputs):
            from_values.update(filter(None, node.outputs))
    return ""
