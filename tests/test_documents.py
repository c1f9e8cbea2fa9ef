"""README.md is run and compared, so that it cannot say what is not so."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import running
from toys import serving

from service.card import Card
from service.engine.model import Model
from service.metrics import (
    BATCHES_TOTAL,
    CONNECTIONS,
    CONNECTIONS_LIMIT,
    INFO,
    OF_A_MODEL,
    READY,
    RELOADS,
    ROWS_TOTAL,
    STALE,
    UNMATCHED,
    WORKERS,
)
from service.settings import Settings, describe
from training.__main__ import main

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with serving(Settings(models_dir=ROOT / "models")) as client:
        yield client


def committed_cards() -> list[tuple[str, int, Card]]:
    """Return name, version and card of every committed model."""
    cards = []
    for path in sorted(ROOT.glob("models/*/*/model.onnx")):
        card = Model.open(path).card
        assert card is not None
        cards.append((path.parts[-3], int(path.parts[-2]), card))
    return cards


def curls() -> list[tuple[str, str, str]]:
    """Return (path, data, printed answer) of every curl in the README that has an answer."""
    pattern = r"^```\ncurl -s localhost:8000(\S+) -d (\S+|'[^']+')\n```\n```\n(.+)\n```$"
    return [(path, data, printed) for path, data, printed in re.findall(pattern, README, re.M)]


def routes_below_v2() -> set[str]:
    """Return the routes of the README's table of them, as GET /v2/models.

    In a row, a path that follows another may be whole or only another end of that.
    """
    table = README.split("| below `/v2` | what |\n")[1].split("\n\n")[0]
    routes = set()
    for row in table.splitlines():
        paths = re.findall(r"`(?:POST )?(/[^`]*)`", row)
        method = "POST" if "`POST " in row else "GET"
        for path in paths:
            beside = paths[0].rpartition("/")[0] + path
            routes |= {f"{method} /v2{path}".rstrip("/"), f"{method} /v2{beside}"}
    return routes


def guide() -> list[str]:
    """Return the code blocks of the guide to a model of one's own, in their order."""
    section = README.split("## Your own model in 30 lines")[1].split("\n## ")[0]
    return re.findall(r"^```(?:python)?\n(.+?)\n```$", section, re.M | re.S)


def rounded(value: Any) -> Any:
    """Round the floats of an answer: the last digits differ with the processor."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-4, abs=1e-6)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("path", "data", "printed"), curls())
async def test_a_curl_of_the_readme_answers_as_printed(
    client: httpx.AsyncClient, path: str, data: str, printed: str
) -> None:
    body = (ROOT / data[1:]).read_bytes() if data.startswith("@") else data.strip("'").encode()
    reply = await client.post(path, content=body)
    assert reply.json() == rounded(json.loads(printed))


async def test_the_table_for_sagemaker_answers_as_printed() -> None:
    """With the default model that the README's command sets."""
    pattern = (
        r"-e TORCHLIT_DEFAULT_MODEL=(\w+)\b.*?^```\ncurl -s localhost:8080(\S+) "
        r"-H 'Content-Type: (\S+)' -H 'Accept: (\S+)' -d '(\S+)'\n```\n```\n(.+?)\n```$"
    )
    found = re.search(pattern, README, re.M | re.S)
    assert found is not None
    model, path, sent, accepted, row, printed = found.groups()
    headers = {"Content-Type": sent, "Accept": accepted}
    async with serving(Settings(models_dir=ROOT / "models", default_model=model)) as client:
        reply = await client.post(path, content=row.encode(), headers=headers)
    label, *shares = reply.text.strip().split(",")
    expected, *numbers = printed.split(",")
    assert label == expected
    assert [float(share) for share in shares] == rounded([float(number) for number in numbers])


def test_the_readme_has_a_curl_for_each_data_set_and_one_that_fails() -> None:
    assert len(curls()) == 4


