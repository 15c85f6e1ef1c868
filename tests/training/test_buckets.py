"""training/slots/: the scheduler, micro-batches, and slots on several canvases."""

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
from tests.builders.states import BATCH, assert_equal, batch_of, copy_rows, state_of, tensors
from tests.conftest import SMALL, run_script
from training import checkpoint
from training.config import PretrainConfig
from training.data import open_training_data
from training.slots.micro_batches import micro_batch_sizes
from training.slots.scheduler import OLD_NAMES, DeficitScheduler
from training.state import TrainState
from training.step import train_step
from utils.errors import CheckpointError, SettingError

STEPS = 16


class FakeSlots:
    """Slots that halt after a number of steps drawn at random, on the host."""

    def __init__(self, scheduler: DeficitScheduler, seed: int = 0) -> None:
        self.scheduler, self.rng = scheduler, np.random.default_rng(seed)
        self.left: list[list[np.ndarray]] = [[] for _ in scheduler.sizes]
        self.taken = np.zeros(len(scheduler.sizes), dtype=np.int64)
        self.reported: np.ndarray | None = None
        self.step = 0

    def advance(self, means: list[float]) -> list[tuple[int, int]]:
        """Makes one step in which a slot of bucket i stays with an example for about means[i] steps."""
        chosen = self.scheduler.next_step()
        for bucket, number in chosen:
            if number == len(self.left[bucket]):
                self.left[bucket].append(np.zeros(self.scheduler.sizes[bucket], dtype=np.int64))
            left, mean = self.left[bucket][number], means[bucket]
            self.taken[bucket] += (left == 0).sum()
            spread = self.rng.geometric(1 / mean, len(left)) if mean < STEPS else np.full(len(left), STEPS)
            self.left[bucket][number] = np.where(left == 0, np.minimum(spread, STEPS), left) - 1
        self.step += 1
        if self.step % 8 == 0:
            if self.reported is not None:
                self.scheduler.report(self.reported.tolist())
            self.scheduler.begin_report()
            self.reported = self.taken.copy()
        return chosen


FRACTIONS, SIZES, B = [0.45, 0.3, 0.15, 0.1], [32, 16, 8, 8], 64


@pytest.mark.parametrize("means", [[2.0, 4.0, 8.0, 14.0], [14.0, 8.0, 4.0, 2.0], [STEPS] * 4])
def test_buckets_take_their_fractions_however_fast_they_halt(means: list[float]) -> None:
    slots = FakeSlots(DeficitScheduler(FRACTIONS, SIZES, B, STEPS))
    worst = 0.0
    for step in range(1500):
        chosen = slots.advance(means)
        assert sum(SIZES[bucket] for bucket, _ in chosen) == B
        assert len(set(chosen)) == len(chosen)  # none is computed twice
        if step > 300:
            worst = max(worst, np.abs(slots.taken - np.array(FRACTIONS) * slots.taken.sum()).max())
    assert worst <= B


def test_buckets_take_their_fractions_while_their_speeds_change() -> None:
    """From all steps for everything to fast small canvases, as a network learns."""
    slots = FakeSlots(DeficitScheduler(FRACTIONS, SIZES, B, STEPS), seed=1)
    for step in range(2500):
        fast = min(1.0, max(0.0, (step - 300) / 1200))
        slots.advance([STEPS + fast * (mean - STEPS) for mean in (1.5, 3.5, 6.0, 12.0)])
    assert slots.taken / slots.taken.sum() == pytest.approx(FRACTIONS, rel=0.01)


def test_the_drawn_example() -> None:
    """The steps and deficits that the module's docstring draws."""
    scheduler = DeficitScheduler([2.5 / 4, 1.5 / 4], [1, 1], 4, STEPS)
    scheduler.next_step()  # each bucket has micro-batches from the first steps on
    for _ in range(20):
        scheduler.next_step()
    counts = [len([bucket for bucket, _ in scheduler.next_step() if bucket == 0]) for _ in range(8)]
    assert sorted(set(counts)) == [2, 3] and sum(counts) == 20


