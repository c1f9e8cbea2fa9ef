import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from training import mnist
from training.data import read
from training.errors import InvalidData
from training.rows import Rows


def test_images_and_labels_are_those_published(real_data: Path) -> None:
    train, held_out = mnist.load()
    assert (train.inputs.shape, held_out.inputs.shape) == ((60_000, 784), (10_000, 784))
    for part in (train, held_out):
        assert part.inputs.dtype == torch.float32
        assert (part.inputs.min().item(), part.inputs.max().item()) == (0, 255)
    # The counts that everybody gets.
    assert train.targets.bincount().tolist() == [
        *[5923, 6742, 5958, 6131, 5842],
        *[5421, 5918, 6265, 5851, 5949],
    ]
    assert held_out.targets.bincount().tolist() == [
        *[980, 1135, 1032, 1010, 982],
        *[892, 958, 1028, 974, 1009],
    ]


def test_digest_of_the_card_is_of_the_four_files_joined(real_data: Path) -> None:
    joined = hashlib.sha256()
    for file in (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS, mnist.TEST_IMAGES, mnist.TEST_LABELS):
        joined.update(read(file))
    assert joined.hexdigest() == mnist.DATASET.sha256


def write_csv(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = torch.cat([rows.targets[:, None], rows.inputs.long()], dim=1)
    np.savetxt(path, table.numpy(), fmt="%d", delimiter=",")


@pytest.mark.slow
def test_csv_files_are_read_where_there_are_no_others(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = mnist.load()
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    paths = [tmp_path / "mnist/mnist_train.csv", tmp_path / "mnist_valid.csv"]  # either place
    for path, rows in zip(paths, published, strict=True):
        write_csv(path, rows)
    for got, rows in zip(mnist.load(), published, strict=True):
        assert torch.equal(got.inputs, rows.inputs)
        assert torch.equal(got.targets, rows.targets)

    held_out = published[1]
    held_out.inputs[77, 400] += 1
    write_csv(paths[1], held_out)
    with pytest.raises(InvalidData, match=r"mnist_valid\.csv: expected the rows of mnist/t10k-im"):
        mnist.load()
    paths[1].write_text("7" + ",0" * 783 + "\n")
    with pytest.raises(InvalidData, match=r"_valid\.csv: line 1: expected 785 values, got 784"):
        mnist.load()


def test_drawn_images_are_the_same_for_every_network_and_harder(real_data: Path) -> None:
    _, held_out = mnist.load()
    rows = Rows(inputs=held_out.inputs[:500], targets=held_out.targets[:500])
    seen: list[torch.Tensor] = []

    class Recorder(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append(inputs)
            return nn.functional.one_hot(rows.targets, 10).float()

    state = torch.random.get_rng_state()
    torch.rand(3)
    for _ in range(2):
        assert mnist.measure(Recorder(), rows) == {"accuracy": 1.0, "accuracy_distorted": 1.0}
    drawn, plain, again, _ = seen
    assert torch.equal(drawn, again)
    assert torch.equal(plain, rows.inputs)
    assert (drawn - rows.inputs).abs().mean(dim=1).min() > 1  # each image is another
    torch.random.set_rng_state(state)


def test_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    for file in (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS):
        path = tmp_path / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x1f\x8b")
    with pytest.raises(InvalidData, match=r"train-images-idx3-ubyte\.gz: expected a complete gzip"):
        mnist.load()
