"""models/act.py: when slots refill, keep, halt and learn to continue."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.act import ACTStep, Carry, Slots, advance, initial_carry, refill
from models.network import Network, Output
from tests.builders.networks import B, C, V, arch_of, build, inputs_of


def slots_of(seed: int) -> Slots:
    tokens, _ = inputs_of(seed)
    augmentations = torch.arange(11).roll(seed).expand(B, -1)
    numbers = torch.arange(B)
    return Slots(tokens, tokens.roll(1, 1), numbers + 10 * seed, numbers + seed, augmentations, numbers + 50 * seed)


def start(network: Network, batch: Slots) -> Carry:
    """The carry of a first step, refilled."""
    return refill(initial_carry(network, batch), batch, network.initial_latents())


def output_of(network: Network, q_halt: list[float], q_continue: list[float]) -> Output:
    return Output(network.empty_latents(B, C), torch.zeros(B, C, V), torch.tensor(q_halt), torch.tensor(q_continue))


def halted_after(arch: Any, steps: list[int], q_halt: list[float], training: bool, **options: Any) -> list[bool]:
    network = build(arch)
    carry = initial_carry(network, slots_of(0))._replace(steps=torch.tensor(steps, dtype=torch.int32))
    out = output_of(network, q_halt, options.get("q_continue", [0.0] * B))
    carry, _ = advance(network, carry, out, torch.zeros(B, 32), options.get("min_halt_steps"), training)
    assert carry.steps.tolist() == [s + 1 for s in steps]
    return carry.halted.tolist()


def test_halted_slots_take_the_next_example_and_fresh_latents() -> None:
    network = build(arch_of())
    old, new = slots_of(1), slots_of(2)
    latents = tuple(torch.ones_like(z) for z in network.empty_latents(B, C))
    carry = Carry(latents, torch.tensor([3, 2, 1]), torch.tensor([True, False, True]), old)
    filled = refill(carry, new, network.initial_latents())
    assert filled.steps.tolist() == [0, 2, 0]
    for mine, kept, taken in zip(filled.data, old, new, strict=True):
        assert torch.equal(mine[1], kept[1])
        assert torch.equal(mine[[0, 2]], taken[[0, 2]])
    for z, init in zip(filled.latents, network.initial_latents(), strict=True):
        assert torch.equal(z[0], init.expand_as(z[0]))
        assert torch.equal(z[1], torch.ones_like(z[1]))


def test_first_step_fills_every_slot() -> None:
    network = build(arch_of())
    batch = slots_of(3)
    carry, *_ = ACTStep(network, -100)(start(network, batch), torch.zeros(B, 32))
    assert all(torch.equal(a, b) for a, b in zip(carry.data, batch, strict=True))


def test_training_halts_on_a_positive_logit_or_the_last_step() -> None:
    assert halted_after(arch_of(), [0, 0, 3], [1.0, -1.0, -1.0], training=True) == [True, False, True]


def test_evaluation_runs_every_step() -> None:
    assert halted_after(arch_of(), [0, 2, 3], [9.0, 9.0, 9.0], training=False) == [False, False, True]


def test_one_step_at_most_ignores_the_logit() -> None:
    assert halted_after(arch_of(halt_max_steps=1), [0, 0, 0], [-9.0] * 3, training=True) == [True] * 3


def test_exploration_delays_halting() -> None:
    least = torch.tensor([0, 2, 4])
    assert halted_after(arch_of(), [0, 0, 2], [1.0] * 3, True, min_halt_steps=least) == [True, False, False]
    assert halted_after(arch_of(), [3, 3, 3], [1.0] * 3, True, min_halt_steps=least) == [True] * 3


@pytest.mark.parametrize("settings", [{"no_ACT_continue": False}, {"name": "hrm"}, {"name": "transformers_baseline"}])
def test_halting_against_continue(settings: dict[str, Any]) -> None:
    against = {"q_continue": [2.0, 0.0, -2.0]}
    assert halted_after(arch_of(**({"name": "trm"} | settings)), [0, 0, 0], [1.0, 1.0, -1.0], True, **against) == [
        *(False, True, True)
    ]


@pytest.mark.parametrize(("name", "has"), [("trm", False), ("hrm", True), ("transformers_baseline", False)])
def test_which_variants_learn_to_continue(name: str, has: bool) -> None:
    network = build(arch_of(name))
    out = output_of(network, [0.0] * B, [0.0] * B)
    carry = initial_carry(network, slots_of(0))
    assert (advance(network, carry, out, torch.zeros(B, 32), None, True)[1] is not None) == has


def test_continue_target_is_the_best_of_the_next_step() -> None:
    """One more recursion; at the last step its halt logit alone."""
    network = build(arch_of(no_ACT_continue=False))
    with torch.no_grad():
        network.q_head.weight.normal_(generator=torch.Generator().manual_seed(0))
    batch = slots_of(1)
    rows = torch.zeros(B, 32)
    carry = initial_carry(network, batch)._replace(data=batch, steps=torch.tensor([0, 3, 1]))
    latents = tuple(torch.randn(z.shape, generator=torch.Generator().manual_seed(5)) for z in carry.latents)
    out = network(latents, batch.inputs, rows)
    _, target = advance(network, carry, out, rows, None, True)
    ahead = network(out.latents, batch.inputs, rows)
    best = torch.maximum(ahead.q_halt, ahead.q_continue)
    best[1] = ahead.q_halt[1]
    torch.testing.assert_close(target, best.sigmoid())
    assert not torch.allclose(ahead.q_halt, ahead.q_continue)


def test_the_carry_holds_no_graph() -> None:
    network = build(arch_of())
    batch = slots_of(1)
    carry, loss, *_ = ACTStep(network, -100).train()(start(network, batch), torch.zeros(B, 32))
    assert loss.requires_grad
    assert not any(z.requires_grad for z in carry.latents)