def test_a_bucket_without_examples_is_never_chosen_and_micro_batches_wait_alike() -> None:
    slots = FakeSlots(DeficitScheduler([0.7, 0.0, 0.3], [8, 8, 4], 16, STEPS))
    steps = [slots.advance([3.0, 3.0, 3.0]) for _ in range(200)]
    assert {bucket for chosen in steps for bucket, _ in chosen} == {0, 2}
    for at in (0, 2):
        counts = np.bincount([number for chosen in steps[50:] for bucket, number in chosen if bucket == at])
        assert len(counts) == slots.scheduler.micro_batches[at] and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("names", [{name: name for name in OLD_NAMES}, OLD_NAMES])
def test_a_scheduler_goes_on_from_its_state(names: dict[str, str]) -> None:
    """Also from a state in the names of older checkpoints."""
    straight, cut = (FakeSlots(DeficitScheduler(FRACTIONS, SIZES, B, STEPS)) for _ in range(2))
    for _ in range(101):
        straight.advance([2, 4, 8, 14])
        cut.advance([2, 4, 8, 14])
    saved = {names[name]: value.copy() for name, value in cut.scheduler.state_dict().items()}
    assert saved.keys() == set(names.values())
    cut.scheduler = DeficitScheduler(FRACTIONS, SIZES, B, STEPS)
    cut.scheduler.load_state_dict(saved)
    for _ in range(100):
        assert straight.advance([2, 4, 8, 14]) == cut.advance([2, 4, 8, 14])


def test_micro_batches_cost_about_the_same_and_make_up_a_batch() -> None:
    arch = ArchConfig()
    canvases = [Canvas(11, 11), Canvas(16, 16), Canvas(22, 22), Canvas(30, 30)]
    assert micro_batch_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 768, None, arch) == [256, 128, 128, 64]
    assert micro_batch_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 96, None, arch)[-1] == 8  # for eight ranks too
    assert micro_batch_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 768, 48, arch) == [192, 96, 96, 48]
    assert micro_batch_sizes(canvases, [0.5, 0.5, 0.0, 0.0], 96, None, arch)[:2] == [16, 8]
    assert micro_batch_sizes(canvases[3:], [1.0], 768, None, arch) == [768]
    with pytest.raises(SettingError, match="micro_batch_size=100 .*global_batch_size=768"):
        micro_batch_sizes(canvases, [0.4, 0.3, 0.2, 0.1], 768, 100, arch)


@hypothesis.given(
    st.integers(1, 40), st.integers(0, 5), st.lists(st.integers(5, 29), min_size=1, max_size=4, unique=True), st.data()
)
@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_buckets_take_their_fractions_whatever_the_batch(odd: int, twos: int, sides: list[int], data: Any) -> None:
    """With the sizes that are chosen, and slots that all take the same time."""
    batch = odd << twos
    canvases = [Canvas(side, side) for side in [*sorted(sides), 30]]
    weights = data.draw(st.lists(st.floats(0.02, 1), min_size=len(canvases), max_size=len(canvases)))
    fractions = (np.array(weights) / sum(weights)).tolist()
    sizes = micro_batch_sizes(canvases, fractions, batch, None, ArchConfig())
    assert all(batch % size == 0 for size in sizes)
    slots = FakeSlots(DeficitScheduler(fractions, sizes, batch, 4))
    for _ in range(400):
        assert sum(sizes[bucket] for bucket, _ in slots.advance([STEPS] * len(sizes))) == batch
    # Each has its first micro-batch at once, which a small fraction has to make up for.
    assert np.abs(slots.taken - np.array(fractions) * slots.taken.sum()).max() <= 2 * batch + sum(sizes)


@pytest.mark.parametrize("variant", [{}, {"name": "hrm", "H_layers": 1}, {"puzzle_emb_ndim": 0}])
def test_micro_batches_are_the_big_batch(variant: dict[str, Any]) -> None:
    """Weights, rows and slots after some steps whose gradients were added up over two or four pieces."""
    straight, halves, quarters = (state_of(arch=variant, micro_batch_size=size) for size in (None, 2, 1))
    for step in range(5):
        for state in (straight, halves, quarters):
            train_step(state, batch_of(step), total_steps=10)
    wanted = tensors(straight)
    for state, count in ((halves, 2), (quarters, 4)):
        found = tensors(state)
        for key, value in wanted.items():
            if not key.startswith("carry/"):
                assert torch.allclose(found[key].double(), value.double(), rtol=1e-4, atol=1e-6), key
        carries = state.carries.buckets[0].carries
        assert len(carries) == count and count * len(carries[0].steps) == BATCH
        (carry,) = straight.carries.buckets[0].carries
        assert torch.equal(torch.cat([each.steps for each in carries]), carry.steps)
        assert torch.allclose(torch.cat([each.latents[0] for each in carries]), carry.latents[0], atol=1e-4)


