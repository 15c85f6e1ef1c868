"""Writes files and folders that are complete or absent, and computes checksums."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from utils.errors import InputError
from utils.progress import print0

_BLOCK = 1 << 24


def sha256(path: Path, report: Callable[[int], object] | None = None) -> str:
    """Returns the SHA-256 of a file, as hexadecimal digits.

    Args:
        report: called with the number of bytes of each block that was read.
    """
    with path.open("rb") as stream:
        if report is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := stream.read(_BLOCK):
            digest.update(block)
            report(len(block))
        return digest.hexdigest()


NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
"""What file systems answer that do not offer an operation on folders: network drives, FUSE, some containers."""


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk.

    Where the file system cannot do that for folders, it is said once and the program goes on.
    """
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in NOT_OFFERED:
            raise
        say_once(f"note: this file system cannot fsync a folder ({error.strerror}), so a power cut may cost a file")
    finally:
        if handle is not None:
            os.close(handle)


def move_folder(source: Path, target: Path, last: str | None = None) -> None:
    """Moves a folder to a place that is free, in one step where the file system offers that.

    Where it does not (overlay and FUSE file systems may refuse to rename a folder), it moves file by file.

    Args:
        last: the name of the file that makes the folder complete to its readers: moved after all others.

    Raises:
        OSError: if that fails too; the target is then removed, and the source is whole.
    """
    try:
        os.replace(source, target)
        return
    except OSError as error:
        if error.errno not in (*NOT_OFFERED, errno.EXDEV):
            raise
        say_once(f"note: this file system cannot rename a folder ({error.strerror}), so folders are copied")
    try:
        shutil.copytree(source, target, ignore=lambda folder, names: [last] if Path(folder) == source and last else [])
        if last is not None:
            shutil.copy2(source / last, target / last)
        _sync_all(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    shutil.rmtree(source, ignore_errors=True)


def _sync_all(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)


@functools.cache
def say_once(text: str) -> None:
    """Prints a line, as `print0` does, the first time that it is called with it."""
    print0(text)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a file a second name; where the file system cannot do that, it is said once and the file is copied."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (*NOT_OFFERED, errno.EXDEV, errno.EMLINK):
            raise
        say_once(f"note: this file system cannot link a file ({error.strerror}), so files are copied")
        shutil.copy2(source, target)


def write_atomically(path: Path, content: str | Callable[[IO[bytes]], object]) -> None:
    """Replaces a file by a complete one, or leaves it as it was.

    Args:
        content: the text, or a function that writes bytes to the open stream that it gets.
    """
    staging = path.with_name(f".{path.name}.partial")
    try:
        with staging.open("wb") as stream:
            if isinstance(content, str):
                stream.write(content.encode("utf-8"))
            else:
                content(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def replace_between(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replaces what a text file has between two lines.

    Raises:
        InputError: if the file does not have both lines, in this order.
    """
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closing, after = rest.partition(end)
    if not found or not closing:
        raise InputError(f"{page} does not say where results go: put the lines {begin} and {end} there")
    write_atomically(page, "\n".join([before.rstrip(), "", begin, "", *lines, end, "", after.lstrip()]))


def install(staging: Path, target: Path, last: str | None = None) -> None:
    """Moves a finished folder to its place when it is on the disk; the folder that was there is kept until then.

    Args:
        last: see `move_folder`.
    """
    _sync_all(staging)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        move_folder(target, old)
    try:
        move_folder(staging, target, last)
    except BaseException:
        if old.exists():
            move_folder(old, target)
        raise
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path, first: str) -> None:
    """Removes a folder so that none of its readers finds a half-removed one.

    Args:
        first: the name of the file without which it is not complete.
    """
    doomed = folder.with_name(f".{folder.name}.old")
    try:
        os.replace(folder, doomed)
    except OSError as error:
        if error.errno not in (*NOT_OFFERED, errno.EXDEV):
            raise
        doomed = folder
        (folder / first).unlink()
    shutil.rmtree(doomed)