@pytest.mark.slow
@pytest.mark.usefixtures("real_data")
@pytest.mark.parametrize("name", ["xor", "moons", "iris", "housing", "mnist"])
def test_table_of_networks_and_classical_models_is_that_of_evaluate(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["evaluate", name, "--models-dir", str(ROOT / "models")]) == 0
    printed = capsys.readouterr().out
    (table,) = re.findall(r"^```\n(data +model .+?\n)```$", README, re.M | re.S)
    table_of_it = [line for line in table.splitlines() if line.split()[0] in ("data", name)]
    assert len(table_of_it) > 2

    number = r"\d+\.\d+"
    for written, measured in zip(table_of_it, printed.splitlines(), strict=True):
        assert re.sub(number, "#", measured).split() == re.sub(number, "#", written).split()
        # The last digits differ with the processor: a flower more or less, in one of 30 splits.
        mean, others = (0.1, 1.3) if "%" in written else (0.01, 0.1)
        for place, (old, new) in enumerate(
            zip(re.findall(number, written), re.findall(number, measured), strict=True)
        ):
            assert float(new) == pytest.approx(float(old), abs=others if place else mean), written


@pytest.mark.slow
def test_guide_leads_from_a_table_to_a_served_model(tmp_path: Path) -> None:
    """Word for word, but for the Python, and the port that `make serve` would take."""
    make_table, recipe, commands, call = guide()
    assert len(recipe.splitlines()) <= 34  # with the imports
    environment = {key: value for key, value in os.environ.items() if key != "TORCHLIT_DATA_DIR"}

    def follow(command: str) -> str:
        command = command.replace(".venv/bin/python", sys.executable)
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    follow(make_table)
    (tmp_path / "wine.py").write_text(recipe)
    train, evaluate, serve = commands.splitlines()
    assert serve == "make serve"
    assert re.search(r"^wine/1 +accuracy 0\.9", follow(train), re.M)
    assert "random forest" in follow(evaluate)
    path, body = re.fullmatch(r"curl -s localhost:8000(\S+) -d @(\S+)", call).groups()
    with running(models_dir=tmp_path / "models") as service:
        reply = httpx.post(service.url + path, content=(tmp_path / body).read_bytes())
    answer = reply.json()
    assert answer["model"] == "wine"
    assert answer["predictions"][0]["label"] == "barolo"
    assert answer["predictions"][0]["probability"] > 0.9


def test_every_setting_is_in_the_readme() -> None:
    for variable, default, description in describe():
        shown = f"`{default}`" if default else ""
        assert f"| `{variable}` | {shown} | {description} |" in README


def test_every_metric_is_in_the_readme() -> None:
    of_versions = (ROWS_TOTAL, BATCHES_TOTAL, INFO, READY, RELOADS, STALE)
    of_all = (UNMATCHED, CONNECTIONS, CONNECTIONS_LIMIT, WORKERS)
    for instrument in (*OF_A_MODEL, *of_versions, *of_all):
        assert re.search(
            rf"^\| `{instrument.name}(_total)?\b.*\| {instrument.help} \|$", README, re.M
        )


async def test_every_route_is_in_the_readme(client: httpx.AsyncClient) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    for path, item in document["paths"].items():
        general = re.sub(r"^/(predict|prepare)/.*", r"/\1/{model}", path)
        general = re.sub(r"^/v2/models/[^/]+/infer$", "/v2/models/{model}/infer", general)
        general = general.replace("/versions/{version}", "")  # a sentence says so of all
        for method in item:
            route = f"{method.upper()} {general}"
            assert f"`{route}`" in README or route in routes_below_v2()


def test_every_model_is_in_the_readme_with_its_held_out_result() -> None:
    cards = committed_cards()
    assert cards
    for name, version, card in cards:
        metrics = ", ".join(f"{metric} {value:g}" for metric, value in card.metrics.items())
        assert f"| {name} {version} | {card.task} | {metrics} | {card.dataset.name} |" in README
        for picture in card.pictures:
            assert f"(models/{name}/{version}/{picture.file})" in README


def test_the_example_with_tritons_client_prints_what_it_says() -> None:
    found = re.search(
        r"^```python\n(import.*?tritonclient.*?)\n```\n```\n(.+?)\n```$", README, re.M | re.S
    )
    assert found is not None
    with running(models_dir=ROOT / "models") as service:
        code = found[1].replace("localhost:8000", service.url.removeprefix("http://"))
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
    assert done.stdout == f"{found[2]}\n"
