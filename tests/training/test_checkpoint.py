"""training/checkpoint/: what is written, read, refused, and what a run starts from."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.data_shape import DataShape
from tests.builders.states import PUZZLES, assert_equal, batch_of, state_of, tensors, trained
from training import checkpoint
from training.checkpoint import CheckpointRecord, Fresh, Initialised, Resumed, RowsStart
from training.checkpoint import writer as checkpoint_writer
from training.export import published_format
from training.state import TrainState
from training.step import exploration, train_step
from utils.errors import CheckpointError


@pytest.mark.parametrize("arch", [{}, {"name": "urm", "H_cycles": 2, "mlp_conv": "raster2"}, {"mlp_conv": "canvas3x3"}])
def test_a_restored_state_goes_on_as_if_nothing_had_happened(tmp_path: Path, arch: dict[str, Any]) -> None:
    straight = trained(6, arch=arch)
    path = checkpoint.save_checkpoint(trained(3, arch=arch), tmp_path, CheckpointRecord(puzzles="x"))
    resumed = state_of(arch=arch)
    assert checkpoint.restore_state(resumed, path).puzzles == "x"
    for step in range(3, 6):
        train_step(resumed, batch_of(step), total_steps=10)
    assert resumed.step == straight.step == 6
    assert_equal(resumed, straight)


def test_everything_that_trains_is_saved() -> None:
    """A step changes something in every part, so a part that were left out would be noticed above."""
    before = {key: value.clone() for key, value in tensors(trained(3)).items()}
    after = tensors(trained(4))
    parts = {key.split("/")[0] for key, value in after.items() if not torch.equal(value, before[key])}
    assert parts == {"network", "ema", "optimizer", "puzzle_table", "carry", "metrics"}


def test_names_are_the_published_raw_ones(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(trained(1), tmp_path, CheckpointRecord())
    names = checkpoint.read_part(path, "network", checkpoint.read_record(path)).keys()
    assert {"embed_tokens.embedding_weight", "lm_head.weight", "q_head.bias", "H_init", "L_init"} <= names
    assert "L_level.layers.0.self_attn.qkv_proj.weight" in names
    assert not [name for name in names if "_orig_mod" in name or name.startswith("module")]


@pytest.mark.parametrize("prefix", ["", "model.inner.", "_orig_mod.model.inner.", "module._orig_mod.model.inner."])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_published_files_are_read(tmp_path: Path, prefix: str, kind: str) -> None:
    state = trained(2)
    weights = {prefix + key: value for key, value in state.network.state_dict().items()}
    weights[prefix + "puzzle_emb.weights"] = state.table.weights  # type: ignore[union-attr]
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "step_2")
    if kind == "torch":
        torch.save(weights, path)
    else:
        from safetensors.torch import save_file

        save_file(weights, path)
    loaded = checkpoint.load_weights(path)
    fresh = state_of(seed=9)
    checkpoint.initialise_network(fresh.network, loaded)
    for key, value in state.network.state_dict().items():
        assert torch.equal(fresh.network.state_dict()[key], value), key
    assert loaded.puzzle_rows is not None and torch.equal(loaded.puzzle_rows, state.table.weights)  # type: ignore[union-attr]


def test_exported_files_are_the_published_ones(tmp_path: Path) -> None:
    state = trained(3)
    folder = checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord())
    for averaged in (True, False):
        file = tmp_path / f"exported-{averaged}"
        published_format.write_published(folder, file, averaged)
        written = torch.load(file, weights_only=True)
        assert all(key.startswith("_orig_mod.model.inner.") for key in written)
        assert "_orig_mod.model.inner.puzzle_emb.weights" in written
        again = checkpoint.load_weights(file)
        wanted = checkpoint.load_weights(folder, averaged)
        assert again.network.keys() == wanted.network.keys()
        assert all(torch.equal(again.network[key], value) for key, value in wanted.network.items())
        with pytest.raises(CheckpointError, match=f"exported-{averaged} exists"):
            published_format.write_published(folder, file)
    raw, mean = (torch.load(tmp_path / f"exported-{a}", weights_only=True) for a in (False, True))
    key = "_orig_mod.model.inner.lm_head.weight"
    assert not torch.equal(raw[key], mean[key])


def test_files_of_urm_have_its_names(tmp_path: Path) -> None:
    """Its code has one stack of blocks and one vector to start from."""
    arch = {"name": "urm", "mlp_conv": "raster2"}
    state = trained(2, arch=arch)
    folder = checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord())
    written = published_format.write_published(folder, tmp_path / "exported", averaged=False)
    names = {key.removeprefix("_orig_mod.model.inner.") for key in written}
    assert {"init_hidden", "layers.0.self_attn.qkv_proj.weight", "layers.0.mlp.dwconv.weight"} < names
    assert not [name for name in names if "level" in name]
    fresh = state_of(arch=arch, seed=9)
    checkpoint.initialise_network(fresh.network, checkpoint.load_weights(tmp_path / "exported"))
    for key, value in state.network.state_dict().items():
        assert torch.equal(fresh.network.state_dict()[key], value), key


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    sung = tmp_path / "sung"
    torch.save({"lm_head.weight": Canary(sung)}, tmp_path / "evil")
    (tmp_path / "raw").write_bytes(pickle.dumps(Canary(sung)))
    for name in ("evil", "raw"):
        with pytest.raises(CheckpointError, match="not a file of plain tensors and was not loaded"):
            checkpoint.load_weights(tmp_path / name)
    assert not sung.exists()


def test_averaged_weights_are_what_one_starts_from(tmp_path: Path) -> None:
    state = trained(3)
    loaded = checkpoint.load_weights(checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord()))
    for name, value in state.ema.shadow.items():  # type: ignore[union-attr]
        assert torch.equal(loaded.network[name], value)
        assert not torch.equal(value, state.network.state_dict()[name])


def test_a_damaged_file_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(trained(1), tmp_path, CheckpointRecord())
    file = path / "network.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is whole .*network.safetensors is damaged"):
        checkpoint.latest_undamaged(tmp_path)


def test_a_failed_save_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained(1)
    first = checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord())
    train_step(state, batch_of(1), total_steps=10)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_writer, "save_file", full)
    with pytest.raises(OSError):
        checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord())
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
    assert checkpoint.latest_checkpoint(tmp_path) == first
    checkpoint.restore_state(state_of(), first)


def test_the_latest_is_the_one_of_most_steps_that_is_whole(tmp_path: Path) -> None:
    assert checkpoint.latest_checkpoint(tmp_path) is None
    state = trained(9)
    for step in (9, 10):
        state.step = step
        checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord())
    (tmp_path / "step_11").mkdir()
    (tmp_path / ".step_12.partial").mkdir()
    assert checkpoint.latest_checkpoint(tmp_path) == tmp_path / "step_10"


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ({"hidden_size": 32}, "arch.hidden_size is 16 in the checkpoint and 32 here"),
        ({"L_layers": 2}, "arch.L_layers is 1 in the checkpoint and 2 here"),
        ({"mlp_t": True}, "arch.mlp_t=true holds here only"),
        ({"pos_encodings": "learned"}, "arch.pos_encodings=learned holds here only"),
        ({"expansion": 40.0}, "mlp.gate_up_proj.weight is"),
        ({"mlp_conv": "raster3"}, "arch.mlp_conv is none in the checkpoint and raster3 here"),
        ({"name": "urm"}, "init_hidden is missing in the checkpoint"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_why(tmp_path: Path, arch: dict[str, Any], said: str) -> None:
    loaded = checkpoint.load_weights(checkpoint.save_checkpoint(trained(1), tmp_path, CheckpointRecord()))
    with pytest.raises(CheckpointError) as error:
        checkpoint.initialise_network(state_of(arch=arch).network, loaded)
    assert said in str(error.value)


def record_of(state: TrainState, **more: Any) -> CheckpointRecord:
    """The record of a run with the state's settings."""
    return CheckpointRecord(config=state.config.model_dump(mode="json"), **more)


