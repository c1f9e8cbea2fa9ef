"""Train small networks and write model files that the service can serve."""

import os

# The ONNX Runtime wheels since 1.29 report home unless this is set before their first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
