"""`score` in columns: the same answers from every kind of file into every other, whatever stops it.

What holds for CSV with pyarrow and without is in test_job.py of the folder above: that is the
oracle.
"""

import os
import shutil
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, feather, parquet

from service.batch import csv_input, image_blocks, table_blocks
from service.commands.score.columns.worker import Task
from tests.support import drawings
from tests.support.scoring import NAMES, ROWS, Run, csv_text, table, values

COUNT = 20


@pytest.fixture
def way() -> str:
    return "columns"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file of a few rows be several blocks."""
    monkeypatch.setattr(csv_input, "BLOCK_BYTES", 64)
    monkeypatch.setattr(table_blocks, "MOST_ROWS", 3)
    monkeypatch.setattr(image_blocks, "MOST_IMAGES", 3)


def rows() -> pa.Table:
    """Features, and a column beside them."""
    random = np.random.default_rng(0)
    names = pa.array([f"r, {place}" for place in range(COUNT)])
    return pa.table({"id": names} | {each: random.uniform(0, 9, COUNT) for each in NAMES})


def write(path: str, rows: pa.Table) -> None:
    """Write a table as what its suffix says."""
    if path.endswith(".parquet"):
        parquet.write_table(rows, path, row_group_size=8)
    elif path.endswith(".arrows"):
        with pa.ipc.new_stream(path, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=8)
    elif path.endswith(".feather"):
        feather.write_feather(rows, path, chunksize=8)
    else:
        codec = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
        with pa.output_stream(path, compression=codec) as file:
            csv.write_csv(rows, file)


def read(path: str) -> pa.Table:
    """Read a table of what its suffix says."""
    if path.endswith(".parquet"):
        return parquet.read_table(path)
    if path.endswith(".arrows"):
        return pa.ipc.open_stream(path).read_all()
    if path.endswith(".arrow"):
        return feather.read_table(path)
    codec = {"gz": "gzip", "zst": "zstd"}.get(path.rpartition(".")[2])
    with pa.input_stream(path, compression=codec) as file:
        return csv.read_csv(file)


INPUTS = ["in.csv", "in.csv.gz", "in.csv.zst", "in.parquet", "in.feather", "in.arrows"]
OUTPUTS = ["out.csv", "out.csv.gz", "out.csv.zst", "out.parquet", "out.arrow", "out.arrows"]
PAIRS = list(zip(INPUTS, [*OUTPUTS[1:], OUTPUTS[0]], strict=True))


@pytest.fixture
def expected(run: Run) -> list[dict[str, Any]]:
    """The answers to `rows`, of CSV into CSV."""
    write("expected.csv", rows())
    assert run("toy", "expected.csv", "expected.out.csv", "--keep")[0] == 0
    answers = csv.read_csv("expected.out.csv").drop_columns("line").to_pylist()
    assert len(answers) == COUNT
    Path("expected.csv").unlink()
    return answers


@pytest.mark.parametrize("input", INPUTS)
def test_any_input_has_the_answers_of_csv(
    run: Run, expected: list[dict[str, Any]], input: str
) -> None:
    write(input, rows())
    status, said = run("toy", input, "out.parquet", "--keep")
    assert (status, said) == (0, f"torchlit: {COUNT} rows scored with toy/1\n")
    found = read("out.parquet")
    number, first = ("line", 2) if "csv" in input else ("row", 1)
    assert found.column(number).to_pylist() == list(range(first, first + COUNT))
    assert found.drop_columns(number).to_pylist() == expected


@pytest.mark.parametrize("output", OUTPUTS)
def test_any_output_says_the_same(run: Run, expected: list[dict[str, Any]], output: str) -> None:
    write("in.parquet", rows())
    assert run("toy", "in.parquet", output, "--keep")[0] == 0
    assert sorted(os.listdir()) == sorted(["in.parquet", "models", output, "expected.out.csv"])
    answers = read(output)
    assert answers.column_names == ["row", "id", "label", "probability", "red", "green", "blue"]
    assert answers.column("row").to_pylist() == list(range(1, COUNT + 1))
    assert answers.drop_columns("row").to_pylist() == expected


def interrupted(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C be pressed in a block, from 1; never again."""
    run, calls = Task.run, []

    def interrupt(self: Task, scorer: Any) -> Any:
        calls.append(None)
        if len(calls) == at:
            raise KeyboardInterrupt
        return run(self, scorer)

    monkeypatch.setattr(Task, "run", interrupt)


