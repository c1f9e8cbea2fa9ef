"""The attributes of an operation: what is in them, of the values only what tells something.

An AttributeProto (onnx.proto) has one kind of value. Numbers of trees are millions, each a field of
its own: of those no more is read than the name.
"""

from itertools import islice
from typing import TypeAlias

from msgspec import Struct

from service.engine.protobuf import Messages

# The names or numbers of classes.
Labels: TypeAlias = list[str] | list[int]

MOST_LABELS = 2**20  # bytes of a list of labels; more are none to answer
_MOST_KNOWN = 1000  # values that inputs are compared with; they are a sample
_FLOATS, _INTEGERS, _STRINGS = 7, 8, 9  # fields that are lists of values
_TENSORS, _GRAPHS, _SPARSE = (5, 10), (6, 11), (22, 23)
_NUMBERS = "nodes_values"  # of trees
_WORDS = {"cats_strings", "keys_strings", "pool_strings"}  # of encoders and vectorizers
_WHOLE_NUMBERS = {"cats_int64s", "keys_int64s"}  # of encoders
_TRACKS = "nodes_missing_value_tracks_true"  # of trees: 0 or 1 for each node


class Attribute(Struct):
    """What an attribute has: its name, where its tensors and graphs are, and what it says."""

    name: str = ""
    tensors: list[range] = []
    sparse: list[range] = []
    graphs: list[range] = []
    labels: Labels = []  # of a classifier, or of the maps that it makes
    words: list[str] = []  # that strings which go in are compared with
    numbers: list[float] = []  # and numbers
    whole_numbers: list[int] = []  # and those that encoders know
    tracks_missing: bool = False  # whether a tree in it says where NaN goes


def attribute_of(messages: Messages, place: range) -> Attribute:
    """Read an AttributeProto."""
    found = Attribute()
    for field in messages.each(place):
        if field.number in (_FLOATS, _INTEGERS, _STRINGS):  # behind the name, as all write it
            _note_values(found, messages, place)
            break
        if not isinstance(field.value, range):
            continue
        if field.number == 1:
            found.name = messages.text([field.value])
        elif field.number in _TENSORS:
            found.tensors.append(field.value)
        elif field.number in _GRAPHS:
            found.graphs.append(field.value)
        elif field.number in _SPARSE:
            found.sparse.append(field.value)
    return found


def _note_values(found: Attribute, messages: Messages, place: range) -> None:
    name = found.name
    if name.startswith("classlabels_") and len(place) <= MOST_LABELS:
        # ONNX Operators, ai.onnx.ml: classlabels_strings, classlabels_int64s or classlabels_ints.
        found.labels = _texts(messages, place) or messages.integers(place, _INTEGERS)
    elif name in _WORDS:
        found.words = _texts(messages, place, _MOST_KNOWN)
    elif name in _WHOLE_NUMBERS and len(place) <= MOST_LABELS:
        found.whole_numbers = messages.integers(place, _INTEGERS)[:_MOST_KNOWN]
    elif name == _NUMBERS:
        found.numbers = [*islice(messages.floats(place, _FLOATS), _MOST_KNOWN)]
    elif name == _TRACKS:
        found.tracks_missing = messages.has_one(place, _INTEGERS)


def _texts(messages: Messages, place: range, most: int | None = None) -> list[str]:
    fields = (each.value for each in messages.each(place) if each.number == _STRINGS)
    return messages.texts([each for each in islice(fields, most) if isinstance(each, range)])
