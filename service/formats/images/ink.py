"""Drawings and photographs -> pixels as MNIST was made: light ink on a dark background.

Of MNIST its makers say (yann.lecun.com/exdb/mnist): "normalized to fit in a 20x20 pixel box while
preserving their aspect ratio ... grey levels as a result of the anti-aliasing ... centered in a
28x28 image by computing the center of mass of the pixels". So of a drawing

    what differs from the background is ink, whatever the colours      (`_ink`)
    the box around the ink, without specks, is found              (`_box`)
    and scaled to 20/28 of the model's height and width, its centre of mass in the middle (`_fit`)
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Levels are grey values, 0 to 255, unless they are shares.
_BOX_SHARE = 20 / 28  # of the model's image that the ink fills, MNIST's
_LEAST_CONTRAST = 24.0  # between background and ink: what has less is an empty sheet
_NOISE_FACTOR = 3.0  # what differs from background by so many standard deviations is not noise
_FAINT = 0.12  # share of full ink from which something belongs to the box
_SPECK = 0.04  # share of the largest blot's ink below which a blot is a speck
_BLOT_CELLS = 96  # blots are told apart on a grid of so many cells to a side

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def prepared(colours: Floats, height: int, width: int) -> Pixels:
    """Return a drawing or photograph (h, w, 3) as the model takes it: uint8 (height, width).

    An empty sheet gives zeros.
    """
    ink = _ink(colours, _background(colours))
    if ink is None:  # of a tight crop the border is ink, and the surface went through it
        border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
        ink = _ink(colours, np.median(border, axis=0).astype(np.float32))
    if ink is None:
        return np.zeros((height, width), np.uint8)
    return _fit(_box(ink), height, width)


def _ink(colours: Floats, background: Floats) -> Floats | None:
    """Return how much ink is where, 0 to 1 (h, w); None for an empty sheet.

    Ink is what differs from the background. Its colour is the mean of what differs most, and a
    pixel has as much of it as it lies in that direction.
    """
    apart = colours - background
    distance = np.sqrt(np.einsum("hwc,hwc->hw", apart, apart))
    core = distance > _otsu(distance)
    if not core.any():
        return None
    colour = apart[core].mean(axis=0)
    length = float(np.sqrt(colour @ colour))
    if length == 0:
        return None
    along = apart @ (colour / length).astype(np.float32)  # (h, w)
    noise = 1.4826 * float(np.median(np.abs(along[~core])))  # a normal one's standard deviation
    least, full = _NOISE_FACTOR * noise, float(np.percentile(along[core], 90))
    if full < max(_LEAST_CONTRAST, 2 * least):
        return None
    ink: Floats = np.clip((along - least) / (full - least), 0, 1).astype(np.float32)
    return ink


def _background(colours: Floats) -> Floats:
    """Return what the sheet would look like without ink (h, w, 3): a surface of second degree.

    It goes through the border, then through all that is near it: shadows are followed, ink is not.
    """
    height, width = colours.shape[:2]
    rows = np.unique(np.linspace(0, height - 1, 48).astype(int))
    columns = np.unique(np.linspace(0, width - 1, 48).astype(int))
    sample = colours[np.ix_(rows, columns)].reshape(-1, 3)
    down, across = np.meshgrid(_span(height)[rows], _span(width)[columns], indexing="ij")
    terms = _terms(down.ravel(), across.ravel())  # (n, 6)
    is_border = (np.abs(down) >= 0.9).ravel() | (np.abs(across) >= 0.9).ravel()

    weights = is_border.astype(np.float32)
    for _ in range(8):  # to the least sum of distances: a plane that outliers do not pull
        surface = _solved(terms[:, :3], sample, weights)
        distance = _lengths(sample - terms[:, :3] @ surface)
        weights = is_border / (distance + 1)
    surface = np.vstack([surface, np.zeros((3, 3), np.float32)])
    for _ in range(4):
        distance = _lengths(sample - terms @ surface)
        near = 1.4826 * 3 * float(np.median(distance[is_border]))
        surface = _solved(terms, sample, (distance <= max(near, 12.0)).astype(np.float32))
    # The same terms over all pixels: (h, 1, 1) and (1, w, 1) by (3,) -> (h, w, 3)
    down, across = _span(height)[:, None, None], _span(width)[None, :, None]
    one, of_down, of_across, of_both, of_down_2, of_across_2 = surface
    fitted: Floats = (
        one
        + of_down * down
        + of_down_2 * down**2
        + across * (of_across + of_across_2 * across + of_both * down)
    )
    return np.clip(fitted, 0, 255)


def _span(count: int) -> Floats:
    return np.linspace(-1, 1, count, dtype=np.float32)


def _terms(down: Floats, across: Floats) -> Floats:
    one = np.ones_like(down)
    return np.stack([one, down, across, down * across, down**2, across**2], axis=1)


def _solved(terms: Floats, sample: Floats, weights: Floats) -> Floats:
    """Return the surface that is nearest to the sample, by weighted least squares."""
    by_weight = (terms * weights[:, None]).T
    ridge = 1e-3 * np.eye(terms.shape[1], dtype=np.float32)  # where too little is near
    return np.linalg.solve(by_weight @ terms + ridge, by_weight @ sample).astype(np.float32)


def _lengths(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("nc,nc->n", vectors, vectors))
    return lengths


def _otsu(levels: Floats) -> float:
    """Return the level that parts two kinds of pixels best (N. Otsu, IEEE SMC 9, 1979).

    Nothing is above it where all are of one kind.
    """
    if levels.min() == levels.max():
        return float(levels.max())
    counts, edges = np.histogram(levels, 256)
    below = counts.cumsum()
    sums = (counts * edges[:-1]).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = (sums / below - (sums[-1] - sums) / above) ** 2 * below * above
    return float(edges[1 + int(np.nanargmax(apart[:-1]))])


def _box(ink: Floats) -> Floats:
    """Return the part of (h, w) that holds the ink, without specks: what is drawn may be in parts.

    Blots are told apart on a coarse grid, so that gaps of a pen that skips part nothing.
    """
    size = max(1, math.ceil(max(ink.shape) / _BLOT_CELLS))  # pixels of a cell
    down, across = (-side % size for side in ink.shape)
    cells = np.pad(ink, ((0, down), (0, across)))
    cells = cells.reshape(cells.shape[0] // size, size, -1, size)
    highest = cells.max(axis=(1, 3))
    blots = _blots(highest >= _FAINT)  # (h / size, w / size), 0 where there is none
    of_each = np.bincount(blots.ravel(), cells.sum(axis=(1, 3)).ravel())
    of_each[0] = 0
    is_kept = of_each >= _SPECK * of_each.max()
    is_kept[0] = False
    kept = is_kept[blots].repeat(size, axis=0).repeat(size, axis=1)
    ink = ink * kept[: ink.shape[0], : ink.shape[1]]
    rows = np.flatnonzero((ink >= _FAINT).any(axis=1))
    columns = np.flatnonzero((ink >= _FAINT).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _blots(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number what hangs together, corners too: 0 where there is nothing."""
    height, width = mask.shape
    padded = np.pad(mask, 1)
    numbers = np.where(padded, np.arange(1, padded.size + 1).reshape(padded.shape), 0)
    while True:
        around = [numbers[i : i + height, j : j + width] for i in range(3) for j in range(3)]
        highest = np.where(mask, np.maximum.reduce(around), 0)
        following = np.append(0, numbers.ravel())[highest]  # what the highest has become itself
        if np.array_equal(following, numbers[1:-1, 1:-1]):
            return following
        numbers = np.pad(following, 1)


def _fit(ink: Floats, height: int, width: int) -> Pixels:
    """Return ink (h, w) as an image of the model's size: uint8 (height, width).

    It is moved by whole pixels, as MNIST's images were, and never over the edge.
    """
    box = round(height * _BOX_SHARE) or 1, round(width * _BOX_SHARE) or 1
    scale = min(box[0] / ink.shape[0], box[1] / ink.shape[1])
    rows, columns = (max(1, round(side * scale)) for side in ink.shape)
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    scaled = np.asarray(Image.fromarray(ink).resize((columns, rows), way))
    scaled = np.clip(scaled / scaled.max(), 0, 1)  # a thin stroke has no full ink left
    total = float(scaled.sum())
    top, left = (
        min(
            max(round(field / 2 - float(scaled.sum(axis=1 - axis) @ np.arange(side)) / total), 0),
            field - side,
        )
        for axis, (side, field) in enumerate(zip(scaled.shape, (height, width), strict=True))
    )
    image = np.zeros((height, width), np.uint8)
    image[top : top + rows, left : left + columns] = np.rint(scaled * 255)
    return image
