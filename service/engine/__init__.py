"""A model file -> arrays in, arrays out. The only place where onnxruntime is imported.

file        what stands in an .onnx file beside its numbers, and the files of weights that it names
contents    the bytes of these files, each read once, and whether they are the approved ones
providers   execution providers: which there are, which device each is; plugins come as packages
assignment  which of them runs how many nodes of a graph
spec        what goes into a model and comes out of it
session     an ONNX Runtime session, or one sentence that says why there is none
trial       rows run alone and together: may callers share a batch, and what does one cost
model       all of that in one value that runs
"""

import os

# ONNX Runtime reads it when it is imported: since 1.29 its wheels send telemetry by default.
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"
