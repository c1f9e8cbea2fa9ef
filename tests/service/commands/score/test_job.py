"""`python -m service score`: the answers of POST /predict for a file, whatever happens to it."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from service.commands.score import job as module
from service.commands.score.scoring import Scoring
from service.engine.model import Model
from service.settings import Settings
from service.settings import machine as resources
from service.settings.machine import Resources
from tests.support import drawings
from tests.support.processes import environment
from tests.support.scoring import NAMES, ROWS, Become, Run, csv_text, json_lines, table, values
from tests.support.toys import (
    body,
    save_bounded,
    save_columns,
    save_fussy,
    save_mean,
    save_same,
    save_sum,
    save_toy,
    serving,
    toy_card,
)

pytestmark = pytest.mark.anyio
# What is said of CSV holds with pyarrow and without.
BOTH_WAYS = pytest.mark.parametrize("way", ["rows", "columns"], indirect=True)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "service", "score", *map(str, arguments)]


async def predicted(models_dir: Path, model: str, rows: list[Any], **settings: Any) -> Any:
    async with serving(Settings(models_dir=models_dir, **settings)) as client:
        reply = await client.post("/predict", content=body(model, rows))
        return reply.json().get("predictions") or reply.json()["error"]


# What it answers.


@pytest.mark.parametrize("batch", [1, 3, 64])
@BOTH_WAYS
async def test_answers_are_those_of_predict(run: Run, models_dir: Path, batch: int) -> None:
    expected = await predicted(models_dir, "toy", ROWS, max_batch_size=batch)
    Path("in.csv").write_text(csv_text(ROWS, NAMES))
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("named.ndjson").write_text(
        "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n\n" for row in ROWS)
    )
    assert run("toy", "in.csv", "out.csv", max_batch_size=batch)[0] == 0
    assert run("toy/1", "in.jsonl", "out.jsonl", max_batch_size=batch)[0] == 0
    assert run("toy", "named.ndjson", "named.out", max_batch_size=batch)[0] == 0

    assert json_lines("out.jsonl") == [
        {"line": line, **answer} for line, answer in enumerate(expected, 1)
    ]
    assert json_lines("named.out") == [
        {"line": 2 * index + 1, **answer} for index, answer in enumerate(expected)
    ]
    header, *lines = table("out.csv")
    assert header == ["line", "label", "probability", "red", "green", "blue"]
    assert [
        (int(line), label, float(probability), [float(each) for each in others])
        for line, label, probability, *others in lines
    ] == [
        (line, each["label"], each["probability"], list(each["probabilities"].values()))
        for line, each in enumerate(expected, 2)
    ]


@BOTH_WAYS
def test_columns_of_a_file_are_taken_by_name(run: Run, models_dir: Path) -> None:
    save_columns(models_dir)
    Path("in.csv").write_text("id,paid,city,rooms,age\na,true,rome,2,1.5\nb,0,,x,0\nc,0,,-1,0\n")
    status, said = run("columns", "in.csv", "out.csv", "--keep")
    assert (status, 'line 3.rooms: expected a number, got "x"' in said) == (3, True)
    assert values("out.csv") == [
        ["line", "id", "price[0]", "town[0]"],
        [2, "a", 113.5, "rome"],
        [4, "c", -1.0, ""],
    ]


def test_rows_of_an_open_shape_are_answered_each_in_its_own(run: Run, models_dir: Path) -> None:
    save_same(models_dir, ["batch", "length"], name="series")
    Path("in.csv").write_text("1,2,3\n4,5\n")
    assert run("series", "in.csv", "out.jsonl")[0] == 0
    assert json_lines("out.jsonl") == [
        {"line": 1, "output": [1, 2, 3]},
        {"line": 2, "output": [4, 5]},
    ]


def test_a_model_is_also_a_path_and_input_and_output_may_differ_in_format(
    run: Run, models_dir: Path
) -> None:
    Path("in.csv").write_text(csv_text(ROWS))
    assert run("toy", "in.csv", "one.jsonl")[0] == 0
    assert run(str(models_dir / "toy/1/model.onnx"), "in.csv", "two.jsonl")[0] == 0
    Path("in").write_text(csv_text(ROWS))
    assert run("toy", "in", "three.jsonl", "--format", "csv")[0] == 0
    one, *others = (Path(f"{name}.jsonl").read_bytes() for name in ("one", "two", "three"))
    assert others == [one, one]
    odd = shutil.copy(models_dir / "toy/1/model.onnx", "[a]*.onnx")
    assert run(odd, "in.csv", "four.jsonl")[0] == 0
    assert Path("four.jsonl").read_bytes() == one
    status, said = run("toy", "in", "out")
    assert (status, said) == (
        1,
        "torchlit: --format: expected arrow, arrows, csv, jsonl, msgpack or parquet, as no file "
        "has such a suffix\n",
    )


@BOTH_WAYS
def test_the_highest_version_is_taken_and_not_another_when_it_is_broken(
    run: Run, models_dir: Path
) -> None:
    Path("in.csv").write_text(csv_text(ROWS))
    card = toy_card()
    save_toy(models_dir, 2, scale=3)
    said = run("toy", "in.csv", "out.csv")[1]
    assert "6 rows scored with toy/2" in said
    assert "toy/1" in run("toy", "in.csv", "out.csv", "--force", versions="1")[1]
    save_toy(models_dir, 10, card=card, scale=3)
    status, said = run("toy", "in.csv", "new.csv")
    assert status == 1
    assert said.startswith("torchlit: toy/10: example 'one': expected [")
    assert not Path("new.csv").exists()


@BOTH_WAYS
def test_a_header_that_does_not_fit_is_refused_and_nothing_is_left(run: Run) -> None:
    Path("in.csv").write_text("a,b,cc,d\n1,2,3,4,5\n")
    sentence = 'torchlit: line 1: expected a column c, got none; is it "cc"?\n'
    assert run("toy", "in.csv", "out.csv") == (1, sentence)
    assert sorted(os.listdir()) == ["in.csv", "models"]


@BOTH_WAYS
def test_a_file_without_rows_is_refused(run: Run) -> None:
    for name, text, unit in (
        ("in.csv", "", "line"),
        ("in.csv", "\ufeff\n  \n", "line"),
        ("in.csv", "a,b,c,d\n", "line"),
        ("in.jsonl", "\n\n", "line"),
        ("in.msgpack", "", "row"),
    ):
        Path(name).write_text(text)
        sentence = f"torchlit: {name}: expected a {unit} for each instance, got none\n"
        assert run("toy", name, "out.csv") == (1, sentence)
        assert not list(Path().glob("out.*"))


@BOTH_WAYS
async def test_images_intervals_targets_and_models_without_a_card(
    run: Run, models_dir: Path
) -> None:
    save_bounded(models_dir)
    save_bounded(models_dir / "two", targets=2)
    save_same(models_dir, ["batch", 2, 2])
    image = [[0, 1, 2], [3, 4, 8]]
    Path("image.jsonl").write_text(f"{image}\n{[0, 1, 2, 3, 4, 8]}\n")
    Path("image.csv").write_text("p1,p2,p3,p4,p5,p6\n0,1,2,3,4,8\n")
    Path("one.csv").write_text("3\n4\n")
    Path("two.csv").write_text("x_1,x_0\n4,3\n")
    Path("same.jsonl").write_text("[[1, 2], [3, 4]]\n")

    assert run("mean", "image.jsonl", "a.jsonl")[0] == 0
    assert json_lines("a.jsonl") == [{"line": 1, "value": 3.0}, {"line": 2, "value": 3.0}]
    assert run("mean", "image.csv", "a.csv")[0] == 0
    assert values("a.csv") == [["line", "value"], [2, 3.0]]
    assert run("bounded", "one.csv", "b.csv")[0] == 0
    assert values("b.csv") == [
        ["line", "value", "lower", "upper"],
        [1, 6, 5, 7],
        [2, 8, 7, 9],
    ]
    assert run("bounded", "two.csv", "c.csv", models_dir=models_dir / "two")[0] == 0
    names = [f"twice_{n}.{what}" for n in (0, 1) for what in ("value", "lower", "upper")]
    assert values("c.csv") == [
        ["line", *names],
        [2, 6, 5, 7, 8, 7, 9],
    ]
    assert run("same", "same.jsonl", "d.csv")[0] == 0
    places = ["output[0][0]", "output[0][1]", "output[1][0]", "output[1][1]"]
    assert values("d.csv") == [["line", *places], [1, 1, 2, 3, 4]]
    assert run("same", "same.jsonl", "d.jsonl")[0] == 0
    assert json_lines("d.jsonl") == [{"line": 1, "output": [[1.0, 2.0], [3.0, 4.0]]}]


async def test_pictures_are_read_as_predict_reads_them(run: Run, models_dir: Path) -> None:
    drawing = np.zeros((40, 40), np.uint8)
    drawing[10:30, 18:22] = 255
    pictures = [{"b64": b64encode(drawings.png(drawing)).decode()}, [0, 1, 2, 3, 4, 5]]
    expected = await predicted(models_dir, "mean", pictures)
    lines = [pictures[0] | {"id": 7}, pictures[1], {"b64": "?"}]
    Path("in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    status, said = run("mean", "in.jsonl", "out.jsonl", "--keep")
    assert status == 3
    error = await predicted(models_dir, "mean", lines[2:])
    assert said.splitlines()[0] == f"torchlit: {error.replace('instances[0]', 'line 3')}"
    assert json_lines("out.jsonl") == [
        {"line": 1, "kept": {"id": 7}, **expected[0]},
        {"line": 2, "kept": {}, **expected[1]},
    ]
    status, said = run("mean", "in.jsonl", "few.jsonl", "--keep", max_image_pixels=1500)
    assert "line 1.b64: expected an image of at most 1500 pixels, got 40 x 40" in said
    assert [each["line"] for each in json_lines("few.jsonl")] == [2]


@BOTH_WAYS
def test_what_is_beside_the_features_is_kept_if_asked_for(run: Run) -> None:
    Path("in.csv").write_text('id,a,b,"the, note",c,d\n7,1,2,"x\ny",3,4\n8,0,0,,0,0\n')
    assert run("toy", "in.csv", "out.csv", "--keep")[0] == 0
    header, first, second = table("out.csv")
    assert header[:4] == ["line", "id", "the, note", "label"]
    assert (first[:3], second[:3]) == (["2", "7", "x\ny"], ["4", "8", ""])
    assert run("toy", "in.csv", "out.jsonl", "--keep")[0] == 0
    kept = [each["kept"] for each in json_lines("out.jsonl")]
    assert kept == [{"id": "7", "the, note": "x\ny"}, {"id": "8", "the, note": ""}]
    Path("in.jsonl").write_text('{"a": 1, "b": 2, "c": 3, "d": 4, "id": [7]}\n[1, 2, 3, 4]\n')
    assert run("toy", "in.jsonl", "kept.jsonl", "--keep")[0] == 0
    assert [each["kept"] for each in json_lines("kept.jsonl")] == [{"id": [7]}, {}]
    assert run("toy", "in.jsonl", "strict.jsonl")[1].startswith(
        'torchlit: line 1: "id": unknown field; --keep copies such fields\n'
    )
    assert "--keep: expected JSON Lines" in run("toy", "in.jsonl", "no.csv", "--keep")[1]
    Path("label.csv").write_text("label,a,b,c,d\nx,1,2,3,4\n")
    assert "column 'label'" in run("toy", "label.csv", "no.csv", "--keep")[1]
    assert run("toy", "label.csv", "yes.jsonl", "--keep")[0] == 0
    Path("twice.csv").write_text("x,x,a,b,c,d\n1,2,1,2,3,4\n")
    assert "column 'x'" in run("toy", "twice.csv", "no.jsonl", "--keep")[1]
    assert not list(Path().glob("no.*"))


# Rows that do not fit.


@BOTH_WAYS
async def test_bad_rows_are_told_as_predict_tells_them_and_the_others_answered(
    run: Run, models_dir: Path
) -> None:
    bad: list[Any] = [[1, "wide", 3, 4], [1, 2, 3], [1, 2, 1e39, 4], {"a": 1}, 7]
    lines = [[1, 2, 3, 4], *bad, [0, 0, 0, 0]]
    Path("in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines) + "{")
    status, said = run("toy", "in.jsonl", "out.jsonl", max_batch_size=3)
    sentences = []
    for line, each in enumerate(bad, 2):
        error = await predicted(models_dir, "toy", [each])
        sentences.append("torchlit: " + error.replace("instances[0]", f"line {line}"))
    assert status == 3
    assert said.splitlines()[:5] == sentences
    assert said.splitlines()[5].startswith("torchlit: line 8: expected JSON, got: ")
    assert said.splitlines()[6:] == ["torchlit: 2 rows scored with toy/1; bad rows left out: 6"]
    assert [each["line"] for each in json_lines("out.jsonl")] == [1, 7]

    Path("in.csv").write_text("a,b,c,d\n1,2,3,4\n1,wide,3,4\n1,2,3\n0,0,0,nan\n0,0,0,1_0\n0,0,0,0")
    status, said = run("toy", "in.csv", "out.csv")
    assert status == 3
    assert said.splitlines() == [
        'torchlit: line 3.b: expected a number, got "wide"',
        "torchlit: line 4: expected 4 values, got 3",
        "torchlit: line 5.d: expected a finite number that fits float32 (at most 3.4e+38), got NaN",
        'torchlit: line 6.d: expected a number, got "1_0"',
        "torchlit: 2 rows scored with toy/1; bad rows left out: 4",
    ]
    assert [row[0] for row in table("out.csv")] == ["line", "2", "7"]


@BOTH_WAYS
def test_a_row_on_which_the_model_fails_is_a_bad_one(run: Run, models_dir: Path) -> None:
    save_fussy(models_dir)
    Path("in.csv").write_text("8\n7\n9\n")
    status, said = run("fussy", "in.csv", "out.csv")
    assert status == 3
    assert "line 2: the model answered NaN or infinity for this input: ask /v2 in binary\n" in said
    assert values("out.csv") == [["line", "output[0]"], [1, 1.0], [3, 0.5]]


@BOTH_WAYS
def test_each_of_many_bad_rows_is_told(run: Run) -> None:
    Path("in.csv").write_text("1,2,3,4\n" + "x,2,3,4\n" * 50)
    status, said = run("toy", "in.csv", "out.csv")
    assert status == 3
    *bad, last = said.splitlines()
    assert bad == [f'torchlit: line {n}.a: expected a number, got "x"' for n in range(2, 52)]
    assert last == "torchlit: 1 rows scored with toy/1; bad rows left out: 50"


def test_strict_stops_at_the_first_and_goes_on_when_it_was_corrected(run: Run) -> None:
    good = "1,2,3,4\n"
    Path("in.csv").write_text(good * 5 + "1,2,x,4\n" + good)
    assert run("toy", "in.csv", "out.csv", "--strict", max_batch_size=2) == (
        1,
        'torchlit: line 6.c: expected a number, got "x"\n',
    )
    assert not Path("out.csv").exists()
    Path("in.csv").write_text(good * 7)
    status, said = run("toy", "in.csv", "out.csv", "--strict", max_batch_size=2)
    assert status == 0
    assert "goes on after line 4\n" in said
    assert [row[0] for row in table("out.csv")] == ["line", *map(str, range(1, 8))]


def test_the_threads_of_a_model_are_not_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume would be lost at random: the answers may depend on how many there are."""
    monkeypatch.setattr(resources, "available", lambda: Resources(2, None, None))
    fast = property(lambda _: pytest.fail("what it costs was asked for"))
    monkeypatch.setattr(Model, "is_fast", fast)
    Path("in.csv").write_text(csv_text(ROWS))
    interrupt_at(3, monkeypatch)
    run("toy", "in.csv", "out.csv", max_batch_size=2)
    mark = json.loads(Path("out.csv.part.json").read_bytes())
    assert mark["job"]["the number of threads"] == 2


