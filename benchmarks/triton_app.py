"""Triton with the perceptron of MNIST, by way of PyTriton: Triton's HTTP server and batching, and
ONNX Runtime called from Python with whole batches. Not with the batches of torchlit: up to 1,024
rows, which was faster.
"""

import os
from typing import Any

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MODEL = "models/mnist/1/model.onnx"


def main() -> None:
    """Serve until told to stop."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    @batch  # type: ignore[untyped-decorator]  # PyTriton is not installed beside mypy
    def run(input: Any) -> Any:
        return session.run(None, {"input": input})

    config = TritonConfig(
        http_port=int(os.environ["TORCHLIT_PORT"]),
        http_address="127.0.0.1",
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            "mnist",
            run,
            [Tensor(name="input", dtype=np.float32, shape=(784,))],
            [Tensor(name="probabilities", dtype=np.float32, shape=(10,))],
            config=ModelConfig(max_batch_size=1024, batcher=DynamicBatcher()),
        )
        triton.serve()


if __name__ == "__main__":
    main()
