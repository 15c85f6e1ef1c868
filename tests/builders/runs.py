"""What runs leave in their folders, and how long tests of them may take."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tests.builders.programs import run_script
from training.checkpoint import TABLES, StoredRows, latest_undamaged, read_part, read_record

LONG = int(os.environ.get("TRM_LONG_TESTS", "0"))
"""Whether tests run in their long form: `-m long`, which tests/conftest.py reads before this is imported."""


def last(folder: Path) -> Path:
    """Returns the last checkpoint of a run, none of which is damaged."""
    path, problems = latest_undamaged(folder)
    assert path is not None and not problems
    return path


def pretrain(data: Path, run: Path, *words: str, ranks: int = 1) -> Path:
    """Trains four epochs in two intervals into a folder, and returns it."""
    done = run_script(
        *("pretrain_no_eval.py", f"data_paths=[{data}]", f"checkpoint_path={run}", "epochs=4", "eval_interval=2"),
        *words,
        ranks=ranks,
    )
    assert done.returncode == 0, done.stderr
    return run


def rows_in(checkpoint: Path, table: str = "puzzle_table") -> torch.Tensor:
    """Returns all rows of a table in a checkpoint, whatever files they are in."""
    return StoredRows(checkpoint, read_record(checkpoint), table).dense()


def everything_in(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Returns all that a checkpoint stores, under PART/NAME; of tables every row, whatever files they are in."""
    record = read_record(checkpoint)
    found: dict[str, torch.Tensor] = {}
    for file in record.files:
        part = file.removesuffix(".safetensors")
        if part.split(".")[0] not in TABLES:
            found |= {f"{part}/{name}": value for name, value in read_part(checkpoint, part, record).items()}
    for table in {file.split(".")[0] for file in record.files} & set(TABLES):
        stored = StoredRows(checkpoint, record, table)
        found[f"{table}/weights"] = stored.dense()
        found |= {f"{table}/{name}": value for name, value in stored.counters.items()}
        for block in stored.blocks():
            for name in block.keys() - {"identifiers", "weights"}:
                empty = torch.zeros(stored.shape[0], *block[name].shape[1:], dtype=block[name].dtype)
                found.setdefault(f"{table}/{name}", empty)[block["identifiers"]] = block[name]
    return found
