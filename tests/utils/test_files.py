"""Files and folders are complete or absent, also on file systems that offer less than a disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from utils import files

REFUSALS = [errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM]


def folder_of(path: Path, text: str) -> Path:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "weights").write_text(text)
    (path / "record").write_text(text)
    return path


def content_of(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(params=REFUSALS)
def no_renames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not rename folders."""
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(source).is_dir():
            raise OSError(request.param, os.strerror(request.param), str(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def no_sync_of_folders(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_folders_that_cannot_be_synced_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    no_sync_of_folders(monkeypatch, number)
    files.say_once.cache_clear()
    for n in range(3):
        files.install(folder_of(tmp_path / f".{n}", str(n)), tmp_path / str(n))
        assert content_of(tmp_path / str(n)) == {"inner/weights": str(n), "record": str(n)}
    assert capsys.readouterr().out.count("fsync") == 1


def test_an_error_of_the_disk_itself_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_sync_of_folders(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        files.install(folder_of(tmp_path / "staging", "new"), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_folder_is_replaced_where_none_can_be_renamed(tmp_path: Path, no_renames: None) -> None:
    for text in ("old", "new"):
        files.install(folder_of(tmp_path / "staging", text), tmp_path / "target", last="record")
        assert content_of(tmp_path / "target") == {"inner/weights": text, "record": text}
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_the_old_folder_comes_back_if_the_new_one_does_not_fit(
    tmp_path: Path, no_renames: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.install(folder_of(tmp_path / "staging", "old"), tmp_path / "target", last="record")
    staging = folder_of(tmp_path / "staging", "new")
    real = files.shutil.copy2

    def copy(source: Any, target: Any, **settings: Any) -> Any:
        if Path(source) == staging / "record":
            raise OSError(errno.ENOSPC, "full")
        return real(source, target, **settings)

    monkeypatch.setattr(files.shutil, "copy2", copy)
    with pytest.raises(OSError, match="full"):
        files.install(staging, tmp_path / "target", last="record")
    assert content_of(tmp_path / "target") == {"inner/weights": "old", "record": "old"}
    assert content_of(staging) == {"inner/weights": "new", "record": "new"}


def test_the_file_that_makes_a_folder_complete_comes_last_and_goes_first(
    tmp_path: Path, no_renames: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = folder_of(tmp_path / "source", "x"), tmp_path / "target"
    seen = []
    real = files.shutil.copy2
    monkeypatch.setattr(files.shutil, "copy2", lambda *given: (seen.append(content_of(target)), real(*given)))
    files.move_folder(source, target, last="record")
    assert seen == [{"inner/weights": "x"}]
    monkeypatch.setattr(files.shutil, "rmtree", lambda folder, **_: seen.append(content_of(folder)))
    files.remove_folder(target, first="record")
    assert seen[-1] == {"inner/weights": "x"}