@pytest.mark.parametrize(
    ("input", "output"), list(zip(INPUTS, [*OUTPUTS[1:], OUTPUTS[0]], strict=True))
)
def test_a_job_that_was_stopped_goes_on_and_writes_the_same_bytes(
    run: Run, monkeypatch: pytest.MonkeyPatch, input: str, output: str
) -> None:
    write(input, rows())
    whole = f"whole-{output}"
    assert run("toy", input, whole)[0] == 0
    interrupted(4, monkeypatch)
    assert run("toy", input, output) == (130, "torchlit: interrupted; run it again to go on\n")
    assert Path(f"{output}.part").exists()
    assert not Path(output).exists()
    status, said = run("toy", input, output)
    assert status == 0
    assert said.startswith("torchlit: goes on after ")
    assert Path(output).read_bytes() == Path(whole).read_bytes()
    assert not list(Path().glob(f"{output}.*"))


@pytest.mark.parametrize("input", ["in.csv.gz", "in.parquet", "in.feather"])
def test_an_input_that_changed_is_noticed(
    run: Run, monkeypatch: pytest.MonkeyPatch, input: str
) -> None:
    write(input, rows())
    interrupted(4, monkeypatch)
    assert run("toy", input, "out.csv")[0] == 130
    changed = rows()
    column = changed.column("a").to_pylist()
    column[1] += 1
    write(input, changed.set_column(1, "a", pa.array(column)))
    status, said = run("toy", input, "out.csv")
    assert (status, "but the input changed since" in said) == (1, True)
    status, said = run("toy", input, "out.csv", "--force")
    assert (status, "begins anew, as the input changed" in said) == (0, True)
    assert len(table("out.csv")) == COUNT + 1


def test_bad_rows_of_parquet_are_told_by_their_numbers(run: Run) -> None:
    bad = rows().set_column(
        2, "b", pa.array([float("nan") if n in (4, 9) else 1.0 for n in range(COUNT)])
    )
    write("in.parquet", bad)
    status, said = run("toy", "in.parquet", "out.csv")
    why = "expected a finite number that fits float32 (at most 3.4e+38), got NaN"
    assert (status, said.splitlines()) == (
        3,
        [
            f"torchlit: row 5.b: {why}",
            f"torchlit: row 10.b: {why}",
            "torchlit: 18 rows scored with toy/1; bad rows left out: 2",
        ],
    )
    numbers = [row[0] for row in values("out.csv")[1:]]
    assert numbers == [n for n in range(1, COUNT + 1) if n not in (5, 10)]
    assert run("toy", "in.parquet", "no.csv", "--strict") == (1, f"torchlit: row 5.b: {why}\n")


# Several files.


def write_folder() -> None:
    Path("in/sub").mkdir(parents=True)
    Path("in/_SUCCESS").touch()
    for name, start, count in (("a", 0, 7), ("b", 7, 1), ("sub/c", 8, 12)):
        write(f"in/{name}.parquet", rows().slice(start, count))
    write("in/empty.parquet", rows().slice(0, 0))


def tree(folder: str) -> dict[str, bytes]:
    paths = sorted(each for each in Path(folder).rglob("*") if each.is_file())
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in paths}


def test_a_folder_becomes_a_folder(run: Run) -> None:
    write_folder()
    status, said = run("toy", "in", "out")
    assert (status, said) == (0, f"torchlit: {COUNT} rows scored with toy/1\n")
    assert list(tree("out")) == [
        "_SUCCESS",
        "a.parquet",
        "b.parquet",
        "empty.parquet",
        "manifest.json",
        "sub/c.parquet",
    ]
    assert not Path("out.part").exists()
    for name in ("a", "b", "sub/c", "empty"):
        assert run("toy", f"in/{name}.parquet", "one.parquet", "--force")[0] == (name == "empty")
        if name != "empty":
            assert tree("out")[f"{name}.parquet"] == Path("one.parquet").read_bytes()
    assert read("out/empty.parquet").num_rows == 0
    assert run("toy", "in", "out")[1].endswith("/out: is there already; --force replaces it\n")
    assert run("toy", "in/*.parquet", "out", "--force", "--format", "csv")[0] == 0
    assert sorted(tree("out")) == ["_SUCCESS", "a.csv", "b.csv", "empty.csv", "manifest.json"]


