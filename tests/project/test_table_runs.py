"""Runs whose puzzle rows lie on a disk or are shared among ranks: the numbers of one table in memory."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluators.inference.predictions import Predictions
from tests.builders.programs import start, wait_for
from tests.builders.runs import everything_in, last
from tests.conftest import SMALL, run_script
from training.checkpoint import StoredRows, list_checkpoints, read_record

RUN = ("epochs=4", "eval_interval=4", "ema=true", "ema_puzzle_rows=true", "checkpoint_steps=3", *SMALL)


def pretrain(data: Path, folder: Path, *more: str, ranks: int = 1) -> dict[str, torch.Tensor]:
    """Makes a run, or continues it, and returns all that its last checkpoint stores."""
    arguments = ("pretrain_no_eval.py", f"data_paths=[{data}]", f"checkpoint_path={folder}", *RUN, *more)
    done = run_script(*arguments, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return everything_in(last(folder))


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.equal(other[name]), name


@pytest.fixture(scope="module")
def on_device(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs with the rows in the memory of each rank, by the number of ranks."""
    folders = {ranks: tmp_path_factory.mktemp("device") for ranks in (1, 2)}
    for ranks, folder in folders.items():
        pretrain(small_data, folder, ranks=ranks)
    return folders


def test_a_run_with_its_table_on_a_disk_is_killed_and_goes_on(
    small_data: Path, on_device: dict[int, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", f"checkpoint_path={folder}", *RUN)
    process = start(*common, "puzzle_table=disk")
    wait_for(lambda: len(list_checkpoints(folder)) > 1 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    found = pretrain(small_data, folder, "puzzle_table=disk")
    assert_same(found, everything_in(last(on_device[1])))
    assert len([name for name in read_record(last(folder)).files if name.startswith("puzzle_table")]) > 1
    assert not [path for path in folder.iterdir() if path.name.startswith("tmp")]  # no file of the table is left


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["device", "disk"])
def test_ranks_that_share_the_rows_train_them_alike(
    kind: str, small_data: Path, on_device: dict[int, Path], tmp_path: Path
) -> None:
    """Shared by two ranks, as two ranks without; and a run goes on with other ranks, other shards, another kind."""
    folder = tmp_path / "run"
    shared = pretrain(small_data, folder, f"puzzle_table={kind}", "puzzle_table_shards=ranks", ranks=2)
    assert_same(shared, everything_in(last(on_device[2])))
    halved = tmp_path / "halved"
    shutil.copytree(folder, halved)
    shutil.rmtree(last(halved))
    other = "host" if kind == "device" else "device"
    resumed = pretrain(small_data, halved, f"puzzle_table={other}", "puzzle_table_shards=ranks", ranks=1)
    again = tmp_path / "again"
    shutil.copytree(on_device[2], again)
    shutil.rmtree(last(again))
    assert last(again).name == list_checkpoints(halved)[1].name
    assert_same(resumed, pretrain(small_data, again, ranks=1))


TWO_RANKS = """
import sys
from pathlib import Path
import torch
from dataset.data_shape import DataShape
from tests.builders.states import C, batch_of, state_of
from training.checkpoint import CheckpointRecord, CheckpointWriter
from training.step import train_step
from utils import collectives, distributed

distributed.setup("cpu", timeout_minutes=1)
shape = DataShape(12, C, 4000, 0)
state = state_of(shape, global_batch_size=8, puzzle_table_shards="ranks")
writer = CheckpointWriter(Path(sys.argv[1]))
for step in range(30):
    batch = batch_of(step, shape, 8)
    train_step(state, batch.take(slice(*collectives.local_range(8))), total_steps=60)
    if step in (27, 28, 29):
        writer.save(state, CheckpointRecord(), ends_interval=False)
writer.close()
distributed.barrier()
distributed.teardown()
"""


def test_ranks_that_share_the_rows_save_those_that_changed(tmp_path: Path) -> None:
    (tmp_path / "two_ranks.py").write_text(TWO_RANKS)
    done = run_script(str(tmp_path / "two_ranks.py"), str(tmp_path / "run"), ranks=2)
    assert done.returncode == 0, done.stderr
    path = last(tmp_path / "run")
    stored = StoredRows(path, read_record(path), "puzzle_table")
    assert len(stored.files) == 6  # three checkpoints, of each a file of each rank's rows
    everything = torch.cat([block["identifiers"] for block in stored.blocks()])
    assert len(everything) == len(everything.unique()) > 60
    assert stored.stored <= len(everything) + 2 * 8  # the last two steps changed no more


@pytest.mark.slow
def test_ranks_that_share_the_rows_predict_alike(small_data: Path, on_device: dict[int, Path], tmp_path: Path) -> None:
    found = []
    for name, more in (("plain", ()), ("shared", ("puzzle_table_shards=ranks", "puzzle_table=host"))):
        done = run_script(
            *("eval_arc_k10.py", f"data_paths=[{small_data}]", f"load_checkpoint={last(on_device[1])}", "epochs=4"),
            *(f"checkpoint_path={tmp_path / name}", "finetune_on=test_tasks", "ema=true", "early_exit=halt", *SMALL),
            *more,
            ranks=2,
        )
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / name).glob("evaluation_step_*")
        found.append(Predictions.load(folder / "predictions.npz"))
    assert np.array_equal(found[0].tokens, found[1].tokens)
    assert np.array_equal(found[0].q_halt, found[1].q_halt)
