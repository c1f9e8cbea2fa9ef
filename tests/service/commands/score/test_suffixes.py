from pathlib import Path

import pytest

from service.commands.score.suffixes import (
    ARROW,
    CSV,
    IMAGES,
    PARQUET,
    files_in,
    is_several,
    kind_of,
    suffix_of,
    without,
)


def test_a_kind_is_known_by_the_suffix() -> None:
    kinds = {"a.csv": CSV, "a.b.CSV.GZ": CSV, "a.csv.zst": CSV, "a.pq": PARQUET, "x/a.JPG": IMAGES}
    kinds |= {"a.feather": ARROW}
    for path, kind in kinds.items():
        assert kind_of(path) == kind
    for path in ("a", "a.gz", "a.tar.gz", "a.jsonl", "csv", ".csv"):
        assert kind_of(path) is None
    assert (suffix_of("a.b.csv.gz"), suffix_of("a.b.csv"), suffix_of("a")) == (
        ".csv.gz",
        ".csv",
        "",
    )
    assert without("x.y/a.csv.gz", CSV.suffixes) == "x.y/a"
    assert without("a.csv", PARQUET.suffixes) == "a.csv"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.csv",
        "a.csv.gz",
        "sub/c.csv",
        "sub/.d.csv",
        "_temporary/e.csv",
        "f.txt",
        "[g].csv",
    ):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in/h.csv").mkdir()
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("input", "names"),
    [
        ("in", ["[g].csv", "a.csv.gz", "b.csv", "sub/c.csv"]),
        ("in/", ["[g].csv", "a.csv.gz", "b.csv", "sub/c.csv"]),
        ("in/*.csv", ["[g].csv", "b.csv"]),
        ("in/**/*.csv", ["[g].csv", "b.csv", "sub/c.csv"]),
        ("in/**/**/*.csv", ["[g].csv", "b.csv", "sub/c.csv"]),  # each once
        ("in/_temporary/*", ["e.csv"]),  # which is named
        ("*/sub/*", ["c.csv"]),
        ("in/*.parquet", []),
    ],
)
def test_files_of_a_folder_or_a_pattern_are_in_order(input: str, names: list[str]) -> None:
    assert is_several(input)
    assert [each.name for each in files_in(input)] == names


@pytest.mark.usefixtures("folder")
def test_the_output_is_no_input(folder: Path) -> None:
    assert [each.name for each in files_in("in", [folder / "in/sub"])] == [
        "[g].csv",
        "a.csv.gz",
        "b.csv",
    ]


@pytest.mark.usefixtures("folder")
def test_a_file_is_no_pattern() -> None:
    for input in ("in/[g].csv", "in/b.csv", "-", "no.csv"):
        assert not is_several(input)
