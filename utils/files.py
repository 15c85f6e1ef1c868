"""Files that are whole or not there, and their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

_PART = 1 << 24


def sha256(path: Path, told: Callable[[int], object] | None = None) -> str:
    """The SHA-256 of a file, as hexadecimal digits.

    Args:
        told: of each part that was read, its bytes.
    """
    with path.open("rb") as stream:
        if told is None:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256()
        while part := stream.read(_PART):
            digest.update(part)
            told(len(part))
        return digest.hexdigest()


def sync(path: Path) -> None:
    """Returns when a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: str | Callable[[IO[bytes]], object]) -> None:
    """Replaces a file by a whole one or not at all.

    Args:
        content: the text, or a function that writes the bytes to an open stream.
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


def install(staging: Path, target: Path) -> None:
    """Moves a finished folder to its place, after all of it is on the disk.  What was there is kept until then."""
    for path in [*staging.rglob("*"), staging]:
        sync(path)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(staging, target)
    except BaseException:
        if old.exists():
            os.replace(old, target)
        raise
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
