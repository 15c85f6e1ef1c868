"""training/slots/tables/, and the row files of training/checkpoint/: where puzzle rows lie, and how they are saved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dataset.data_shape import DataShape
from models.puzzles.rows import RowSummary
from tests.builders.runs import last, rows_in
from tests.builders.states import COMPOSED, C, assert_equal, state_of, tensors, train_on, trained
from training import checkpoint
from training.checkpoint import CheckpointRecord, CheckpointWriter
from training.slots.tables.file_rows import FileRows
from training.state import TrainState
from utils.errors import CheckpointError, SettingError

KINDS = ("device", "host", "disk")
MANY = DataShape(12, C, 500, 0)
"""Of so many puzzles a few steps change few."""


def state(kind: str, folder: Path, shape: DataShape = MANY, **settings: Any) -> TrainState:
    return state_of(shape, puzzle_table=kind, puzzle_table_folder=str(folder), **settings)


@pytest.mark.parametrize(
    "settings",
    [{}, {"ema_puzzle_rows": True}, {"arch": COMPOSED | {"augmentation_rank": 2}, "ema_puzzle_rows": True}],
    ids=["rows", "averaged", "composed"],
)
def test_rows_are_the_same_to_the_bit_wherever_they_lie(settings: dict[str, Any], tmp_path: Path) -> None:
    """With a step in the middle that is not made, since its gradients are not finite."""
    shape = DataShape(12, C, 500, 0, num_task_rows=9 if "arch" in settings else None)
    found = []
    for kind in KINDS:
        one = train_on(state(kind, tmp_path, shape, on_nonfinite="skip", **settings), 4)
        (carry,) = one.carries.buckets[0].carries
        carry.latents[0][0] = float("nan")
        carry.halted[:] = False
        train_on(one, 4, first=4)
        assert int(one.guard.skipped) == 1
        found.append(tensors(one))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in other.items():
            assert value.equal(found[0][name]), name


def test_rows_never_visited_take_no_room_on_a_disk(tmp_path: Path) -> None:
    """205 GB of rows, of which a hundred are written."""
    rows = FileRows(100_000_000, (512,), torch.float32, tmp_path / "made" / "late")
    numbers = torch.randint(0, rows.num, (100,), generator=torch.Generator().manual_seed(0))
    assert (
        not rows.read(numbers).any() and rows.read(numbers[:0]).shape == (0, 512) and not (tmp_path / "made").exists()
    )
    written = torch.randn(100, 512)
    rows.write(numbers, written)
    assert rows.read(numbers).equal(written) and not rows.read(numbers + 1).any()
    assert 100 * 2048 <= rows.room() < 2e6 and rows.num_bytes() > 2e11
    assert os.listdir(tmp_path / "made" / "late") == []  # its file goes with the process
    rows.fill(torch.arange(512.0))
    assert rows.read(numbers[:1]).equal(torch.arange(512.0).unsqueeze(0)) and rows.room() == 0
    rows.write(numbers[:1], torch.zeros(1, 512))
    assert not rows.read(numbers[:1]).any()


def test_a_full_disk_under_a_table_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = FileRows(10, (4,), torch.float32, tmp_path)
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: 3)
    with pytest.raises(OSError, match="No space left on device") as caught:
        rows.write(torch.tensor([1]), torch.ones(1, 4))
    assert str(tmp_path) in str(caught.value.filename)


def files_of_rows(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("puzzle_table*"))


def new_bytes(path: Path) -> int:
    """The bytes of rows that a checkpoint does not share with another."""
    return sum(file.stat().st_size for file in path.glob("puzzle_table*") if file.stat().st_nlink == 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("averaged", [False, True])
def test_checkpoints_have_what_changed_and_resume_in_every_kind(kind: str, averaged: bool, tmp_path: Path) -> None:
    shape = DataShape(12, C, 4000, 0)
    settings = {"ema_puzzle_rows": averaged}
    one, writer = train_on(state(kind, tmp_path, shape, **settings), 30), CheckpointWriter(tmp_path / "run", 3)
    for step in range(30, 34):
        writer.save(train_on(one, 1, first=step, total_steps=60), CheckpointRecord(), ends_interval=False)
    writer.close()
    path = last(tmp_path / "run")
    whole = (8 if averaged else 4) * 16 * 4000
    assert new_bytes(path) < whole / 20
    assert (kind == "device") == ("puzzle_table.safetensors" in files_of_rows(path))
    assert len(files_of_rows(path)) > 2
    after = train_on(state(kind, tmp_path, shape, **settings), 0)
    checkpoint.restore_state(after, path)
    assert_equal(after, one)
    train_on(one, 3, first=34, total_steps=60)
    for other in KINDS:
        resumed = state(other, tmp_path, shape, **settings)
        checkpoint.restore_state(resumed, path)
        train_on(resumed, 3, first=34, total_steps=60)
        assert_equal(resumed, one)
        again = checkpoint.save_checkpoint(resumed, tmp_path / other, CheckpointRecord())
        fresh = state("device", tmp_path, shape, **settings)
        checkpoint.restore_state(fresh, again)
        assert_equal(fresh, one)


def test_rows_that_change_again_and_again_do_not_pile_up(tmp_path: Path) -> None:
    """Of seven puzzles every step changes some: the files hold each row twice at most."""
    for kind in KINDS:
        one, writer = (
            trained(1, puzzle_table=kind, puzzle_table_folder=str(tmp_path)),
            CheckpointWriter(tmp_path / kind),
        )
        for step in range(1, 12):
            writer.save(train_on(one, 1, first=step, total_steps=60), CheckpointRecord(), ends_interval=False)
        writer.close()
        path = last(tmp_path / kind)
        stored = checkpoint.StoredRows(path, checkpoint.read_record(path), "puzzle_table")
        assert stored.stored <= 14 and len(stored.files) < 5
        assert one.table is not None
        assert rows_in(path).equal(one.table.state_dict()["weights"])


def test_removing_a_checkpoint_takes_nothing_from_later_ones(tmp_path: Path) -> None:
    one, writer = train_on(state("disk", tmp_path), 9), CheckpointWriter(tmp_path / "run", keep_last=1)
    for step in range(9, 13):
        writer.save(train_on(one, 1, first=step, total_steps=60), CheckpointRecord(), ends_interval=step == 10)
    writer.close()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["step_11", "step_13"]
    shutil.rmtree(tmp_path / "run" / "step_11")
    assert len(files_of_rows(tmp_path / "run" / "step_13")) == 4
    again = state("disk", tmp_path)
    checkpoint.restore_state(again, last(tmp_path / "run"))
    assert_equal(again, one)
    shutil.rmtree(tmp_path / "run" / "step_13")  # what the next one would share is gone: it is whole by itself
    path = checkpoint.save_checkpoint(train_on(one, 1, first=13, total_steps=60), tmp_path / "run", CheckpointRecord())
    assert files_of_rows(path) == ["puzzle_table.step_14.0.safetensors"]
    checkpoint.restore_state(again, path)
    assert_equal(again, one)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_changed_rows_is_found_and_the_checkpoint_before_them_used(
    kind: str, damage: str, tmp_path: Path
) -> None:
    one, writer = train_on(state(kind, tmp_path), 9), CheckpointWriter(tmp_path / "run", keep_last=4)
    copies = {}
    for step in range(9, 12):
        writer.save(train_on(one, 1, first=step, total_steps=60), CheckpointRecord(data=["one"]), ends_interval=True)
        copies[step + 1] = {name: value.clone() for name, value in tensors(one).items()}
    writer.close()
    file = tmp_path / "run" / "step_12" / "puzzle_table.step_11.0.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 4
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flip" else content[:-3])
    resumed = state(kind, tmp_path)
    said = str(checkpoint.start_state(resumed, tmp_path / "run", {"data": ["one"], "puzzles": None}))
    # A link that is gone harms one checkpoint; damage is in all that share the file, and the one before it is whole.
    assert resumed.step == (11 if damage == "remove" else 10) and "warning: " in said and str(file) in said
    for name, value in tensors(resumed).items():
        assert value.equal(copies[resumed.step][name]), name
    if damage != "remove":  # a later checkpoint that shares the file does not take its damage for what it should be
        checkpoint.save_checkpoint(train_on(one, 1, first=12, total_steps=60), tmp_path / "run", CheckpointRecord())
        path, problems = checkpoint.latest_undamaged(tmp_path / "run")
        assert path is not None and path.name == "step_10" and len(problems) == 3


def test_what_a_full_disk_did_not_take_is_in_the_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, module in (("device", "writer"), ("disk", "row_snapshots")):
        one, writer = train_on(state(kind, tmp_path), 9), CheckpointWriter(tmp_path / kind)
        writer.save(one, CheckpointRecord(), ends_interval=False)
        writer.wait()

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        train_on(one, 1, first=9, total_steps=60)
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(f"training.checkpoint.{module}.save_file", full)
            writer.save(one, CheckpointRecord(), ends_interval=False)
            writer.wait()
        assert [path.name for path in (tmp_path / kind).iterdir()] == ["step_9"]
        writer.save(train_on(one, 1, first=10, total_steps=60), CheckpointRecord(), ends_interval=False)
        writer.close()
        again = state(kind, tmp_path)
        checkpoint.restore_state(again, last(tmp_path / kind))
        assert_equal(again, one)


def test_a_checkpoint_with_changed_rows_alone_says_so_to_older_programs(tmp_path: Path) -> None:
    """They would take the rows of the last whole copy for all."""
    first = checkpoint.save_checkpoint(train_on(state("device", tmp_path), 9), tmp_path / "a", CheckpointRecord())
    second = checkpoint.save_checkpoint(train_on(state("host", tmp_path), 9), tmp_path / "b", CheckpointRecord())
    assert [checkpoint.read_record(path).format for path in (first, second)] == [1, 2]


@pytest.mark.parametrize("rows_from", ["keep", "mean", "noise", "zero"])
@pytest.mark.parametrize("large", [False, True])
def test_a_run_starts_alike_from_rows_of_every_kind(
    rows_from: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are read block by block: their mean is then that of all to rounding."""
    source = train_on(state("disk", tmp_path, ema_puzzle_rows=True), 12)
    path = checkpoint.save_checkpoint(source, tmp_path / "run", CheckpointRecord(puzzles="p"))
    whole = checkpoint.load_weights(path)
    assert isinstance(whole.puzzle_rows, torch.Tensor) and source.table is not None
    assert whole.puzzle_rows.equal(source.table.gather_averaged(torch.arange(500)))
    if large:
        monkeypatch.setattr("training.checkpoint.sources.weights.IN_MEMORY", 0)
        monkeypatch.setattr("training.checkpoint.row_files.BLOCK", 5)
        monkeypatch.setattr("training.checkpoint.initialise.BLOCK", 64)
    loaded = checkpoint.load_weights(path)
    assert isinstance(loaded.puzzle_rows, checkpoint.StoredRows) == large
    found = []
    for kind, weights in (("device", whole), *((kind, loaded) for kind in KINDS)):
        started = state(kind, tmp_path, ema_puzzle_rows=True)
        checkpoint.initialise_rows(started, weights, rows_from, "p")
        assert started.table is not None and (started.table.state_dict()["weights"].any() == (rows_from != "zero"))
        after = train_on(started, 2)
        found.append(tensors(after))
        again = state("disk", tmp_path, ema_puzzle_rows=True)
        checkpoint.restore_state(
            again, checkpoint.save_checkpoint(after, tmp_path / f"{kind}-again", CheckpointRecord())
        )
        assert_equal(again, after)
    for other in found[1:]:
        for name, value in other.items():
            torch.testing.assert_close(value, found[0][name], rtol=1e-5 if large else 0, atol=1e-6 if large else 0)


