"""Targets that sharpen, weights of steps, depth that grows, noise: what they change in training, and what they do not.

Steps, micro-batches, resume, evaluation; tests/project/test_supervised_runs.py has the command line and ranks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from dataset.data_shape import DataShape
from dataset.storage import open_split
from evaluators.inference.engine import PredictionOptions
from evaluators.inference.predict import predict_all
from models.losses import sharpened_targets, step_loss, weights_of_steps
from models.recursion import Depth
from tests.builders.states import (
    BATCH,
    C,
    assert_equal,
    batch_of,
    predicting_state,
    recurrent_state,
    state_of,
    tensors,
    train_on,
)
from training import checkpoint
from training.checkpoint import CheckpointRecord
from training.config import PretrainConfig
from training.metrics import cost_model
from training.optim.schedule import depth_at, steps_at_depths
from training.step import train_step
from utils.errors import CheckpointError, SettingError

K = 3
GROWING = [[0.0, 1, 1], [0.3, 1, 2], [0.6, 2, 2]]
DIS: dict[str, Any] = {"sharpening_targets": True, "step_weights": "linear"}
NOISE: dict[str, Any] = {"latent_noise": 0.01, "random_starts": True}
RECOMPILE_LIMIT = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
SWITCHES = [
    pytest.param(DIS, {"step_embedding": 2}, id="sharpening targets"),
    pytest.param(NOISE, {"damping": 0.05}, id="noise"),
    pytest.param({"depth_curriculum": GROWING}, {"H_cycles": 2, "L_cycles": 2}, id="growing depth"),
]


# ---- targets and weights ---------------------------------------------------------------------------------------------


def test_cells_are_hidden_with_their_probability_and_never_again_once_shown() -> None:
    labels = torch.randint(1, 12, (50, 400), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels[:, ::4] = 0
    keys, shown = torch.arange(50) * 7919, torch.zeros(50, 400, dtype=torch.bool)
    for s in range(1, 7):
        targets = sharpened_targets(labels, keys, torch.full((50,), s), 6, 0)
        assert targets.dtype == torch.uint8 and ((targets == labels) | (targets == 0)).all()
        is_shown = (targets != 0)[labels != 0]
        assert float(is_shown.double().mean()) == pytest.approx(s / 6, abs=0.015)
        assert not (shown & (targets == 0)).any()
        shown = targets != 0
    assert torch.equal(targets, labels)
    slots = sharpened_targets(labels, keys, torch.arange(50) % 6 + 1, 6, 0)  # each slot is at a step of its own
    for s in range(1, 7):
        of_step = sharpened_targets(labels, keys, torch.full((50,), s), 6, 0)
        assert torch.equal(slots[s - 1 :: 6], of_step[s - 1 :: 6])


def test_the_loss_asks_for_targets_and_metrics_for_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, generator=generator)
    labels = torch.tensor([[1, 2, 3, 0, 1], [3, 3, 0, 0, 2]])
    targets = torch.tensor([[1, 0, 0, 0, 1], [3, 0, 0, 0, 2]])
    halted, steps = torch.ones(2, dtype=torch.bool), torch.tensor([1, 2], dtype=torch.int32)
    common = {"loss_type": "softmax_cross_entropy", "ignore_label": 0}
    zero = torch.zeros(2)

    def of(**more: Any) -> torch.Tensor:
        return step_loss(logits, zero, zero, labels, halted, steps, **common, **more)[1]

    log_p = logits.log_softmax(-1)
    wanted = [-sum(log_p[i, j, targets[i, j]] for j in range(5) if labels[i, j]) / n for i, n in ((0, 4), (1, 3))]
    weights = weights_of_steps(steps, K)
    assert weights.tolist() == [0.5, 1.0]
    found = of(targets=targets, weights=weights)
    assert float(found[5]) == pytest.approx(float(0.5 * wanted[0] + wanted[1]), rel=1e-5)
    plain = of()
    assert torch.equal(found[[0, 1, 2, 3, 4, 6]], plain[[0, 1, 2, 3, 4, 6]])
    assert float(plain[5]) != float(found[5])


def test_every_example_takes_all_its_steps_and_keeps_its_key() -> None:
    """Though the network would halt at once."""
    state = state_of(**DIS)
    with torch.no_grad():
        state.network.q_head.bias.fill_(5.0)
    keys = []
    for step in range(2 * K):
        train_step(state, batch_of(step), total_steps=10)
        (carry,) = state.carries.buckets[0].carries
        assert carry.steps.tolist() == [step % K + 1] * BATCH
        assert carry.data.keys is not None
        keys.append(carry.data.keys.tolist())
    assert keys[0] == keys[1] == keys[2] and keys[3] == keys[4] == keys[5]
    assert len({*keys[0], *keys[3]}) == 2 * BATCH


def test_the_first_step_asks_for_other_targets_than_the_labels() -> None:
    """The loss of a whole training step is that of `sharpened_targets` with the carry's keys."""
    state, plain = state_of(**DIS), state_of()
    train_step(state, batch_of(0), total_steps=10)
    train_step(plain, batch_of(0), total_steps=10)
    (carry,) = state.carries.buckets[0].carries
    assert state.sums.sums is not None and plain.sums.sums is not None
    assert carry.data.keys is not None
    network = state_of(**DIS).network  # as before the step
    out = network(
        tuple(i.expand(BATCH, 1 + C, 16) for i in network.initial_latents()), carry.data.inputs, torch.zeros(BATCH, 16)
    )
    targets = sharpened_targets(carry.data.labels, carry.data.keys, carry.steps, K, 0)
    _, metrics = step_loss(
        *(out.logits, out.q_halt, out.q_continue, carry.data.labels, carry.halted, carry.steps),
        loss_type="stablemax_cross_entropy",
        ignore_label=0,
        targets=targets,
        weights=weights_of_steps(carry.steps, K),
    )
    torch.testing.assert_close(state.sums.sums, metrics.double())
    assert float(plain.sums.sums[5]) != float(metrics[5])


