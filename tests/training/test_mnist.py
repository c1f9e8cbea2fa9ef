import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training import mnist
from training.data import read
from training.errors import InvalidData
from training.loop import make_deterministic


@pytest.fixture
def images() -> Tensor:
    """500 images of a square of ink in the middle: float32 (500, 784)."""
    make_deterministic(0)
    image = torch.zeros(28, 28)
    image[8:20, 8:20] = 255
    return image.flatten().expand(500, 784)


def still(monkeypatch: pytest.MonkeyPatch, *, but: str = "") -> None:
    for amount in {"ROTATION_DEGREES", "SHIFT_PIXELS", "SCALE", "SLANT"} - {but}:
        monkeypatch.setattr(mnist, amount, 0.0)


def centres(images: Tensor) -> Tensor:
    """Where the ink of each image is: (n, 784) -> (n, 2), pixels to the right and down."""
    planes = images.reshape(-1, 28, 28)
    places = torch.arange(28.0)
    ink = planes.sum(dim=(1, 2))
    across, down = planes.sum(dim=1) @ places, planes.sum(dim=2) @ places  # (n, 28) @ (28,)
    return torch.stack([across / ink, down / ink], dim=1)


def test_images_and_labels_are_those_published(real_data: Path) -> None:
    train, held_out = mnist.load()
    assert (train.inputs.shape, held_out.inputs.shape) == ((60_000, 784), (10_000, 784))
    for part in (train, held_out):
        assert part.inputs.dtype == torch.float32
        assert (part.inputs.min(), part.inputs.max()) == (0, 255)
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


def test_image_that_is_not_moved_stays(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)
    torch.testing.assert_close(mnist.warp(images), images, atol=0.01, rtol=0)


def test_images_are_shifted_both_ways_by_so_many_pixels(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    still(monkeypatch, but="SHIFT_PIXELS")
    moves = centres(mnist.warp(images)) - centres(images)
    assert moves.min(dim=0).values.tolist() == pytest.approx([-1.5, -1.5], abs=0.05)
    assert moves.max(dim=0).values.tolist() == pytest.approx([1.5, 1.5], abs=0.05)
    assert abs(torch.corrcoef(moves.T)[0, 1]) < 0.15  # across and down on their own


def test_images_are_scaled_by_so_much(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch, but="SCALE")
    areas = mnist.warp(images).sum(dim=1) / images[0].sum()
    assert areas.max().item() == pytest.approx(1.1**2, abs=0.02)
    assert areas.min().item() == pytest.approx(0.9**2, abs=0.02)


@pytest.mark.parametrize(
    ("amount", "most"),
    [
        # 8 pixels above the middle: tan(10 degrees) or 0.15 of that, to either side.
        ("ROTATION_DEGREES", 8 * 0.176),
        ("SLANT", 8 * 0.15),
    ],
)
def test_images_are_turned_and_slanted_by_so_much(
    amount: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    still(monkeypatch, but=amount)
    make_deterministic(0)
    image = torch.zeros(28, 28)
    image[4:8, 12:16] = 255
    moves = centres(mnist.warp(image.flatten().expand(500, 784)))[:, 0] - 13.5
    assert moves.min().item() == pytest.approx(-most, abs=0.1)
    assert moves.max().item() == pytest.approx(most, abs=0.1)


def test_every_image_is_moved_differently_and_stays_grey(images: Tensor) -> None:
    moved = mnist.warp(images)
    assert moved.shape == images.shape
    assert moved.min() >= 0
    assert moved.max() <= 255.01
    assert len(moved.unique(dim=0)) == len(images)


def test_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHLIT_DATA_DIR", str(tmp_path))
    for file in (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS):
        path = tmp_path / file.path
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x1f\x8b")
    with pytest.raises(InvalidData, match=r"train-images-idx3-ubyte\.gz: expected a whole gzip"):
        mnist.load()
