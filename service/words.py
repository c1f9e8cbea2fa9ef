"""How values stand in sentences: one length of cutting, one way to quote, one way to suggest."""

import difflib
import json
from collections.abc import Collection, Iterable
from typing import Any

LONGEST = 40  # characters of a value that a caller sent


def cut(text: str) -> str:
    """Return a text, cut after LONGEST characters."""
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def shown(value: Any) -> str:
    """Say in a few words what a value is, as JSON has it."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float | int | bool | str | None):
        text = json.dumps(value, ensure_ascii=False)
        return "-0" if text == "-0.0" else cut(text)  # it may have been -0
    return f"a value of type {type(value).__name__}"


def quoted(name: str) -> str:
    """Return a name between quotation marks."""
    return json.dumps(cut(name), ensure_ascii=False)


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Suggest the one of `names` that is like `name`; if none is, list all."""
    near = difflib.get_close_matches(name[:LONGEST], sorted(names), n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected {', '.join(sorted(names))}"


def misspelt(name: str, names: Iterable[str]) -> str:
    """Return the one of `names` that a name surely means, "" if it may be somebody else's word.

    It has other capitals, or is one edit away from it, or two behind the first letter. Edits are
    those of optimal string alignment: a letter put in, left out, replaced, or two that changed
    places (https://en.wikipedia.org/wiki/Damerau-Levenshtein_distance).
    """
    folded = name[:LONGEST].lower()
    for meant in names:
        most = 2 if folded[:1] == meant[0] else 1
        if abs(len(name) - len(meant)) <= most and _edits(folded, meant) <= most:
            return meant
    return ""


def _edits(one: str, other: str) -> int:
    """Return how many edits make one word of the other."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, opposite in enumerate(other, 1):
            now.append(min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != opposite)))
            changed_places = one[row - 2 : row] == other[column - 2 : column][::-1]
            if min(row, column) > 1 and changed_places:
                now[-1] = min(now[-1], before[column - 2] + 1)
        before, last = last, now
    return last[-1]


def plain(text: str) -> str:
    """Return what others wrote as it can be shown: one line, nothing that a terminal obeys."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
