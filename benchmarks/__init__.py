"""How fast the service is: beside its rivals, beside the bare model, and as load grows."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is first imported
