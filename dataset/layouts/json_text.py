"""Reads the text of JSON files as people have them: gzipped, in UTF-8 or UTF-16, with a byte order mark, one value per
line."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from utils.errors import DataError, SettingError

ENDINGS = (".json", ".jsonl", ".ndjson")
GZIP_MAGIC = b"\x1f\x8b"
_LINES = (".jsonl", ".ndjson")
_FLAT_OBJECT = r'\{(?:[^{}"\\]++|"[^"\\]*+")*+\}'
_LIST_OF_FLAT_OBJECTS = re.compile(rf"\s*\[\s*{_FLAT_OBJECT}(?:\s*,\s*{_FLAT_OBJECT})*+\s*\]\s*")
_OBJECTS = re.compile(_FLAT_OBJECT)


class _RepeatedKeyError(Exception):
    pass


def unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of some keys and values.

    Raises:
        _RepeatedKeyError: if a key occurs twice.
    """
    value = dict(items)
    if len(value) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(f"the key {twice!r} occurs twice in one object: correct the file")
    return value


def is_json_name(name: str) -> bool:
    """Returns whether a file's name ends as those of JSON files do, gzipped or not."""
    return name.lower().removesuffix(".gz").endswith(ENDINGS)


def stem_of(path: Path) -> str:
    """Returns the name of a file without `.json`, `.jsonl` or `.ndjson`, and without `.gz`."""
    name = path.name
    for ending in (".gz", *ENDINGS):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name


def open_text(path: Path) -> IO[str]:
    """Opens a file as text.  Gzip is known by its first bytes, and the encoding by the first bytes of the text.

    Raises:
        OSError, EOFError, zlib.error: if the file cannot be read.
    """
    with path.open("rb") as raw:
        zipped = raw.read(2) == GZIP_MAGIC
    stream = gzip.open(path, "rb") if zipped else path.open("rb")  # noqa: SIM115  # the caller closes it
    try:
        buffered = io.BufferedReader(stream)  # type: ignore[type-var]
        encoding = json.detect_encoding(buffered.peek(4)[:4])
    except BaseException:
        stream.close()
        raise
    return io.TextIOWrapper(buffered, encoding=encoding, errors="strict")


Hook = Callable[[list[tuple[str, Any]]], Any]
"""Makes the value of an object from its keys and values."""


def parse_json(text: str, where: str, hook: Hook = unique_keys) -> Any:
    """Parses JSON text.

    Args:
        hook: makes each object; see `unique_keys`.

    Raises:
        DataError: naming `where`, if it is not JSON, or an object in it has a key twice.
    """
    if not text.strip():
        raise DataError(f"{where} is empty: fetch it again")
    try:
        return json.loads(text, object_pairs_hook=hook)
    except _RepeatedKeyError as error:
        raise DataError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:  # a ValueError: not JSON, or a number of too many digits
        raise DataError(f"{where} is not JSON ({error}): fetch it again") from None


def read_text(path: Path) -> str:
    """Returns the text of a file, unzipped and decoded.

    Raises:
        SettingError, DataError: naming the file, if it is not there or cannot be read.
    """
    try:
        with open_text(path) as stream:
            return stream.read()
    except FileNotFoundError:
        raise SettingError(f"there is no file {path}: check --input-file-prefix and --subsets") from None
    except UnicodeError as error:
        raise DataError(f"{path} is not JSON ({error}): fetch it again") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}): fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its permissions") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        SettingError, DataError: naming the file, if it cannot be read, or an object in it has a key twice.
    """
    return parse_json(read_text(path), str(path))


def cut_objects(text: str) -> list[str] | None:
    """Returns the texts of the objects of a JSON list, without parsing them; None if that cannot be done safely.

    It is done where no object contains another one and no text in them contains a backslash, as in lists of pairs.
    """
    if text.lstrip()[:1] != "[" or not _LIST_OF_FLAT_OBJECTS.fullmatch(text):
        return None
    return _OBJECTS.findall(text)


def has_lines(path: Path) -> bool:
    """Returns whether a file has one JSON value per line, by its name."""
    return path.name.lower().removesuffix(".gz").endswith(_LINES)


def read_lines(path: Path, hook: Hook = unique_keys) -> Iterator[tuple[int, Any]]:
    """Yields the number, from 1, and the value of each line that is not blank, one after the other.

    Raises:
        DataError: naming the file and the line.
    """
    try:
        with open_text(path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, parse_json(line, f"{path}, line {number}", hook)
    except UnicodeError as error:
        raise DataError(f"{path} is not text ({error}): fetch it again") from None
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again") from None