def test_a_summary_of_pieces_is_that_of_all_rows() -> None:
    rows = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 3
    rows[::7] = 0
    whole, pieces = RowSummary.from_rows(rows), RowSummary.from_pieces(rows.split(130))
    assert whole is not None and pieces is not None and whole.count == pieces.count
    torch.testing.assert_close(pieces.mean, whole.mean)
    torch.testing.assert_close(pieces.spread, whole.spread)
    assert RowSummary.from_pieces([torch.zeros(3, 2)]) is None


def test_a_large_table_is_exported_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = train_on(state("disk", tmp_path), 12)
    stored_at = checkpoint.save_checkpoint(source, tmp_path / "run", CheckpointRecord())
    monkeypatch.setattr("training.checkpoint.row_files.IN_MEMORY", 0)
    stored = checkpoint.StoredRows(stored_at, checkpoint.read_record(stored_at), "puzzle_table")
    assert source.table is not None
    assert stored.dense(tmp_path / "new").equal(source.table.state_dict()["weights"])
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("rows", "memory"), [(500, 1e4), (10**12, float("inf"))])
@pytest.mark.parametrize("kind", ["device", "host"])
def test_a_table_that_does_not_fit_is_refused_with_a_remedy(
    kind: str, rows: int, memory: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is allocated, and where that fails although there seems to be room."""
    monkeypatch.setattr("training.slots.tables.kinds.memory_of", lambda device: memory)
    remedy = r"set puzzle_table=\w+, or arch.puzzle_embedding=composed"
    with pytest.raises(SettingError, match=rf"puzzle_table={kind}: {rows:,} rows of 16 need .* GB.*{remedy}"):
        state_of(DataShape(12, C, rows, 0), puzzle_table=kind)


def test_a_checkpoint_of_another_number_of_puzzles_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(train_on(state("disk", tmp_path), 2), tmp_path / "run", CheckpointRecord())
    with pytest.raises(CheckpointError, match=r"shape \(500, 16\), this data set needs \(7, 16\)"):
        checkpoint.restore_state(state_of(puzzle_table="disk"), path)
