"""A batch is run, and each of its entries gets an answer, whatever is raised."""

from collections.abc import Callable
from typing import TypeAlias

from service.batching.arrays import Inputs, Outputs, have_rows, joined, split
from service.batching.entry import Entry

Run: TypeAlias = Callable[[Inputs], Outputs]
# When it began, how many seconds it took, and the answer of each entry.
Executed: TypeAlias = tuple[float, float, list[Outputs | Exception]]


def execute(run: Run, batch: list[Entry], clock: Callable[[], float]) -> Executed:
    """Run the batch; on an error run its entries one by one. May be in another thread."""
    start = clock()
    results: list[Outputs | Exception]
    try:
        results = _results(run, batch)
    except Exception as error:
        results = [error] * len(batch)
    return start, clock() - start, results


def _results(run: Run, batch: list[Entry]) -> list[Outputs | Exception]:
    if len(batch) == 1:
        return [_try(run, batch[0].inputs)]
    outputs = _try(run, *(entry.inputs for entry in batch))
    rows = sum(entry.size for entry in batch)
    if isinstance(outputs, Exception) or not have_rows(outputs, rows):
        return [_try(run, entry.inputs) for entry in batch]
    return [*split(outputs, [entry.size for entry in batch])]


def _try(run: Run, *parts: Inputs) -> Outputs | Exception:
    try:
        return run(joined(parts))
    except Exception as error:
        return error