def test_a_folder_goes_on_after_the_files_that_are_complete(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder()
    assert run("toy", "in", "whole")[0] == 0
    interrupted(6, monkeypatch)  # three blocks are of a, one of b
    assert run("toy", "in", "out") == (130, "torchlit: interrupted; run it again to go on\n")
    status, said = run("toy", "in", "out")
    assert (status, said.splitlines()[0]) == (0, "torchlit: goes on after 3 of 4 files")
    assert tree("out") == tree("whole")


@pytest.mark.parametrize("what", ["output", "input", "job"])
def test_a_file_of_a_folder_that_differs_is_made_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    write_folder()
    interrupted(6, monkeypatch)
    assert run("toy", "in", "out")[0] == 130
    arguments = ["toy", "in", "out"]
    if what == "output":
        with open("out.part/a.parquet", "ab") as file:
            file.write(b"x")
        expected = "a.parquet: is not as it was written; it is made again"
    elif what == "input":
        write("in/a.parquet", rows().slice(1, 7))
        expected = "a.parquet: changed since; a.parquet is made again"
    else:
        arguments.append("--keep")
        status, said = run(*arguments)
        assert (status, "out.part: holds 8 rows of a job that was stopped, but --keep" in said) == (
            1,
            True,
        )
        arguments.append("--force")
        expected = "begins anew, as --keep changed"
    status, said = run(*arguments)
    assert (status, said.splitlines()[0]) == (0, f"torchlit: {expected}")
    arguments[2] = "whole"
    assert run(*arguments)[0] == 0
    assert tree("out") == tree("whole")


def test_several_files_become_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder()
    assert run("toy", "in", "whole.csv")[0] == 0
    head, *lines = table("whole.csv")
    assert head[:3] == ["file", "row", "label"]
    expected = [("a.parquet", n) for n in range(1, 8)] + [("b.parquet", 1)]
    expected += [("sub/c.parquet", n) for n in range(1, 13)]
    assert [(file, int(row)) for file, row, *_ in lines] == expected
    interrupted(6, monkeypatch)
    assert run("toy", "in", "out.csv")[0] == 130
    status, said = run("toy", "in", "out.csv")
    assert (status, said.splitlines()[0]) == (0, "torchlit: goes on after file 3")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_bad_rows_of_several_files_say_which(run: Run) -> None:
    Path("in").mkdir()
    Path("in/a.csv").write_text("1,2,3,4\n1,x,3,4\n")
    Path("in/b.csv").write_text("1,2,3,4\n")
    for output in ("out", "out.csv"):
        status, said = run("toy", "in", output)
        assert (status, said.splitlines()[0]) == (
            3,
            'torchlit: a.csv: line 2.b: expected a number, got "x"',
        )


def test_a_folder_of_others_is_never_replaced(run: Run) -> None:
    write_folder()
    for name, words in (
        ("out", "expected a folder of answers, or none, got another"),
        ("out.part", "expected one of a job that was stopped, got another"),
    ):
        Path(name).mkdir()
        Path(name, "precious").touch()
        status, said = run("toy", "in", "out", "--force")
        assert (status, words in said) == (1, True)
        assert Path(name, "precious").exists()
        shutil.rmtree(name)


# Images.


@pytest.fixture
def images(models_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for place in range(7):
        pixels = np.full((2, 3), place * 10, np.uint8)
        name = f"{'more/' if place > 4 else ''}{place}.png"
        (folder / name).write_bytes(drawings.png(pixels))
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.mark.usefixtures("images")
def test_a_folder_of_images_becomes_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = run("mean", "images", "whole.csv")
    assert status == 3
    assert said.splitlines()[0].startswith("torchlit: bad.jpg: ")
    assert table("whole.csv")[0] == ["file", "value"]
    names = [row[0] for row in table("whole.csv")[1:]]
    assert names == [*(f"{n}.png" for n in range(5)), "more/5.png", "more/6.png"]
    interrupted(2, monkeypatch)
    assert run("mean", "images/**", "out.csv")[0] == 130
    status, said = run("mean", "images/**", "out.csv")
    assert "goes on after file 3" in said
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    status, said = run("toy", "images", "no.csv")
    assert (status, said) == (1, "torchlit: toy/1: expected a model that takes images\n")


def test_what_is_wrong_with_a_file_among_others_names_it(run: Run) -> None:
    Path("in").mkdir()
    Path("in/a.csv").write_text(csv_text(ROWS, NAMES))
    Path("in/b.csv").write_text("x,y\n1,2\n")
    for output in ("out", "out.csv"):
        assert run("toy", "in", output) == (
            1,
            "torchlit: b.csv: line 1: expected a column a, got none\n",
        )


def test_a_pipe_that_has_a_name_is_read_once(run: Run) -> None:
    os.mkfifo("in.csv")
    writer = Thread(target=lambda: Path("in.csv").write_text(csv_text(ROWS, NAMES)), daemon=True)
    writer.start()
    assert run("toy", "in.csv", "out.csv")[0] == 0
    writer.join(10)
    assert len(table("out.csv")) == 1 + len(ROWS)
