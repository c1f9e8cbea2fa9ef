"""The pictures that cases send, by name."""

import numpy as np
from PIL import Image

from tests.support.drawings import header_only, jpeg, png, saved


def _drawn() -> bytes:
    sheet = np.full((160, 160), 255)
    sheet[40:120, 70:90] = 0
    return png(sheet)


PICTURES = {
    "drawn": _drawn(),  # a thick line on a sheet of 160 x 160
    "small": png(np.zeros((28, 28))),  # as `seen` takes it
    "310 x 310": png(np.zeros((310, 310))),
    "JPEG": jpeg(np.zeros((50, 50))),
    "GIF": saved(Image.new("L", (9, 9)), "GIF"),
    "WebP": saved(Image.new("L", (9, 9)), "WEBP"),
    "400 x 400": header_only(400, 400),
    "1 x 70,000": header_only(1, 70_000),
}
