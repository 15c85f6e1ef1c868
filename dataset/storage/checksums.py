"""Fingerprints of a data set: one of what training reads, one of which puzzles it has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from dataset.storage.reader import open_manifest, open_task_ids
from dataset.storage.schema import IDENTIFIERS, MANIFEST
from utils import files
from utils.errors import DataError


def fingerprints(
    directory: str | Path, verify: bool = True, progress: Callable[[int, int], None] | None = None
) -> tuple[str, str]:
    """Returns two hashes: of what training reads of a data set, and of which puzzle each identifier stands for.

    Args:
        verify: compare every file with its checksum in the manifest.
        progress: called with (bytes compared, bytes in total).

    Raises:
        DataError: if it is not a data set, or a file is not what the manifest says.
    """
    directory = Path(directory)
    manifest = open_manifest(directory)
    if manifest is None:  # a published data set
        names = directory / IDENTIFIERS
        if not names.is_file():
            raise DataError(f"{directory} is not a data set folder (no {MANIFEST}): build_dataset.py makes one")
        sizes = sorted((str(p.relative_to(directory)), p.stat().st_size) for p in directory.glob("*/*.npy"))
        puzzles = "names:" + files.sha256(names)
        return hashlib.sha256(f"{puzzles} {sizes}".encode()).hexdigest(), puzzles
    done, total = 0, sum(known.bytes for known in manifest.files.values())

    def count_bytes(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    for name, known in manifest.files.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != known.bytes:
            raise DataError(f"{path} does not have the size that {MANIFEST} says: build the data set again")
        if verify and files.sha256(path, count_bytes) != known.sha256:
            raise DataError(f"{path} is damaged (its checksum is not that of {MANIFEST}): build the data set again")
    return manifest.fingerprint, manifest.puzzles


def tasks_digest(directory: str | Path) -> str:
    """Returns a hash of the tasks of a data set, in their order, whatever their augmentations.  The same for both
    formats."""
    digest = hashlib.sha256()
    for task_id in open_task_ids(directory):
        digest.update(f"{task_id}\n".encode())
    return digest.hexdigest()


def puzzles_digest(task_ids: Iterable[str], augmentations: Iterable[np.ndarray], start: int) -> str:
    """Returns the hash that `Manifest.puzzles` stores.  It is the same for both formats.

    Args:
        augmentations: for each task uint8 [puzzles, 11].
        start: the identifier of the first puzzle.
    """
    digest = hashlib.sha256(f"{start}\n".encode())
    for task_id, rows in zip(task_ids, augmentations, strict=True):
        digest.update(f"{len(rows)} {task_id}\n".encode())
        digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
