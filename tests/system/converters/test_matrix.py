"""Models as people bring them: each file answers as the library that trained it, in every way.

cases.toml says what the files are, wrong.toml which of their answers are known to be wrong.
"""

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from docs.reference import converters
from tests.support.processes import Process, running
from tests.system.converters import ways
from tests.system.converters.ways import Answer, Asked

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent
ENVIRONMENT = ROOT / ".venv/converters"
CASES = tomllib.loads((HERE / "cases.toml").read_text())
TOLERANCES = {name: each["value"] for name, each in CASES.pop("tolerance").items()}
WRONG = tomllib.loads((HERE / "wrong.toml").read_text())
LIES = tomllib.loads((HERE / "lies.toml").read_text())

pytestmark = pytest.mark.converters


def cells(way: str) -> pytest.MarkDecorator:
    """Parametrize a test over all files; those that are known to be wrong must fail."""
    reasons = WRONG.get(way, {})
    assert reasons.keys() <= CASES.keys()
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                name,
                marks=pytest.mark.xfail(raises=AssertionError, strict=True, reason=reasons[name])
                if name in reasons
                else (),
            )
            for name in CASES
        ],
    )


def run(program: str, *arguments: Path) -> str:
    """Run a program of this folder in the environment of requirements.txt; return its output."""
    done = subprocess.run(
        [ENVIRONMENT / "bin/python", HERE / program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def locale() -> Iterator[None]:
    """Have the locale that files need which read texts, here and in processes started here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCPATH", str(ENVIRONMENT / "locale"))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `models` and `answers`, as make.py makes them."""
    folder = tmp_path_factory.mktemp("made")
    run("make.py", folder / "models", folder / "answers")
    return folder


@pytest.fixture(scope="module")
def service(made: Path) -> Iterator[Process]:
    with running(models_dir=made / "models", watch=False) as service:
        yield service


@pytest.fixture
def asked(made: Path, name: str) -> Asked:
    return Asked.load(made / "answers" / f"{name}.json")


def check(got: Answer, asked: Asked) -> None:
    """Hold an answer against the library's."""
    expected = ways.right(asked)
    if expected.label is not None:
        assert got.label is not None
        assert list(map(str, got.label)) == list(map(str, expected.label))
    assert got.numbers.shape == expected.numbers.shape
    largest = max(1, np.abs(expected.numbers).max())
    tolerance = TOLERANCES[CASES[asked.name].get("tolerance", "float32")]
    assert np.abs(got.numbers - expected.numbers).max() <= tolerance * largest


def check_each(ask: Callable[[Asked], Answer], asked: Asked) -> None:
    """Ask one row, and all of them."""
    several = (asked.rows(slice(1)), asked)
    with ThreadPoolExecutor(2) as threads:
        for some, got in zip(several, threads.map(ask, several), strict=True):
            check(got, some)


def test_every_file_is_made(made: Path) -> None:
    names = {path.stem for path in (made / "answers").iterdir()}
    assert names == CASES.keys()
    assert len(names) >= 40


def test_every_file_is_served(service: Process) -> None:
    index = service.post("/v2/repository/index").json()
    assert {each["name"]: each["reason"] for each in index if each["state"] != "READY"} == {}
    assert len(index) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_the_file_itself_answers_as_the_library(made: Path, asked: Asked) -> None:
    """Else what is wrong below is not the service's fault."""
    path = made / "models" / asked.name / "1" / "model.onnx"
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = (ways.of_runtime(each, session.run(None, each.arrays)) for each in asked.requests())
    check(ways.one_after_the_other(answers), asked)


@cells("predict")
def test_predict(service: Process, asked: Asked) -> None:
    check_each(lambda some: ways.predict(service, some), asked)
    if asked.is_table:  # in the order of the inputs too
        check(ways.predict(service, asked, named=False), asked)


@cells("v2_json")
def test_v2_json(service: Process, asked: Asked) -> None:
    check_each(lambda some: ways.v2_json(service, some), asked)


@cells("v2_binary")
def test_v2_binary(service: Process, asked: Asked) -> None:
    check_each(lambda some: ways.v2_binary(service, some), asked)


@cells("score")
def test_score(made: Path, asked: Asked, tmp_path: Path) -> None:
    def ask(some: Asked) -> Answer:
        folder = tmp_path / str(some.count)
        folder.mkdir()
        return ways.score(made / "models", some, folder)

    check_each(ask, asked)


@cells("scorer")
def test_scorer(made: Path, asked: Asked) -> None:
    check_each(lambda some: ways.scorer(made / "models", some), asked)


def test_the_conversions_that_lie_still_do() -> None:
    """What is repaired goes from the table, or gets the versions of before."""
    seen = json.loads(run("lies.py"))
    assert seen == {name: True for name, lie in LIES.items() if lie["is_checked"]}


def test_the_table_is_printed() -> None:
    """Each cell of it was held above: an answer that is wrong there must be, and no other may."""
    print("\n" + converters())
