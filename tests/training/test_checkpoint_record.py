"""training/checkpoint/: the record of a checkpoint, old and new, and the five kinds of weights.

`fixtures/older_run` is a run of six steps that the program wrote before records had a type.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.data_shape import DataShape
from dataset.sampling.joined import Batch
from training import checkpoint
from training.checkpoint import CheckpointRecord, Resumed, Stage, StageData, WeightsKind
from training.config import PretrainConfig
from training.state import TrainState
from training.step import train_step
from utils.errors import CheckpointError

OLDER = Path(__file__).parent / "fixtures" / "older_run"


def state_of(record: CheckpointRecord, **settings: Any) -> TrainState:
    config = PretrainConfig.model_validate(record.config | settings)
    return TrainState(config, DataShape(12, 9, 9, 0), torch.device("cpu"))


def identity_of(record: CheckpointRecord) -> dict[str, Any]:
    return {"data": record.data, "puzzles": record.puzzles}


@pytest.fixture
def older() -> CheckpointRecord:
    return checkpoint.read_record(OLDER / "step_6")


def test_a_checkpoint_of_an_older_program_is_resumed(older: CheckpointRecord) -> None:
    assert (older.step, older.interval, older.stages[0].run) == (6, 1, "older-otter")
    assert older.stages[0].data[0].counts["puzzles"] == 8 and older.stages[0].recipe["epochs"] == 2
    state = state_of(older)
    start = checkpoint.start_state(state, OLDER, identity_of(older))
    assert start == Resumed(OLDER / "step_6", 6, changed=[], problems=[])
    for part in ("network", "ema", "optimizer", "carry"):
        for key, value in checkpoint.read_part(OLDER / "step_6", part, older).items():
            assert torch.equal(state.state_dict()[part][key], value), f"{part}/{key}"
    inputs, labels = np.random.default_rng(0).integers(0, 12, (2, 4, 9)).astype(np.uint8)
    train_step(state, Batch(inputs, labels, np.array([1, 2, 3, 4], dtype=np.int32)), total_steps=10)
    state.guard.raise_if_bad()
    assert state.step == 7


def test_a_run_starts_from_an_older_checkpoint(older: CheckpointRecord, tmp_path: Path) -> None:
    state = state_of(older, load_checkpoint=str(OLDER), seed=3)
    checkpoint.start_state(state, tmp_path, {"data": ["other"], "puzzles": older.puzzles})
    for name, value in checkpoint.read_part(OLDER / "step_6", "ema", older).items():
        assert torch.equal(state.network.state_dict()[name], value), name
    record = checkpoint.start_record(state.config, "next", [], {"data": ["other"], "puzzles": None}, {"new": "whole"})
    assert [(stage.run, stage.step) for stage in record.stages] == [("older-otter", 6), ("next", None)]
    assert record.task_keys == older.task_keys | {"new": "whole"}


def test_settings_that_an_older_record_does_not_know_have_their_defaults(tmp_path: Path) -> None:
    """A fixed setting that is newer than the record was not in use then, which is what its default means."""
    shutil.copytree(OLDER, tmp_path / "run")
    file = tmp_path / "run" / "step_6" / checkpoint.RECORD
    content = json.loads(file.read_text())
    for name in ("canvases", "micro_batch_size", "ema_puzzle_rows", "puzzle_rows", "on_nonfinite"):
        del content["config"][name]
    del content["config"]["arch"]["rope_theta"], content["task_keys"], content["git"]
    file.write_text(json.dumps(content))
    record = checkpoint.read_record(file.parent)
    assert record.task_keys == {} and record.git is None
    assert isinstance(checkpoint.start_state(state_of(record), tmp_path / "run", identity_of(record)), Resumed)
    for settings, named in (
        ({"micro_batch_size": 2}, "micro_batch_size=None there, 2 here"),
        ({"ema_puzzle_rows": True}, "ema_puzzle_rows=False there, True here"),
        ({"arch": record.arch | {"rope_theta": 500.0}}, "arch.rope_theta=10000.0 there, 500.0 here"),
    ):
        with pytest.raises(CheckpointError, match=named):
            checkpoint.start_state(state_of(record, **settings), tmp_path / "run", identity_of(record))


def test_a_checkpoint_keeps_the_keys_that_older_programs_read(older: CheckpointRecord, tmp_path: Path) -> None:
    state = state_of(older)
    data = [{"name": "tiny", "sources": ["a"], "settings": {"num_aug": None}, "counts": {}, "tokens": {"pad_id": 0}}]
    record = checkpoint.start_record(state.config, "otter", data, {"data": ["d"], "puzzles": "p"}, {"k": "whole"})
    writer = checkpoint.CheckpointWriter(tmp_path)
    path = writer.save(state, record, ends_interval=True, interval=1)
    writer.close()
    written, before = (json.loads((folder / checkpoint.RECORD).read_text()) for folder in (path, OLDER / "step_6"))
    assert written.keys() | {"git"} == before.keys()
    known = before["config"], before["config"]["arch"], before["stages"][0]["recipe"]
    (stage,) = written["stages"]
    config, arch, recipe = (
        {key: there[key] for key in keys}
        for there, keys in zip((written["config"], written["config"]["arch"], stage["recipe"]), known, strict=True)
    )
    assert {**config, "arch": arch} == before["config"], "settings, those that are null included"
    assert stage == {"run": "otter", "data": data, "recipe": stage["recipe"]} and recipe == known[2]
    assert (written["step"], written["interval"], written["ends_interval"]) == (0, 1, True)
    for name, stored in written["files"].items():
        assert stored.keys() == before["files"]["network.safetensors"].keys(), name
    back = checkpoint.read_record(path)
    assert back == record.model_copy(update={"step": 0, "interval": 1, "files": back.files})


def test_every_kind_of_weights_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()
    for name in (checkpoint.CONFIG, checkpoint.PROVENANCE):
        (tmp_path / "exported" / name).write_text("{}")
    for name in ("x.safetensors", "x"):
        (tmp_path / name).write_text("")
    assert {path: checkpoint.identify_weights(path) for path in (OLDER, OLDER / "step_6", *tmp_path.iterdir())} == {
        OLDER: WeightsKind.RUN,
        OLDER / "step_6": WeightsKind.CHECKPOINT,
        tmp_path / "exported": WeightsKind.EXPORTED,
        tmp_path / "x.safetensors": WeightsKind.SAFETENSORS,
        tmp_path / "x": WeightsKind.TORCH,
    }
    with pytest.raises(CheckpointError, match="load_checkpoint=nothing"):
        checkpoint.identify_weights(Path("nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty has no checkpoint: name a run's folder"):
        checkpoint.load_weights(tmp_path / "empty")
    shutil.copytree(OLDER, tmp_path / "demo/finetune")
    with pytest.raises(CheckpointError, match=r"demo has no checkpoint: did you mean \S+/demo/finetune\?"):
        checkpoint.load_weights(tmp_path / "demo")


def test_each_kind_has_the_record_that_it_can_have(older: CheckpointRecord, tmp_path: Path) -> None:
    essential = ("embed_tokens.embedding_weight", "lm_head.weight", "q_head.weight")
    torch.save({name: torch.zeros(1) for name in essential}, tmp_path / "file")
    assert checkpoint.load_weights(tmp_path / "file").record.is_empty
    assert checkpoint.record_of(tmp_path / "file").is_empty and checkpoint.record_of(tmp_path / "nothing").is_empty
    assert checkpoint.record_of(OLDER) == checkpoint.load_weights(OLDER / "step_6").record == older
    assert not older.is_empty and older.arch["hidden_size"] == 2 and older.ema_rate == 0.999
    assert CheckpointRecord().arch == {} and CheckpointRecord().complete_stages == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"step": "many"}, "step"),
        ({"step": None}, "no step"),
        ({"files": {"network.safetensors": {"bytes": 3}}}, r"files.network.safetensors.sha256"),
        ({"stages": [{"data": [{}]}]}, r"stages.0.data.0.name"),
        ({"format": 3}, "checkpoint format 3"),
    ],
)
def test_a_record_that_is_not_one_is_refused(change: dict[str, Any], named: str, tmp_path: Path) -> None:
    content = json.loads((OLDER / "step_6" / checkpoint.RECORD).read_text()) | change
    (tmp_path / checkpoint.RECORD).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=named):
        checkpoint.read_record(tmp_path)


def test_stages_keep_what_a_newer_program_adds() -> None:
    stage = Stage.model_validate({"run": "a", "data": [{"name": "d", "hash": "x"}], "hours": 3})
    assert stage.model_dump()["hours"] == 3 and stage.data == [StageData.model_validate({"name": "d", "hash": "x"})]