# ---- depth -----------------------------------------------------------------------------------------------------------


def test_depth_grows_at_its_fractions() -> None:
    curriculum = [(0.0, 1, 2), (0.3, 2, 4), (0.6, 3, 6)]
    depths = [depth_at(curriculum, step, 10) for step in range(1, 11)]
    assert depths == [Depth(1, 2)] * 3 + [Depth(2, 4)] * 3 + [Depth(3, 6)] * 4
    assert depth_at(None, 1, 10) is None
    for total, made in ((10, 0), (10, 4), (7, 2), (1, 0), (1000, 999), (10, 10)):
        counted = {depth: n for depth, n in steps_at_depths(curriculum, made, total).items() if n}
        one_by_one = [depth_at(curriculum, step, total) for step in range(made + 1, total + 1)]
        assert counted == {depth: one_by_one.count(depth) for depth in set(one_by_one)}, (total, made)
    assert steps_at_depths(None, 3, 10) == {None: 7}


@pytest.mark.parametrize("name", ["trm", "trm_singlez", "trm_hier6", "urm", "hrm"])
def test_each_step_recurses_as_deep_as_the_curriculum_says(name: str) -> None:
    """By how often blocks run in the three parts of a run, which the cost model says."""
    state = recurrent_state(name, depth_curriculum=GROWING)
    count = 0

    def one_more(*_: Any) -> None:
        nonlocal count
        count += 1

    for level in (state.network.L_level, state.network.H_level):
        for block in () if level is None else level.layers:
            block.register_forward_hook(one_more)
    for step in range(10):
        count = 0
        train_step(state, batch_of(step, state.shape), total_steps=10)
        arch = cost_model.at_depth(state.config.arch, depth_at(state.config.depth_curriculum, step + 1, 10))
        assert count == cost_model.block_runs(arch).forward
    assert {depth for _, depth in state.traced} == {Depth(1, 1), Depth(1, 2), Depth(2, 2)}


