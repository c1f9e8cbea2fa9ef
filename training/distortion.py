"""Images changed at random, so that a network learns what is drawn and not where and how."""

import math

import torch
from msgspec import Struct
from torch import Tensor, nn

GENTLE_FROM = 0.85  # share of the training after which images are changed less
GENTLE = 0.4  # of each strength


class Distortion(Struct, frozen=True, kw_only=True):
    """How far each image is changed at most, anew in every epoch, in all these ways together."""

    height: int  # pixels
    width: int
    rotation_degrees: float
    shift_pixels: float
    scale: float  # up to this share larger or smaller, across and down each for itself
    slant: float  # pixels to the side for each pixel up
    thickness: float = 0.0  # share of the images whose strokes are made thicker or thinner

    @property
    def strengths(self) -> dict[str, float]:
        """How strong each change is, by name, as the card lists it."""
        return {name: getattr(self, name) for name in self.__struct_fields__[2:]}

    def __call__(self, inputs: Tensor, done: float) -> Tensor:
        """Change each image: float32 (n, height * width), 0 to 255; the shape stays.

        done: share of the training that is done; near the end the images are nearly as they are.
        """
        strength = 1.0 if done < GENTLE_FROM else GENTLE
        # (n, height * width) -> (n, 1, height, width), and back
        images = inputs.reshape(-1, 1, self.height, self.width)
        if self.thickness:
            images = self._thicken(images, strength)
        return self._warp(images, strength).flatten(1)

    def _thicken(self, images: Tensor, strength: float) -> Tensor:
        """Blend (n, 1, height, width) with what is thicker or thinner by about a pixel."""
        chance, blend = torch.rand(2, len(images), 1, 1, 1)
        thicker = nn.functional.max_pool2d(images, 3, stride=1, padding=1)
        # 2 x 2 and not 3 x 3, which would erase many a stroke.
        thinner = -nn.functional.max_pool2d(-nn.functional.pad(images, (0, 1, 0, 1)), 2, stride=1)
        other = torch.where(chance < self.thickness / 2, thicker, thinner)
        return torch.where(chance < self.thickness, images.lerp(other, blend * strength), images)

    def _warp(self, images: Tensor, strength: float) -> Tensor:
        """Turn, slant, scale and shift (n, 1, height, width)."""
        draws = strength * torch.empty(6, len(images)).uniform_(-1, 1)
        angle, slant, across, down, right, below = draws  # (n,) each
        angle = angle * math.radians(self.rotation_degrees)
        cos, sin = angle.cos(), angle.sin()
        slant = slant * self.slant
        across, down = 1 + across * self.scale, 1 + down * self.scale
        # Where in the image a pixel of the warped one comes from: 6 x (n,) -> (n, 2, 3).
        # affine_grid counts from -1 to 1.
        rows = [
            [cos * across, (cos * slant - sin) * down, right * self.shift_pixels * 2 / self.width],
            [sin * across, (sin * slant + cos) * down, below * self.shift_pixels * 2 / self.height],
        ]
        matrix = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
        grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
        return nn.functional.grid_sample(images, grid, align_corners=False)
