"""How values stand in sentences: one length of cutting, one way to quote, one way to suggest."""

import difflib
import json
from collections.abc import Collection
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


def did_you_mean(name: str, names: Collection[str], *, or_all: bool = True) -> str:
    """Suggest the one of `names` that is like `name`; if none is, list all, or say nothing."""
    near = difflib.get_close_matches(name[:LONGEST], sorted(names), n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; expected {', '.join(sorted(names))}" if or_all else ""


def plain(text: str) -> str:
    """Return what others wrote as it can be shown: one line, nothing that a terminal obeys."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
