"""training/optim/: the package's optimizer to the bit, and no step at all where there is none."""

from __future__ import annotations

import adam_atan2_pytorch
import pytest
import torch
from torch import nn

from training.data import StepPlan
from training.optim.nonfinite import NonFiniteError, NonFiniteGuard, tensor_norms
from training.optim.optimizers import NetworkOptimizer, OptimizerConfig, build_optimizer
from training.optim.schedule import lr_factor
from utils.errors import CheckpointError, SettingError

YES, NO = torch.tensor(True), torch.tensor(False)


def model_of() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model


def set_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * 10.0 ** (step % 5 - 2)


@pytest.mark.parametrize(("scale", "decay"), [(1.27, 0.1), (1.0, 0.0)])
def test_it_is_the_package_to_the_bit(scale: float, decay: float) -> None:
    mine, theirs = model_of(), model_of()
    config = OptimizerConfig(weight_decay=decay, beta1=0.9, beta2=0.95, atan2_scale=scale)
    optimizer = NetworkOptimizer(dict(mine.named_parameters()), config)
    package = adam_atan2_pytorch.AdamAtan2(theirs.parameters(), lr=1.0, betas=(0.9, 0.95), weight_decay=decay, a=scale)
    for step in range(30):
        lr = 1e-2 * (step + 1) / 30
        set_gradients(mine, step)
        set_gradients(theirs, step)
        optimizer.step(lr, YES)
        for group in package.param_groups:
            group["lr"] = lr
        package.step()
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), step
    assert all(p.grad is None for p in mine.parameters())


def test_where_it_may_not_step_nothing_changes() -> None:
    model = model_of()
    optimizer = NetworkOptimizer(dict(model.named_parameters()), OptimizerConfig())
    set_gradients(model, 0)
    optimizer.step(1e-2, YES)
    before = {name: value.clone() for name, value in (*optimizer.state_dict().items(), *model.state_dict().items())}
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    optimizer.step(1e-2, NO)
    for name, value in (*optimizer.state_dict().items(), *model.state_dict().items()):
        assert torch.equal(value, before[name]), name


def test_a_compiled_update_is_the_eager_one() -> None:
    results = []
    for compiled in (False, True):
        model = model_of()
        optimizer = NetworkOptimizer(dict(model.named_parameters()), OptimizerConfig())
        if compiled:
            optimizer.compile()
        for step in range(4):
            set_gradients(model, step)
            optimizer.step(1e-2 / (step + 1), NO if step == 2 else YES)
        results.append([*model.state_dict().values(), *optimizer.state_dict().values()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_its_state_survives() -> None:
    model, again = model_of(), model_of()
    optimizers = [NetworkOptimizer(dict(m.named_parameters()), OptimizerConfig()) for m in (model, again)]
    set_gradients(model, 0)
    optimizers[0].step(1e-2, YES)
    again.load_state_dict(model.state_dict())
    optimizers[1].load_state_dict({name: value.clone() for name, value in optimizers[0].state_dict().items()})
    for m, optimizer in zip((model, again), optimizers, strict=True):
        set_gradients(m, 1)
        optimizer.step(1e-2, YES)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="does not match the network"):
        optimizers[1].load_state_dict({"steps": torch.zeros(())})


def test_frozen_parameters_have_no_optimizer() -> None:
    model = model_of().requires_grad_(False)
    assert build_optimizer(dict(model.named_parameters()), OptimizerConfig()) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_entry_is_found(bad: float) -> None:
    guard = NonFiniteGuard(torch.device("cpu"), skips=True)
    tensors = [torch.zeros(3), torch.ones(2, 2)]
    assert tensor_norms(tensors).tolist() == [0, 2]
    assert guard.is_finite(1, tensor_norms(tensors))
    tensors[1][1, 0] = bad
    assert not guard.is_finite(2, tensor_norms(tensors))


GOOD, BAD = torch.tensor([1.0, 1.0]), torch.tensor([1.0, float("nan")])


def test_the_guard_stops_at_the_first_bad_step_for_good() -> None:
    guard = NonFiniteGuard(torch.device("cpu"), skips=False)
    made = [bool(guard.is_finite(step, norms)) for step, norms in ((1, GOOD), (2, BAD), (3, GOOD), (4, BAD))]
    assert made == [True, False, False, False]
    with pytest.raises(NonFiniteError, match="step 2 is not finite"):
        guard.raise_if_bad()


def test_the_guard_that_skips_goes_on() -> None:
    guard = NonFiniteGuard(torch.device("cpu"), skips=True)
    made = [bool(guard.is_finite(step, norms)) for step, norms in ((1, BAD), (2, GOOD), (3, BAD))]
    assert made == [False, True, False]
    guard.raise_if_bad()
    assert int(guard.skipped) == 2


def test_the_plan_locates_every_step() -> None:
    plan = StepPlan([3, 2])
    assert [plan.locate(step) for step in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]
    assert [plan.end_of(interval) for interval in range(2)] == [3, 5] and plan.total_steps == 5
    with pytest.raises(SettingError, match="6 steps are made, 5 were asked for"):
        plan.locate(6)


def test_the_rate_rises_and_falls_as_it_is_set() -> None:
    rates = [lr_factor(step, warmup=4, total=8, min_ratio=0.5) for step in (1, 2, 4, 6, 8)]
    assert rates == pytest.approx([0.25, 0.5, 1.0, 0.75, 0.5])
    assert lr_factor(100, warmup=0, total=100, min_ratio=1.0) == 1.0


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.91, 0.55, 0.1]),
        ("warmup_stable_decay", [0.5, 1.0, 1.0, 1.0, 0.1]),
    ],
)
def test_other_schedules(schedule: str, wanted: list[float]) -> None:
    """By hand: twelve steps, two of warm-up, the last sixth decays, down to a tenth."""
    rates = [lr_factor(step, 2, 12, 0.1, schedule, 1 / 6) for step in (1, 2, 3, 7, 12)]
    assert rates == pytest.approx(wanted)
    halfway = lr_factor(11, 2, 12, 0.1, schedule, 1 / 6)
    assert halfway == pytest.approx({"constant": 1.0, "linear": 0.19, "warmup_stable_decay": 0.55}[schedule])
