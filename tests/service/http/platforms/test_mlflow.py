"""What clients of MLflow's scoring server send, and what they get.

"Deploy MLflow Model as a Local Inference Server", and `dump_input_data` of mlflow 3, which its own
client writes bodies with.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.settings.verdicts import MissingValues
from tests.support.platforms import CSV, JSON, LINES, OTHER, PREDICT, ROW, invoke, of
from tests.support.toys import Client, save_columns

pytestmark = pytest.mark.anyio

TABLE = [ROW, OTHER]
NAMES = ["a", "b", "c", "d"]


async def send(client: Client, sent: str = JSON, **fields: Any) -> httpx.Response:
    return await invoke(client, json.dumps(fields).encode(), sent)


@pytest.mark.parametrize(
    "fields",
    [
        {"dataframe_split": {"index": [0, 1], "columns": NAMES, "data": TABLE}},
        {"dataframe_split": {"columns": NAMES[::-1], "data": [row[::-1] for row in TABLE]}},
        {"dataframe_split": {"columns": ["id", *"ABCD"], "data": [[7, *row] for row in TABLE]}},
        {"dataframe_split": {"columns": [0, 1, 2, 3], "data": TABLE}},
        {"dataframe_split": {"data": TABLE}},
        {"dataframe_records": [dict(zip(NAMES, row, strict=True)) for row in TABLE]},
        {
            "dataframe_records": [
                {"id": 7} | dict(zip("dcba", row[::-1], strict=True)) for row in TABLE
            ]
        },
        {"inputs": TABLE},
        {"inputs": {"input": TABLE}},
        {"inputs": {name: [row[n] for row in TABLE] for n, name in enumerate(NAMES)}},
        {"inputs": {name: [[row[n]] for row in TABLE] for n, name in enumerate(NAMES)}},
        {"instances": TABLE, "params": {"temperature": 1}},
        {"params": None, "model": "toy", "version": 1, "inputs": TABLE},
    ],
)
async def test_every_form_gives_the_predictions_and_nothing_else(toy: Client, fields: Any) -> None:
    expected = (await send(toy, instances=TABLE)).json()
    reply = await send(toy, **fields)
    assert reply.status_code == 200, reply.text
    assert reply.json() == {"predictions": expected["predictions"]}


async def test_our_own_body_is_answered_as_before(toy: Client) -> None:
    reply = await send(toy, instances=TABLE)
    assert list(reply.json()) == ["model", "version", "predictions"]
    sent = f"{JSON}; charset=utf-8; format=pandas-split"
    assert (await send(toy, sent, dataframe_split={"data": TABLE})).status_code == 200


async def test_accept_and_content_type_hold_for_these_bodies_too(toy: Client) -> None:
    body = json.dumps({"inputs": [ROW]}).encode()
    expected = await invoke(toy, b"1,2,3,4\n", accept=CSV)
    reply = await invoke(toy, body, JSON, accept=CSV)
    assert (reply.text, reply.headers["content-type"]) == (expected.text, CSV)
    frame = b"d,c,b,a\n4.0,3.0,2.0,1.0\n"  # DataFrame.to_csv(index=False)
    assert (await invoke(toy, frame, accept=CSV)).text == expected.text
    assert (await invoke(toy, body, LINES)).status_code == 400
    assert (await toy.post("/predict", content=body)).status_code == 400


@pytest.mark.slow
async def test_a_long_body_is_read_in_a_thread(folder: Path) -> None:
    rows = [[n, 2, 3, 4] for n in range(30_000)]
    limits = {"max_body_bytes": 10**7, "max_request_rows": 30_000}
    async with of(folder, "toy", **limits) as client:
        expected = (await send(client, instances=rows)).json()["predictions"]
        columns = dict(zip(NAMES, zip(*rows, strict=True), strict=True))
        swapped = {"columns": list("bacd"), "data": [[b, a, c, d] for a, b, c, d in rows]}
        for fields in ({"inputs": rows}, {"inputs": columns}, {"dataframe_split": swapped}):
            assert (await send(client, **fields)).json() == {"predictions": expected}


async def test_a_frame_has_columns_of_several_types_and_missing_values(tmp_path: Path) -> None:
    save_columns(tmp_path)
    names = ["age", "rooms", "city", "paid"]
    rows = [[1.5, 2, "rome", True], [0.5, 1, "NaN, or so", False]]
    async with of(tmp_path, "columns", missing=MissingValues("columns=allow")) as client:
        expected = (await send(client, instances=rows)).json()["predictions"]
        records = [dict(zip(names, row, strict=True)) for row in rows]
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        for fields in (
            {"dataframe_split": {"columns": names, "data": rows}},
            {"dataframe_records": records},
            {"inputs": columns},
        ):
            assert (await send(client, **fields)).json() == {"predictions": expected}
        rows[1][0] = float("nan")  # as Python writes what is missing: it goes in as null does
        reply = await send(client, dataframe_split={"columns": names, "data": rows})
        assert reply.status_code == 500  # the price is none


async def test_a_path_of_vertex_takes_all_three(folder: Path) -> None:
    async with of(folder, "toy", predict_route="/invocations") as client:
        alone = (await send(client, instances=TABLE)).json()
        assert list(alone) == ["predictions"]
        assert (await send(client, inputs=TABLE)).json() == alone
        named = (await send(client, instances=TABLE, model="toy")).json()
        assert named == {"model": "toy", "version": 1} | alone
        assert (await client.post(PREDICT, content=b"{}")).status_code == 404
