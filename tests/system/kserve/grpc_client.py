"""Asks a service with KServe's client of gRPC; runs in the environment of requirements.txt.

    grpc_client.py HOST:PORT

Prints a JSON object: `probes`; `answers` of toy to rows that were sent raw and typed, and what is
said of a model that is not there.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient


async def main(address: str, rows: list[list[float]]) -> dict[str, Any]:
    """Return what the client says of the service."""
    array = np.array(rows, np.float32)
    async with InferenceGRPCClient(address) as client:
        probes = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "toy": await client.is_model_ready("toy"),
            "nobody": await client.is_model_ready("nobody"),
        }
        answers = []
        for is_raw in (True, False):
            sent = InferInput("input", list(array.shape), "FP32")
            sent.set_data_from_numpy(array, binary_data=is_raw)
            reply = await client.infer(InferRequest("toy", [sent], request_id="7"))
            answers.append({"id": reply.id, "output": reply.outputs[0].as_numpy().tolist()})
        try:
            await client.infer(InferRequest("nobody", [sent]))
        except grpc.RpcError as error:
            unknown = [error.code().name, error.details()]
    return {"probes": probes, "answers": answers, "unknown": unknown}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.load(sys.stdin)))))
