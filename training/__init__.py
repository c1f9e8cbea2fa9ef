"""Train small networks and write model files that the service can serve.

NumPy and ONNX Runtime read these settings when they are first imported, so training makes its
choices here, before any module of it can import them. A setting of the environment is kept.
"""

import os

# One thread: equal bytes on any number of cores, and no thread waits for another that a busy
# machine has put aside (ten epochs of MNIST beside one other busy process on two cores: 341 s
# with two threads, 13 s with one). NumPy's threads change no model, but a figure of `evaluate`:
# MNIST's logistic regression has 92.58 % with one, 92.57 % with two.
THREADS = 1
for variable, value in {
    "OPENBLAS_NUM_THREADS": str(THREADS),  # NumPy; PyTorch: make_deterministic
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime's wheels since 1.29 report home
}.items():
    os.environ[variable] = os.environ.get(variable) or value
