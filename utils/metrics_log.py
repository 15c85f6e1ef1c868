"""The log of a run's metrics: one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from utils.errors import InputError
from utils.files import write_atomically
from utils.trackers import Tracker


class MetricsLog:
    """Appends lines to `metrics.jsonl`.  Each line is in the file when the call returns.

    A run that was killed may leave half a line at the end.  It is removed when the log is opened again.

    Args:
        path: the file.  With None nothing is written (ranks other than 0).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.tracker: Tracker | None = None  # it gets the same lines
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_end(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends `{"step": step, **metrics}`.  Numbers may be of NumPy or torch; NaN and infinities become null."""
        if self._file is not None:
            record = to_plain({"step": int(step), **metrics})
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
            if self.tracker is not None:
                self.tracker.log(record.pop("step"), record)

    def truncate_after(self, step: int) -> None:
        """Removes the lines after `step`, so that a run which resumes there logs each step once."""
        if self.path is None:
            return
        kept = "".join(json.dumps(record) + "\n" for record in read_metrics(self.path) if record["step"] <= step)
        self.close()
        write_atomically(self.path, kept)
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a `metrics.jsonl`; an incomplete last line is left out.

    Raises:
        InputError: if another line is not a JSON object with a step.
    """
    lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse_line(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise InputError(f"{path}, line {number} is not a JSON object with a step: delete that line")
    return records


def to_plain(value: Any) -> Any:
    """Returns the value with everything that JSON and YAML cannot express replaced."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _parse_line(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # not JSON, or not UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _drop_torn_end(path: Path) -> None:
    """Cuts off whatever follows the last newline."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
