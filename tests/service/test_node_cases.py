"""The node cases of onnx, with the number of rows left open, served and compared.

Each is served with all its inputs open in their first dimension. Where the inputs differ in that
dimension it is served a second time, with the first input open and the others constant, as weights
are. The oracle is ONNX Runtime, run directly on the same bytes.
"""

import asyncio
import logging
import re
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from msgspec import Struct, field
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from service.settings import Settings
from tests.support.node_cases import CONSTANTS, Arrays, Graph, difference, graphs
from tests.support.toys import serving

pytestmark = [pytest.mark.anyio, pytest.mark.sweep]

GRAPHS_PER_SERVICE = 40
MOST_UNBATCHED = 5  # of the independent graphs of each form
MOST_REFUSED = 0.01  # of the requests
LENGTH = "Inference-Header-Content-Length"
# The graph says that all its inputs have the same rows, and the inputs of the case have not.
DIFFERING = "400 inputs: expected as many rows in"


class Sums(Struct):
    """What the service did with the graphs; each list holds the names of cases."""

    left_out: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    requests: int = 0
    differing: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    random: list[str] = field(default_factory=list)
    never_joined: list[str] = field(default_factory=list)
    # By whether a graph is independent (None: nothing can say), and whether it is batched.
    verdicts: dict[tuple[bool | None, bool], list[str]] = field(default_factory=dict)

    def cases(self, is_independent: bool | None, is_batched: bool) -> list[str]:
        return self.verdicts.setdefault((is_independent, is_batched), [])

    def __str__(self) -> str:
        """Show the sums, each word as follows.

        opened       graphs that ONNX Runtime opens, and that answer the inputs of their case
        requests     each sent alone, and then all those of a graph at once
        refused      requests that ONNX Runtime answers and the service does not, by what it says
        wrong        graphs with an answer of status 200 that is not the one of ONNX Runtime
        independent  by ONNX Runtime, each row alone has the answer that it has beside other rows
        batched      the service says that it runs the rows of several requests together
        """
        lines = [
            f"graphs: {self.opened + self.left_out.total()}, opened: {self.opened}",
            *(f"    left out, {why}: {count}" for why, count in self.left_out.most_common()),
            f"    random, only shapes are compared: {named(self.random)}",
            f"requests: {self.requests}, refused: {self.refused.total()}",
            f"    also refused, as inputs differ in rows: {self.differing}",
            *(f"    {count}: {said}" for said, count in self.refused.most_common()),
        ]
        for is_independent, what in (
            (True, "independent"),
            (False, "not independent"),
            (None, "nothing can say whether independent"),
        ):
            yes, no = self.cases(is_independent, True), self.cases(is_independent, False)
            lines.append(f"{what}: {len(yes) + len(no)}, batched: {len(yes)}, not: {len(no)}")
        lines += [
            f"    independent, not batched: {named(self.cases(True, False))}",
            f"    independent, batched, but never joined: {named(self.never_joined)}",
            f"    not independent, but batched: {named(self.cases(False, True))}",
            f"wrong: {len(self.wrong)}",
            *(f"    {case}, {how}" for case, how in self.wrong.items()),
        ]
        return "\n".join(lines)


def named(cases: list[str]) -> str:
    return f"{len(cases)} {' | '.join(case.removeprefix('test_') for case in cases)}"


async def send(client: httpx.AsyncClient, path: str, inputs: Arrays) -> httpx.Response:
    """Request all outputs for these inputs, all of them binary: JSON has no NaN."""
    tensors = [
        triton.InferInput(
            name, list(array.shape), np_to_triton_dtype(array.dtype)
        ).set_data_from_numpy(array)
        for name, array in inputs.items()
    ]
    body, length = triton.InferenceServerClient.generate_request_body(tensors)
    headers = {LENGTH: str(length), "Accept-Encoding": "identity"}
    return await client.post(f"{path}/infer", content=body, headers=headers)


def outputs_of(reply: httpx.Response) -> Arrays:
    length = int(reply.headers[LENGTH])
    result = triton.InferenceServerClient.parse_response_body(reply.content, header_length=length)
    outputs = {}
    for output in result.get_response()["outputs"]:
        array = result.as_numpy(output["name"])
        if output["datatype"] == "BYTES":
            texts = [text.decode() for text in array.ravel()]
            array = np.array(texts, np.object_).reshape(array.shape)
        # tritonclient makes float64 of an array without elements.
        outputs[output["name"]] = array.astype(triton_to_np_dtype(output["datatype"]))
    return outputs


def compare(reply: httpx.Response, graph: Graph, expected: Arrays | None, sums: Sums) -> str:
    """Return what is wrong with a reply, nothing if it is right or a refusal; count it."""
    sums.requests += 1
    if reply.status_code == 200:
        if expected is None:
            return "ONNX Runtime raises"
        return difference(outputs_of(reply), expected, shapes_only=graph.is_random)
    said = f"{reply.status_code} {reply.json()['error']}"
    if expected is not None and said.startswith(DIFFERING) and not graph.rows:
        sums.differing += 1
    elif expected is not None:
        sums.refused[re.sub(r"case\d+|\[[\d, -]*\]|\d+ rows|got .*", "#", said)] += 1
    return ""


async def check(client: httpx.AsyncClient, path: str, graph: Graph, sums: Sums) -> None:
    """Send the requests of a graph, each alone and then all at once, and note what came."""
    alone = [await send(client, path, inputs) for inputs in graph.requests]
    at_once = await asyncio.gather(*(send(client, path, inputs) for inputs in graph.requests))
    expected = [graph.run(inputs) for inputs in graph.requests]
    for how, replies in (("alone", alone), ("at once", at_once)):
        for reply, outputs in zip(replies, expected, strict=True):
            if problem := compare(reply, graph, outputs, sums):
                sums.wrong.setdefault(graph.case, f"{how}: {problem}")
    config = await client.get(f"{path}/config")
    is_batched = config.status_code == 200 and config.json()["max_batch_size"] > 0
    is_independent = graph.is_independent()
    sums.cases(is_independent, is_batched).append(graph.case)
    if graph.is_random:
        sums.random.append(graph.case)
    if is_independent and is_batched:
        (stats,) = (await client.get(f"{path}/stats")).json()["model_stats"]
        if stats["execution_count"] >= len(alone) + len(at_once):
            sums.never_joined.append(graph.case)


async def test_no_node_case_gets_a_wrong_answer_and_independent_rows_are_batched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "torchlit")  # each refusal would be a line
    sums = Sums()
    opened = list(graphs(sums.left_out))
    sums.opened = len(opened)
    for start in range(0, len(opened), GRAPHS_PER_SERVICE):
        folder = tmp_path / str(start)
        some = {
            f"case{start + n}": each for n, each in enumerate(opened[start:][:GRAPHS_PER_SERVICE])
        }
        for name, graph in some.items():
            path = folder / name / "1" / "model.onnx"
            path.parent.mkdir(parents=True)
            path.write_bytes(graph.content)
        async with serving(Settings(models_dir=folder, watch=False, device="cpu")) as client:
            for name, graph in some.items():
                await check(client, f"/v2/models/{name}", graph, sums)
    print(f"\n{sums}")
    assert not sums.wrong
    of_each_form = Counter(case.endswith(CONSTANTS) for case in sums.cases(True, False))
    assert all(count <= MOST_UNBATCHED for count in of_each_form.values())
    assert not sums.cases(False, True)
    assert not sums.never_joined
    assert sums.refused.total() <= MOST_REFUSED * sums.requests
