"""Scoring in columns: from the first block to the last, whatever INPUT and OUTPUT are.

    a file -> blocks -> worker processes -> bytes, in order -> OUTPUT.part -> OUTPUT

One file goes into one, and is gone on with after any block. Several go into one, or each into one
of a folder; these are gone on with after any file.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version as version_of
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from service.batch.answered import Position
from service.batch.scorer import Scorer
from service.commands.interrupts import no_interrupt
from service.commands.score.columns.folder import Entry, Folder
from service.commands.score.columns.pool import Pool, Step
from service.commands.score.columns.processes import Processes
from service.commands.score.columns.shipped import shipped
from service.commands.score.columns.sources import Reading, Source, reading, sources_of
from service.commands.score.columns.steps import Passed, Steps, naming
from service.commands.score.columns.worker import be_small
from service.commands.score.columns.writers import Writer
from service.commands.score.identity import Identity, identity_of
from service.commands.score.options import Cluster
from service.commands.score.output import Mark, Part
from service.commands.score.scoring import Scoring, check_same, go_on
from service.commands.score.suffixes import Kind, without
from service.commands.terminal import Stdout, say
from service.errors import CannotScore
from service.settings import Settings


class Plan(Struct, frozen=True, kw_only=True):
    """What is asked for."""

    model: str
    input: str
    output: str
    input_kind: Kind | None  # of what has no suffix
    output_kind: Kind
    output_suffix: str
    is_several: bool  # whether INPUT is a folder or a pattern
    is_folder: bool  # whether OUTPUT is one
    workers: int  # 0: as many as a cluster has cores
    on: Cluster | None
    keep: bool
    strict: bool
    force: bool


def score_in_columns(plan: Plan, settings: Settings, processes: Processes) -> int:
    """Score files; return the exit status. Raises as `score`."""
    be_small()
    part = _output(plan)
    if part is not None:
        part.check()
        part.is_converted_beside = plan.workers > 1
    with reading(plan.input):
        written = None if part is None else Path(os.path.realpath(plan.output))
        sources = sources_of(plan.input, plan.input_kind, written)
        sources[0].check()
    scorer = Scorer(plan.model, settings)
    steps = Steps(Reading(scorer, plan.keep), plan.output_kind, plan.output_suffix)
    identity = _identity(plan, sources, scorer, settings)
    columns = Columns(plan, sources, scorer, steps, identity, processes)
    if isinstance(part, Folder):
        return columns.each_into_one(part)
    if plan.is_several and not sources[0].images:
        return columns.all_into_one(part)
    return columns.one_into_one(part)


def _output(plan: Plan) -> Part | Folder | None:
    if plan.output == "-":
        return None
    if plan.is_folder:
        return Folder(Path(plan.output), force=plan.force)
    return Part(Path(plan.output), force=plan.force)


def _identity(plan: Plan, sources: list[Source], scorer: Scorer, settings: Settings) -> Identity:
    formats = f"{sources[0].kind.name} {plan.output_suffix}"
    identity = identity_of(
        scorer.model, settings, formats=formats, keep=plan.keep, strict=plan.strict
    )
    return identity | {
        "the way": "columns",
        "whether rows are run together": scorer.rows,
        "pyarrow": version_of("pyarrow"),
    }


class Columns:
    """A job, and the ways that it may go."""

    def __init__(
        self,
        plan: Plan,
        sources: list[Source],
        scorer: Scorer,
        steps: Steps,
        identity: Identity,
        processes: Processes,
    ) -> None:
        """Take the finished parts."""
        self._processes = processes
        self._plan = plan
        self._sources = sources
        self._scorer = scorer
        self._steps = steps
        self._new = Mark(job=identity)

    def one_into_one(self, part: Part | None) -> int:
        """Answer one source."""
        (source,) = self._sources
        is_file = source.is_file
        with contextlib.ExitStack() as stack:
            input = stack.enter_context(self._steps.open(source))

            def pass_to(mark: Mark) -> bool:
                nonlocal input
                position = Position(mark.input_bytes, mark.lines, mark.input_sha256)
                is_same = is_file and input.pass_to(position)
                if is_file and not is_same:
                    input = stack.enter_context(self._steps.open(source))
                return is_same

            writer = self._steps.writer_for(input)
            mark = self._begun(stack, part, pass_to, writer, input.unit)
            scoring = self._scoring(part, mark, is_resumable=is_file)
            steps = self._steps.of_one(source, input, writer)
            return self._into_one(scoring, steps, writer, input.unit)

    def all_into_one(self, part: Part | None) -> int:
        """Answer several sources, one after the other."""
        self._steps.has_files = True
        with naming(self._sources[0]), self._steps.open(self._sources[0]) as input:
            writer, unit = self._steps.writer_for(input), input.unit

        def pass_to(mark: Mark) -> bool:
            found = self._steps.passed(self._sources[: mark.lines])
            return found == Position(mark.input_bytes, mark.lines, mark.input_sha256)

        with contextlib.ExitStack() as stack:
            mark = self._begun(stack, part, pass_to, writer, "file")
            scoring = self._scoring(part, mark, is_resumable=True)
            start = Position(mark.input_bytes, mark.lines, mark.input_sha256)
            steps = self._steps.of_several(self._sources[mark.lines :], start, writer)
            return self._into_one(scoring, steps, writer, unit)

    def each_into_one(self, folder: Folder) -> int:
        """Answer several sources, each into a file of the folder."""
        names = self._names()
        with folder:
            done = self._done(folder, names)
            folder.go_on(self._new.job, list(done.values()))
            if done:
                say(f"goes on after {len(done)} of {len(names)} files")
            rest = [each for each in self._sources if each.name not in done]
            return self._into_folder(folder, names, rest, list(done.values()))

    def _into_folder(
        self, folder: Folder, names: dict[str, str], rest: list[Source], done: list[Entry]
    ) -> int:
        """Answer the sources that are left."""
        rows, bad = sum(each.rows for each in done), sum(each.bad for each in done)
        start = Position(sum(each.input_bytes for each in done), len(done), "")
        mark = replace(self._new, rows=rows, bad=bad, input_bytes=start.bytes)
        scoring = self._scoring(folder, mark, is_resumable=True)

        def begin_or_end(passed: Passed) -> None:
            nonlocal rows, bad
            if passed.end is None:
                folder.begin_file(names[passed.source.name], passed.writer.convert)
                scoring.write(passed.writer.head())
                rows, bad = scoring.rows, scoring.bad
            else:
                scoring.write(passed.writer.tail())
                read = passed.source.name, passed.end.bytes, passed.end.sha256
                counts = scoring.rows - rows, scoring.bad - bad
                folder.end_file(read, *counts)

        def answer_all() -> None:
            self._answer(scoring, self._steps.of_several(rest, start, None), begin_or_end)

        return scoring.run(answer_all, self._plan.input, "row", self._scorer.name)

    def _names(self) -> dict[str, str]:
        """Return the file that each source goes into. Raises CannotScore where two would be one."""
        names: dict[str, str] = {}
        for each in self._sources:
            name = without(each.name, each.kind.suffixes) + self._plan.output_suffix
            if name in names.values():
                raise CannotScore(f"{each.name}: expected one file that becomes {name}, got two")
            names[each.name] = name
        return names

    def _done(self, folder: Folder, names: dict[str, str]) -> dict[str, Entry]:
        """Return what is complete of a folder that was begun. Raises CannotScore."""
        manifest = folder.manifest()
        if manifest is None:
            return {}
        found = {each.input: each for each in manifest.files}
        rows = sum(each.rows for each in found.values())
        if not check_same(manifest.job, self._new.job, folder.path, rows, force=self._plan.force):
            return {}
        done = {}
        for source in self._sources:
            entry = found.get(source.name)
            if entry is None:
                continue
            if entry.output != names[source.name] or not folder.is_whole(entry):
                say(f"{entry.output}: is not as it was written; it is made again")
            elif self._steps.end_of(source).sha256 != entry.input_sha256:
                say(f"{source.name}: changed since; {entry.output} is made again")
            else:
                done[source.name] = entry
        return done

    def _begun(
        self,
        stack: contextlib.ExitStack,
        part: Part | None,
        pass_to: Callable[[Mark], bool],
        writer: Writer,
        unit: str,
    ) -> Mark:
        """Hold the part as long as the stack; return where it is."""
        if part is None:
            return self._new
        part.convert = writer.convert
        stack.enter_context(part)
        return go_on(part, pass_to, unit, self._new, force=self._plan.force)

    def _scoring(self, output: Part | Folder | None, mark: Mark, *, is_resumable: bool) -> Scoring:
        sizes = [each.size for each in self._sources]
        return Scoring(
            output or Stdout(),
            mark,
            sum(sizes) if all(sizes) else 0,
            is_resumable=is_resumable,
            strict=self._plan.strict,
        )

    def _into_one(
        self, scoring: Scoring, steps: Iterable[Step[Passed]], writer: Writer, unit: str
    ) -> int:
        def answer_all() -> None:
            if not scoring.written:
                scoring.write(writer.head())
            self._answer(scoring, steps, lambda _: None)
            scoring.write(writer.tail())

        return scoring.run(answer_all, self._plan.input, unit, self._scorer.name)

    def _answer(
        self,
        scoring: Scoring,
        steps: Iterable[Step[Passed]],
        begin_or_end: Callable[[Passed], None],
    ) -> None:
        """Answer all steps; call for those where a file begins or ends."""
        with self._pool() as pool:
            for passed, result in pool.answer(steps):
                if result is None:
                    begin_or_end(passed)
                else:
                    for why in result.bad:
                        scoring.refuse(why)
                    scoring.write(result.data, result.rows)
                if (position := passed.position) is not None:
                    scoring.passed(position.sha256, position.bytes, position.number)
                else:
                    scoring.show(passed.bytes)

    @contextlib.contextmanager
    def _pool(self) -> Iterator[Pool]:
        """Have what answers. Raises CannotScore where there is no cluster."""
        plan, scorer = self._plan, self._scorer
        if plan.on is None:
            self._processes.open(scorer)
            with Pool(scorer, plan.workers, self._processes if plan.workers > 1 else None) as pool:
                yield pool
            return
        with no_interrupt():
            from service.commands.score.columns.on_ray import Actors, connected

        model = shipped(scorer.place, scorer)
        with connected(plan.on.address):
            actors = Actors(model)
            with Pool(scorer, plan.workers or actors.cores, actors) as pool:
                yield pool
