"""The way from the first rows to the last: what is written, what is kept, what is said."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Protocol

from msgspec.structs import replace

from service.commands.score.identity import Identity
from service.commands.score.output import Mark, Part
from service.commands.score.progress import Progress
from service.commands.terminal import Stdout, say
from service.errors import CannotScore, InvalidInput, ServiceError

SAVE_EVERY_S = 1.0  # how far it is; as much is computed again after a crash
SOME_BAD = 3  # exit status: finished, without the rows that were bad


class Output(Protocol):
    """A file, or a folder of files, in the making."""

    path: Path

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises NotWritten."""

    def save(self, mark: Mark) -> None:
        """Keep how far it is. Raises NotWritten."""

    def finish(self, mark: Mark | None) -> None:
        """Give it its name. Raises NotWritten.

        mark: where it can be gone on with, should this be stopped.
        """

    def drop(self) -> None:
        """Remove it, as nothing of it is worth keeping."""


class Scoring:
    """Where input and output are, until the last row is answered."""

    def __init__(
        self,
        output: Output | Stdout,
        mark: Mark,
        size: int,
        *,
        is_resumable: bool,
        strict: bool,
    ) -> None:
        """Take the output, where it is, and the size of the input in bytes, 0 if unknown."""
        self._output = output
        self._strict = strict
        self._resumable = None if isinstance(output, Stdout) or not is_resumable else output
        self._mark = mark  # what can be gone on with
        self._bad, self.rows, self.written = mark.bad, mark.rows, mark.output_bytes
        self._saved = monotonic()
        self._progress = Progress(size, mark)

    @property
    def bad(self) -> int:
        """How many rows were left out."""
        return self._bad

    def run(self, answer_all: Callable[[], None], input: str, unit: str, name: str) -> int:
        """Answer all rows of an input with a model; return the exit status.

        Raises what `score` raises.
        """
        try:
            answer_all()
            if not (self.rows or self._bad):
                raise InvalidInput(f"{input}: expected a {unit} for each instance, got none")
            if not isinstance(self._output, Stdout):
                self._output.finish(self._mark if self._resumable else None)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*(["run it again to go on"] if self._leave() else [])) from None
        except BaseException:
            self._leave()
            raise
        finally:
            self._progress.clear()
        left_out = f"; bad rows left out: {self._bad}" if self._bad else ""
        say(f"{self.rows} rows scored with {name}{self._progress.pace}{left_out}")
        return SOME_BAD if self._bad else 0

    def refuse(self, why: str) -> None:
        """Leave out a bad row. Raises CannotScore where that is the end of it."""
        if self._strict:
            raise CannotScore(why)
        self._bad += 1
        self._progress.clear()
        say(why)

    def write(self, data: bytes, rows: int = 0) -> None:
        """Write the answers to so many rows. Raises NotWritten, BrokenPipeError."""
        if rows or not self._mark.result:  # else it has its name already, and all its bytes
            self._output.write(data)
        self.written += len(data)
        self.rows += rows

    def show(self, input_bytes: int) -> None:
        """Show how far it is, on a terminal."""
        self._progress.show(self.rows, input_bytes)

    def passed(self, input_sha256: str, input_bytes: int, lines: int) -> None:
        """Note how far the input is, of which all answers are written."""
        self._mark = replace(
            self._mark,
            input_sha256=input_sha256,
            input_bytes=input_bytes,
            lines=lines,
            output_bytes=self.written,
            rows=self.rows,
            bad=self._bad,
        )
        if self._resumable is not None and monotonic() - self._saved >= SAVE_EVERY_S:
            self._resumable.save(self._mark)
            self._saved = monotonic()
        self.show(input_bytes)

    def _leave(self) -> bool:
        """Keep what can be gone on with, and nothing else; return whether anything was kept."""
        if self._resumable is not None and (self._mark.rows or self._mark.bad):
            with contextlib.suppress(ServiceError):
                self._resumable.save(self._mark)
            return True
        if not isinstance(self._output, Stdout):
            self._output.drop()
        return False


def go_on(
    part: Part, pass_to: Callable[[Mark], bool], unit: str, new: Mark, *, force: bool
) -> Mark:
    """Go on where the same job was stopped, else begin at `new`; return how far it is.

    pass_to: passes what a mark says, and returns whether the input is the same; else it is at its
    beginning. Raises CannotScore where that would cost what another job has done, unless `force`.
    """
    if (found := part.mark()) and (found.rows or found.bad):
        mark = found

        def is_same() -> bool:
            return pass_to(mark)

        path = part.output if found.result else part.path
        if check_same(found.job, new.job, path, found.rows, is_same, force=force):
            part.go_on(found.output_bytes)
            say(f"goes on after {unit} {found.lines}")
            return found
    part.begin(new)
    return new


def check_same(
    found: Identity,
    new: Identity,
    path: Path,
    rows: int,
    is_input_same: Callable[[], bool] = lambda: True,
    *,
    force: bool,
) -> bool:
    """Return whether a job that was stopped is this one, which else begins anew.

    Raises CannotScore where that would cost what another job has done, unless `force`.
    """
    changed = [what for what, value in new.items() if found.get(what) != value]
    if not changed and is_input_same():
        return True
    what = " and ".join(changed or ["the input"])
    if not force:
        raise CannotScore(
            f"{path}: holds {rows} rows of a job that was stopped, but {what} changed since: set "
            "that back to go on, choose another OUTPUT, or begin anew with --force"
        )
    say(f"begins anew, as {what} changed")
    return False
