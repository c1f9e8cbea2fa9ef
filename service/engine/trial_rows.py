"""The rows of a trial: chosen by chance, the same on every machine."""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.engine.spec import Dimensions, Spec

ROWS = 3  # different ones in a trial
_MOST_NUMBERS = 65_521  # different ones in a row; then they come again. A prime: no size fits it

Arrays: TypeAlias = list[NDArray[Any]]  # one for each input, or output
Size: TypeAlias = Callable[[str], int]  # of an open inner dimension, by its name


class Chance:
    """Numbers by chance, the same on every machine: from 0 to 1, each time others.

    `numpy.random` would do, but to load it takes 7 MB, for a second at start.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def shares(self, count: int) -> NDArray[np.float64]:
        """Return numbers from 0 to 1, all as probable."""
        numbers = np.frombuffer(self._random.randbytes(4 * count), np.uint32)
        return numbers.astype(np.float64) / 2**32

    def normal(self, count: int) -> NDArray[np.float64]:
        """Return normally distributed numbers (Box and Muller, 1958)."""
        size: NDArray[np.float64] = np.sqrt(-2 * np.log(1 - self.shares(count)))
        return size * np.cos(2 * np.pi * self.shares(count))


class Style(Struct, frozen=True):
    """How the values of a row are chosen: by its number, by chance, and how many they are."""

    floats: Callable[[int, Chance, int], NDArray[np.float64]]
    integers: Callable[[int, Chance, int], NDArray[Any]]
    # By the number of the row, and which of the inputs that are strings they are for.
    words: Callable[[int, int], Sequence[str]]


def _in_turn(*rows: tuple[str, ...]) -> Callable[[int, int], Sequence[str]]:
    """Return what gives the words of each row, which begin elsewhere in each input."""

    def words(number: int, place: int) -> Sequence[str]:
        start = -place * number % len(rows[number])
        return rows[number][start:] + rows[number][:start]

    return words


def _bits(number: int, chance: Chance, count: int) -> NDArray[Any]:
    """Zeros and ones; those of row 1 are the opposite of row 0's, so that they surely differ."""
    bits = chance.shares(count) < 0.5
    return ~bits if number == 1 else bits


# Rows of different sizes: what one takes from another changes the smaller beyond doubt.
SCALED = Style(
    lambda number, chance, count: chance.normal(count) * (1, 30, 0.3)[number],
    _bits,
    _in_turn(("a", "b"), ("red, green", "b"), ("", "it is one of many-words; a.b")),
)
# Numbers from 0 to 1, as images and shares have: most models take them.
TAME = Style(
    lambda number, chance, count: chance.shares(count),
    _bits,
    _in_turn(("0", "1"), ("1", "2"), ("3", "5")),
)
# Numbers of all sizes, from 0.01 to 10,000: the branches of trees are anywhere. No zeros.
SPREAD = Style(
    lambda number, chance, count: (
        np.where(chance.shares(count) < 0.5, -1, 1) * 10 ** (6 * chance.shares(count) - 2)
    ),
    lambda number, chance, count: 10 ** (2 * chance.shares(count)),
    _in_turn(("A", "B"), ("x y", "z"), ("word", "")),
)
# Large numbers, as time stamps and amounts of money are: what is scaled in the graph varies.
FAR = Style(
    lambda number, chance, count: 10 ** (4 + 6 * chance.shares(count)),
    lambda number, chance, count: 10 ** (2 + 2 * chance.shares(count)),
    _in_turn(("2024-01-01", "x1"), ("1e9", "A-1"), ("a@b", "")),
)
# What is no number, small neighbouring numbers, addresses: for models in which just these count.
ODD = Style(
    lambda number, chance, count: np.resize(
        np.roll([math.nan, math.inf, -math.inf, 0, -1], -number), count
    ),
    lambda number, chance, count: 1 + (4 * number + (chance.shares(count) < 0.5).cumsum()) % 9,
    _in_turn(("www.example.com", "a"), ("true", "nan"), ("name@gmail.com", "b")),
)


