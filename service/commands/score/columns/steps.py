"""The way through the files of INPUT, step by step: a block to answer, or the end of a file."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256

import pyarrow as pa
from msgspec import Struct

from service.batch.answered import Position
from service.commands.score.columns.pool import Step
from service.commands.score.columns.sources import Input, Reading, Source
from service.commands.score.columns.worker import Task
from service.commands.score.columns.writers import Writer, writer_of
from service.commands.score.suffixes import IMAGES, Kind
from service.errors import CannotScore, InvalidInput

FILE = "file"  # the column that says which file a row is from


class Passed(Struct, frozen=True):
    """What is passed with a step."""

    source: Source
    writer: Writer
    bytes: int  # of INPUT
    position: Position | None = None  # where a job could go on
    end: Position | None = None  # of the file, behind its last step


class Steps:
    """Makes steps of sources."""

    def __init__(self, reading: Reading, kind: Kind, suffix: str) -> None:
        """Take what reads them, and the kind of the output."""
        self._reading = reading
        self._kind, self._suffix = kind, suffix
        self.has_files = False  # whether a column says which file a row is from

    def open(self, source: Source) -> AbstractContextManager[Input]:
        """Open a source. Raises CannotScore, InvalidInput, then and later."""
        return self._reading.of(source)

    def writer_for(self, input: Input) -> Writer:
        """Return what writes the answers to an input. Raises CannotScore."""
        number = pa.string() if input.unit == IMAGES.unit else pa.int64()
        fields = [pa.field(input.unit, number), *input.kept]
        if self.has_files:
            fields.insert(0, pa.field(FILE, pa.string()))
        return writer_of(self._kind, self._suffix, pa.schema(fields), self._reading.scorer)

    def of_one(self, source: Source, input: Input, writer: Writer) -> Iterator[Step[Passed]]:
        """Yield the steps through a file, each of which can be gone on after."""
        for task, position in self._tasks(source, input, writer):
            yield Step(task, Passed(source, writer, position.bytes, position))

    def of_several(
        self, sources: Iterable[Source], start: Position, first: Writer | None
    ) -> Iterator[Step[Passed]]:
        """Yield the steps through files; one can be gone on with after each file.

        start: what is passed; first: what writes all of them, if they go into one.
        """
        at = start
        for source in sources:
            with naming(source), self.open(source) as input:
                writer = self.writer_for(input)
                if first is not None and writer != first:
                    raise CannotScore(
                        f"{source.name}: expected the columns {_names(first)} as in the files "
                        f"before, got {_names(writer)}"
                    )
                yield Step(None, Passed(source, writer, at.bytes))
                for task, position in self._tasks(source, input, writer, source.name):
                    yield Step(task, Passed(source, writer, at.bytes + position.bytes))
                end = input.position
            at = behind(at, source, end)
            yield Step(None, Passed(source, writer, at.bytes, at, end=end))

    def _tasks(
        self, source: Source, input: Input, writer: Writer, file: str = ""
    ) -> Iterator[tuple[Task, Position]]:
        before = input.position.number
        for block, position in input:
            where = f"{source.name}: {input.unit}s {before + 1} to {position.number}"
            yield Task(block, writer, where, file, self.has_files), position
            before = position.number

    def passed(self, sources: Iterable[Source]) -> Position:
        """Return what is passed when these sources are. Raises CannotScore, InvalidInput."""
        at = Position(0, 0, "")
        for source in sources:
            at = behind(at, source, self.end_of(source))
        return at

    def end_of(self, source: Source) -> Position:
        """Return the end of a source; the number is not its own. Raises as `passed`."""
        with self.open(source) as input:
            input.pass_to(Position(2**62, 2**62, ""))
            return input.position


@contextmanager
def naming(source: Source) -> Iterator[None]:
    """Name the file in what is wrong with its first lines."""
    try:
        yield
    except InvalidInput as error:
        name = f"{source.name}: "
        raise InvalidInput(name + str(error).removeprefix(name)) from error


def behind(at: Position, source: Source, end: Position) -> Position:
    """Return what is passed behind a further file."""
    digest = sha256(f"{at.sha256} {source.name} {end.sha256}".encode()).hexdigest()
    return Position(at.bytes + end.bytes, at.number + 1, digest)


def _names(writer: Writer) -> str:
    return ", ".join(f"{each.name} ({each.type})" for each in writer.schema)