def test_cycles_that_differ_are_reported(tmp_path: Path) -> None:
    state = trained(1)
    path = checkpoint.save_checkpoint(state, tmp_path / "there", record_of(state))
    here = state_of(arch={"H_cycles": 2}, load_checkpoint=str(path), puzzle_rows="mean")
    start = checkpoint.start_state(here, tmp_path / "here", {"data": [None], "puzzles": None})
    assert isinstance(start, Initialised)
    assert start.differing == ["arch.H_cycles: 1 there, 2 here"]
    assert start.rows.rows_from == "mean" and start.source == str(path)
    assert "arch.H_cycles: 1 there, 2 here" in str(start)


def test_rows_start_as_told(tmp_path: Path) -> None:
    state = trained(3)
    table = state.table
    assert table is not None
    loaded = checkpoint.load_weights(checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord(puzzles="p")))
    seen = table.weights[(table.weights != 0).any(-1)]
    fresh = state_of()
    assert fresh.table is not None
    assert checkpoint.initialise_rows(fresh, loaded, "mean", "q") == RowsStart("mean", trained=len(seen))
    torch.testing.assert_close(fresh.table.weights[1:], seen.mean(0).expand(PUZZLES - 1, -1))
    assert not fresh.table.weights[0].any()
    assert checkpoint.initialise_rows(fresh, loaded, "keep", "p") == RowsStart("keep")
    assert torch.equal(fresh.table.weights, table.weights)
    assert checkpoint.initialise_rows(fresh, loaded, "keep", None) == RowsStart("keep", checked=False)
    with pytest.raises(CheckpointError, match="other puzzles"):
        checkpoint.initialise_rows(fresh, loaded, "keep", "q")
    assert checkpoint.initialise_rows(fresh, loaded, "zero", "q") == RowsStart("zero")
    assert not fresh.table.weights.any()


