"""models/losses.py by hand-written cases."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.sections import reference
from models.losses import METRICS, softmax_nll, stablemax_nll, step_loss

PAD = 0


def measure(
    predictions: list[list[int]],
    labels: list[list[int]],
    halted: list[bool],
    q_halt: list[float],
    training: bool = True,
    sharpness: float = 9.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    logits = sharpness * torch.nn.functional.one_hot(torch.tensor(predictions), 4).float()
    loss, sums = step_loss(
        logits,
        torch.tensor(q_halt),
        torch.zeros(len(q_halt)),
        torch.tensor(labels),
        torch.tensor(halted),
        torch.full((len(q_halt),), 3, dtype=torch.int32),
        loss_type="stablemax_cross_entropy",
        ignore_label=PAD,
        target_q_continue=None,
        q_loss_of_unlabelled=training,
    )
    return loss, dict(zip(METRICS, sums.tolist(), strict=True))


def test_metrics_count_halted_slots_with_labels() -> None:
    _, sums = measure(
        predictions=[[1, 2, 3], [1, 2, 2], [1, 1, 1], [1, 2, 3]],
        labels=[[1, 2, PAD], [1, 2, 3], [1, 1, 1], [PAD, PAD, PAD]],
        halted=[True, True, False, True],
        q_halt=[1.0, 1.0, -1.0, 1.0],
    )
    assert sums["count"] == 2  # the third has not halted, the fourth has no labels
    assert sums["accuracy"] == pytest.approx(1 + 2 / 3)
    assert sums["exact_accuracy"] == 1
    assert sums["q_halt_accuracy"] == 1  # right of the first, wrong of the second
    assert sums["steps"] == 2 * 3


def test_halting_learns_from_exactness() -> None:
    labels = [[1, 2]]
    for predicted, target in (([[1, 2]], 1.0), ([[1, 3]], 0.0)):
        for q in (-2.0, 2.0):
            _, sums = measure(predicted, labels, [False], [q])
            wanted = -math.log(1 / (1 + math.exp(-q if target else q)))
            assert sums["q_halt_loss"] == pytest.approx(wanted, rel=1e-5)


def test_slots_without_labels_take_no_part_when_evaluating() -> None:
    arguments = ([[1, 2], [1, 1]], [[1, 2], [PAD, PAD]], [True, True], [0.0, 0.0])
    assert measure(*arguments, training=True)[1]["q_halt_loss"] == pytest.approx(2 * math.log(2))
    assert measure(*arguments, training=False)[1]["q_halt_loss"] == pytest.approx(math.log(2))


def test_loss_is_a_sum_over_slots_of_means_over_labels() -> None:
    one, _ = measure([[1, 2, 3]], [[1, 2, PAD]], [True], [0.0])
    other, _ = measure([[1, 3, 3]], [[1, 2, 3]], [True], [0.0])
    both, _ = measure([[1, 2, 3], [1, 3, 3]], [[1, 2, PAD], [1, 2, 3]], [True, True], [0.0, 0.0])
    assert float(both) == pytest.approx(float(one + other))


def test_ignored_cells_have_no_gradient() -> None:
    logits = torch.randn(2, 5, 4, requires_grad=True, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, PAD, 2, 3, PAD], [PAD, 1, PAD, PAD, PAD]])
    loss, _ = step_loss(
        *(logits, torch.zeros(2), torch.zeros(2), labels, torch.ones(2, dtype=torch.bool), torch.ones(2)),
        loss_type="softmax_cross_entropy",
        ignore_label=PAD,
        target_q_continue=None,
        q_loss_of_unlabelled=True,
    )
    loss.backward()
    assert not logits.grad[labels == PAD].any()
    assert logits.grad[labels != PAD].abs().sum(-1).min() > 0


def test_stablemax_is_the_reference() -> None:
    logits = 3 * torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 5, (2, 6), generator=torch.Generator().manual_seed(1))
    for b in range(2):
        expected = reference.stablemax_loss(logits[b], labels[b], ignore=-1)
        assert float(stablemax_nll(logits, labels)[b].mean()) == pytest.approx(float(expected), rel=1e-12)


def test_probabilities_sum_to_one() -> None:
    logits = 5 * torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(0)).expand(1, 12, 12)
    labels = torch.arange(12)[None]
    for nll in (stablemax_nll, softmax_nll):
        assert float((-nll(logits, labels)).exp().sum()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("value", [1.0, 0.0, -0.0, 1e6, -1e6])
def test_stablemax_gradient_is_finite_everywhere(value: float) -> None:
    logits = torch.full((1, 1, 3), value, requires_grad=True)
    stablemax_nll(logits, torch.zeros(1, 1, dtype=torch.int64)).sum().backward()
    assert logits.grad.isfinite().all()
