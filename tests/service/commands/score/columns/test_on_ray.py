"""What `--on` says where it cannot be done. Ray itself answers in tests/system/engines."""

import sys
from pathlib import Path

import pytest

from tests.support.scoring import NAMES, ROWS, Run, csv_text


@pytest.mark.parametrize("way", ["columns"], indirect=True)
@pytest.mark.parametrize(
    ("on", "output", "why"),
    [
        ("spark", "out.csv", "--on: expected ray or ray=ADDRESS, got 'spark'"),
        ("ray=", "out.csv", "--on: expected ray or ray=ADDRESS, got 'ray='"),
        ("ray", "out.csv", "--on: expected Ray: install the extra ray"),
        ("ray", "out.jsonl", "--on: expected CSV, Parquet or Arrow as OUTPUT, got jsonl"),
    ],
)
def test_what_is_expected_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch, on: str, output: str, why: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    Path("in.csv").write_text(csv_text(ROWS, NAMES))
    assert run("toy", "in.csv", output, "--on", on) == (1, f"torchlit: {why}\n")
    assert not list(Path().glob("out*"))


def test_without_columns_there_are_no_actors(run: Run) -> None:
    Path("in.csv").write_text(csv_text(ROWS, NAMES))
    expected = "torchlit: --on: expected pyarrow: install the extra batch\n"
    assert run("toy", "in.csv", "out.csv", "--on", "ray") == (1, expected)
