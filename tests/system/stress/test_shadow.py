"""A shadow under load: the metrics tell a better version from a worse, whatever it does."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.card import Example
from tests.support.clients import counted, distinct_rows_from
from tests.support.processes import Process, running
from tests.support.toys import ONE, WEIGHTS, save_graph, softmax, tensor, toy_card
from tests.system.stress.load import COMMITTED_MODELS, assert_log_is_clean
from training import moons

pytestmark = pytest.mark.stress

ROW = [1.0, 2.0, 3.0, 4.0]
CLIENTS, SECONDS = 16, 3
OUTCOMES = ("agree", "disagree", "failed", "dropped")
MOST = 7  # of a row's numbers, beyond which a version is in trouble


def save_version(folder: Path, version: int, noise: float, trouble: str = "") -> None:
    """Write a toy whose weights are off by `noise`; trouble: raises, hangs, slow."""
    weights = WEIGHTS + noise * np.random.default_rng(7).standard_normal(WEIGHTS.shape)
    output = softmax(np.array([ROW]) @ weights)[0].tolist()
    nodes = [helper.make_node("MatMul", ["input", "weights"], ["logits"])]
    arrays = {"weights": weights.astype(np.float32), "zero": np.zeros(1, np.float32)}
    if trouble:
        nodes += [
            helper.make_node("ReduceMax", ["input"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "bound"], ["is_beyond"]),
            *TROUBLES[trouble],
            helper.make_node("Mul", ["made", "zero"], ["nothing"]),
            helper.make_node("Add", ["logits", "nothing"], ["all"]),
        ]
        arrays |= {"bound": np.float32(MOST), "table": np.ones(MOST + 1, np.float32)}
        arrays |= {"for_ever": np.int64(10**12), "once": np.int64(1)}
        arrays |= {"side": np.array([1500, 1500], np.int64)}
    last = "all" if trouble else "logits"
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    save_graph(
        folder / f"toy/{version}/model.onnx",
        nodes,
        [tensor("input", ["batch", 4])],
        [tensor("probabilities", ["batch", 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
        toy_card(examples=[Example(name="one", input=ROW, output=output)]),
    )


LOOP = helper.make_graph(
    [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Add", ["sum", "zero"], ["more"]),
    ],
    "body",
    [
        tensor("i", [], TensorProto.INT64),
        tensor("go", [], TensorProto.BOOL),
        tensor("sum", [1]),
    ],
    [tensor("on", [], TensorProto.BOOL), tensor("more", [1])],
)
TROUBLES = {
    "raises": [
        helper.make_node("Cast", ["most"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["made"]),  # there are MOST places
    ],
    "hangs": [
        helper.make_node("Where", ["is_beyond", "for_ever", "once"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "", "zero"], ["made"], body=LOOP),
    ],
    "slow": [  # a tenth of a second for any batch, as save_dear
        helper.make_node("Mul", ["most", "zero"], ["none"]),
        helper.make_node("ConstantOfShape", ["side"], ["ones"], value=ONE),
        helper.make_node("Add", ["ones", "none"], ["left"]),
        helper.make_node("MatMul", ["left", "ones"], ["product"]),
        helper.make_node("ReduceMax", ["product"], ["made"], keepdims=0),
    ],
}


def load(service: Process) -> tuple[int, dict[str, float]]:
    """Let clients check every answer; return how many there were, and what came of the rows."""
    answered = asyncio.run(distinct_rows_from(service.url, CLIENTS, SECONDS))
    text = service.get("/metrics").text
    return answered, {
        each: counted(text, "torchlit_shadow_rows_total", f'outcome="{each}"') for each in OUTCOMES
    }


def test_the_metrics_tell_a_better_version_from_a_worse(tmp_path: Path) -> None:
    agreement = {}
    for name, noise in (("better", 0.02), ("worse", 1.0)):
        folder = tmp_path / name
        save_version(folder, 1, 0)
        save_version(folder, 2, noise)
        with running(models_dir=folder, shadow="toy/1=2", workers=2) as service:
            answered, rows = load(service)
            compared = rows["agree"] + rows["disagree"]
            assert compared > 500
            assert not rows["failed"]
            described = service.get("/models/toy/shadow").json()["shadows"][0]
            agreement[name] = described["agreement"]
            assert service.stop() == 0
            assert_log_is_clean(service.log)
        print(f"{name}: {answered} answered, {rows}, agreement {agreement[name]:.3f}")
    assert agreement["worse"] < 0.9 < 0.97 < agreement["better"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_caller_hears_of_a_shadow_in_trouble(tmp_path: Path, trouble: str) -> None:
    save_version(tmp_path, 1, 0)
    save_version(tmp_path, 2, 0, trouble)
    with running(models_dir=tmp_path, shadow="toy/1=2", request_timeout_s=1) as service:
        answered, rows = load(service)
        print(f"{trouble}: {answered} answered, {rows}")
        assert answered > 500
        if trouble == "slow":
            assert rows["dropped"] > rows["agree"] > 0
            assert not rows["failed"]
        else:
            assert rows["failed"] > 0
        assert not rows["disagree"]
        assert service.get("/health/ready").status_code == 200
        row = {"model": "toy", "version": 2, "instances": [ROW]}
        assert service.post("/predict", json=row).status_code == 200
        big = {"model": "toy", "instances": [[9.0, 0, 0, 0]]}
        assert service.post("/predict", json=big).json()["version"] == 1
        begun = time.monotonic()
        assert service.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 5  # whatever runs in the shadow


TRAINED = """
from msgspec.structs import replace
from training.export import Floor
from training.moons import RECIPE as MOONS

