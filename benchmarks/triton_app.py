"""Triton with the perceptron of MNIST and with iris, by way of PyTriton: Triton's HTTP and gRPC
servers and batching, and ONNX Runtime called from Python with whole batches. Not with the batches
of torchlit: up to 1,024 rows, which was faster.
"""

import os
from typing import Any

import numpy as np
import onnxruntime as ort
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

MNIST, IRIS = "models/mnist/1/model.onnx", "models/iris/1/model.onnx"


def runner(file: str) -> Any:
    """Return what runs a model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    @batch  # type: ignore[untyped-decorator]  # PyTriton is not installed beside mypy
    def run(input: Any) -> Any:
        return session.run(None, {"input": input})

    return run


def main() -> None:
    """Serve until told to stop."""
    config = TritonConfig(
        http_port=int(os.environ["TORCHLIT_PORT"]),
        http_address="127.0.0.1",
        allow_grpc="BENCH_GRPC_PORT" in os.environ,
        grpc_port=int(os.environ.get("BENCH_GRPC_PORT", "0")) or None,
        grpc_address="127.0.0.1",
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        for name, file, values, classes in (("mnist", MNIST, 784, 10), ("iris", IRIS, 4, 3)):
            triton.bind(
                name,
                runner(file),
                [Tensor(name="input", dtype=np.float32, shape=(values,))],
                [Tensor(name="probabilities", dtype=np.float32, shape=(classes,))],
                config=ModelConfig(max_batch_size=1024, batcher=DynamicBatcher()),
            )
        triton.serve()


if __name__ == "__main__":
    main()
