"""The log of a run's metrics: one JSON object per line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from utils.files import write_atomically
from utils.trackers import Tracker


class MetricsLog:
    """`metrics.jsonl`: appended to, one line per call, each handed to the system before the call returns.

    A run that was killed may leave half a line at the end; it is dropped when the log is opened again.

    Args:
        path: the file; None writes nothing (ranks other than 0).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.tracker: Tracker | None = None  # gets what is written too
        self._file: TextIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_end(path)
            self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Appends `{"step": step, **metrics}`.  Numbers may be of NumPy or torch; infinities and NaN become null."""
        if self._file is not None:
            record = _plain({"step": int(step), **metrics})
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
            if self.tracker is not None:
                self.tracker.log(record.pop("step"), record)

    def truncate_after(self, step: int) -> None:
        """Drops what was logged after `step`, so that a run which resumes there logs each step once."""
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
    """The lines of a `metrics.jsonl`; a last line that was torn off is left out.

    Raises:
        ValueError: if another line is no JSON object with a step.
    """
    lines = path.read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise ValueError(f"{path}, line {number}: not a JSON object with a step")
    return records


def _plain(value: Any) -> Any:
    """The value with what JSON and YAML have no word for replaced."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _drop_torn_end(path: Path) -> None:
    """Cuts off what follows the last newline."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
