import errno
import fcntl
import os
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from service.commands.score.conversion import Convert, Growing
from service.commands.score.output import ALSO_STDOUT, Mark, Part
from service.errors import NotWritten

NEW = Mark(job={})
MARK = Mark(job={"the model": "x", "--keep": True}, input_sha256="ab", lines=3, output_bytes=4)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(tmp_path / "out.csv", force=False)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_has_its_name_once_it_is_finished(part: Part, tmp_path: Path) -> None:
    part.check()
    with part:
        assert part.mark() is None
        part.begin(NEW)
        part.write(b"a\n")
        part.write(b"b\n")
        part.save(MARK)
        assert names(tmp_path) == ["out.csv.part", "out.csv.part.json"]
        part.write(b"c\n")
        part.finish()
    assert names(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_bytes() == b"a\nb\nc\n"


def test_it_goes_on_after_what_counts(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
        part.write(b"what was written after that, and half a li")
    with Part(tmp_path / "out.csv", force=False) as again:
        assert again.mark() == MARK
        again.go_on(MARK.output_bytes)
        again.write(b"c\n")
        again.finish()
    assert (tmp_path / "out.csv").read_bytes() == b"a\nb\nc\n"


@pytest.mark.parametrize("damage", ["cut", "nonsense", "other", "gone"])
def test_a_mark_that_cannot_be_true_is_none(part: Part, tmp_path: Path, damage: str) -> None:
    sidecar = tmp_path / "out.csv.part.json"
    with part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
        if damage == "cut":
            part.go_on(3)
        elif damage == "gone":
            sidecar.unlink()
        else:
            sidecar.write_text("{" if damage == "nonsense" else '{"job": 7}')
        assert part.mark() is None


def test_who_begins_anew_leaves_no_mark_of_the_old_bytes(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
        part.begin(NEW)
        assert part.mark() == NEW
        assert (tmp_path / "out.csv.part").read_bytes() == b""


def test_what_is_not_worth_keeping_is_removed(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\n")
        part.save(MARK)
        part.drop()
        part.drop()
    assert names(tmp_path) == []


def test_what_is_there_is_replaced_by_force_only(part: Part, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("precious")
    (tmp_path / "link").symlink_to("out.csv")
    for name in ("out.csv", "link"):
        with pytest.raises(NotWritten, match=r"out\.csv: is there already; --force replaces it$"):
            Part(tmp_path / name, force=False).check()
    forced = Part(tmp_path / "link", force=True)
    forced.check()
    with forced:
        forced.begin(NEW)
        forced.write(b"new")
        assert (tmp_path / "out.csv").read_text() == "precious"
        forced.finish()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out.csv").read_text() == "new"


def test_what_came_meanwhile_is_not_replaced(part: Part, tmp_path: Path) -> None:
    part.check()
    with part:
        part.begin(NEW)
        (tmp_path / "out.csv").write_text("precious")
        with pytest.raises(NotWritten, match="is there already"):
            part.finish()
    assert names(tmp_path) == ["out.csv", "out.csv.part", "out.csv.part.json"]


@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")  # as a device would be
    no_file = "a pipe or a device"
    for path, got in ((tmp_path / "pipe", no_file), (tmp_path, "a folder"), ("/dev/null", no_file)):
        with pytest.raises(NotWritten, match=f"expected a file, or - for stdout, got {got}$"):
            Part(Path(path), force=force).check()
    for name in ALSO_STDOUT:
        with pytest.raises(NotWritten, match=f"^{name}: expected a file; stdout is -$"):
            Part(Path(name), force=force).check()


def test_two_processes_do_not_write_one_file(part: Part, tmp_path: Path) -> None:
    with part:
        part.begin(NEW)
        part.write(b"a\n")
        other = Part(tmp_path / "out.csv", force=True)
        with pytest.raises(NotWritten, match=r"out\.csv\.part: another process is writing it$"):
            other.__enter__()
        part.finish()
    with other:  # it may try again
        pass


def test_one_who_finished_it_before_it_was_held_is_another_process(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish_it(*_: object) -> None:
        part.path.unlink()
        part.path.touch()

    monkeypatch.setattr(fcntl, "flock", finish_it)
    with pytest.raises(NotWritten, match="another process is writing it"), part:
        pass


def test_a_result_that_is_made_of_the_part_appears_when_it_is_complete(
    part: Part, tmp_path: Path
) -> None:
    def double(source: Growing, result: Path) -> None:
        result.write_bytes(source.read() * 2)

    def fail(source: Growing, result: Path) -> None:
        result.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with part:
        part.begin(NEW)
        part.write(b"a\n")
        part.save(MARK)
        part.convert = fail
        with pytest.raises(NotWritten, match="cannot be written: No space left"):
            part.finish()
        assert names(tmp_path) == ["out.csv.part", "out.csv.part.json"]
        part.convert = double
        part.finish()
    assert names(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_bytes() == b"a\na\n"


def test_what_cannot_be_written_is_told(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(NotWritten, match=r"x\.part: cannot be written: No such file or directory$"),
        Part(tmp_path / "no/x", force=False),
    ):
        pass

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with part:
        part.begin(NEW)
        part.write(b"a\n")
        for name in ("write", "fsync", "ftruncate"):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                for attempt in {
                    "write": [lambda: part.write(b"b")],
                    "fsync": [lambda: part.save(MARK), part.finish],
                    "ftruncate": [lambda: part.begin(NEW), lambda: part.go_on(0)],
                }[name]:
                    with pytest.raises(NotWritten, match="cannot be written: No space left"):
                        attempt()
        assert names(tmp_path) == ["out.csv.part", "out.csv.part.json"]


FOREIGN = ["out.csv.part", "out.csv.part.json", "out.csv.part.json.new", "out.csv.part.new"]


def copied(source: Growing, result: Path) -> None:
    result.write_bytes(source.read())


def converting(folder: Path, *, force: bool) -> Part:
    part = Part(folder / "out.csv", force=force)
    part.convert = copied
    return part


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_somebody_else_is_replaced_by_force_only(tmp_path: Path, name: str) -> None:
    other = tmp_path / name
    other.write_text("{}")
    with pytest.raises(NotWritten) as refused:
        converting(tmp_path, force=False).__enter__()
    assert str(refused.value) == (
        f"{other}: expected one of a job that was stopped, got another file: move it away, or "
        "replace it with --force"
    )
    assert names(tmp_path) == [name]
    assert other.read_text() == "{}"
    with converting(tmp_path, force=True) as part:
        part.begin(NEW)
        part.write(b"a\n")
        part.save(MARK)
        part.finish()
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("text", ["", '{"job":{}}'])
def test_no_link_is_followed(tmp_path: Path, name: str, text: str) -> None:
    """Not by force either, and whatever it leads to."""
    target, link = tmp_path / "target", tmp_path / name
    target.write_text(text)
    link.symlink_to("target")
    expected = f"{name}: expected one of a job that was stopped, got a link: move it away$"
    with pytest.raises(NotWritten, match=expected):
        converting(tmp_path, force=False).__enter__()
    assert names(tmp_path) == sorted([name, "target"])
    if name == "out.csv.part":
        with pytest.raises(NotWritten, match=expected):
            converting(tmp_path, force=True).__enter__()
    else:
        with converting(tmp_path, force=True) as part:
            part.begin(NEW)
            part.write(b"a\n")
            part.finish()
        assert names(tmp_path) == ["out.csv", "target"]
    assert target.read_text() == text


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_in_the_place_of_a_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for force in (False, True):
        with pytest.raises(NotWritten, match=rf"{name}: expected .*, got a folder: move it away$"):
            converting(tmp_path, force=force).__enter__()


def test_what_a_death_leaves_beside_it_is_no_file_of_others(tmp_path: Path) -> None:
    with converting(tmp_path, force=False) as part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        part.save(MARK)
    (tmp_path / "out.csv.part.json.new").write_text('{"jo')
    (tmp_path / "out.csv.part.new").write_text("half")
    with converting(tmp_path, force=False) as again:
        assert again.mark() == MARK
        again.go_on(MARK.output_bytes)
        again.finish(MARK)
    assert names(tmp_path) == ["out.csv"]
    assert (tmp_path / "out.csv").read_bytes() == b"a\nb\n"


@pytest.mark.parametrize(("convert", "unlinked"), [(None, 0), (copied, 0), (copied, 1)])
def test_what_is_left_behind_the_naming_is_tidied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convert: Convert | None, unlinked: int
) -> None:
    """A death there leaves the result with its name, and what speaks of it."""
    unlink, left = Path.unlink, [unlinked]

    def die(path: Path, missing_ok: bool = False) -> None:
        if not path.name.endswith(".new"):
            left[0] -= 1
            if left[0] < 0:
                raise SystemExit
        unlink(path, missing_ok)

    out = tmp_path / "out.csv"
    with Part(out, force=False) as part:
        part.convert = convert
        part.begin(NEW)
        part.write(b"a\nb\n")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", die)
            with pytest.raises(SystemExit):
                part.finish(MARK)
    before = out.stat()
    again = Part(out, force=False)
    again.convert = convert
    again.check()
    with again:
        mark = again.mark()
        assert mark is not None
        assert mark.result
        again.go_on(mark.output_bytes)
        with pytest.raises(NotWritten, match=r"out\.csv: is there already"):
            again.write(b"c\n")
        again.finish(mark)
    assert names(tmp_path) == ["out.csv"]
    assert out.stat() == before
    with pytest.raises(NotWritten, match="is there already"):
        again.check()


def test_another_file_of_that_name_is_not_taken_for_the_result(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    with Part(out, force=False) as part:
        part.begin(NEW)
        part.write(b"a\nb\n")
        (tmp_path / "other").write_bytes(b"a\nb\n")
        part.finish(MARK)
    status = (tmp_path / "other").stat()
    result = f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
    note = tmp_path / "out.csv.part.json"
    note.write_bytes(msgspec.json.encode(replace(MARK, result=result)))
    with pytest.raises(NotWritten, match="is there already"):
        Part(out, force=False).check()
    (tmp_path / "other").replace(out)
    Part(out, force=False).check()
    out.write_bytes(b"a\nc\n")  # it was changed since
    with pytest.raises(NotWritten, match="is there already"):
        Part(out, force=False).check()


def test_names_that_have_no_room_beside_them_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="expected a name that is 14 bytes below the longest"):
        Part(tmp_path / ("x" * 245), force=False).check()
    with pytest.raises(NotWritten, match="/: expected a file or folder that has a name"):
        Part(Path("/"), force=False)
