import logging
import os
import re
from pathlib import Path

import pytest
from onnx import helper

from service.catalog.reload import Reloader
from service.errors import NotFound, StartupError, Unavailable
from service.settings import Settings
from tests.support.catalogs import reloader
from tests.support.toys import (
    save_graph,
    save_sequenced,
    save_toy,
    serving,
    tensor,
    toy_card,
)

pytestmark = pytest.mark.anyio


def repository(folder: Path, **settings: object) -> Reloader:
    return reloader(Settings(models_dir=folder, **settings))


async def test_the_highest_version_answers_unless_one_is_named(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        save_toy(tmp_path, version, card=toy_card())
    async with repository(tmp_path) as models:
        assert models.catalog.get("toy").version == 10
        assert models.catalog.get("toy", 2).version == 2
        assert [each.version for each in models.catalog.versions["toy"]] == [1, 2, 10]


async def test_a_name_or_version_that_is_not_there_is_not_found(models_dir: Path) -> None:
    async with repository(models_dir) as models:
        with pytest.raises(NotFound, match="model: expected one of mean, toy; got 'tyo'"):
            models.catalog.get("tyo")
        with pytest.raises(NotFound, match="model toy: version: expected one of 1; got 3"):
            models.catalog.get("toy", 3)


async def test_a_broken_version_is_reported_and_the_others_serve(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_toy(models_dir, 2, card=toy_card(), scale=1.5)  # answers not as its card says
    (models_dir / "toy/3").mkdir()
    broken = save_toy(models_dir, 4, card=toy_card())
    broken.write_bytes(broken.read_bytes()[:100])
    with caplog.at_level(logging.ERROR):
        async with repository(models_dir) as models:
            assert models.catalog.get("toy").version == 1
            states = {
                each.version: (each.state, each.reason) for each in models.catalog.versions["toy"]
            }
            with pytest.raises(Unavailable, match="model toy: version 2 could not be opened"):
                models.catalog.get("toy", 2)
            assert models.catalog.not_ready() == {}
    assert states[1] == ("ready", "")
    assert states[2][0] == "failed"
    assert states[2][1].startswith("toy/2: example 'one': expected [0.92")
    assert states[3][1] == "toy/3: model.onnx: cannot be read: No such file or directory"
    assert states[4][1] == (
        "toy/4: model.onnx: not a model that ONNX Runtime can open: it is cut off, or no ONNX file "
        "(100 bytes)"
    )
    assert len(caplog.records) == 3


async def test_a_model_of_which_no_version_opens_is_not_ready(models_dir: Path) -> None:
    (models_dir / "empty").mkdir()
    (models_dir / "bad name/1").mkdir(parents=True)
    (models_dir / "words" / "latest").mkdir(parents=True)
    async with repository(models_dir) as models:
        reasons = models.catalog.not_ready()
        assert set(reasons) == {"empty", "bad name", "words"}
        assert (
            reasons["empty"]
            == "empty: expected a version folder such as empty/1/model.onnx, got none"
        )
        assert reasons["bad name"] == "'bad name': expected a name of letters, digits, . _ -"
        with pytest.raises(Unavailable, match="model empty: no version of it could be opened"):
            models.catalog.get("empty")
        assert models.catalog.get("toy").version == 1


async def test_a_name_that_is_not_utf8_is_reported_and_can_be_shown(models_dir: Path) -> None:
    os.makedirs(os.fsencode(models_dir) + b"/b\xffd/1")
    async with serving(Settings(models_dir=models_dir)) as client:
        ready = await client.get("/health/ready")
        assert (await client.get("/models")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.post("/predict/none", content=b"{}")).status_code == 404
    assert ready.status_code == 503
    assert "b\\xffd" in ready.json()["models"]


async def test_a_folder_that_is_no_version_is_told_in_the_log(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (models_dir / "toy/01").mkdir()
    async with repository(models_dir) as models:
        assert models.catalog.get("toy").version == 1
    assert "model toy: '01' is no version: expected a whole number from 1 to 9" in caplog.text
    assert "9223372036854775807, without zeros in front" in caplog.text


async def test_the_reason_of_onnx_runtime_is_in_the_log_only(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [helper.make_node("Add", ["input", "nowhere"], ["output"])]
    inputs, outputs = [tensor("input", ["batch", 4])], [tensor("output", ["batch", 4])]
    save_graph(models_dir / "toy/1/model.onnx", nodes, inputs, outputs, [], None)
    async with repository(models_dir) as models:
        (reason,) = models.catalog.not_ready().values()
    assert re.fullmatch(r"toy/1: model\.onnx: ONNX Runtime \S+ cannot open it", reason)
    assert "nowhere" not in reason
    assert "Node input 'nowhere' is not a graph input" in caplog.text


async def test_without_any_model_nothing_starts(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(StartupError, match=r"^TORCHLIT_MODELS_DIR: "):
            async with repository(folder):
                pass


async def test_outputs_that_are_left_out_are_told_in_the_log(
    models_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_sequenced(models_dir)
    async with repository(models_dir) as models:
        assert [each.name for each in models.catalog.get("sequenced").model.outputs] == ["output"]
    (warning,) = (each for each in caplog.records if each.levelno == logging.WARNING)
    assert warning.getMessage() == (
        "model sequenced version 1: output several is left out: "
        "no protocol carries seq(tensor(float))"
    )


async def test_a_model_with_only_such_outputs_is_reported_and_the_others_serve(
    models_dir: Path,
) -> None:
    save_sequenced(models_dir, only_sequence=True)
    async with repository(models_dir) as models:
        (reason,) = models.catalog.not_ready().values()
        assert models.catalog.get("toy").version == 1
    assert reason.startswith(
        "sequenced/1: expected an output that is a tensor of numbers, booleans"
    )
    assert "'several': 'seq(tensor(" in reason


async def test_a_model_is_named_by_the_words_of_a_path(models_dir: Path) -> None:
    save_toy(models_dir, 12, card=toy_card())
    async with repository(models_dir) as models:
        assert (
            models.catalog.named("toy", None)
            is models.catalog.named("toy", "12")
            is models.catalog.get("toy")
        )
        assert models.catalog.named("toy", "1") is models.catalog.get("toy", 1)
        for word in ("0", "01", "-1", "x", "", "1 ", "\u0661", "9" * 20):
            with pytest.raises(NotFound, match=r"^version: expected a whole number from 1 to 9"):
                models.catalog.named("toy", word)
        for word in ("2", "1732700000", "1732700000123456789", "9" * 19):
            expected = f"model toy: version: expected one of 1, 12; got '?{word}'?$"
            with pytest.raises(NotFound, match=expected):
                models.catalog.named("toy", word)
