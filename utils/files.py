"""Writes files and folders that are complete or absent, and computes checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

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


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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


def install(staging: Path, target: Path) -> None:
    """Moves a finished folder to its place when it is on the disk; the folder that was there is kept until then."""
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
