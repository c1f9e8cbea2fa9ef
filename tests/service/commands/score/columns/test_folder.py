import errno
import os
from pathlib import Path

import msgspec
import pytest

from service.commands.score.columns.folder import MANIFEST, SUCCESS, Entry, Folder, Manifest
from service.commands.score.output import Mark
from service.errors import NotWritten

JOB = {"the model": "x", "--keep": True}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out", force=False)


def names(path: Path) -> list[str]:
    return sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file())


def add(folder: Folder, name: str, text: bytes = b"text\n") -> None:
    folder.begin_file(name, None)
    folder.write(text)
    folder.end_file((name, 7, "ab"), 3, 1)


def test_a_folder_has_its_name_once_it_is_finished(folder: Folder, tmp_path: Path) -> None:
    folder.check()
    with folder:
        assert folder.manifest() is None
        folder.go_on(JOB, [])
        add(folder, "b.csv")
        add(folder, "sub/a.csv")
        folder.save(Mark(job=JOB))
        assert names(tmp_path) == ["out.part/b.csv", f"out.part/{MANIFEST}", "out.part/sub/a.csv"]
        folder.finish()
    assert names(tmp_path / "out") == [SUCCESS, "b.csv", MANIFEST, "sub/a.csv"]
    assert os.listdir(tmp_path) == ["out"]


def test_it_goes_on_with_what_is_complete_and_nothing_else(folder: Folder, tmp_path: Path) -> None:
    with folder:
        folder.go_on(JOB, [])
        for name in ("a.csv", "b.csv"):
            add(folder, name)
        folder.save(Mark(job=JOB))
        add(folder, "unknown/c.csv")
        folder.begin_file("d.csv", None)
        folder.write(b"half a li")
    (tmp_path / "out.part/b.csv").write_bytes(b"another")
    with Folder(tmp_path / "out", force=False) as again:
        manifest = again.manifest()
        assert manifest is not None
        assert manifest.job == JOB
        a, b = manifest.files
        assert a == Entry("a.csv", 7, "ab", 3, 1, "a.csv", 5, a.output_sha256)
        assert (again.is_whole(a), again.is_whole(b)) == (True, False)
        again.go_on(JOB, [a])
        assert names(again.path) == ["a.csv", MANIFEST]
        assert sorted(os.listdir(again.path)) == ["a.csv", MANIFEST]
        again.finish()
    assert names(tmp_path / "out") == [SUCCESS, "a.csv", MANIFEST]


def test_two_processes_do_not_write_one_folder(folder: Folder, tmp_path: Path) -> None:
    with folder:
        folder.go_on(JOB, [])
        with pytest.raises(NotWritten, match=r"out\.part: another process is writing it$"):
            Folder(tmp_path / "out", force=True).__enter__()


def test_what_is_there_is_replaced_by_force_only_and_only_answers(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    Folder(out, force=False).check()  # an empty one
    (out / "precious").touch()
    with pytest.raises(NotWritten, match="expected a folder of answers, or none, got another"):
        Folder(out, force=True).check()
    for other in ("", '{"name": "an app", "icons": []}'):  # of the web
        (out / MANIFEST).write_text(other)
        with pytest.raises(NotWritten, match="expected a folder of answers, or none, got another"):
            Folder(out, force=True).check()
    (out / MANIFEST).write_bytes(msgspec.json.encode(Manifest(JOB, [])))
    with pytest.raises(NotWritten, match="is there already; --force replaces it"):
        Folder(out, force=False).check()
    (tmp_path / "out.old").mkdir()  # of somebody else
    with Folder(out, force=True) as forced:
        forced.go_on(JOB, [])
        forced.finish()
    assert names(tmp_path) == [f"out/{SUCCESS}", f"out/{MANIFEST}"]
    assert sorted(os.listdir(tmp_path)) == ["out", "out.old"]
    (tmp_path / "file").touch()
    with pytest.raises(NotWritten, match="file: expected a folder, as INPUT is several files"):
        Folder(tmp_path / "file", force=True).check()


@pytest.mark.parametrize(("kind", "came"), [("link", "a link"), ("file", "a file")])
def test_what_is_no_folder_is_not_followed_or_replaced(
    tmp_path: Path, kind: str, came: str
) -> None:
    (tmp_path / "target").mkdir()
    part = tmp_path / "out.part"
    if kind == "link":
        part.symlink_to("target")
    else:
        part.touch()
    for force in (False, True):
        expected = f"out.part: expected one of a job that was stopped, got {came}: move it away$"
        with pytest.raises(NotWritten, match=expected):
            Folder(tmp_path / "out", force=force).__enter__()
    assert os.listdir(tmp_path / "target") == []


def test_a_manifest_is_not_written_through_a_link(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    with folder:
        folder.go_on(JOB, [])
        (folder.path / f"{MANIFEST}.new").symlink_to(tmp_path / "target")
        folder.save(Mark(job=JOB))
    assert (tmp_path / "target").read_text() == "precious"


def test_what_is_not_worth_keeping_is_removed(folder: Folder, tmp_path: Path) -> None:
    with folder:
        folder.go_on(JOB, [])
        folder.begin_file("a.csv", None)
        folder.drop()
    assert os.listdir(tmp_path) == []


def test_ctrl_c_as_a_file_is_closed_closes_it_once(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def interrupted(file: int) -> None:
        close(file)
        monkeypatch.undo()
        raise KeyboardInterrupt

    with folder:  # else OSError at its end: it is closed already
        folder.go_on(JOB, [])
        folder.begin_file("a.csv", None)
        monkeypatch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.end_file(("a", 0, ""), 0, 0)


def test_what_cannot_be_written_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with folder:
        folder.go_on(JOB, [])
        folder.begin_file("a.csv", None)
        for name, attempt in (
            ("write", lambda: folder.write(b"b")),
            ("fsync", lambda: folder.end_file(("a", 0, ""), 0, 0)),
            ("fsync", lambda: folder.save(Mark(job=JOB))),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, fail)
                with pytest.raises(NotWritten, match=r"out\.part: cannot be written: No space"):
                    attempt()