def test_a_data_set_changed_under_a_run_is_refused(tmp_path: Path) -> None:
    checkpoint.save_checkpoint(trained(1), tmp_path, CheckpointRecord(data=["one"]))
    with pytest.raises(CheckpointError, match="was trained on another data set"):
        checkpoint.start_state(state_of(), tmp_path, {"data": ["two"], "puzzles": None})
    start = checkpoint.start_state(state_of(), tmp_path, {"data": ["one"], "puzzles": None})
    assert start == Resumed(tmp_path / "step_1", 1, changed=[], problems=[])
    with pytest.raises(CheckpointError, match="resume=never, but .* holds checkpoints"):
        checkpoint.start_state(state_of(resume="never"), tmp_path, {"data": ["two"], "puzzles": None})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"arch": {"H_cycles": 2}}, "arch.H_cycles=1 there, 2 here"),
        ({"arch": {"hidden_size": 32}}, "arch.hidden_size=16 there, 32 here"),
        ({"global_batch_size": 8}, "global_batch_size=4 there, 8 here"),
        ({"seed": 1}, "seed=0 there, 1 here"),
        ({"ema": False}, "ema=True there, False here"),
        ({"load_checkpoint": "x"}, "load_checkpoint=None there, x here"),
        ({"epochs": 4, "eval_interval": 2}, "eval_interval=1 there, 2 here"),
    ],
)
def test_a_run_cannot_go_on_with_settings_that_its_state_is_made_of(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    state = trained(1)
    checkpoint.save_checkpoint(state, tmp_path, record_of(state, data=["one"]))
    with pytest.raises(CheckpointError, match="cannot be resumed with other settings") as error:
        checkpoint.start_state(state_of(**settings), tmp_path, {"data": ["one"], "puzzles": None})
    assert said in str(error.value)


def test_rates_may_change_and_are_said(tmp_path: Path) -> None:
    state = trained(1)
    checkpoint.save_checkpoint(state, tmp_path, record_of(state, data=["one"]))
    longer = state_of(lr=2e-2, epochs=3, eval_interval=1, log_every=7)
    start = checkpoint.start_state(longer, tmp_path, {"data": ["one"], "puzzles": None})
    assert isinstance(start, Resumed) and start.changed == ["lr 0.01 -> 0.02"]
    assert "lr 0.01 -> 0.02" in str(start)


def test_a_run_that_starts_from_nothing_says_so(tmp_path: Path) -> None:
    start = checkpoint.start_state(state_of(), tmp_path / "none", {"data": [None], "puzzles": None})
    assert start == Fresh() and "load_checkpoint" in str(start)


def test_freezing_trains_the_rows_alone() -> None:
    fresh, frozen = state_of(freeze_weights=True), trained(2, freeze_weights=True)
    assert all(torch.equal(p, q) for p, q in zip(fresh.network.parameters(), frozen.network.parameters(), strict=True))
    assert frozen.table is not None and frozen.table.weights.any()


def test_a_frozen_trunk_learns_after_its_share() -> None:
    """Of ten steps the first half moves the rows alone."""
    fresh, half, later = state_of(), trained(5, freeze_trunk=0.5), trained(6, freeze_trunk=0.5)
    same = [torch.equal(p, q) for p, q in zip(fresh.network.parameters(), half.network.parameters(), strict=True)]
    assert all(same)
    assert half.table is not None and half.table.weights.any()
    assert not torch.equal(half.network.lm_head.weight, later.network.lm_head.weight)


def test_noise_has_the_spread_of_the_rows(tmp_path: Path) -> None:
    state = trained(3)
    loaded = checkpoint.load_weights(checkpoint.save_checkpoint(state, tmp_path, CheckpointRecord()))
    rng = torch.Generator().manual_seed(0)
    spreads = torch.linspace(0.1, 2.0, 16)
    loaded.puzzle_rows = torch.randn((4000, 16), generator=rng) * spreads
    fresh = TrainState(state.config, DataShape(12, 16, 4001, 0), torch.device("cpu"))
    assert checkpoint.initialise_rows(fresh, loaded, "noise", None) == RowsStart("noise", trained=4000)
    assert fresh.table is not None and not fresh.table.weights[0].any()
    # Column by column, so that one spread for all of them is noticed; of 4000 draws the deviation is known to 2 %.
    torch.testing.assert_close(fresh.table.weights[1:].std(0), spreads, rtol=0.08, atol=0)
    assert not torch.equal(fresh.table.weights[1], fresh.table.weights[2])


def test_without_a_table_training_goes_on() -> None:
    state = trained(2, arch={"puzzle_emb_ndim": 0, "puzzle_emb_len": 0})
    assert state.table is None
    assert not [name for name in tensors(state) if name.startswith("puzzle_table")]


def test_exploration_is_a_pure_function_with_the_right_rate() -> None:
    a, b = (exploration(3, 17, 4000, 0.25, 5) for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, exploration(3, 18, 4000, 0.25, 5))
    assert (a > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert set(a[a > 0]) == {2, 3, 4, 5}


def test_record_is_plain_json(tmp_path: Path) -> None:
    path = checkpoint.save_checkpoint(trained(1), tmp_path, CheckpointRecord(config={"lr": 1e-4}))
    record = json.loads((path / checkpoint.RECORD).read_text())
    assert record["step"] == 1 and record["config"] == {"lr": 1e-4}
    assert set(record["files"]) == {
        f"{part}.safetensors" for part in ("network", "ema", "optimizer", "puzzle_table", "carry", "metrics")
    }
