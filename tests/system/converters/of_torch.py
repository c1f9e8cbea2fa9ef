"""Files of torch, quantised files, and files of float16."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from case import Case, case, valued
from data import FLOWERS, KINDS, PATIENTS, PROGRESS, SOME, SOME_PATIENTS
from onnx import ModelProto
from onnxconverter_common.float16 import convert_float_to_float16
from onnxruntime.quantization import QuantType, quantize_dynamic
from skl2onnx import to_onnx
from sklearn.neural_network import MLPRegressor
from torch import Tensor, nn

torch.set_num_threads(1)


def exported(network: nn.Module, example: Tensor, **named: Any) -> ModelProto:
    """Return the file that torch.onnx.export writes, with weights in it."""
    file = io.BytesIO()
    program = torch.onnx.export(
        network.eval(), (example,), input_names=["input"], dynamo=True, verbose=False, **named
    )
    assert program is not None
    program.save(file)
    return onnx.load_from_string(file.getvalue())


def network() -> nn.Module:
    """Return a classifier of iris: 4 features to 3 probabilities."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(made.parameters(), 0.02)
    rows, kinds = torch.from_numpy(FLOWERS), torch.from_numpy(KINDS)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(made(rows), kinds).backward()
        optimizer.step()
    return nn.Sequential(made, nn.Softmax(dim=1))


def answers(network: nn.Module, rows: np.ndarray) -> np.ndarray:
    """Return what torch answers, a row flat."""
    with torch.no_grad():
        got: np.ndarray = network(torch.from_numpy(rows)).numpy()
    return got.reshape(len(rows), -1)


OPEN = {"dynamic_shapes": ({0: "batch"},)}


@case
def torch_batch_of_one() -> Case:
    made = network()
    model = exported(made, torch.from_numpy(FLOWERS[:1]), output_names=["y"])
    return Case(model, {"input": SOME}, values=answers(made, SOME))


@case
def torch_open_batch() -> Case:
    made = network()
    model = exported(made, torch.from_numpy(FLOWERS[:2]), output_names=["y"], **OPEN)
    return Case(model, {"input": SOME}, values=answers(made, SOME))


class Smoothed(nn.Module):
    """The mean, the largest and the sum of squares of a series of any length."""

    def forward(self, series: Tensor) -> Tensor:
        return torch.stack([series.mean(1), series.amax(1), (series**2).sum(1)], dim=1)


@case
def torch_open_columns() -> Case:
    rows = torch.from_numpy(PATIENTS[:2])
    shapes = ({0: "batch", 1: "length"},)
    model = exported(Smoothed(), rows, output_names=["y"], dynamic_shapes=shapes)
    return Case(model, {"input": SOME_PATIENTS}, values=answers(Smoothed(), SOME_PATIENTS))


@case
def torch_flat_input() -> Case:
    """[n] -> [n]: rows that are a number each."""
    rows = FLOWERS[:2, 0]
    model = exported(nn.Sigmoid(), torch.from_numpy(rows), output_names=["y"], **OPEN)
    return Case(model, {"input": SOME[:, 0]}, values=answers(nn.Sigmoid(), SOME[:, 0]))


@case
def torch_open_image() -> Case:
    """[n, 3, height, width] -> [n, 4]."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    images = np.random.default_rng(3).random((30, 3, 6, 8), np.float32)
    shapes = ({0: "batch", 2: "height", 3: "width"},)
    model = exported(made, torch.from_numpy(images[:2]), output_names=["y"], dynamic_shapes=shapes)
    return Case(model, {"input": images}, values=answers(made, images))


@case
def torch_float16() -> Case:
    """Input and output are float16 too."""
    made = network()
    model = exported(made, torch.from_numpy(FLOWERS[:2]), output_names=["y"], **OPEN)
    half = convert_float_to_float16(model)
    return Case(half, {"input": SOME.astype(np.float16)}, values=answers(made, SOME))


@case
def torch_float16_inside() -> Case:
    """Input and output stay float32."""
    made = network()
    model = exported(made, torch.from_numpy(FLOWERS[:2]), output_names=["y"], **OPEN)
    half = convert_float_to_float16(model, keep_io_types=True)
    return Case(half, {"input": SOME}, values=answers(made, SOME))


def quantised(model: ModelProto) -> bytes:
    """Return the file with weights of 8 bits."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, before)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8)
        return after.read_bytes()


@case
def torch_quantised() -> Case:
    made = network()
    model = exported(made, torch.from_numpy(FLOWERS[:2]), output_names=["y"], **OPEN)
    del model.graph.value_info[:]  # quantize_dynamic refuses it as it is
    return Case(quantised(model), {"input": SOME}, values=answers(made, SOME))


@case
def sk_mlp_quantised() -> Case:
    model = MLPRegressor(hidden_layer_sizes=(16,), random_state=0, max_iter=200, solver="lbfgs")
    model.fit(PATIENTS, PROGRESS / 100)
    made = to_onnx(model, PATIENTS[:1], target_opset={"": 20, "ai.onnx.ml": 3})
    return valued(quantised(made), {"X": SOME_PATIENTS}, model, SOME_PATIENTS)
