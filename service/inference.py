"""One inference, whatever brought it: hold a model, run it, count it.

    call = Call(start, deadline, is_alone)
    with inference.model_of_rows(call, "iris", None):  # which is call.served from now on
        outputs = await inference.run(call, work_of_rows(call.served, rows))

Who answers the caller counts the call when it ends: `inference.count(call, "ok")`.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from service.batching import (
    UNSHARED,
    Entry,
    Inputs,
    Outputs,
    Timing,
    Waiter,
    check_rows,
    stacked,
)
from service.catalog.catalog import Catalog
from service.catalog.served import ServedModel
from service.catalog.split import Ticket
from service.engine.columns import are_joined
from service.engine.model import Model, check_finite
from service.errors import InvalidInput
from service.metrics import Metrics
from service.words import shown


class Call(Struct):
    """One inference. Times are in seconds by `perf_counter`."""

    start: float
    deadline: float
    is_alone: Callable[[], bool]  # whether no other request is to be expected now
    timing: Timing | None = None  # gets where the time went
    is_timed: bool = False  # whether the caller is told
    served: ServedModel | None = None  # the model that it is for, once that is known
    ticket: Ticket | None = None  # decides the version where none is named and some have weights


class Work(Struct):
    """What a request wants of a model."""

    served: ServedModel
    inputs: Inputs
    rows: int
    kind: Hashable  # as Batcher.submit takes it
    answers_rows: bool  # whether each row must have an answer, and a finite one
    asked: Any = None  # how the answer is wanted
    reply_bytes: int = 0  # of the reply, at most
    parts: Sequence["Work"] = ()  # of one row each: rows that differ in shape cannot be joined

    def check(self, outputs: Outputs) -> None:
        """Raise InferenceFailed unless that is an answer."""
        if self.answers_rows:
            check_rows(outputs, self.rows)
            self.served.check_finite(outputs)


class Slowly(Struct, frozen=True):
    """Work that takes too long to read for the event loop; `finish` reads it in a thread."""

    served: ServedModel
    finish: Callable[[], Awaitable[Work]]


def work_of_rows(served: ServedModel, rows: NDArray[Any], reply_bytes: int = 0) -> Work:
    """Return the work for rows, as `Model.rows_of` makes them."""
    model = served.model
    if model.has_open_rows:
        return _work_of_open_rows(served, rows, reply_bytes)
    return Work(
        served, model.inputs_of(rows), len(rows), served.kind_of_rows, True, None, reply_bytes
    )


def _work_of_open_rows(served: ServedModel, rows: NDArray[Any], reply_bytes: int) -> Work:
    model = served.model
    if not are_joined(rows, model.form):
        parts = [_work_of_open_rows(served, each[np.newaxis], 0) for each in rows]
        return Work(served, [], len(rows), UNSHARED, True, None, reply_bytes, parts)
    inputs, kind = model.inputs_of(rows), served.kind_of_rows
    if model.is_batched:
        kind = served.kind_of(inputs)
    return Work(served, inputs, len(rows), kind, True, None, reply_bytes)


def work_of_tensors(
    served: ServedModel, inputs: Inputs, rows: int, asked: Any = None, reply_bytes: int = 0
) -> Work:
    """Return the work for `inputs`, an array for each input; NaN and infinity are answers too."""
    kind = served.kind_of(inputs)
    return Work(served, inputs, rows, kind, False, asked, reply_bytes)


class Inference:
    """The one door to the models."""

    def __init__(self, catalog: Catalog, metrics: Metrics) -> None:
        self._catalog = catalog
        self._metrics = metrics

    def model(self, call: Call, name: str, version: str | None) -> ServedModel:
        """Return a model by the words of a path, to be held by `with`. Raises what `named` does."""
        if version is None and call.ticket is not None:
            served = self._catalog.chosen(name, call.ticket)
        else:
            served = self._catalog.named(name, version)
        call.served = served
        return served

    def model_of_rows(self, call: Call, name: Any, version: Any) -> ServedModel:
        """Return a model that takes rows, to be held by `with`; the default if none is named.

        Name and version are what a body says. Raises InvalidInput, and what `Catalog.get` raises.
        """
        if name is None:
            name = self._catalog.unnamed
        if type(name) is not str:
            got = "no such field" if name is None else shown(name)
            known = ", ".join(self._catalog.names)
            raise InvalidInput(f"model: expected the name of a model ({known}), got {got}")
        if version is not None and (type(version) is not int or version < 1):
            raise InvalidInput(f"version: expected a whole number from 1, got {shown(version)}")
        if version is None and call.ticket is not None:
            served = self._catalog.chosen(name, call.ticket)
        else:
            served = self._catalog.get(name, version)
        if why := served.model.why_no_rows:
            raise InvalidInput(
                f"model {name}: expected one that takes rows, but {why}: "
                f"use /v2/models/{name}/infer"
            )
        call.served = served
        return served

    async def run(self, call: Call, work: Work) -> Outputs:
        """Return the outputs. Raises RequestError; cancelled when the caller leaves."""
        if work.parts:
            return stacked([await self.run(call, each) for each in work.parts])
        outputs = await work.served.batcher.submit(
            work.inputs,
            work.rows,
            call.deadline,
            alone=call.is_alone(),
            kind=work.kind,
            timing=call.timing,
        )
        work.check(outputs)
        return outputs

    def start(self, call: Call, work: Work, waiter: Waiter) -> Outputs | None:
        """As `run`, for work that fits a batch: `waiter` gets the outputs, which nobody checked.

        Return the outputs if they are here already. Raises RequestError.
        """
        entry = Entry(work.inputs, work.rows, work.kind, waiter, call.deadline, call.timing)
        return work.served.batcher.put(entry, alone=call.is_alone())

    def count(self, call: Call, outcome: str) -> None:
        """Count a call that ended."""
        if call.served is None:
            self._metrics.unmatched(outcome)
        else:
            call.served.metrics.request(outcome, perf_counter() - call.start)


def run_rows(model: Model, rows: NDArray[Any]) -> Outputs:
    """Return the outputs of a model that nobody else uses for rows, all finite.

    Raises InferenceFailed.
    """
    if not are_joined(rows, model.form):
        return stacked([run_rows(model, each[np.newaxis]) for each in rows])
    outputs = model.run(model.inputs_of(rows))
    check_rows(outputs, len(rows))
    check_finite(outputs)
    return outputs
