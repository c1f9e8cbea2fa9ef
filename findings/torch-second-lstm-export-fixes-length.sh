#!/usr/bin/env bash
# torch 2.13.0 (CPU), onnxscript 0.7.2, onnx 1.23.2
#
# torch.onnx.export(dynamo=True) of a module with an LSTM or a GRU, whose length is a dynamic dimension
# (torch.export.Dim): the first export of a process leaves the length open, every further one fixes it
# at that of the example, without an error or a warning that says so. The module, the example and the
# arguments are the same each time. A Linear in place of the LSTM is exported alike each time.
#
# Expected: equal calls make equal files.
# Seen: input shapes ["batch", "time", 3], then ["batch", 7, 3] twice. With the dimension given as a
# name, or as Dim.DYNAMIC, the second call raises ("tracing inferred a static shape of 7"); only
# Dim.AUTO gives an open length each time. torch._dynamo.reset() between the calls does not help.
#
# Who is hurt: scripts that export several models or versions, and notebooks, where the second try is
# the rule. The file refuses all series but those as long as the example.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnxscript==0.7.2 \
    onnx==1.23.2 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" -W ignore - 2>/dev/null <<'PY'
import torch
from torch import nn
from torch.export import Dim


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, series):
        return self.lstm(series)[0][:, -1]


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, series):
        return self.linear(series).mean(1)


def length(module, time):
    made = torch.onnx.export(
        module.eval(),
        (torch.rand(2, 7, 3),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: Dim("batch"), 1: time},),
    ).model_proto
    dimension = made.graph.input[0].type.tensor_type.shape.dim[1]
    return dimension.dim_param or dimension.dim_value


linear = [length(Mean(), Dim("time")) for _ in range(3)]
lstm = [length(Last(), Dim("time")) for _ in range(3)]
print(f"length of the input in three exports: Linear {linear}, LSTM {lstm}")
assert linear == ["time"] * 3
assert lstm == ["time", 7, 7]
PY