# What stops it before it begins.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["toys", "in.csv", "o.csv"], "toys: no such model in .*; did you mean toy\\?"),
        (["toy/2", "in.csv", "o.csv"], "toy/2: version: expected one of 1; got '2'"),
        (["sum", "in.csv", "o.csv"], "sum/1: expected one that takes rows, .* of a row"),
        (
            ["broken", "in.csv", "o.csv"],
            "broken/1: not a model that ONNX Runtime can open: it is cut .* \\(8 bytes\\)",
        ),
        (["no.onnx", "in.csv", "o.csv"], "no.onnx: cannot be read: No such file or directory"),
        (["toy", "no.csv", "o.csv"], "no.csv: cannot be read: No such file or directory"),
        (
            ["toy", "models", "o.csv"],
            "models: expected files of CSV, Parquet, Arrow or images, got none",
        ),
        (["toy", "in.csv", "there.csv"], ".*there.csv: is there already; --force replaces it"),
        (["toy", "in.csv", "in.csv", "--force"], ".*in.csv: expected another file than the one .*"),
        (
            ["toy", "in.csv", "pipe", "--force"],
            ".*/pipe: expected a file, or - for stdout, got a .*",
        ),
        (["toy", "o.csv.part", "o.csv"], ".*/o.csv.part: expected another file than the one .*"),
        (
            ["toy", "in.csv.bz2", "o.csv"],
            "in.csv.bz2: expected CSV, JSON Lines, Parquet or Arrow, got .bz2: decompress .*",
        ),
        (["toy", "in.csv", "o.csv.xz"], "o.csv.xz: expected CSV, .*, got .xz: write to - .*"),
        (["toy", "in.csv", "/dev/stdout"], "/dev/stdout: expected a file; stdout is -"),
        (["toy", "in.csv", "no/o.csv"], "/.*no/o.csv: expected a folder /.*/no to .*, got none"),
        (["toy", "in.csv", "in.csv/o"], "/.*/o: expected a folder /.*/in.csv to .*, got a file"),
        (["toy", "", "o.csv"], "INPUT and OUTPUT: expected paths, or -, got ''"),
        (["toy", "in.csv", ""], "INPUT and OUTPUT: expected paths, or -, got ''"),
    ],
)
@BOTH_WAYS
def test_what_cannot_begin_is_one_sentence(
    run: Run, models_dir: Path, arguments: list[str], sentence: str
) -> None:
    save_sum(models_dir)
    broken = models_dir / "broken/1/model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no model")
    Path("in.csv").write_text(csv_text(ROWS))
    Path("there.csv").write_text("precious")
    Path("o.csv.part").write_text("1,2,3,4\n")
    os.mkfifo("pipe")  # as a device would be, whose place a file must not take
    status, said = run(*arguments)
    assert status == 1
    assert re.fullmatch(f"torchlit: {sentence}\n", said), said
    assert Path("there.csv").read_text() == "precious"
    assert Path("pipe").is_fifo()
    assert Path("in.csv").read_bytes() == csv_text(ROWS).encode()
    assert Path("o.csv.part").read_text() == "1,2,3,4\n"
    assert [str(each) for each in Path().glob("o.csv*")] == ["o.csv.part"]


