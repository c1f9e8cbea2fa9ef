from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.batch import Scorer, image_blocks
from service.batch.image_blocks import ImageInput
from service.errors import InvalidInput
from service.settings import Settings
from tests.support import drawings
from tests.support.toys import save_mean

LONGEST = 10_000  # bytes of an image


@pytest.fixture
def mean(tmp_path: Path) -> Scorer:
    save_mean(tmp_path / "models")
    return Scorer("mean", Settings(models_dir=tmp_path / "models", max_body_bytes=LONGEST))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Seven images, the third of which is none and the fifth is not there; a block is three."""
    monkeypatch.setattr(image_blocks, "MOST_IMAGES", 3)
    paths = [tmp_path / f"{place}.png" for place in range(7)]
    for place, path in enumerate(paths):
        path.write_bytes(drawings.png(np.full((2, 3), place, np.uint8)))
    paths[2].write_bytes(b"none")
    paths[4].unlink()
    return [(path.name, path) for path in paths]


def test_images_are_answered_by_their_names(mean: Scorer, files: list[tuple[str, Path]]) -> None:
    files[5][1].unlink()
    files[5][1].write_bytes(files[6][1].read_bytes() + b"\0" * LONGEST)
    opened = ImageInput(files, mean, LONGEST)
    answered = [block.answer(mean) for block, _ in opened]
    names = [name for each in answered for name in each.table.column("file").to_pylist()]
    assert names == ["0.png", "1.png", "3.png", "6.png"]
    values = [value for each in answered for value in each.table.column("value").to_pylist()]
    assert values == [0, 1, 3, 6]
    bad = [sentence for each in answered for sentence in each.bad]
    assert [each.partition(":")[0] for each in bad] == ["2.png", "4.png", "5.png"]
    assert bad[1] == "4.png: cannot be read: No such file or directory"
    assert bad[2].startswith("5.png: expected an image of at most 10000 bytes, got ")


def test_a_position_is_that_of_the_same_images_alone(
    mean: Scorer, files: list[tuple[str, Path]]
) -> None:
    given = list(ImageInput(files, mean, LONGEST))
    assert [position.number for _, position in given] == [3, 6, 7]
    again = ImageInput(files, mean, LONGEST)
    assert again.pass_to(given[0][1])
    assert list(again) == given[1:]
    files[0][1].write_bytes(b"another")
    assert not ImageInput(files, mean, LONGEST).pass_to(given[0][1])


def test_blocks_of_large_images_are_few(
    mean: Scorer, files: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_blocks, "MOST_BYTES", 1)
    sizes = [len(block.pictures) for block, _ in ImageInput(files, mean, LONGEST)]
    assert sizes == [1, 1, 1, 1, 2, 1]  # what cannot be read has no bytes


def test_a_model_of_rows_takes_none(scorer: Callable[[str], Scorer]) -> None:
    with pytest.raises(InvalidInput, match=r"^toy/1: expected a model that takes images$"):
        ImageInput([], scorer("toy"), 1)
