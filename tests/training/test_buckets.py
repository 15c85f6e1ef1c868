"""training/buckets/scheduler.py and training/buckets/slots.py: whose turn it is, and slots on several canvases."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from dataset.canvas import Canvas
from dataset.storage import open_split
from models.arch import ArchConfig
from tests.conftest import SMALL, run_script
from tests.training.test_checkpoint import BATCH, assert_equal, batch_of, state_of, tensors
from training import checkpoint
from training.buckets.data import TrainingData
from training.buckets.scheduler import Rota
from training.buckets.slots import Part, chunk_sizes, whole
from training.config import PretrainConfig
from training.state import TrainState
from training.step import train_step

STEPS = 16


class Slots:
    """Slots that halt after a number of steps drawn at random, on the host."""

    def __init__(self, rota: Rota, seed: int = 0) -> None:
        self.rota, self.rng = rota, np.random.default_rng(seed)
        self.left: list[list[np.ndarray]] = [[] for _ in rota.sizes]
        self.taken = np.zeros(len(rota.sizes), dtype=np.int64)
        self.asked: np.ndarray | None = None
        self.step = 0

    def advance(self, means: list[float]) -> list[tuple[int, int]]:
        """One step, a slot of lane i staying with an example for about means[i] steps."""
        turn = self.rota.turn()
        for lane, chunk in turn:
            if chunk == len(self.left[lane]):
                self.left[lane].append(np.zeros(self.rota.sizes[lane], dtype=np.int64))
            left = self.left[lane][chunk]
            self.taken[lane] += (left == 0).sum()
            spread = (
                self.rng.geometric(1 / means[lane], len(left)) if means[lane] < STEPS else np.full(len(left), STEPS)
            )
            self.left[lane][chunk] = np.where(left == 0, np.minimum(spread, STEPS), left) - 1
        self.step += 1
        if self.step % 8 == 0:
            if self.asked is not None:
                self.rota.report(self.asked.tolist())
            self.rota.ask()
            self.asked = self.taken.copy()
        return turn


SHARES, SIZES, B = [0.45, 0.3, 0.15, 0.1], [32, 16, 8, 8], 64


@pytest.mark.parametrize("means", [[2.0, 4.0, 8.0, 14.0], [14.0, 8.0, 4.0, 2.0], [STEPS] * 4])
def test_lanes_take_their_shares_however_fast_they_halt(means: list[float]) -> None:
    slots = Slots(Rota(SHARES, SIZES, B, STEPS))
    worst = 0.0
    for step in range(1500):
        turn = slots.advance(means)
        assert sum(SIZES[lane] for lane, _ in turn) == B  # a step is so many slots, whatever their canvas
        assert len(set(turn)) == len(turn)  # none is advanced twice
        if step > 300:
            worst = max(worst, np.abs(slots.taken - np.array(SHARES) * slots.taken.sum()).max())
    assert worst <= B


def test_lanes_take_their_shares_while_their_speeds_change() -> None:
    """From all steps for everything to fast small canvases, as a network learns."""
    slots = Slots(Rota(SHARES, SIZES, B, STEPS), seed=1)
    for step in range(2500):
        fast = min(1.0, max(0.0, (step - 300) / 1200))
        slots.advance([STEPS + fast * (mean - STEPS) for mean in (1.5, 3.5, 6.0, 12.0)])
    assert slots.taken / slots.taken.sum() == pytest.approx(SHARES, rel=0.01)


def test_a_lane_without_examples_has_no_turn_and_chunks_wait_alike() -> None:
    slots = Slots(Rota([0.7, 0.0, 0.3], [8, 8, 4], 16, STEPS))
    turns = [slots.advance([3.0, 3.0, 3.0]) for _ in range(200)]
    assert {lane for turn in turns for lane, _ in turn} == {0, 2}
    for lane in (0, 2):
        counts = np.bincount([chunk for turn in turns[50:] for at, chunk in turn if at == lane])
        assert len(counts) == slots.rota.pools[lane] and counts.max() - counts.min() <= 1


def test_a_rota_goes_on_from_its_state() -> None:
    straight, cut = (Slots(Rota(SHARES, SIZES, B, STEPS)) for _ in range(2))
    for _ in range(101):
        straight.advance([2, 4, 8, 14])
        cut.advance([2, 4, 8, 14])
    fresh = Rota(SHARES, SIZES, B, STEPS)
    fresh.load_state_dict({name: value.copy() for name, value in cut.rota.state_dict().items()})
    cut.rota = fresh
    for _ in range(100):
        assert straight.advance([2, 4, 8, 14]) == cut.advance([2, 4, 8, 14])


def test_chunks_cost_about_the_same_and_make_up_a_batch() -> None:
    arch = ArchConfig()
    canvases = [Canvas(11, 11), Canvas(16, 16), Canvas(22, 22), Canvas(30, 30)]
    assert chunk_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 768, None, arch) == [256, 128, 128, 64]
    assert chunk_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 96, None, arch)[-1] == 8  # for eight ranks too
    assert chunk_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 768, 48, arch) == [192, 96, 96, 48]
    assert chunk_sizes(canvases, [0.5, 0.5, 0.0, 0.0], 96, None, arch)[:2] == [16, 8]
    assert chunk_sizes(canvases[3:], [1.0], 768, None, arch) == [768]
    with pytest.raises(ValueError, match="micro_batch_size=100 does not divide"):
        chunk_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 768, 100, arch)


@hypothesis.given(
    st.integers(1, 40), st.integers(0, 5), st.lists(st.integers(5, 29), min_size=1, max_size=4, unique=True), st.data()
)
@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_lanes_take_their_shares_whatever_the_batch(odd: int, twos: int, sides: list[int], data: Any) -> None:
    """The chunk sizes that are chosen, and the turns that they get, with slots that all take the same time."""
    batch = odd << twos
    canvases = [Canvas(side, side) for side in [*sorted(sides), 30]]
    weights = data.draw(st.lists(st.floats(0.02, 1), min_size=len(canvases), max_size=len(canvases)))
    shares = (np.array(weights) / sum(weights)).tolist()
    sizes = chunk_sizes(canvases, shares, batch, None, ArchConfig())
    assert all(batch % size == 0 for size in sizes)
    slots = Slots(Rota(shares, sizes, batch, 4))
    for _ in range(400):
        assert sum(sizes[lane] for lane, _ in slots.advance([STEPS] * len(sizes))) == batch
    # Each has its first chunk at once, which a small share has to make up for.
    assert np.abs(slots.taken - np.array(shares) * slots.taken.sum()).max() <= 2 * batch + sum(sizes)


@pytest.mark.parametrize("variant", [{}, {"name": "hrm", "H_layers": 1}, {"puzzle_emb_ndim": 0}])
def test_micro_batches_are_the_big_batch(variant: dict[str, Any]) -> None:
    """Weights, rows and slots after some steps whose gradients were added up over two or four pieces."""
    straight, halves, quarters = (state_of(arch=variant, micro_batch_size=micro) for micro in (None, 2, 1))
    for step in range(5):
        batch = batch_of(step)
        train_step(straight, whole(batch), total_steps=10)
        for state, size in ((halves, 2), (quarters, 1)):
            parts = [Part(0, i, batch.rows(first, first + size)) for i, first in enumerate(range(0, BATCH, size))]
            train_step(state, parts, total_steps=10)
    wanted = tensors(straight)
    for state in (halves, quarters):
        found = tensors(state)
        for key, value in wanted.items():
            if not key.startswith("carry/"):
                assert torch.allclose(found[key].double(), value.double(), rtol=1e-4, atol=1e-6), key
        chunks = state.lanes.lanes[0].chunks
        assert len(chunks) == BATCH // state.lanes.lanes[0].chunk_size
        carry = straight.lanes.lanes[0].chunks[0]
        assert torch.equal(torch.cat([chunk.steps for chunk in chunks]), carry.steps)
        assert torch.allclose(torch.cat([chunk.latents[0] for chunk in chunks]), carry.latents[0], atol=1e-4)


def test_micro_batches_are_saved_and_resumed(tmp_path: Path) -> None:
    def parts(step: int) -> list[Part]:
        return [Part(0, i, batch_of(step).rows(2 * i, 2 * i + 2)) for i in range(2)]

    straight, first, resumed = (state_of(micro_batch_size=2) for _ in range(3))
    for step in range(6):
        train_step(straight, parts(step), total_steps=10)
    for step in range(3):
        train_step(first, parts(step), total_steps=10)
    checkpoint.restore_state(resumed, checkpoint.save_checkpoint(first, tmp_path, checkpoint.CheckpointRecord()))
    for step in range(3, 6):
        train_step(resumed, parts(step), total_steps=10)
    assert_equal(resumed, straight)


FITTED = ("canvases=[[4,4],[5,5],[6,6]]", "micro_batch_size=2", "epochs=12", "eval_interval=4", "ema=true", "lr=1e-3")


def test_what_lanes_take_in_a_real_run_is_their_share(small_data: Path) -> None:
    """With a network whose halting differs between canvases, made to by its initial weights."""
    config = PretrainConfig(
        arch=dict(state_of().config.arch) | {"halt_max_steps": 6},  # type: ignore[arg-type]
        **{"data_paths": ["x"], "global_batch_size": 8, "epochs": 400, "compile": False, "lr": 1e-12},  # type: ignore[arg-type]
        canvases=[(4, 4), (5, 5), (6, 6)],
    )
    data = TrainingData.open(config, [open_split(small_data, "train")])
    state = TrainState(config, data.shape, torch.device("cpu"))
    with torch.no_grad():
        state.network.q_head.weight.normal_(0, 2.0, generator=torch.Generator().manual_seed(3))
        state.network.q_head.bias.zero_()
    for parts in itertools.islice(data.steps(state.lanes, 0, 0), 160):
        train_step(state, parts, total_steps=10**6)
    assert data.streams is not None
    taken = state.lanes.state_dict()["taken"].numpy()
    assert taken.sum() > 160 * 8 / 6
    assert np.abs(taken - data.streams.shares * taken.sum()).max() <= 3 * 8
    advanced = state.lanes.rota._advanced + state.lanes.rota._new  # type: ignore[union-attr]
    assert advanced.sum() == 160 * 8


def test_slots_of_other_lanes_are_refused(tmp_path: Path) -> None:
    state = state_of(micro_batch_size=2)
    train_step(state, [Part(0, i, batch_of(0).rows(2 * i, 2 * i + 2)) for i in range(2)], total_steps=10)
    saved = state.lanes.carry_tensors()
    state.lanes.load_carry(saved)
    for wrong in (
        {key.removeprefix("0.0."): value for key, value in saved.items() if key.startswith("0.0.")},  # no lanes
        {**saved, **{key.replace("0.", "1.", 1): value for key, value in saved.items()}},  # one lane more
        {key: value[:1] for key, value in saved.items()},  # half of the slots
        {key: value for key, value in saved.items() if "latents" not in key},
    ):
        with pytest.raises(ValueError, match="not those of these canvases"):
            state.lanes.load_carry(wrong)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["lm_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_runs_on_several_canvases_resume_exactly_and_on_other_ranks(small_data: Path, tmp_path: Path) -> None:
    """Cut off in the middle of an interval and gone on from there; then on two ranks."""
    common = ("pretrain_no_eval.py", *SMALL, *FITTED, f"data_paths=[{small_data}]")
    for name, ranks in (("straight", 1), ("two", 2)):
        done = run_script(*common, f"checkpoint_path={tmp_path / name}", ranks=ranks)
        assert done.returncode == 0, done.stderr
        assert "canvases 4x4" in done.stdout
    steps = len(losses(tmp_path / "straight"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "straight"), rel=1e-4)
    cut = tmp_path / "cut"
    done = run_script(*common, f"checkpoint_path={cut}", "checkpoint_steps=5", "keep_last=100")
    assert done.returncode == 0, done.stderr
    last = max(int(path.name.removeprefix("step_")) for path in cut.glob("step_*"))
    for path in cut.glob("step_*"):
        if int(path.name.removeprefix("step_")) > steps - 7:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    done = run_script(*common, f"checkpoint_path={cut}")
    assert done.returncode == 0, done.stderr
    assert "resumed from" in done.stdout
    for file in sorted((tmp_path / "straight" / f"step_{last}").glob("*.safetensors")):
        assert file.read_bytes() == (cut / f"step_{last}" / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (("canvases=[[4,4]]",), "whole canvas 6x6 is missing"),
        (("canvases=fit",), "canvases"),
        (("canvases=fitted", "arch.mlp_t=true"), "mlp_t"),
        (("micro_batch_size=3",), "micro_batch_size=3 does not divide"),
    ],
)
def test_settings_that_do_not_fit_end_in_a_sentence(small_data: Path, tmp_path: Path, override: Any, said: str) -> None:
    folder = tmp_path / "run"
    done = run_script(
        *("pretrain_no_eval.py", *SMALL, f"data_paths=[{small_data}]", f"checkpoint_path={folder}"),
        *("epochs=4", "eval_interval=4", *override),
    )
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not folder.exists()
