"""The model card: what a model file says of itself.

The card is JSON under the key `torchlit.card` of the ONNX metadata properties, so a model
is one file. Training writes it (`Card.to_json`), the service reads it (`Card.from_json`);
this module is the complete contract between the two.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal, Self, TypeAlias

import msgspec
from msgspec import Struct

from service.errors import InvalidCard

METADATA_KEY = "torchlit.card"

# What counts as the same answer, when training proves an export and the service tests itself.
PROBABILITY_TOLERANCE = 1e-5  # absolute
VALUE_TOLERANCE = 1e-4  # relative

# What the folder of a version may be called, `<name>/<version>/model.onnx`: also a Unix time, as
# other servers have it, in seconds or nanoseconds.
VERSION = re.compile("[1-9][0-9]{0,18}")
LAST_VERSION = 2**63 - 1
_WITH_ZEROS = re.compile("0+[1-9][0-9]*")

_PLOT_FILE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\.png")


# A value of a row. None: it is missing.
Value: TypeAlias = float | str | bool | None


class Feature(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One input column, in the unit the caller sends.

    `minimum`, `maximum`, `mean` and `std` are those of the training rows, and of numbers only;
    `default` is the value a form starts with (the median of the training rows, or what is most
    common). `values` are some of those that a text may have.
    """

    name: str
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    default: float | str | bool
    type: Literal["number", "string", "boolean"] = "number"
    values: list[str] = []

    @property
    def range(self) -> tuple[float, float]:
        """What the training rows had, from minimum to maximum; all numbers if it is not one."""
        low, high = self.minimum, self.maximum
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def seen(self) -> str:
        """What the training rows had, in words."""
        if self.type != "number":
            return ", ".join(self.values) or self.type
        low, high = self.range
        return f"{low:g} to {high:g}"


