"""Moves a finished data set to its place, or leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dataset.storage import reader, schema
from dataset.storage.schema import Manifest
from utils import files
from utils.errors import DataError, SettingError


def install_data_set(
    target: Path,
    identity: dict[str, Any],
    counts: dict[str, int],
    bytes_needed: int,
    write_files: Callable[[Path], dict[Path, str]],
) -> Manifest:
    """Lets `write_files` write a data set into a folder beside `target`, adds the manifest and moves it there.

    Args:
        identity: the fields of the manifest that tell whether an older data set at `target` is the same one.
        counts: what the manifest counts.
        bytes_needed: room that the files take on the disk.
        write_files: writes all files but the manifest, and returns the SHA-256 of those that it has hashed meanwhile.

    Raises:
        SettingError: if `target` contains something else, or the disk has no room.  Nothing is left behind.
    """
    target = target.resolve()
    identity = {"format_version": schema.FORMAT_VERSION, **identity}
    check_target(target, identity)
    _check_room(target, bytes_needed)
    staging = target.with_name(f".{target.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        checksums = write_files(staging)
        listed = {
            str(path.relative_to(staging)): {
                "bytes": path.stat().st_size,
                "sha256": checksums.get(path) or files.sha256(path),
            }
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        for split in schema.SPLITS:  # the data set opens, and has what it counts
            assert reader.open_split(staging, split).num_examples == counts[f"{split}_examples"], (split, counts)
        manifest = Manifest.model_validate(identity | {"counts": counts, "files": listed})
        (staging / schema.MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        check_target(target, identity, manifest.fingerprint)
        files.install(staging, target, last=schema.MANIFEST)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return manifest


def check_target(target: Path, identity: dict[str, Any] | None = None, fingerprint: str | None = None) -> None:
    """Raises SettingError unless `target` is free, an empty folder, or the same data set.

    Args:
        identity: the fields of the manifest that tell which data set it is; None, before anything was read: any.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise SettingError(f"{target} is a file: choose another --output-dir")
    if not any(target.iterdir()):
        return
    if not (target / schema.MANIFEST).exists():
        raise SettingError(f"{target} already contains other files: choose another --output-dir or remove it")
    if identity is None:
        return
    try:
        old = reader.open_manifest(target)
    except DataError:
        old = None
    if (
        old is None
        or any(getattr(old, name) != value for name, value in identity.items())
        or fingerprint not in (None, old.fingerprint)
    ):
        raise SettingError(f"{target} already contains another data set: choose another --output-dir or remove it")


def _check_room(target: Path, bytes_needed: int) -> None:
    folder = target.resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if bytes_needed > free:
        raise SettingError(
            f"{target} needs {bytes_needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free: make room, lower "
            "--num-aug or use --format compact"
        )
