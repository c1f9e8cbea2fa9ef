import errno
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


def no_place(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_mapped_has_a_place_on_the_disk(tmp_path: Path) -> None:
    blocks = Blocks(tmp_path, 0)
    for name in range(200):
        cells_of(blocks, str(name))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 0


@pytest.mark.slow
def test_in_a_full_folder_a_worker_counts_for_itself_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = Blocks(tmp_path, 0), Blocks(tmp_path, 1)
    for each in blocks:
        cells_of(each).own(NOW)[0] = 1
    size = (tmp_path / "worker-0.cells").stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_place)
        for name in range(1000):
            cells_of(blocks[0], str(name)).own(NOW)[0] += 1
    assert (tmp_path / "worker-0.cells").stat().st_size == size
    (record,) = caplog.records
    assert record.getMessage() == (
        f"TORCHLIT_METRICS_DIR: {tmp_path}: No space left on device: only worker 0 itself shows "
        "what it counts of further models"
    )
    for name in map(str, range(1000)):
        own, other = (cells_of(each, name).sums(each.read())[NOW] for each in blocks)
        assert own == [1]
    assert other == [0]  # of the last model
    assert cells_of(blocks[1]).sums(blocks[1].read())[NOW] == [2]  # of what had a place
    cells_of(blocks[0], "later").own(NOW)[0] = 5  # there is a place again
    assert cells_of(blocks[1], "later").sums(blocks[1].read())[NOW] == [5]


def test_a_region_that_was_allocated_in_part_is_no_part_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_part(descriptor: int, start: int, length: int) -> None:
        os.ftruncate(descriptor, start + length // 2 + 1)
        no_place()

    blocks = Blocks(tmp_path, 0)
    cells_of(blocks).own(NOW)[0] = 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", a_part)
        Cells(blocks, "large", [(COUNTED, [*map(str, range(20_000))])])
    with (tmp_path / "worker-0.cells").open("ab") as file:
        file.write(bytes(100))  # of a worker that was killed in between
    for each in (blocks, Blocks(tmp_path, 0)):
        cells_of(each, "next").own(NOW)[0] += 1
    reader = Blocks(tmp_path, 1)
    assert cells_of(reader).sums(reader.read())[NOW] == [1]
    assert cells_of(reader, "next").sums(reader.read())[NOW] == [2]


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.EROFS, errno.EIO])
def test_a_folder_that_cannot_be_used_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "open", fail)
    blocks = Blocks(tmp_path / "gone", 0)
    cells = cells_of(blocks)
    cells.own(NOW)[0] = 3
    assert cells.sums(blocks.read())[NOW] == [3]
