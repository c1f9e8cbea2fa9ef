"""Iris behind Google's own server for Python, grpc.aio, and nothing else: no batches, no limits, no
metrics. Another thread says over HTTP that it is ready.
"""

import asyncio
import http.server
import os
import threading

import grpc
import numpy as np
import onnxruntime as ort

from service.grpc.messages import ModelInferRequest, ModelInferResponse

MODEL = "models/iris/1/model.onnx"


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers 200, whatever is asked."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


async def main() -> None:
    """Serve until told to stop."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    async def infer(request: ModelInferRequest, context: object) -> ModelInferResponse:
        (sent,) = request.inputs
        rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(sent.shape)
        (outputs,) = session.run(None, {"input": rows})
        reply = ModelInferResponse(model_name="iris", model_version="1", id=request.id)
        reply.outputs.add(name="probabilities", datatype="FP32", shape=outputs.shape)
        reply.raw_output_contents.append(outputs.tobytes())
        return reply

    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            infer, ModelInferRequest.FromString, ModelInferResponse.SerializeToString
        )
    }
    server = grpc.aio.server()
    service = "inference.GRPCInferenceService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['BENCH_GRPC_PORT']}")
    await server.start()
    ready = http.server.HTTPServer(("127.0.0.1", int(os.environ["TORCHLIT_PORT"])), Ready)
    threading.Thread(target=ready.serve_forever, daemon=True).start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
