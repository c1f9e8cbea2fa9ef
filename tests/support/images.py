"""Images as a model sees them, read without HTTP."""

from typing import Any

from numpy.typing import NDArray

from service import card
from service.formats.images.decode import Reader
from tests.support.bodies import limits

DIGIT = card.Image(height=28, width=28, channels=1, preparation="")


def read(data: bytes, image: card.Image = DIGIT, **how: Any) -> NDArray[Any]:
    """Return the pixels that a model sees of a picture: (height, width), or with channels."""
    return Reader(image, limits(**how)).read(data, "body").reshape(image.shape)
