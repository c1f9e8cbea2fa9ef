import os
from pathlib import Path

import pytest

from service.metrics.cells import Blocks, Cells, Histogram
from service.metrics.instruments import Instrument

COUNTED = Instrument("counted", "", "colour")
NOW = Instrument("now", "", is_now=True)
TIMES = Instrument("times", "", buckets=(1.0, 2.0))


def cells_of(blocks: Blocks, name: str = "x") -> Cells:
    return Cells(blocks, name, [(COUNTED, ("red", "blue")), (NOW, ("",)), (TIMES, ())])


def test_a_histogram_counts_each_value_in_its_bucket_and_above() -> None:
    cells = memoryview(bytearray(8 * 4)).cast("d")
    histogram = Histogram([1.0, 2.0], cells)
    for number in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(number)
    assert list(cells) == [2, 2, 1, 14.0]  # up to 1, up to 2, above, and the sum


def test_of_several_workers_counts_add_up_and_what_is_now_only_of_those_that_live(
    tmp_path: Path,
) -> None:
    blocks = [Blocks(tmp_path, number) for number in range(3)]
    workers = [cells_of(each) for each in blocks]
    for number, cells in enumerate(workers, 1):
        cells.own(COUNTED)[1] = number
        cells.own(NOW)[0] = number * 10
        cells.own(TIMES)[2] = number
    for own, cells in zip(blocks, workers, strict=True):
        reading = own.read()
        assert cells.sums(reading) == {COUNTED: [0, 6], NOW: [60], TIMES: [0, 0, 6, 0]}
        assert cells.sums(reading, {0, 2}) == {COUNTED: [0, 6], NOW: [40], TIMES: [0, 0, 6, 0]}
        assert cells.sums(reading, ()) == {COUNTED: [0, 6], NOW: [0], TIMES: [0, 0, 6, 0]}
        assert cells.each(NOW, reading) == {0: 10, 1: 20, 2: 30}


def test_a_worker_goes_on_in_the_block_of_the_one_before(tmp_path: Path) -> None:
    cells_of(Blocks(tmp_path, 0)).own(COUNTED)[0] = 5
    assert list(cells_of(Blocks(tmp_path, 0)).own(COUNTED)) == [5, 0]


def test_a_worker_adds_blocks_to_those_of_the_one_before(tmp_path: Path) -> None:
    for worker in range(3):
        blocks = Blocks(tmp_path, 0)
        for name in range(100 * (worker + 1)):
            cells_of(blocks, str(name)).own(COUNTED)[0] += 1
    other = Blocks(tmp_path, 1)
    cells = [cells_of(other, str(name)) for name in range(300)]
    reading = other.read()
    counts = [each.sums(reading)[COUNTED][0] for each in cells]
    assert counts == [3.0] * 100 + [2.0] * 100 + [1.0] * 100


@pytest.mark.parametrize("labels", [1, 8_187, 8_188, 8_189, 20_000])
def test_blocks_of_any_size_lie_behind_each_other(tmp_path: Path, labels: int) -> None:
    values = [*map(str, range(labels))]  # 8,188 cells and the head fill a region of the file
    for _ in range(2):
        blocks = Blocks(tmp_path, 0)
        for name in ("a", "b", "c"):
            Cells(blocks, name, [(COUNTED, values)]).own(COUNTED)[labels - 1] += 1
    other = Blocks(tmp_path, 1)
    for name in ("a", "b", "c"):
        cells = Cells(other, name, [(COUNTED, values)])
        assert cells.sums(other.read())[COUNTED] == [0.0] * (labels - 1) + [2.0]


def test_cells_of_another_layout_are_others(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 0)
    cells_of(blocks).own(COUNTED)[0] = 5
    other = Cells(blocks, "x", [(COUNTED, ("green", "blue"))])
    assert list(other.own(COUNTED)) == [0, 0]


def test_without_a_folder_the_cells_are_private() -> None:
    first, second = Blocks(), Blocks()
    cells = [Cells(each, "x", [(NOW, ("",))]) for each in (first, second)]
    cells[0].own(NOW)[0] = 1
    assert cells[1].sums(second.read()) == {NOW: [0]}


def test_a_thousand_blocks_need_few_open_files(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 0)
    before = len(os.listdir("/proc/self/fd"))
    for name in range(1000):
        cells_of(blocks, str(name))
    assert len(os.listdir("/proc/self/fd")) < before + 10
