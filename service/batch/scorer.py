"""A table of rows -> a table of answers, a row for each row, as POST /predict would give them.

Scorer("iris")(table)  # label, probability, setosa, versicolor, virginica, error
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from msgspec import Struct, structs
from numpy.typing import NDArray

from service.batch.images import Images
from service.batch.outputs import ERROR, Columns
from service.batch.runs import Run, Runs, rows_of_run
from service.batch.tables import Rows, reading_of
from service.catalog.opening import open_tested
from service.catalog.place import find, sentence
from service.engine.model import Model
from service.engine.trial import Trial
from service.errors import CannotScore, InvalidInput, ModelError, TooLarge
from service.settings import Settings

ROWS_OF_RUN = 512  # more than a service waits for; calls cost less than a twentieth then
MOST_ROWS = 16_384  # that are looked at together
MOST_VALUES = 2**21  # of them

# Judges a row that is not sure to fit, by its place: returns its values, or raises InvalidInput.
Judge: TypeAlias = Callable[[int], Any]


class Answers(Struct, frozen=True):
    """The answers to some rows, in their order."""

    columns: pa.RecordBatch  # of the rows that have an answer
    places: NDArray[np.int64]  # which rows those are
    bad: list[tuple[int, str]]  # the others, and why: ".age: expected ..." or ": expected ..."


class Scorer:
    """Answers tables with one model, in this process and on one thread.

    It is pickled as the words that made it, and what was seen of the model: each process opens it
    for itself, once.
    """

    def __init__(
        self, model: str | Path, settings: Settings | None = None, *, trial: Trial | None = None
    ) -> None:
        """Open a model, which tests itself: `iris`, `iris/1` or a path to an .onnx file.

        settings: of TORCHLIT_MODELS_DIR and the like; those of the environment if not given.
        trial: what another process saw of this model, which is not tried again then.
        Raises ServiceError: NotFound, CannotScore where it cannot be opened or takes no rows.
        """
        settings = settings or Settings.from_env(os.environ)
        self.place = place = find(str(model), settings)
        self.name = place.name
        # Elsewhere the working directory may be another, and who is there needs no keys.
        folder = settings.models_dir.absolute()
        self.settings = structs.replace(
            settings, models_dir=folder, api_keys=None, api_keys_file=None
        )
        self._again = place.name if place.model else str(place.path.absolute())
        most = max(self.settings.max_batch_size, ROWS_OF_RUN)
        larger = structs.replace(self.settings, max_batch_size=most)
        try:
            self.model: Model = open_tested(place.path, place.model, larger, threads=1, trial=trial)
        except ModelError as error:
            raise CannotScore(sentence(place, error)) from error
        if why := self.model.why_no_rows:
            raise CannotScore(f"{place.name}: expected one that takes rows, but {why}")
        self._columns = Columns(self.model)
        self._images = Images(self.model, self.settings)
        self.schema: pa.Schema = self._columns.schema  # of the answers, without `error`
        self.rows = rows_of_run(self.model, (most, self.settings.max_batch_size))
        self._runs = Runs(self.model, self.rows)

    def __reduce__(
        self,
    ) -> tuple[Callable[[str, Settings, bytes], "Scorer"], tuple[str, Settings, bytes]]:
        seen = pickle.dumps((self.model.trial, self.model.files))
        return _opened, (self._again, self.settings, seen)

    def __call__(self, table: Any) -> pa.Table:
        """Return the answers to a table: `schema` and `error`, a row for each row.

        table: a pyarrow.Table, or what `pyarrow.table` makes one of, as a data frame of Polars; a
        column for each column of the model, by its name, in any order, however it is
        written; others are passed over. Of a model whose columns have no names: a column of lists,
        or as many columns as a row has values. Of images: a column of bytes, or of paths that is
        called `path`. A row that does not fit, or that the model fails on, has nulls and a sentence
        in `error`. Raises InvalidInput for columns that fit no row, TypeError for what is no table.
        """
        table = table if isinstance(table, pa.Table) else _table_of(table)
        batches = [self._whole(each) for each in self._batches(table)]
        schema = self.schema.append(pa.field(ERROR, pa.string()))
        return pa.Table.from_batches(batches, schema)

    def _whole(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the answers to a batch and `error`, a row for each row."""
        answers, count = self.of_batch(batch), batch.num_rows
        columns, errors = answers.columns, pa.nulls(count, pa.string())
        if answers.bad:
            taken = np.full(count, -1)
            taken[answers.places] = np.arange(len(answers.places))
            columns = columns.take(pa.array(taken, mask=taken < 0))
            why = dict(answers.bad)
            errors = pa.array([_sentence(why.get(each)) for each in range(count)], pa.string())
        names = [*columns.schema.names, ERROR]
        return pa.RecordBatch.from_arrays([*columns.columns, errors], names)

    def _batches(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        most = MOST_ROWS
        if self.model.row_size > 0:
            most = max(self.rows, min(MOST_ROWS, MOST_VALUES // self.model.row_size))
        yield from table.to_batches(max_chunksize=most)

    @property
    def takes_images(self) -> bool:
        """Whether a column of images is one of rows."""
        return self._images.are_taken

    def names_in(self, schema: pa.Schema) -> list[str]:
        """Return the columns of a table that are read. Raises InvalidInput as `__call__`."""
        if (image := self._images.name_in(schema)) is not None:
            return [image]
        return [schema.names[place] for place in reading_of(schema, self.model).places]

    def of_batch(self, batch: pa.RecordBatch) -> Answers:
        """Return the answers to rows, all of which are in memory. Raises as `__call__`."""
        if self._images.are_in(batch.schema):
            return self._of_judged(batch.num_rows, partial(self._images.pixels, batch))
        reading = reading_of(batch.schema, self.model)
        if self.model.has_open_rows:
            return self._of_judged(batch.num_rows, partial(reading.judge, batch))
        return self.of_columns(reading.rows(batch), partial(reading.judge, batch))

    def of_columns(self, rows: Rows, judge: Judge) -> Answers:
        """Return the answers to rows; `judge` has the last word on those not sure to fit."""
        bad: list[tuple[int, str]] = []
        places = np.arange(rows.count)
        if rows.sure is not None:
            for place in np.flatnonzero(~rows.sure).tolist():
                try:
                    rows.put(place, judge(place), self.model)
                except (InvalidInput, TooLarge) as error:
                    bad.append((place, str(error)))
            places = np.delete(places, [place for place, _ in bad])
        inputs = [each[places] for each in rows.inputs] if bad else rows.inputs
        return self._answers(self._runs(inputs, places), bad)

    def of_rows(self, rows: Sequence[Any], places: NDArray[np.int64] | None = None) -> Answers:
        """Return the answers to rows as `formats.json_rows.row` returns them.

        places (n,): what they are called in the answers; 0, 1, 2, ... if not given.
        """
        model = self.model
        places = np.arange(len(rows)) if places is None else places
        if model.has_open_rows:  # each is run alone, as no other may have its shape
            inputs = [model.inputs_of(model.rows_of([each])) for each in rows]
            return self._answers(self._runs.alone(inputs, places), [])
        inputs_of_all = model.inputs_of(model.rows_of(rows)) if len(rows) else []
        return self._answers(self._runs(inputs_of_all, places), [])

    def _of_judged(self, count: int, judge: Judge) -> Answers:
        """Return the answers to rows that are judged one by one."""
        bad: list[tuple[int, str]] = []
        rows, places = [], []
        for place in range(count):
            try:
                rows.append(judge(place))
                places.append(place)
            except (InvalidInput, TooLarge) as error:
                bad.append((place, str(error)))
        answers = self.of_rows(rows, np.array(places, np.int64))
        return structs.replace(answers, bad=sorted(bad + answers.bad))

    def _answers(self, run: Run, bad: list[tuple[int, str]]) -> Answers:
        columns = self._columns(run.outputs) if len(run.places) else self._columns.none
        return Answers(columns, run.places, sorted(bad + run.bad))


def _table_of(given: Any) -> pa.Table:
    """Return the table that pyarrow makes of what is none yet. Raises TypeError."""
    try:
        return pa.table(given)
    except (TypeError, ValueError, AttributeError, ImportError, pa.ArrowException) as error:
        type_ = type(given)
        is_pandas = type_.__module__.partition(".")[0] == "pandas"
        hint = "; pyarrow.Table.from_pandas(frame, preserve_index=False) makes one of a DataFrame"
        raise TypeError(
            "expected a pyarrow.Table, or what pyarrow.table makes one of, got "
            f"{type_.__module__}.{type_.__qualname__}: {error}" + hint * is_pandas
        ) from error


def _sentence(why: str | None) -> str | None:
    """Return why a row is bad without what joins it to a place: ".age: ..." or ": ..."."""
    return why and why.removeprefix(": ").removeprefix(".")


@lru_cache
def _opened(model: str, settings: Settings, seen: bytes) -> Scorer:
    """Return a model that was opened elsewhere; each process opens it once.

    seen: its trial and its files there. Raises CannotScore where it has others here.
    """
    trial, files = pickle.loads(seen)
    scorer = Scorer(model, settings, trial=trial)
    for there, here in zip_longest(files, scorer.model.files):
        if there != here:
            name = (there or here).name
            raise CannotScore(
                f"{scorer.name}: {name}: expected the file that was opened before, got another: it "
                "was changed since, or is another one on this machine"
            )
    return scorer
