"""docs/limits.md has every bound that is a setting, with the value that the code has."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
from h2.connection import H2Connection

from service.catalog import shadow
from service.entrance import compression
from service.entrance.limits import FOR_PROBES
from service.formats import csv_header, json_bodies
from service.grpc import blocks, budget, methods, outline, shortcuts
from service.grpc.opened import MOST_STREAMS
from service.http import arrival
from service.http.v2 import message
from service.logs import stderr
from service.settings import Settings, variable_name

PAGE = Path(__file__).parent.parent / "docs" / "limits.md"
FIXED = {
    "request line and headers": arrival.MAX_HEAD_BYTES,
    "encodings of a body, one on the other": compression.MOST_ENCODINGS,
    "members of a gzip body": compression.MOST_MEMBERS,
    "JSON of more than 256 KiB: a field beside the instances": json_bodies._MOST_BYTES,
    "the same in `/v2`: a field beside data": message._LONGEST,
    "digits of a whole number in JSON": sys.int_info.default_max_str_digits,
    "columns of a header in a body, beside those of the model": csv_header.MOST_OTHERS,
    "connections beyond these": FOR_PROBES,
    "calls of a gRPC connection at a time": MOST_STREAMS,
    "half a second of a gRPC connection: calls that are cancelled": budget.MOST[budget.RESETS],
    "the same: pings, settings, priorities, empty frames together": budget.MOST[budget.CONTROL],
    "the same: changes of windows": budget.MOST[budget.WINDOWS],
    "the same: frames of calls that ended": budget.MOST[budget.ENDED],
    "of each of the last two beside these, for an answer and for each 4 KiB or more of it": (
        budget.EARNED[budget.WINDOWS]
    ),
    "header fields of a gRPC call, or behind its messages": blocks.MOST_FIELDS,
    "bytes of these, compressed or not": H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
    "settings in a frame of a gRPC connection": shortcuts.MOST_SETTINGS,
    "gRPC message of any method but ModelInfer": methods.MOST_BYTES,
    "fields of a gRPC message of more than 64 KiB, beside its contents": outline.MOST_FIELDS,
    "log lines that wait": stderr.MOST_BYTES,
    "rows that wait for a [shadow](changing-a-model.md#shadow)": shadow.MOST_ROWS,
    "bytes of these, with their answers": shadow.MOST_BYTES,
    "times as long as it works, for which a shadow rests": shadow.REST,
    "bytes of these, with both answers": shadow.MOST_KEPT_BYTES,
}
NO_BOUNDS = {"port", "workers"}  # numbers
UNITS = {"KiB": 2**10, "MiB": 2**20}


class Row(NamedTuple):
    bound: str
    default: str
    setting: str
    beyond: str


def rows() -> list[Row]:
    table = re.findall(r"^\| (.+) \| (.+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.M)
    return [Row(*cells) for cells in table[2:]]


def number(text: str) -> float:
    """Return the number that a cell says, in bytes where it has such a unit."""
    digits, _, unit = text.replace(",", "").partition(" ")
    return float(digits) * UNITS.get(unit, 1)


def defaults() -> dict[str, float]:
    """Return the settings that are bounds, and what they are by default."""
    settings = Settings()
    numbers = {
        field: float(value)
        for field, value in msgspec.structs.asdict(settings).items()
        if type(value) in (int, float) and field not in NO_BOUNDS
    }
    numbers |= {"max_reply_bytes": settings.most_reply_bytes}
    return numbers | {"max_held_bytes": settings.most_held_bytes}


def test_every_setting_that_is_a_bound_is_in_the_table_with_its_default() -> None:
    expected = {f"`{variable_name(field)}`": value for field, value in defaults().items()}
    assert len(expected) > 12
    said = {(row.setting, number(row.default)) for row in rows() if row.setting != "fixed"}
    assert said == set(expected.items())


def test_every_fixed_bound_has_the_value_of_the_code() -> None:
    said = {row.bound: number(row.default) for row in rows() if row.setting == "fixed"}
    assert said == FIXED


def test_every_unit_says_what_the_setting_is_in() -> None:
    units = {"_BYTES": ("KiB", "MiB"), "_S": ("s",), "_MS": ("ms",)}
    for row in rows():
        for end, allowed in units.items():
            if row.setting.rstrip("`").endswith(end):
                assert row.default.split()[1] in allowed, row
