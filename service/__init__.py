"""torchlit's service: ONNX models over HTTP. Never imports torch or training."""
