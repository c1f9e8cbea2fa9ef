"""k6, by load.js and, over gRPC, load_grpc.js."""

import json
from pathlib import Path

import pytest

from service.grpc.messages import PROTOSET
from tests.support.processes import Process
from tests.system.programs.asked import PREDICT, check_predictions
from tests.system.programs.programs import run

pytestmark = pytest.mark.programs

LOAD = Path(__file__).with_name("load.js")
ALONE = ["--quiet", "--no-usage-report"]  # it would say to its makers that it ran


@pytest.mark.parametrize("place", ["service", "nginx"])
def test_k6(request: pytest.FixtureRequest, service: Process, place: str) -> None:
    url = service.url if place == "service" else request.getfixturevalue("nginx")
    reply = service.post("/predict", content=PREDICT)
    check_predictions(reply.json())
    variables = {"URL": url, "BODY": PREDICT.decode(), "REPLY": reply.text}
    checks = json.loads(run("k6", "run", *ALONE, LOAD, **variables))
    assert (checks["passes"], checks["fails"]) == (1200, 0)


def test_k6_over_grpc(service: Process) -> None:
    load = LOAD.with_name("load_grpc.js")
    row = [5.0, 3.4, 1.5, 0.2]
    inputs = [{"name": "input", "datatype": "FP32", "shape": [1, 4], "data": row}]
    reply = service.post("/v2/models/toy/infer", json={"inputs": inputs}).json()
    variables = {
        "ADDRESS": service.url.removeprefix("http://"),
        "PROTOS": str(PROTOSET.parent),
        "MODEL": "toy",
        "ROW": json.dumps(row),
        "ANSWER": json.dumps(reply["outputs"][0]["data"][0]),
    }
    checks = json.loads(run("k6", "run", *ALONE, load, **variables))
    assert (checks["passes"], checks["fails"]) == (800, 0)