def test_micro_batches_are_saved_and_resumed(tmp_path: Path) -> None:
    straight, first, resumed = (state_of(micro_batch_size=2) for _ in range(3))
    for step in range(6):
        train_step(straight, batch_of(step), total_steps=10)
    for step in range(3):
        train_step(first, batch_of(step), total_steps=10)
    checkpoint.restore_state(resumed, checkpoint.save_checkpoint(first, tmp_path, checkpoint.CheckpointRecord()))
    for step in range(3, 6):
        train_step(resumed, batch_of(step), total_steps=10)
    assert_equal(resumed, straight)


def bucketed(data: Path, steps: int = 0, resumed: TrainState | None = None, old: bool = False) -> TrainState:
    """A state on three canvases after some steps.

    Its initial weights make it halt at different speeds on different canvases.

    Args:
        resumed: a state whose `state_dict` is loaded first.
        old: in the names of older checkpoints.
    """
    config = PretrainConfig(
        arch=state_of().config.arch.model_copy(update={"halt_max_steps": 6}),
        data_paths=["x"],
        global_batch_size=8,
        epochs=400,
        compile=False,
        lr=1e-12,
        micro_batch_size=2,
        canvases=[(4, 4), (5, 5), (6, 6)],
    )
    opened = open_training_data(config, [open_split(data, "train")])
    state = TrainState(config, opened.shape, torch.device("cpu"))
    with torch.no_grad():
        state.network.q_head.weight.normal_(0, 2.0, generator=torch.Generator().manual_seed(3))
        state.network.q_head.bias.zero_()
    if resumed is not None:
        parts = {part: {key: value.clone() for key, value in t.items()} for part, t in resumed.state_dict().items()}
        if old:
            parts["lanes"] = {OLD_NAMES.get(name, name): value for name, value in parts.pop("buckets").items()}
            del parts["metrics"]["counts"]
        state.load_state_dict(parts, resumed.step)
        copy_rows(resumed, state)
    for batch in itertools.islice(opened.batches(state.carries, 0, state.step), steps):
        train_step(state, batch, total_steps=10**6)
    return state


def test_what_buckets_take_in_a_real_run_is_their_fraction(small_data: Path) -> None:
    state = bucketed(small_data, 100)
    saved = state.carries.state_dict()
    taken = saved["taken"].numpy()
    assert taken.sum() > 100 * 8 / 6
    assert np.abs(taken - np.array(state.shape.fractions) * taken.sum()).max() <= 3 * 8
    assert int(saved["advanced"].sum() + saved["created"].sum()) == 100 * 8


@pytest.mark.parametrize("old", [False, True])
def test_buckets_go_on_from_a_saved_state(small_data: Path, old: bool) -> None:
    """Also from the part and the names that older checkpoints have."""
    straight = bucketed(small_data, 30)
    resumed = bucketed(small_data, 10, resumed=bucketed(small_data, 20), old=old)
    if old:  # what it did not know of the first steps
        wanted, found = straight.sums.reduce(), resumed.sums.reduce()
        assert wanted.pop("grad_norm") > found.pop("grad_norm") > 0
        assert wanted == found
    assert_equal(resumed, straight)


def test_slots_of_other_buckets_are_refused(tmp_path: Path) -> None:
    state = state_of(micro_batch_size=2)
    train_step(state, batch_of(0), total_steps=10)
    saved = state.carries.carry_tensors()
    state.carries.load_carry(saved)
    for wrong in (
        {key.removeprefix("0.0."): value for key, value in saved.items() if key.startswith("0.0.")},  # no buckets
        {**saved, **{key.replace("0.", "1.", 1): value for key, value in saved.items()}},  # one bucket more
        {key: value[:1] for key, value in saved.items()},  # half of the slots
        {key: value for key, value in saved.items() if "latents" not in key},
    ):
        with pytest.raises(CheckpointError, match="slots are not those of these canvases"):
            state.carries.load_carry(wrong)


FITTED = ("canvases=[[4,4],[5,5],[6,6]]", "micro_batch_size=2", "epochs=12", "eval_interval=4", "ema=true", "lr=1e-3")


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
