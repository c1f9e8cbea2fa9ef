"""torchlit's service: ONNX models over HTTP. Never imports torch or training.

Two libraries read their switches when they are first imported, so the switches stand here,
before any module of the service can import either. What the environment says goes first.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its wheels report home by default
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's pool would compete with the loop