class Image(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image input: `height` x `width` pixels of `channels` values, 0 to 255.

    `preparation` says in words how an image becomes such pixels.
    """

    height: int
    width: int
    channels: int
    preparation: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The nested form of one instance: (height, width), or with channels if several."""
        plane = (self.height, self.width)
        return plane if self.channels == 1 else (*plane, self.channels)


class Target(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One predicted number of a regression model."""

    name: str
    unit: str
    description: str


class Interval(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That each value comes with a lower and an upper bound, the ONNX output `interval`.

    `coverage` is the share of true values, 0 to 1, meant to lie between the two.
    """

    coverage: float


class Dataset(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the training rows come from. `sha256` is the digest of their content, in hex."""

    name: str
    source: str
    sha256: str
    licence: str
    caveats: list[str] = []


class Example(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input, flat and in raw units, and the answer that the trained model gave for it.

    `interval` has the lower and upper bound of each target, one after the other.
    Those of our own models are derived from the training rows (a mean, a median), never one of
    them.
    """

    name: str
    input: Sequence[Value]
    output: list[float]
    interval: list[float] = []

    @property
    def numbers(self) -> list[float]:
        """The input, where it is all numbers."""
        return [each for each in self.input if isinstance(each, int | float)]


class Picture(Struct, frozen=True, kw_only=True):
    """A plot of the training or of its result: a PNG file that lies beside model.onnx."""

    file: str
    title: str


class Card(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model is, what it takes, what it answers and how good it is.

    Exactly one of `features` and `image` describes the input. `labels` (classification) or
    `targets` (regression) name the output's columns. `metrics` were measured on rows that
    training never saw. There are no dates inside: equal training gives equal bytes.
    """

    task: Literal["classification", "regression"]
    description: str
    features: list[Feature] = []
    image: Image | None = None
    labels: list[str] = []
    targets: list[Target] = []
    interval: Interval | None = None
    metrics: dict[str, float]
    dataset: Dataset
    training: dict[str, str | int | float | bool | list[int]]
    versions: dict[str, str]
    examples: list[Example]
    pictures: list[Picture] = []

    @property
    def input_size(self) -> int:
        """How many values one row has."""
        if self.image is None:
            return len(self.features)
        return self.image.height * self.image.width * self.image.channels

    @property
    def output_size(self) -> int:
        """How many numbers one answer has."""
        return len(self.labels) or len(self.targets)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a card. Raises InvalidCard with the field that does not fit."""
        try:
            card = msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError as error:
            raise InvalidCard(f"{METADATA_KEY}: {error}") from error
        card.check()
        return card

    def to_json(self) -> str:
        """Write the card; the same card gives the same text."""
        self.check()
        return msgspec.json.encode(self).decode()

    def check(self) -> None:
        """Raise InvalidCard unless the fields agree with one another."""
        if bool(self.features) == (self.image is not None):
            raise InvalidCard(f"{METADATA_KEY}: expected either features or image")
        if self.task == "classification" and (not self.labels or self.targets):
            raise InvalidCard(f"{METADATA_KEY}: expected labels and no targets: classification")
        if self.task == "regression" and (not self.targets or self.labels):
            raise InvalidCard(f"{METADATA_KEY}: expected targets and no labels: regression")
        if self.interval is not None:
            self._check_interval(self.interval)
        for field, names in (
            ("features", [feature.name for feature in self.features]),
            ("labels", self.labels),
            ("targets", [target.name for target in self.targets]),
            ("pictures", [plot.file for plot in self.pictures]),
        ):
            if len(set(names)) != len(names):
                raise InvalidCard(f"{METADATA_KEY}: expected different names in {field}: {names}")
        for feature in self.features:
            self._check_feature(feature)
        if not self.examples:
            raise InvalidCard(f"{METADATA_KEY}: expected at least one example to self-test with")
        for example in self.examples:
            self._check_example(example)
        for plot in self.pictures:
            if not _PLOT_FILE.fullmatch(plot.file):  # it stands in a URL and a path
                raise InvalidCard(
                    f"{METADATA_KEY}: pictures: expected a file name such as loss.png, "
                    f"got {plot.file!r}"
                )

    def _check_feature(self, feature: Feature) -> None:
        where = f"{METADATA_KEY}: feature {feature.name!r}"
        numbers = (feature.minimum, feature.maximum, feature.mean, feature.std)
        is_number = feature.type == "number"
        if any((each is None) == is_number for each in numbers):
            expected = "a minimum, maximum, mean and std" if is_number else "no minimum or the like"
            raise InvalidCard(f"{where}: expected {expected} of a {feature.type}")
        if not _is_of(feature.default, feature.type):
            raise InvalidCard(
                f"{where}: default: expected a {feature.type}, got {feature.default!r}"
            )

    def _check_interval(self, interval: Interval) -> None:
        if self.task != "regression":
            raise InvalidCard(f"{METADATA_KEY}: expected an interval only of a regression")
        if not 0 < interval.coverage < 1:
            raise InvalidCard(
                f"{METADATA_KEY}: interval: expected a coverage between 0 and 1, "
                f"got {interval.coverage}"
            )

    def _check_example(self, example: Example) -> None:
        for field, numbers, size in (
            ("input", example.input, self.input_size),
            ("output", example.output, self.output_size),
            ("interval", example.interval, 2 * self.output_size if self.interval else 0),
        ):
            where = f"{METADATA_KEY}: example {example.name!r}: {field}"
            if len(numbers) != size:
                raise InvalidCard(f"{where}: expected {size} numbers, got {len(numbers)}")
            if not all(map(_is_finite, numbers)):
                raise InvalidCard(f"{where}: expected finite numbers")
        for feature, value in zip(self.features, example.input, strict=False):
            if value is not None and not _is_of(value, feature.type):
                raise InvalidCard(
                    f"{METADATA_KEY}: example {example.name!r}: {feature.name}: expected a "
                    f"{feature.type}, got {value!r}"
                )


def _is_of(value: Value, type: str) -> bool:
    return isinstance(value, {"number": int | float, "string": str, "boolean": bool}[type]) and (
        type == "boolean" or not isinstance(value, bool)
    )


def _is_finite(value: Value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def version_of(text: str) -> int | None:
    """Return the version that the name of its folder says, None if it says none."""
    if VERSION.fullmatch(text) and int(text) <= LAST_VERSION:
        return int(text)
    return None


def expected_version(text: str) -> str:
    """Say what is expected where `text` stands, which is no version."""
    expected = f"a whole number from 1 to {LAST_VERSION}"
    return f"{expected}, without zeros in front" if _WITH_ZEROS.fullmatch(text) else expected
