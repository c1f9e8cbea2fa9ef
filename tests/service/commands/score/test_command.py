"""Which way a job goes, and what is said where it can go none."""

import os
from pathlib import Path

import pytest

from service.commands.score.columns.worker import Task
from tests.support.scoring import NAMES, ROWS, Run, csv_text

COLUMNS = pytest.mark.parametrize("way", ["columns"], indirect=True)


@pytest.fixture(autouse=True)
def files(run: Run) -> None:
    for name in ("in.csv", "in", "x/in.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(csv_text(ROWS, NAMES))
    Path("in.jsonl").write_text("[1,2,3,4]\n")
    Path("y").mkdir()


@pytest.mark.parametrize(
    ("way", "arguments", "is_in_columns"),
    [
        ("columns", ["in.csv", "out.csv"], True),
        ("columns", ["in.csv", "out.parquet"], True),
        ("columns", ["in", "out", "--format", "csv"], True),
        ("columns", ["in.csv", "out.jsonl"], False),
        ("columns", ["in.jsonl", "out.csv"], False),
        ("rows", ["in.csv", "out.csv"], False),
    ],
    indirect=["way"],
)
def test_csv_goes_in_columns_where_it_can(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], is_in_columns: bool
) -> None:
    ran = []
    task_run = Task.run
    monkeypatch.setattr(Task, "run", lambda *what: ran.append(what) or task_run(*what))
    assert run("toy", *arguments)[0] == 0
    assert bool(ran) == is_in_columns


@pytest.mark.parametrize(
    ("way", "arguments", "sentence"),
    [
        ("rows", ["in.parquet", "o"], "in.parquet: expected pyarrow for .parquet: "
         "install the extra batch"),
        ("rows", ["in.csv", "o.csv.gz"], "o.csv.gz: expected pyarrow for .csv.gz: "
         "install the extra batch"),
        ("rows", ["x", "o"], "x: expected pyarrow for csv: install the extra batch"),
        ("rows", ["in.csv", "o.csv", "--workers", "2"],
         "--workers: expected pyarrow for several: install the extra batch"),
        ("columns", ["in.parquet", "o.jsonl"],
         "o.jsonl: expected CSV, Parquet or Arrow, as INPUT is parquet"),
        ("columns", ["in.jsonl", "o.parquet"],
         "o.parquet: expected CSV or JSON Lines, as INPUT is jsonl"),
        ("columns", ["x", "o.jsonl"], "x: expected one file, as OUTPUT is jsonl"),
        ("columns", ["in.csv.gz", "o.jsonl"],
         "o.jsonl: expected CSV, Parquet or Arrow, as INPUT is compressed"),
        ("columns", ["in.jsonl", "o.csv.gz"],
         "o.csv.gz: expected CSV or JSON Lines that is not compressed"),
        ("columns", ["in.jsonl", "o.csv", "--workers", "2"],
         "--workers: expected 1 from jsonl to csv, got 2"),
        ("columns", ["in.csv", "o.png"], "o.png: expected a table, got images"),
        ("columns", ["in.csv", "o", "--format", "xml"],
         "--format: expected arrow, arrows, csv, jsonl, msgpack or parquet, got 'xml'"),
        ("columns", ["in.csv", "-", "--format", "parquet"],
         "--format: expected csv or arrows for stdout, got parquet, which has to be a file"),
        ("columns", ["y", "o"], "y: expected files of CSV, Parquet, Arrow or images, got none"),
        ("columns", ["-", "o", "--format", "parquet"],
         "-: expected a file for Parquet, which is read from its end"),
    ],
    indirect=["way"],
)  # fmt: skip
def test_what_cannot_go_is_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    before = sorted(os.listdir())
    assert run("toy", *arguments) == (1, f"torchlit: {sentence}\n")
    assert sorted(os.listdir()) == before


@COLUMNS
def test_files_of_several_kinds_are_refused(run: Run) -> None:
    Path("x/in.parquet").touch()
    sentence = "torchlit: x: expected files of one kind, got csv and parquet: give a pattern\n"
    assert run("toy", "x", "o") == (1, sentence)
    assert run("toy", "x/*.csv", "o")[0] == 0
