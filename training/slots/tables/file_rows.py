"""Rows in a sparse file on a disk: those that were never written take no room."""

from __future__ import annotations

import errno
import math
import os
import tempfile
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor


class FileRows:
    """Rows [num, *shape] in a file without a name, which is gone when the process ends, however it ends.

    What survives is what checkpoints store.  The file stores each row as its difference, bit by bit, from the row that
    all of them started as, so that a hole of the file is that row.  Rows are read and written by system calls rather
    than through mapped memory: there a full disk would kill the process instead of raising an error.

    Args:
        folder: on a local disk; made, with the file, when the first row is written.
    """

    device = torch.device("cpu")

    def __init__(self, num: int, shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> None:
        self.num, self.folder = num, folder
        self._shape, self._dtype = shape, dtype
        self._row_bytes = math.prod(shape) * dtype.itemsize
        self._start = np.zeros(self._row_bytes, dtype=np.uint8)
        self._file: IO[bytes] | None = None

    def read(self, numbers: Tensor) -> Tensor:
        distinct, back = np.unique(numbers.numpy(), return_inverse=True)
        repeats = len(distinct) < len(numbers)
        rows = torch.empty(len(distinct), self._row_bytes, dtype=torch.uint8)
        raw = rows.numpy()
        if self._file is None:
            raw[:] = 0
        else:
            file, size = self._file.fileno(), self._row_bytes
            for row, number in zip(raw, (distinct if repeats else numbers).tolist(), strict=True):
                os.preadv(file, [row.data], number * size)
        raw ^= self._start
        rows = rows.view(self._dtype).view(len(distinct), *self._shape)
        return rows[torch.from_numpy(back)] if repeats else rows

    def write(self, numbers: Tensor, rows: Tensor) -> None:
        distinct, first = np.unique(numbers.numpy(), return_index=True)
        raw = self._to_bytes(rows[torch.from_numpy(first)], len(distinct)) ^ self._start
        file, size = self._opened(), self._row_bytes
        try:
            for row, number in zip(raw, distinct.tolist(), strict=True):
                if os.pwrite(file, row, number * size) < size:  # a disk that fills up takes a part
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self.folder} (the puzzle table)") from None

    def fill(self, row: Tensor) -> None:
        self._file = None
        self._start = self._to_bytes(row, 1)[0].copy()

    def num_bytes(self) -> int:
        return self.num * self._row_bytes

    def room(self) -> int:
        """Returns the bytes that the file takes on the disk."""
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_blocks * 512

    def _to_bytes(self, rows: Tensor, count: int) -> np.ndarray:
        """Returns `count` rows as uint8 [count, bytes of a row]."""
        flat = rows.detach().to(self._dtype).reshape(count, math.prod(self._shape))
        return flat.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy()

    def _opened(self) -> int:
        """Returns the number of the open file, which is made here at the first call."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
            os.truncate(self._file.fileno(), self.num_bytes())
            if hasattr(os, "posix_fadvise"):  # no reading ahead: neighbours in the file are no neighbours in time
                os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return self._file.fileno()


class PlannedRows:
    """Rows of a dry run: what is written is dropped, and they take no room."""

    device = torch.device("cpu")

    def __init__(self, num: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.num, self._shape, self._dtype = num, shape, dtype

    def read(self, numbers: Tensor) -> Tensor:
        return torch.zeros(len(numbers), *self._shape, dtype=self._dtype)

    def write(self, numbers: Tensor, rows: Tensor) -> None:
        """Drops the rows."""

    def fill(self, row: Tensor) -> None:
        """Drops the row."""

    def num_bytes(self) -> int:
        return self.num * math.prod(self._shape) * self._dtype.itemsize
