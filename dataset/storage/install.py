"""Puts a finished data set in its place, or leaves nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset.storage import reader, schema
from dataset.storage.schema import Manifest
from utils import files


def _install(
    target: Path,
    made_of: dict[str, Any],
    counted: dict[str, int],
    counts: dict[str, int],
    needed: int,
    fill: Callable[[Path], dict[Path, str]],
) -> Manifest:
    """Lets `fill` write a data set into a folder beside `target`, adds the manifest and moves it there.

    Args:
        made_of: the manifest's fields that say whether an old data set is the same one.
        counted, counts: what the manifest counts, before and after the numbers of examples.
        needed: bytes of room on the disk.
        fill: returns the SHA-256 of those files that it has hashed while it wrote.
    """
    target = target.resolve()
    made_of = {"format_version": schema.FORMAT_VERSION, **made_of}
    _check_target(target, made_of)
    _check_room(target, needed)
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        checksums = fill(staging)
        listed = {
            str(path.relative_to(staging)): {
                "bytes": path.stat().st_size,
                "sha256": checksums.get(path) or files.sha256(path),
            }
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        examples = {f"{split}_examples": reader.open_split(staging, split).num_examples for split in schema.SPLITS}
        manifest = Manifest.model_validate(made_of | {"counts": counted | examples | counts, "files": listed})
        (staging / schema.MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _check_target(target, made_of, manifest.fingerprint)
        files.install(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def _check_target(target: Path, made_of: dict[str, Any], fingerprint: str | None = None) -> None:
    """Only an empty folder or the same data set may be replaced."""
    if not target.exists():
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file: choose another --output-dir")
    if not any(target.iterdir()):
        return
    if not (target / schema.MANIFEST).exists():
        raise ValueError(f"{target} already holds other files: choose another --output-dir or remove it")
    try:
        old = reader.open_manifest(target)
    except ValueError:
        old = None
    if (
        old is None
        or any(getattr(old, name) != value for name, value in made_of.items())
        or fingerprint not in (None, old.fingerprint)
    ):
        raise ValueError(f"{target} already holds another data set: choose another --output-dir or remove it")


def _check_room(target: Path, needed: int) -> None:
    folder = target.resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{target} needs {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free: make room, lower --num-aug "
            "or use --format compact"
        )