def test_every_depth_is_one_graph() -> None:
    """Without a backend: what is counted is how often the step is traced.  Its numbers are those of the plain step."""
    torch._dynamo.reset()
    counters.clear()
    settings = {
        "arch": {"L_cycles": 2, "step_embedding": 2},
        "depth_curriculum": [[0, 1, 1], [0.5, 1, 2]],
        **NOISE,
        **DIS,
    }
    state = state_of(**settings)
    state.act_step.compile(backend="eager", dynamic=False)
    with torch._dynamo.config.patch(**{RECOMPILE_LIMIT: 2}):
        train_on(state, 10)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2
    eager = tensors(train_on(state_of(**settings), 10))
    for key, value in tensors(state).items():
        torch.testing.assert_close(value, eager[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([[0.0, 1, 2]], "ends at"),
        ([[0.1, 1, 1]], "begin at 0"),
        ([[0.0, 1, 1], [0.5, 1, 1], [0.5, 1, 1]], "grow"),
        ([[0.0, 0, 1]], "whole numbers from 1"),
        ([[0.0, 1.5, 1]], "whole numbers from 1"),
        ([], "write null or a list"),
        ("deeper", "write null or a list"),
        ([[0.0, 1]], "write null or a list"),
    ],
)
def test_curricula_that_make_no_sense_are_refused(value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        state_of(depth_curriculum=value)


# ---- everything together ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "arch"), SWITCHES)
def test_a_run_that_resumes_is_the_straight_run_to_the_bit(
    settings: dict[str, Any], arch: dict[str, Any], tmp_path: Path
) -> None:
    """Also in the middle of an example's steps; and nothing is equal to the run without the switch."""
    straight = train_on(state_of(arch=arch, **settings), 7)
    half = train_on(state_of(arch=arch, **settings), 4)
    record = CheckpointRecord(config=half.config.model_dump(mode="json"))
    path = checkpoint.save_checkpoint(half, tmp_path, record)
    again = state_of(arch=arch, **settings)
    checkpoint.restore_state(again, path)
    assert_equal(train_on(again, 3, first=4), straight)
    off = train_on(state_of(arch={"H_cycles": 2, "L_cycles": 2} if "depth_curriculum" in settings else {}), 7)
    assert not torch.equal(off.network.lm_head.weight, straight.network.lm_head.weight)
    if "depth_curriculum" not in settings:
        with pytest.raises(CheckpointError, match="slots are not those"):
            checkpoint.restore_state(state_of(arch=arch), path)


@pytest.mark.parametrize(("settings", "arch"), SWITCHES)
def test_micro_batches_add_up_to_the_batch(settings: dict[str, Any], arch: dict[str, Any]) -> None:
    whole, pieces = (train_on(state_of(arch=arch, micro_batch_size=size, **settings), 5) for size in (None, 2))
    for name, weight in whole.network.named_parameters():
        torch.testing.assert_close(pieces.network.get_parameter(name), weight, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("settings", [DIS, NOISE, DIS | NOISE])
def test_evaluation_of_the_same_weights_does_not_change(settings: dict[str, Any]) -> None:
    state, plain = state_of(**settings), state_of()
    train_on(state, 4)
    plain.network.load_state_dict(state.network.state_dict())
    (carry,) = state.carries.buckets[0].carries
    found = [each.act_step.eval()(carry, torch.zeros(BATCH, 16)) for each in (state, plain)]
    assert torch.equal(found[0][3].logits, found[1][3].logits) and torch.equal(found[0][2], found[1][2])
    assert torch.equal(found[0][1], found[1][1])


def test_predictions_are_disturbed_only_if_they_ask_for_it_and_whatever_the_batches(small_data: Path) -> None:
    state, split = predicting_state(small_data), open_split(small_data, "test")

    def answers(**options: Any) -> dict[int, bytes]:
        found = predict_all(state, split, PredictionOptions(**({"batch_size": 8} | options)))
        assert found is not None and found.examples is not None
        p = found.predictions
        return {int(n): p.tokens[i].tobytes() + p.q_halt[i].tobytes() for i, n in enumerate(found.examples)}

    plain = answers()
    disturbed = answers(noise=0.2, random_starts=True)
    assert plain == answers() and disturbed == answers(noise=0.2, random_starts=True)
    assert sum(plain[n] != disturbed[n] for n in plain) > 0.9 * len(plain)

    def tokens(answers: dict[int, bytes]) -> list[bytes]:
        return [answers[n][:36] for n in sorted(answers)]

    # Continuous batching and other batches give each example the same noise, but round otherwise.
    for options in ({"batch_size": 3}, {"early_exit": 100}):
        other = answers(noise=0.2, random_starts=True, **options)
        same = [a == b for a, b in zip(tokens(other), tokens(disturbed), strict=True)]
        assert np.mean(same) > 0.95
    assert np.mean([a == b for a, b in zip(tokens(plain), tokens(disturbed), strict=True)]) < 0.5


def test_contradictions_are_named() -> None:
    for settings, said in (
        ({"arch": {"halt_max_steps": 1}, **DIS}, "changes nothing with arch.halt_max_steps=1"),
        (
            {"arch": {"name": "transformers_baseline", "H_layers": 1}, "depth_curriculum": [[0, 1, 1]]},
            "does not recurse",
        ),
        ({"shape": DataShape(12, C, 7, None), **DIS}, "no such token"),
    ):
        with pytest.raises((ValueError, SettingError), match=said):
            state_of(**settings)
    assert not PretrainConfig().sharpening_targets
