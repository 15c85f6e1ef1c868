"""Fingerprints of a data set: what training reads of it, and which puzzles it has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from dataset.storage.reader import open_manifest
from dataset.storage.schema import IDENTIFIERS, MANIFEST
from utils import files


def fingerprints(
    directory: str | Path, verify: bool = True, progress: Callable[[int, int], None] | None = None
) -> tuple[str, str]:
    """What training reads of a data set, and which puzzle each of its identifiers stands for, each as one hash.

    Args:
        verify: compare every file with its checksum in the manifest.
        progress: told (bytes compared, bytes in all).

    Raises:
        ValueError: if it is no data set, or a file is not what the manifest says.
    """
    directory = Path(directory)
    manifest = open_manifest(directory)
    if manifest is None:  # a published data set
        names = directory / IDENTIFIERS
        if not names.is_file():
            raise ValueError(f"{directory} is not a data set folder (no {MANIFEST}): build_dataset.py makes one")
        sizes = sorted((str(p.relative_to(directory)), p.stat().st_size) for p in directory.glob("*/*.npy"))
        puzzles = "names:" + files.sha256(names)
        return hashlib.sha256(f"{puzzles} {sizes}".encode()).hexdigest(), puzzles
    done, total = 0, sum(known.bytes for known in manifest.files.values())

    def told(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    for name, known in manifest.files.items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != known.bytes:
            raise ValueError(f"{path} has not the size that {MANIFEST} says: build the data set anew")
        if verify and files.sha256(path, told) != known.sha256:
            raise ValueError(f"{path} is damaged (its checksum is not that of {MANIFEST}): build the data set anew")
    return manifest.fingerprint, manifest.puzzles


def puzzles_digest(task_ids: Iterable[str], augmentations: Iterable[np.ndarray], start: int) -> str:
    """The hash that `Manifest.puzzles` holds, the same for both formats.

    Args:
        augmentations: of each task, uint8 [puzzles, 11].
        start: the identifier of the first puzzle.
    """
    digest = hashlib.sha256(f"{start}\n".encode())
    for task_id, rows in zip(task_ids, augmentations, strict=True):
        digest.update(f"{len(rows)} {task_id}\n".encode())
        digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
