"""Iris in MLServer, by a runtime of its own that calls ONNX Runtime. One process, no workers beside
it, its adaptive batching off: with it a call took longer.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.cli import main as mlserver
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

MODEL = "models/iris/1/model.onnx"


class Iris(MLModel):  # type: ignore[misc]  # MLServer is not installed beside mypy
    """The model of iris."""

    async def load(self) -> bool:
        """Open it."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run it."""
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        (outputs,) = self._session.run(None, {"input": rows})
        return InferenceResponse(
            model_name="iris",
            model_version="1",
            id=payload.id,
            outputs=[NumpyCodec.encode_output("probabilities", outputs)],
        )


def main() -> None:
    """Serve until told to stop."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "host": "127.0.0.1",
            "http_port": int(os.environ["TORCHLIT_PORT"]),
            "grpc_port": int(os.environ["BENCH_GRPC_PORT"]),
            "metrics_endpoint": None,
            "parallel_workers": 0,
        }
        model = {
            "name": "iris",
            "implementation": "benchmarks.mlserver_app.Iris",
            "parameters": {"version": "1"},
        }
        Path(folder, "settings.json").write_text(json.dumps(settings))
        Path(folder, "model-settings.json").write_text(json.dumps(model))
        sys.argv = ["mlserver", "start", folder]
        mlserver()


if __name__ == "__main__":
    main()