RECIPE = replace(MOONS, version={version}, floor=Floor("accuracy", at_least=0.5))
"""


def train(folder: Path, version: int, epochs: int, seed: int) -> None:
    """Train two moons, also badly."""
    recipe = folder / f"moons_{version}_{epochs}.py"
    recipe.write_text(TRAINED.format(version=version))
    command = [sys.executable, "-m", "training", str(recipe), "--models-dir", str(folder)]
    command += ["--epochs", str(epochs), "--seed", str(seed)]
    done = subprocess.run(command, cwd=COMMITTED_MODELS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def ask_for_points(url: str, seconds: float) -> int:
    """Let clients ask for points, and check each answer; return how many were answered."""
    held_out = moons.load()[1].inputs.numpy()
    points = [[round(float(each), 4) for each in point] for point in held_out]
    until, answered = time.monotonic() + seconds, 0

    async def ask(client: httpx.AsyncClient, start: int) -> None:
        nonlocal answered
        some = (points * 2)[start % len(points) :][:4]
        alone = {"model": "moons", "version": 1, "instances": some}
        right = (await client.post("/predict", json=alone)).json()["predictions"]
        while time.monotonic() < until:
            reply = await client.post("/predict", json={"model": "moons", "instances": some})
            assert reply.status_code == 200, reply.text
            assert reply.json()["version"] == 1
            for got, expected in zip(reply.json()["predictions"], right, strict=True):
                assert got["label"] == expected["label"]
                assert got["probability"] == pytest.approx(expected["probability"], abs=1e-6)
            answered += 1

    async with httpx.AsyncClient(base_url=url) as client:
        await asyncio.gather(*(ask(client, 7 * number) for number in range(CLIENTS)))
    return answered


def test_a_version_that_learnt_too_little_is_told_from_one_that_learnt(tmp_path: Path) -> None:
    agreement = {}
    serving = tmp_path / "serving"
    serving.mkdir()
    train(serving, 1, epochs=400, seed=1)
    for name, epochs in (("better", 400), ("worse", 2)):
        folder = tmp_path / name
        shutil.copytree(serving, folder)
        train(folder, 2, epochs=epochs, seed=2)
        with running(models_dir=folder, shadow="moons/1=2") as service:
            answered = asyncio.run(ask_for_points(service.url, SECONDS))
            described = service.get("/models/moons/shadow").json()["shadows"][0]
            rows = described["rows"]
            assert rows["agree"] + rows["disagree"] > 100
            assert not rows["failed"]
            agreement[name] = described["agreement"]
            assert service.stop() == 0
            assert_log_is_clean(service.log)
        print(f"{name}: {answered} answered, {rows}, agreement {agreement[name]:.3f}")
    assert agreement["worse"] < 0.94 < 0.97 < agreement["better"]
