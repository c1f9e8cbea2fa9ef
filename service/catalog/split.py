"""Splits: which version answers a request that names none, by weights.

A value of TORCHLIT_SPLIT_HEADER gets the version with the earliest of some arrivals. Each version
has one, -ln(u) / weight, of which u in (0, 1] is a hash of model, version and value: the first of
exponential variables of these rates, so each version is the first as often as its weight says. A
weight that grows makes arrivals of that version alone earlier: no value changes between others
(rendezvous hashing: Thaler and Ravishankar, 1998; with weights, as here: Schindelhauer and
Schomaker, "Weighted Distributed Hash Tables", 2005).
"""

import logging
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import log
from random import random
from typing import TypeAlias

from msgspec import Struct, field

from service.catalog.served import ServedModel
from service.metrics import Metrics
from service.metrics.cells import Doubles
from service.settings.split import Split

logger = logging.getLogger("torchlit.split")

Key: TypeAlias = tuple[str, int | None]  # as the catalog has it

_HASHES = 2**64


class Ticket(Struct):
    """What decides which version answers a request, however often it is read."""

    value: bytes | None  # of the header, if there is one
    drawn: float = field(default_factory=random)  # in [0, 1)
    is_counted: bool = False  # that another version answers it
    is_taken: bool = False  # by the ordinary way, from the direct one (http/direct.py)


class Share(Struct, frozen=True):
    """A version that has a weight, and what serves as that now, if it does."""

    version: int
    weight: int
    served: ServedModel | None
    hash: blake2b
    fallbacks: Doubles  # one: requests for it that another version answered

    def arrival(self, value: bytes) -> float:
        """Return when it arrives for a value; the first of several is the value's version."""
        hash = self.hash.copy()
        hash.update(value)
        return -log((int.from_bytes(hash.digest()) + 1) / _HASHES) / self.weight


class Shares:
    """Versions to choose from, lowest first."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = shares
        self._ends = list(accumulate(share.weight for share in shares))

    def __bool__(self) -> bool:
        return bool(self._shares)

    def of(self, value: bytes) -> Share:
        """Return that of a value."""
        return min(self._shares, key=lambda share: share.arrival(value))

    def at(self, drawn: float) -> tuple[Share, float]:
        """Return that of a number in [0, 1), and another such number, as if drawn again."""
        place = drawn * self._ends[-1]
        at = bisect_right(self._ends, place, 0, len(self._ends) - 1)
        share = self._shares[at]
        return share, 1 - (self._ends[at] - place) / share.weight


class Choice:
    """The versions of a model that have a weight, and which of them are ready."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._all = Shares(shares)
        self._ready = Shares([share for share in shares if share.served is not None])
        self.ready = [share.version for share in shares if share.served is not None]
        self.missing = [share.version for share in shares if share.served is None]

    def take(self, ticket: Ticket) -> ServedModel | None:
        """Return who answers a request: another one where its version is not ready, if one is."""
        drawn = ticket.drawn
        if ticket.value is None:
            share, drawn = self._all.at(drawn)
        else:
            share = self._all.of(ticket.value)
        if share.served is not None:
            return share.served
        if not ticket.is_counted:
            ticket.is_counted = True
            share.fallbacks[0] += 1.0
        if not self._ready:
            return None
        ready = self._ready
        return (ready.at(drawn)[0] if ticket.value is None else ready.of(ticket.value)).served


class Splits:
    """The weights that hold, and who answers by them."""

    def __init__(self, metrics: Metrics, header: str | None = None) -> None:
        """header: by whose value requests get the same version each time."""
        self._metrics = metrics
        self._header = header.lower().encode() if header else None
        self._served: Mapping[Key, ServedModel] = {}
        self._choices: dict[str, Choice] = {}
        self._missing: dict[str, str] = {}  # what the log says of a model
        self.held = Split()

    def ticket(self, headers: Mapping[bytes, bytes]) -> Ticket:
        """Return what decides the version of a request with these headers."""
        value = None if self._header is None else headers.get(self._header)
        return Ticket(value.strip() or None if value else None)

    def take(self, name: str, ticket: Ticket) -> ServedModel | None:
        """Return the version of a model that answers a request; None: it has no weights, or none
        of those that have one is ready."""
        choice = self._choices.get(name)
        return None if choice is None else choice.take(ticket)

    def hold(self, split: Split) -> None:
        """Let other weights hold, from the next request on."""
        self.held = split
        self._metrics.show_splits(
            (name, str(version)) for name in split.names for version in split.of(name)
        )
        self._renew()

    def follow(self, served: Mapping[Key, ServedModel]) -> None:
        """Choose among what serves now."""
        self._served = served
        self._renew()

    def _renew(self) -> None:
        """Choose by what holds and serves now; log once what is not ready."""
        before = self._missing
        self._choices = {name: self._choice(name) for name in self.held.names}
        self._missing = {name: self._said(name, each) for name, each in self._choices.items()}
        for name, sentence in self._missing.items():
            if sentence and sentence != before.get(name):
                logger.warning("%s", sentence)
            elif before.get(name) and not sentence:
                shown = self.held.shown(name)
                logger.info("model %s: split %s: all that have a weight are ready", name, shown)

    def _choice(self, name: str) -> Choice:
        weights = {version: weight for version, weight in self.held.of(name).items() if weight}
        return Choice(
            [
                Share(
                    *(version, weight, self._served.get((name, version))),
                    blake2b(f"{name}/{version}\n".encode(), digest_size=8),
                    self._metrics.split_fallbacks(name, str(version)),
                )
                for version, weight in weights.items()
            ]
        )

    def _said(self, name: str, choice: Choice) -> str:
        """Say which versions are not ready, and what answers instead; nothing if all are."""
        if not choice.missing:
            return ""
        default = self._served.get((name, None))
        others = choice.ready or ([] if default is None else [default.version])
        missing, instead = (", ".join(map(str, each)) for each in (choice.missing, others))
        split = f"model {name}: split {self.held.shown(name)}"
        return f"{split}: not ready: {missing}; in place of that: {instead or 'none'}"
