from pathlib import Path

from service.metrics.cells import Blocks, Cells, Histogram
from service.metrics.instruments import Instrument

COUNTED = Instrument("counted", "", "colour")
NOW = Instrument("now", "", is_now=True)
TIMES = Instrument("times", "", buckets=(1.0, 2.0))


def cells_of(folder: Path, worker: int) -> Cells:
    return Cells(
        Blocks(folder, worker), "x", [(COUNTED, ("red", "blue")), (NOW, ("",)), (TIMES, ())]
    )


def test_a_histogram_counts_each_value_in_its_bucket_and_above() -> None:
    cells = memoryview(bytearray(8 * 4)).cast("d")
    histogram = Histogram([1.0, 2.0], cells)
    for number in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(number)
    assert list(cells) == [2, 2, 1, 14.0]  # up to 1, up to 2, above, and the sum


def test_of_several_workers_counts_add_up_and_what_is_now_only_of_those_that_live(
    tmp_path: Path,
) -> None:
    workers = [cells_of(tmp_path, number) for number in range(3)]
    for number, cells in enumerate(workers, 1):
        cells.own(COUNTED)[1] = number
        cells.own(NOW)[0] = number * 10
        cells.own(TIMES)[2] = number
    for cells in workers:
        assert cells.sums() == {COUNTED: [0, 6], NOW: [60], TIMES: [0, 0, 6, 0]}
        assert cells.sums({0, 2}) == {COUNTED: [0, 6], NOW: [40], TIMES: [0, 0, 6, 0]}
        assert cells.each(NOW) == {0: 10, 1: 20, 2: 30}


def test_a_worker_goes_on_in_the_block_of_the_one_before(tmp_path: Path) -> None:
    cells_of(tmp_path, 0).own(COUNTED)[0] = 5
    assert list(cells_of(tmp_path, 0).own(COUNTED)) == [5, 0]


def test_cells_of_another_layout_are_others(tmp_path: Path) -> None:
    cells_of(tmp_path, 0).own(COUNTED)[0] = 5
    other = Cells(Blocks(tmp_path, 0), "x", [(COUNTED, ("green", "blue"))])
    assert list(other.own(COUNTED)) == [0, 0]


def test_without_a_folder_the_cells_are_private() -> None:
    first, second = (Cells(Blocks(), "x", [(NOW, ("",))]) for _ in range(2))
    first.own(NOW)[0] = 1
    assert second.sums() == {NOW: [0]}
