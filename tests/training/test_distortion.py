import msgspec
import pytest
import torch
from torch import Tensor

from training.distortion import GENTLE, GENTLE_FROM, Distortion
from training.loop import make_deterministic

STILL = Distortion(
    height=28, width=28, rotation_degrees=0.0, shift_pixels=0.0, scale=0.0, slant=0.0
)


def only(**amount: float) -> Distortion:
    return msgspec.structs.replace(STILL, **amount)


@pytest.fixture
def images() -> Tensor:
    """500 images of a square in the middle: float32 (500, 784)."""
    make_deterministic(0)
    image = torch.zeros(28, 28)
    image[8:20, 8:20] = 255
    return image.flatten().expand(500, 784)


def centres(images: Tensor) -> Tensor:
    """Return the centre of mass of each image: (n, 784) -> (n, 2), pixels to the right and down."""
    planes = images.reshape(-1, 28, 28)
    places = torch.arange(28.0)
    strokes = planes.sum(dim=(1, 2))
    across, down = planes.sum(dim=1) @ places, planes.sum(dim=2) @ places  # (n, 28) @ (28,)
    return torch.stack([across / strokes, down / strokes], dim=1)


def test_image_that_is_not_changed_stays(images: Tensor) -> None:
    torch.testing.assert_close(STILL(images, 0.0), images, atol=0.01, rtol=0)


@pytest.mark.parametrize(("done", "most"), [(0.0, 1.5), (GENTLE_FROM, 1.5 * GENTLE)])
def test_images_are_shifted_both_ways_by_so_many_pixels(
    images: Tensor, done: float, most: float
) -> None:
    moves = centres(only(shift_pixels=1.5)(images, done)) - centres(images)
    assert moves.min(dim=0).values.tolist() == pytest.approx([-most, -most], abs=0.05)
    assert moves.max(dim=0).values.tolist() == pytest.approx([most, most], abs=0.05)
    assert abs(torch.corrcoef(moves.T)[0, 1]) < 0.15  # across and down on their own


def test_images_are_scaled_by_so_much_across_and_down(images: Tensor) -> None:
    planes = only(scale=0.1)(images, 0.0).reshape(-1, 28, 28) / 255
    sides = torch.stack([planes[:, 14].sum(dim=1), planes[:, :, 14].sum(dim=1)])  # (2, n)
    assert sides.amax(dim=1).tolist() == pytest.approx([12 / 0.9] * 2, abs=0.15)
    assert sides.amin(dim=1).tolist() == pytest.approx([12 / 1.1] * 2, abs=0.15)
    assert abs(torch.corrcoef(sides)[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("amount", "most"),
    [
        # 8 pixels above the middle: tan(10 degrees) or 0.15 of that, to either side.
        ({"rotation_degrees": 10.0}, 8 * 0.176),
        ({"slant": 0.15}, 8 * 0.15),
    ],
)
def test_images_are_turned_and_slanted_by_so_much(amount: dict[str, float], most: float) -> None:
    make_deterministic(0)
    image = torch.zeros(28, 28)
    image[4:8, 12:16] = 255
    moves = centres(only(**amount)(image.flatten().expand(500, 784), 0.0))[:, 0] - 13.5
    assert moves.min().item() == pytest.approx(-most, abs=0.1)
    assert moves.max().item() == pytest.approx(most, abs=0.1)


def test_a_share_of_the_strokes_becomes_thicker_and_another_thinner(images: Tensor) -> None:
    changed = only(thickness=0.4)(images, 0.0)
    strokes = changed.sum(dim=1) / images[0].sum()
    assert (strokes > 1.001).double().mean().item() == pytest.approx(0.2, abs=0.06)
    assert (strokes < 0.999).double().mean().item() == pytest.approx(0.2, abs=0.06)
    # A square of 12 x 12 grows to 14 x 14 at most, and shrinks to 11 x 11.
    assert strokes.max().item() == pytest.approx((14 / 12) ** 2, abs=0.02)
    assert strokes.min().item() == pytest.approx((11 / 12) ** 2, abs=0.02)
    gentle = only(thickness=0.4)(images, 1.0).sum(dim=1) / images[0].sum()
    assert 1 < gentle.max().item() < 1 + GENTLE * ((14 / 12) ** 2 - 1) + 0.01


def test_strokes_at_the_border_are_not_thinned_from_outside_the_image_alone() -> None:
    make_deterministic(0)
    full = torch.full((200, 784), 255.0)
    changed = only(thickness=1.0)(full, 0.0).reshape(-1, 28, 28)
    assert (changed[:, :-1, :-1] > 254.9).all()


def test_every_image_is_changed_differently_and_stays_grey(images: Tensor) -> None:
    all_of_it = Distortion(
        height=28,
        width=28,
        rotation_degrees=12.0,
        shift_pixels=2.0,
        scale=0.12,
        slant=0.2,
        thickness=0.4,
    )
    changed = all_of_it(images, 0.0)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 255.01
    assert len(torch.unique(changed, dim=0)) == len(images)


def test_images_need_not_be_square() -> None:
    make_deterministic(0)
    image = torch.zeros(10, 40)
    image[4:6, 18:22] = 255
    wide = msgspec.structs.replace(only(shift_pixels=2.0), height=10, width=40)
    moved = wide(image.flatten().expand(300, 400), 0.0).reshape(-1, 10, 40)
    columns = moved.sum(dim=1) @ torch.arange(40.0) / moved.sum(dim=(1, 2))
    assert (columns - 19.5).abs().max().item() == pytest.approx(2.0, abs=0.05)