@BOTH_WAYS
def test_a_file_that_is_there_is_replaced_only_when_all_is_done(run: Run) -> None:
    Path("in.csv").write_text(csv_text(ROWS) + "x,1,2,3\n")
    Path("real.csv").write_text("old")
    Path("out.csv").symlink_to("real.csv")
    assert run("toy", "in.csv", "out.csv", "--force", "--strict")[0] == 1
    assert Path("out.csv").read_text() == "old"
    assert run("toy", "in.csv", "out.csv", "--force")[0] == 3
    assert Path("out.csv").is_symlink()
    assert len(table("real.csv")) == 7
    assert sorted(os.listdir()) == ["in.csv", "models", "out.csv", "real.csv"]


# What stops it on its way.

KILLS_ITSELF = """
import os, signal, sys
sys.modules["pyarrow"] = None
from service.commands.score import scoring as score
from service.__main__ import main
from service.commands.score.output import Part
save, left = Part.save, [5]
def save_and_die(self, mark):
    save(self, mark)
    left[0] -= 1
    if not left[0]:
        self.write(b"what was written after that, and half a li")
        os.kill(os.getpid(), signal.SIGKILL)
Part.save = save_and_die
score.SAVE_EVERY_S = 0
sys.exit(main(sys.argv[1:]))
"""
MANY = 1000


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a `kill -9` leaves it: the fifth batch of 7 rows was the last that counts."""
    folder = tmp_path_factory.mktemp("killed")
    path = save_toy(folder / "models", card=toy_card())
    outside = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(onnx.load(path), path, **outside)
    save_mean(folder / "models")
    random.seed(0)
    rows: list[list[Any]] = [[round(random.uniform(0, 9), 2) for _ in NAMES] for _ in range(MANY)]
    rows[10][2] = rows[500][2] = "bad"
    (folder / "in.csv").write_text(csv_text(rows, NAMES))
    done = subprocess.run(
        [sys.executable, "-c", KILLS_ITSELF, "score", "toy", "in.csv", "out.csv"],
        cwd=folder,
        env=environment(max_batch_size=7, models_dir="models")
        | {"PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(os.listdir(folder)) == ["in.csv", "models", "out.csv.part", "out.csv.part.json"]
    return folder


@pytest.fixture
def left(killed: Path, tmp_path: Path, models_dir: Path) -> None:
    """What a `kill -9` leaves, in `tmp_path`."""
    shutil.rmtree(models_dir)
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)


@pytest.mark.usefixtures("left")
def test_after_a_kill_it_goes_on_and_the_result_is_the_same_bytes(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    model_run = Model.run

    def count(self: Model, inputs: Any, *stop: Any) -> Any:
        ran.append(len(inputs[0]))
        return model_run(self, inputs, *stop)

    status, _ = run("toy", "in.csv", "whole.csv", max_batch_size=7)
    assert status == 3
    monkeypatch.setattr(Model, "run", count)
    status, said = run("toy", "in.csv", "out.csv", max_batch_size=7)
    assert status == 3
    assert said.startswith("torchlit: goes on after line 36\n")  # a header, 35 rows
    assert said.endswith("998 rows scored with toy/1; bad rows left out: 2\n")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sum(ran) == 998 - 34 + 1  # and the example
    assert not list(Path().glob("out.csv.*"))


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("input", "the input"),
        ("shorter", "the input"),
        ("pipe", "the input"),
        ("model", "the model"),
        ("weights", "the model"),
        ("max_batch_size", "TORCHLIT_MAX_BATCH_SIZE"),
        ("max_body_bytes", "TORCHLIT_MAX_BODY_BYTES"),
        ("keep", "--keep"),
        ("strict", "--strict"),
        ("format", "the formats"),
        ("provider", "the execution provider"),
    ],
)
def test_it_begins_anew_when_something_changed_and_only_if_told_to(
    run: Run, models_dir: Path, stream: Become, change: str, why: str
) -> None:
    text = Path("in.csv").read_bytes()
    arguments = ["toy", "in.csv", "out.csv"]
    settings = {"max_batch_size": 7}
    if change == "input":  # of the same length, in a row that was answered
        head, _, rest = text.partition(b"\r\n")
        Path("in.csv").write_bytes(head + b"\r\n" + rest.replace(b"1", b"2", 1))
    elif change == "shorter":
        Path("in.csv").write_bytes(b"".join(text.splitlines(keepends=True)[:20]))
    elif change == "pipe":
        arguments[1] = "-"
    elif change == "model":
        save_toy(models_dir, card=toy_card(description="Another."))
    elif change == "weights":
        with (models_dir / "toy/1/weights.bin").open("ab") as file:
            file.write(b"more")
    elif change == "format":
        arguments[1:2] = ["in", "--format", "jsonl"]
        os.symlink("in.csv", "in")
    elif change in ("keep", "strict"):
        arguments.append(f"--{change}")
    elif change == "provider":
        mark = json.loads(Path("out.csv.part.json").read_bytes())
        mark["job"]["the execution provider"] = "CUDAExecutionProvider"
        Path("out.csv.part.json").write_text(json.dumps(mark))
    else:
        settings[change] = 1000

    def feed() -> None:
        if change == "pipe":
            reader, writer = os.pipe()
            os.write(writer, text)  # there is room for 64 KiB
            os.close(writer)
            stream(0, reader)

    feed()
    before = Path("out.csv.part").read_bytes(), Path("out.csv.part.json").read_bytes()
    status, said = run(*arguments, **settings)
    assert status == 1
    path = Path("out.csv.part").resolve()
    assert said == (
        f"torchlit: {path}: holds 34 rows of a job that was stopped, but {why} changed since: "
        "set that back to go on, choose another OUTPUT, or begin anew with --force\n"
    )
    after = Path("out.csv.part").read_bytes(), Path("out.csv.part.json").read_bytes()
    assert after == before
    if change in ("strict", "format"):
        return
    feed()
    said = run(*arguments, "--force", **settings)[1]
    assert said.startswith(f"torchlit: begins anew, as {why} changed\n")
    feed()
    arguments[2] = "whole.csv"
    assert run(*arguments, **settings)[0] == 3
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.usefixtures("left")
def test_what_was_not_read_yet_may_change(run: Run) -> None:
    with open("in.csv", "a") as file:
        file.write("1,2,3,4\n")
    assert run("toy", "in.csv", "whole.csv", max_batch_size=7)[0] == 3
    assert "goes on" in run("toy", "in.csv", "out.csv", max_batch_size=7)[1]
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert len(table("out.csv")) == 1 + 999


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("damage", ["cut", "nonsense", "gone"])
def test_a_part_that_is_damaged_is_begun_anew(run: Run, damage: str) -> None:
    if damage == "cut":
        os.truncate("out.csv.part", 100)
    elif damage == "gone":
        Path("out.csv.part").unlink()
    else:
        Path("out.csv.part.json").write_text("{")
    assert run("toy", "in.csv", "whole.csv", max_batch_size=7)[0] == 3
    assert "goes on" not in run("toy", "in.csv", "out.csv", max_batch_size=7)[1]
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


def interrupt_at(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C be pressed in a batch, from 1; never again."""
    predict = module.predictions
    calls = []

    def interrupt(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == batch:
            raise KeyboardInterrupt
        return predict(*arguments)

    monkeypatch.setattr(module, "predictions", interrupt)


def test_ctrl_c_keeps_what_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in.csv").write_text(csv_text(ROWS))
    assert run("toy", "in.csv", "whole.csv", max_batch_size=2)[0] == 0
    interrupt_at(3, monkeypatch)
    status, said = run("toy", "in.csv", "out.csv", max_batch_size=2)
    assert (status, said) == (130, "torchlit: interrupted; run it again to go on\n")
    status, said = run("toy", "in.csv", "out.csv", max_batch_size=2)
    assert status == 0
    assert said.startswith("torchlit: goes on after line 4\n")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
    interrupt_at(1, monkeypatch)  # nothing is done then
    assert run("toy", "in.csv", "no.csv") == (130, "torchlit: interrupted\n")
    assert not list(Path().glob("no.*"))


@pytest.mark.slow
@BOTH_WAYS
@pytest.mark.parametrize("input", ["in.csv", "-"])
def test_a_file_that_is_cut_while_it_is_read_is_no_complete_one(
    run: Run, stream: Become, monkeypatch: pytest.MonkeyPatch, input: str
) -> None:
    size = Path("in.csv").write_text(csv_text(ROWS * 10_000))
    write = Scoring.write

    def write_and_cut(scoring: Scoring, data: bytes, rows: int = 0) -> None:
        os.truncate("in.csv", size // 2 - 3)
        write(scoring, data, rows)

    monkeypatch.setattr(Scoring, "write", write_and_cut)
    if input == "-":
        stream(0, os.open("in.csv", os.O_RDONLY))
    status, said = run("toy", input, "out.csv")
    assert status == 1
    expected = f"expected {size} bytes, got {size // 2 - 3}: it was cut while it was read"
    assert said == f"torchlit: {input}: cannot be read: {expected}\n"
    assert not Path("out.csv").exists()


def test_a_file_of_bad_rows_is_gone_on_with_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in.jsonl").write_text("[]\n" * 4 + "[1, 2, 3, 4]\n" * 2)
    interrupt_at(1, monkeypatch)
    assert run("toy", "in.jsonl", "out.jsonl", max_batch_size=2)[0] == 130
    status, said = run("toy", "in.jsonl", "out.jsonl", max_batch_size=2)
    assert (status, said.splitlines()) == (
        3,
        [
            "torchlit: goes on after line 4",
            "torchlit: 2 rows scored with toy/1; bad rows left out: 4",
        ],
    )


def test_what_speaks_of_the_old_bytes_is_replaced_before_them(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death right after it began anew must not leave a mark of bytes that are others now."""
    Path("in.csv").write_text(csv_text(ROWS))
    interrupt_at(3, monkeypatch)
    assert run("toy", "in.csv", "out.csv", max_batch_size=2)[0] == 130
    seen = []
    truncate = os.ftruncate

    def look(file: int, length: int) -> None:
        seen.append(json.loads(Path("out.csv.part.json").read_bytes())["rows"])
        truncate(file, length)

    monkeypatch.setattr(os, "ftruncate", look)
    assert run("toy", "in.csv", "out.csv", "--force", max_batch_size=3)[0] == 0
    assert seen == [0]


@pytest.mark.parametrize(
    ("way", "output"),
    [("rows", "out.csv"), ("columns", "out.csv"), ("columns", "out.parquet")],
    indirect=["way"],
)
@pytest.mark.parametrize("change", ["", "input", "setting", "force"])
def test_stopped_as_it_tidies_it_is_tidied_by_the_same_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, output: str, change: str
) -> None:
    Path("in.csv").write_text(csv_text([*ROWS, ["bad", 1, 1, 1]], NAMES))
    unlink = Path.unlink

    def interrupt(path: Path, missing_ok: bool = False) -> None:
        if path.name == f"{output}.part.json":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", interrupt)
        status, said = run("toy", "in.csv", output)
    assert status == 130
    assert said.endswith("interrupted; run it again to go on\n")
    before = Path(output).read_bytes()
    arguments = {"force": ["--force"], "setting": ["--strict"]}.get(change, [])
    if change == "input":
        with open("in.csv", "a") as file:
            file.write("1,1,1,1\n")
    status, said = run("toy", "in.csv", output, *arguments)
    if change in ("", "force"):
        assert status == 3
        assert said.endswith("6 rows scored with toy/1; bad rows left out: 1\n")
        assert not list(Path().glob("out.*.*"))
    else:
        assert status == 1
        assert "--force" in said
    assert Path(output).read_bytes() == before


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment_the_result_is_the_same(
    tmp_path: Path, models_dir: Path
) -> None:
    random.seed(3)
    rows: list[list[Any]] = [[random.uniform(0, 9) for _ in NAMES] for _ in range(300_000)]
    (tmp_path / "in.csv").write_text(csv_text(rows, NAMES))
    env = environment(models_dir=models_dir)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    subprocess.run(command("toy", tmp_path / "in.csv", whole), env=env, check=True)
    kills = 0
    while not out.exists():
        process = subprocess.Popen(command("toy", tmp_path / "in.csv", out), env=env)
        try:
            assert process.wait(timeout=random.uniform(1.7, 2.2)) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills > 1
    assert out.read_bytes() == whole.read_bytes()


# Pipes.


def heed_interrupts() -> None:
    """Undo what a shell does to what it runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_stdin_and_stdout_carry_rows_and_answers_until_ctrl_c(models_dir: Path) -> None:
    process = subprocess.Popen(
        command("toy", "-", "-", "--format", "csv"),
        env=environment(models_dir=models_dir, max_batch_size=1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(csv_text([["x", 0, 0, 0], *ROWS[:2]], NAMES).encode())
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(3)]  # at once: a batch is one row
    assert [line.split(b",")[0] for line in lines] == [b"line", b"3", b"4"]
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert said.decode().splitlines() == [
        'torchlit: line 2.a: expected a number, got "x"',
        "torchlit: interrupted",
    ]


@BOTH_WAYS
def test_a_reader_who_has_enough_ends_it_in_silence(run: Run, stream: Become) -> None:
    Path("in.csv").write_text(csv_text(ROWS))
    reader, writer = os.pipe()
    os.close(reader)
    stream(1, writer)
    assert run("toy", "in.csv", "-") == (141, "")


@BOTH_WAYS
def test_a_full_disk_is_one_sentence(run: Run, stream: Become) -> None:
    Path("in.csv").write_text(csv_text(ROWS))
    stream(1, os.open("/dev/full", os.O_WRONLY))
    sentence = "torchlit: stdout: cannot be written: No space left on device\n"
    assert run("toy", "in.csv", "-") == (1, sentence)


@BOTH_WAYS
def test_where_nothing_can_be_said_the_work_is_done(run: Run, stream: Become) -> None:
    Path("in.csv").write_text(csv_text([*ROWS, ["x"]]))
    stream(2, os.open("/dev/full", os.O_WRONLY))
    assert run("toy", "in.csv", "out.csv") == (3, "")
    assert len(table("out.csv")) == 7


@pytest.mark.parametrize(
    ("closed", "output", "sentence"),
    [
        (0, "out.jsonl", "torchlit: -: cannot be read: Bad file descriptor\n"),
        (1, "-", "torchlit: stdout: cannot be written: Bad file descriptor\n"),
        (2, "out.jsonl", ""),
    ],
)
def test_a_stream_that_is_closed_is_no_other_file(
    run: Run, stream: Become, closed: int, output: str, sentence: str
) -> None:
    Path("in.jsonl").write_text("[1, 2, 3, 4]\n")
    os.close(closed)
    status, said = run("toy", "in.jsonl" if closed else "-", output)
    assert (status, said) == (1 if sentence else 0, sentence)
    if not sentence:
        assert len(json_lines("out.jsonl")) == 1


@BOTH_WAYS
def test_a_pipe_leaves_nothing_of_a_file_that_was_there(run: Run, stream: Become) -> None:
    Path("out.csv.part").write_text("of another job, and longer than this one " * 99)
    Path("out.csv.part.json").write_text('{"job":{}}')
    reader, writer = os.pipe()
    os.write(writer, csv_text(ROWS).encode())
    os.close(writer)
    stream(0, reader)
    assert run("toy", "-", "out.csv")[0] == 0
    assert len(table("out.csv")) == 7
    assert not list(Path().glob("out.csv.*"))


def test_stdin_is_read_from_where_it_is(
    run: Run, stream: Become, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in.csv").write_text("# not for us\n" + csv_text(ROWS, NAMES))

    def read_a_line() -> None:
        file = os.open("in.csv", os.O_RDONLY)
        os.lseek(file, len("# not for us\n"), os.SEEK_SET)
        stream(0, file)

    read_a_line()
    assert run("toy", "-", "whole.csv", max_batch_size=2)[0] == 0
    assert [row[0] for row in table("whole.csv")] == ["line", *map(str, range(2, 8))]
    interrupt_at(3, monkeypatch)
    read_a_line()
    status, said = run("toy", "-", "out.csv", max_batch_size=2)
    assert (status, said) == (130, "torchlit: interrupted; run it again to go on\n")
    read_a_line()
    assert run("toy", "-", "out.csv", max_batch_size=2)[1].startswith("torchlit: goes on after")
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_what_is_done(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_text(ROWS * 5_000))
    ask, env = command("toy", tmp_path / "in.csv", "out.jsonl"), environment(models_dir=models_dir)
    limit = 1_000_000

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    root = Path(__file__).parents[4]
    env["PYTHONPATH"] = str(root)
    done = subprocess.run(
        ask, env=env, cwd=tmp_path, preexec_fn=fill, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("out.jsonl.part: cannot be written: File too large\n")
    assert len(done.stderr.splitlines()) == 1
    done = subprocess.run(ask, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("torchlit: goes on after line ")
    assert len(json_lines(str(tmp_path / "out.jsonl"))) == 30_000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(models_dir: Path, tmp_path: Path) -> None:
    """Peak resident memory; that of getrusage counts what was before exec."""
    code = (
        "import sys; from service.__main__ import main; status = main(sys.argv[1:]);"
        "(peak,) = (line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line);"
        "print(peak, file=sys.stderr); sys.exit(status)"
    )
    peaks = []
    for count in (2_000, 200_000):
        rows = np.random.default_rng(0).uniform(0, 9, (count, 4)).tolist()
        (tmp_path / "in.csv").write_text(csv_text(rows, NAMES))
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                code,
                "score",
                "toy",
                tmp_path / "in.csv",
                tmp_path / f"{count}.jsonl",
            ],
            env=environment(models_dir=models_dir),
            stderr=subprocess.PIPE,
            check=True,
        )
        peaks.append(int(done.stderr.split()[-1]) / 1000)
    small, large = peaks
    print(f"peak of 2,000 rows {small:.1f} MB, of 200,000 rows {large:.1f} MB")
    assert large - small < 5


# MessagePack.


def packed(*values: Any) -> bytes:
    return b"".join(map(msgspec.msgpack.encode, values))


async def test_messagepack_has_the_answers_of_json_lines(run: Run) -> None:
    values: list[Any] = [*ROWS, dict(zip(NAMES, ROWS[0], strict=True)), [1], 7, ROWS[1]]
    Path("in.msgpack").write_bytes(packed(*values))
    Path("in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in values))
    for output in ("out.jsonl", "out.csv"):
        assert run("toy", "in.jsonl", f"expected-{output}")[0] == 3
        status, said = run("toy", "in.msgpack", output)
        assert Path(output).read_bytes() == Path(f"expected-{output}").read_bytes()
        assert (status, said.splitlines()[-1]) == (
            3,
            "torchlit: 8 rows scored with toy/1; bad rows left out: 2",
        )
        assert said.startswith("torchlit: row 8: expected a list of 4 numbers or an object of ")
    shutil.copy("in.msgpack", "in")
    assert run("toy", "in", "same.jsonl", "--format", "msgpack")[0] == 3
    assert run("toy", "in.msgpack", "of-itself.msgpack")[0] == 3  # an answer is JSON Lines
    for other in ("same.jsonl", "of-itself.msgpack"):
        assert Path(other).read_bytes() == Path("out.jsonl").read_bytes()
    Path("empty.msgpack").write_bytes(b"")
    assert run("toy", "empty.msgpack", "no.jsonl")[0] == 1


def test_images_and_other_fields_of_messagepack(run: Run) -> None:
    image = drawings.png(np.arange(6).reshape(2, 3))
    b64 = {"b64": b64encode(image).decode(), "id": 7}
    Path("in.msgpack").write_bytes(packed(image, b64, {"b64": "?", "raw": b"x"}))
    status, said = run("mean", "in.msgpack", "out.jsonl", "--keep")
    assert (status, said.splitlines()[0]) == (
        3,
        "torchlit: row 3: expected other fields that can be copied, got bytes, or another type "
        "that JSON has not",
    )
    assert json_lines("out.jsonl") == [
        {"line": 1, "kept": {}, "value": 2.5},
        {"line": 2, "kept": {"id": 7}, "value": 2.5},
    ]


def test_messagepack_is_gone_on_with(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in.msgpack").write_bytes(packed(*ROWS))
    assert run("toy", "in.msgpack", "whole.jsonl", max_batch_size=2)[0] == 0
    interrupt_at(3, monkeypatch)
    assert run("toy", "in.msgpack", "out.jsonl", max_batch_size=2)[0] == 130
    status, said = run("toy", "in.msgpack", "out.jsonl", max_batch_size=2)
    assert (status, said.split(" ")[1:4]) == (0, ["goes", "on", "after"])
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_messagepack_that_is_cut_off_is_gone_on_with_when_it_is_whole(run: Run) -> None:
    whole = packed(*ROWS)
    Path("in.msgpack").write_bytes(whole[:-3])
    assert run("toy", "in.msgpack", "out.jsonl", max_batch_size=2) == (
        1,
        "torchlit: row 6: expected MessagePack, got a file that is cut off\n",
    )
    assert not Path("out.jsonl").exists()
    Path("in.msgpack").write_bytes(whole)
    status, said = run("toy", "in.msgpack", "out.jsonl", max_batch_size=2)
    assert (status, "goes on after" in said) == (0, True)
    assert [each["line"] for each in json_lines("out.jsonl")] == [1, 2, 3, 4, 5, 6]
