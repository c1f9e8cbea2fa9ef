"""The parameters of an inference request, of its inputs and outputs."""

import math
from typing import Any

from service.errors import InvalidInput
from service.words import cut, shown

# Parameters that want what is not here, and the values that want nothing.
_REFUSED = {
    "sequence_id": (None, 0, ""),
    "sequence_start": (None, False),
    "sequence_end": (None, False),
    "priority": (None, 0),
}
_LONGEST_US = 10**18  # of a timeout; more is the same


def check_parameters(parameters: dict[str, Any]) -> float:
    """Return the seconds that `timeout` gives, infinity if it does not; the unit is Triton's.

    Raises InvalidInput for what is wanted and cannot be done.
    """
    for name, value in parameters.items():
        if name in _REFUSED and value not in _REFUSED[name]:
            raise InvalidInput(
                f"parameters.{name}: expected none, as it is not served; got {shown(value)}"
            )
        if name.startswith("triton_"):
            raise InvalidInput(f"parameters.{cut(name)}: expected no name that begins with triton_")
    timeout_us = whole_number(parameters, "timeout", "parameters", "whole microseconds from 0")
    return min(timeout_us, _LONGEST_US) / 1e6 if timeout_us else math.inf


def parameter(parameters: dict[str, Any] | None, name: str) -> Any:
    """Return a parameter, None where it is not said."""
    return None if parameters is None else parameters.get(name)


def whole_number(
    parameters: dict[str, Any] | None,
    name: str,
    where: str,
    expected: str = "a whole number from 0",
) -> int | None:
    """Return a parameter that is a whole number, also one that was written as 2.0."""
    value = parameter(parameters, name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if value is not None and (type(value) is not int or value < 0):
        raise InvalidInput(f"{where}.{name}: expected {expected}, got {shown(value)}")
    return value


def flag(parameters: dict[str, Any], name: str, where: str) -> bool | None:
    """Return a parameter that is true or false."""
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidInput(f"{where}.{name}: expected true or false, got {shown(value)}")
    return value