def own(
    words: Sequence[Sequence[str]],
    numbers: Sequence[float],
    whole_numbers: Sequence[Sequence[int]] = (),
) -> Style:
    """Return a style of values that the file itself compares what goes in with.

    words: a list for each operation that has some; in the order of the inputs, as converters write
    them. numbers: what trees branch at, and a little more is chosen; none: as SCALED.
    whole_numbers: a list for each operation that knows some; those that all of them know are taken.
    """

    known = np.unique(np.array(numbers, np.float64))

    def floats(number: int, chance: Chance, count: int) -> NDArray[np.float64]:
        if not len(known):
            return SCALED.floats(number, chance, count)
        first = (Chance(count).shares(count) * len(known)).astype(np.int64)  # the same in each row
        chosen = known[(first + number * max(1, len(known) // ROWS)) % len(known)]
        beyond: NDArray[np.float64] = chosen + 1e-4 * np.abs(chosen) + 1e-6
        return beyond

    def chosen_words(number: int, place: int) -> Sequence[str]:
        turned = [*words[place % len(words) :], *words[: place % len(words)]] if words else [[""]]
        return [each[number % len(each)] for each in turned]

    common = set[int]().union(*whole_numbers[:1]).intersection(*whole_numbers)
    codes = sorted(common) or list(whole_numbers[0] if whole_numbers else ())

    def integers(number: int, chance: Chance, count: int) -> NDArray[Any]:
        return np.resize(np.roll(codes, -number), count) if codes else _bits(number, chance, count)

    return Style(floats, integers, chosen_words)


class TrialRows:
    """Makes rows for a model: an array (1, ...) for each input.

    Arrays without an open first dimension have the size that the graph says.
    """

    def __init__(self, spec: Spec, *, are_sizes: bool, first: Sequence[Style] = ()) -> None:
        """Take what goes in, and styles that come before the others.

        are_sizes: values of it decide on the size of something.

        Then no integer is 0: ONNX Runtime 1.31 has operators that end the process for sizes and
        steps that make no sense.
        """
        self.spec = spec
        self.are_sizes = are_sizes
        self.styles = (*first, SCALED, TAME, SPREAD, FAR)  # the first two also where care is needed
        strings = [n for n, each in enumerate(spec.inputs) if each.dtype is np.object_]
        self._string_place = {place: number for number, place in enumerate(strings)}

    def bytes(self, size: Size) -> int:
        """Return how much memory a row takes."""
        return sum(
            math.prod(shape) * np.dtype(each.dtype).itemsize
            for each, shape in zip(self.spec.inputs, self._shapes(size), strict=True)
        )

    def row(self, style: Style, size: Size, number: int) -> Arrays:
        """Return the row of that number, from 0 to ROWS - 1."""
        return [
            np.resize(self._values(style, place, number, math.prod(shape)), shape)
            for place, shape in enumerate(self._shapes(size))
        ]

    def zeros(self) -> Arrays:
        """Return a row of zeros, or empty strings."""
        return [
            np.full(shape, "" if each.dtype is np.object_ else 0, each.dtype)
            for each, shape in zip(self.spec.inputs, self._shapes(all_of(1)), strict=True)
        ]

    def _shapes(self, size: Size) -> list[tuple[int, ...]]:
        return [_shape(dimensions, size) for dimensions in self.spec.dimensions]

    def _values(self, style: Style, place: int, number: int, count: int) -> NDArray[Any]:
        """Return values for the input at that place, `count` of them or fewer."""
        dtype = np.dtype(self.spec.inputs[place].dtype)
        count = min(count, _MOST_NUMBERS)
        if dtype.kind == "f":
            chance = Chance(ROWS * place + number)
            with np.errstate(over="ignore"):  # some numbers are infinite as float16
                return style.floats(number, chance, count).astype(dtype)
        if dtype.kind == "O":
            return np.array(style.words(number, self._string_place[place]), np.object_)
        chance = Chance(ROWS * place + (0 if number == 1 else number))  # see _bits
        integers = style.integers(number, chance, count)
        return (integers + (self.are_sizes and dtype.kind != "b")).astype(dtype)


def joined(rows: Sequence[Arrays]) -> Arrays:
    """Return rows as one batch."""
    return [np.concatenate(arrays) for arrays in zip(*rows, strict=True)]


def all_of(number: int) -> Size:
    """Let all open inner dimensions have one size."""
    return lambda name: number


def different(name: str) -> int:
    """Let open inner dimensions have sizes that depend on their names: what is equal has one."""
    return 3 + sum(name.encode()) % 7


def _shape(dims: Dimensions, size: Size) -> tuple[int, ...]:
    """Return a shape: 1 for an open first dimension, and what `size` says for open inner ones."""
    return tuple(
        each if isinstance(each, int) else 1 if place == 0 else _sum(each, size)
        for place, each in enumerate(dims)
    )


def _sum(name: str, size: Size) -> int:
    """Return the size of a dimension; exporters name some as a sum, "past_length + length"."""
    parts = [part.strip() for part in name.split("+")]
    return sum(int(part) if part.isdecimal() else size(part) for part in parts)
