"""What single rows of a trial show, beside whether rows may be run together."""

from typing import Any

import numpy as np

from service.engine.columns import why_no_columns
from service.engine.file import ModelFile
from service.engine.graph import takes_missing_values
from service.engine.trial_rows import TrialRows, all_of
from service.engine.trial_runner import TRIAL_BYTES, RunFailed, Runner, Stopped


def takes_zeros(runner: Runner, maker: TrialRows) -> bool:
    """Whether zeros, or empty strings, are answered: an example for documents, no more."""
    if maker.are_sizes or maker.bytes(all_of(1)) > TRIAL_BYTES / 4:
        return False
    try:
        runner.timed(maker.zeros())
    except (Stopped, RunFailed):
        return False
    return True


def example(runner: Runner, maker: TrialRows, *, has_zeros: bool) -> tuple[Any, ...]:
    """Return values of columns that are answered, for documents; plain ones if they are."""
    inputs = maker.spec.inputs
    if why_no_columns(inputs) or maker.are_sizes:
        return ()
    rows = [maker.zeros()] if has_zeros else []
    for style in () if has_zeros else maker.styles:
        row = maker.row(style, all_of(1), 0)
        rows += [[each * 0 if each.dtype.kind == "f" else each for each in row], row]
    for row in rows:
        try:
            runner.timed(row)
        except RunFailed:
            continue
        except Stopped:
            break
        return tuple(each.reshape(-1).tolist()[0] for each in row)
    return ()


def takes_missing(runner: Runner, maker: TrialRows, file: ModelFile) -> tuple[str, ...]:
    """Return the inputs that take NaN for a value that is not known.

    The graph has an operator to which NaN means that, and its answers are numbers all the same. The
    latter alone shows nothing: the largest of NaN and 0 may be 0.
    """
    if maker.bytes(all_of(1)) > TRIAL_BYTES / 4:
        return ()
    names: list[str] = []
    for place, each in enumerate(maker.spec.inputs):
        if np.dtype(each.dtype).kind != "f" or not takes_missing_values(file, each.name):
            continue
        for row in (*(maker.row(style, all_of(1), 0) for style in maker.styles), maker.zeros()):
            row[place] = np.full_like(row[place], np.nan)
            try:
                answers = runner.timed(row)[0]
            except RunFailed:
                continue
            except Stopped:
                return tuple(names)
            floats = [answer for answer in answers if answer.dtype.kind == "f"]
            if floats and all(np.isfinite(answer).all() for answer in floats):
                names.append(each.name)
            break
    return tuple(names)
