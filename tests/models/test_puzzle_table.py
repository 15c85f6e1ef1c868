"""models/puzzles/table.py and models/ema.py."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.ema import EMA
from models.puzzles.table import PuzzleTable, sum_per_identifier


def test_gradients_of_equal_identifiers_are_added() -> None:
    identifiers = torch.tensor([5, 2, 5, 9, 2, 5])
    gradients = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    sums = sum_per_identifier(identifiers, gradients)
    for i, identifier in enumerate(identifiers):
        torch.testing.assert_close(sums[i], gradients[identifiers == identifier].sum(0))


def test_update_is_sign_descent_with_decay_on_the_batch_alone() -> None:
    table = PuzzleTable(6, 2)
    table.weights.copy_(torch.arange(12.0).view(6, 2))
    before = table.weights.clone()
    table.apply_gradients(
        torch.tensor([4, 1, 4], dtype=torch.int32), torch.tensor([[1.0, -3.0], [0.0, 2.0], [-5.0, 1.0]]), 0.1, 0.5
    )
    expected = before.clone()
    expected[4] = before[4] * 0.95 - 0.1 * torch.tensor([-1.0, -1.0])
    expected[1] = before[1] * 0.95 - 0.1 * torch.tensor([0.0, 1.0])
    torch.testing.assert_close(table.weights, expected)


def test_order_of_the_batch_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    identifiers = torch.randint(0, 5, (40,), generator=generator)
    gradients = torch.randn(40, 4, generator=generator)
    order = torch.randperm(40, generator=generator)
    tables = [PuzzleTable(5, 4), PuzzleTable(5, 4)]
    tables[0].apply_gradients(identifiers, gradients, 0.1, 0.1)
    tables[1].apply_gradients(identifiers[order], gradients[order], 0.1, 0.1)
    assert torch.equal(tables[0].weights, tables[1].weights)


def test_gathered_rows_are_leaves_of_their_own() -> None:
    table = PuzzleTable(4, 2)
    rows = table.gather(torch.tensor([1, 1, 3]))
    rows.sum().backward()
    assert torch.equal(rows.grad, torch.ones(3, 2))
    assert not table.weights.requires_grad
    with torch.no_grad():
        rows.add_(1)
    assert not table.weights.any()


def test_a_table_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 2\), this data set needs \(4, 2\)"):
        PuzzleTable(4, 2).load_state_dict({"weights": torch.zeros(5, 2)})


def test_ema_follows_its_closed_form() -> None:
    model = nn.Linear(2, 1, bias=False)
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    model.register_parameter("frozen", frozen)
    start = model.weight.detach().clone()
    ema = EMA(model, 0.9)
    assert ema.state_dict().keys() == {"weight"}
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(5):
        ema.update()
    torch.testing.assert_close(ema.shadow["weight"], start + (1 - 0.9**5))


def test_averaged_weights_are_lent_not_given() -> None:
    model = nn.Linear(2, 1, bias=False)
    ema = EMA(model, 0.5)
    with torch.no_grad():
        model.weight.add_(1.0)
    raw, shadow = copy.deepcopy(model.weight.data), ema.shadow["weight"].clone()
    with pytest.raises(RuntimeError, match="evaluation"), ema.apply():
        assert torch.equal(model.weight, shadow)
        raise RuntimeError("in evaluation")
    assert torch.equal(model.weight, raw)
    assert torch.equal(ema.shadow["weight"], shadow)


def test_averaged_rows_are_those_of_averaging_everything_at_every_step() -> None:
    generator = torch.Generator().manual_seed(0)
    table = PuzzleTable(9, 3, ema_rate=0.8)
    dense = table.weights.clone()
    for step in range(40):
        identifiers = torch.randint(0, 6, (4,), generator=generator)  # rows 6 to 8 are never seen
        ok = torch.tensor(step % 7 != 3)
        table.apply_gradients(identifiers, torch.randn(4, 3, generator=generator), 0.1, 0.1, ok)
        if ok:
            dense = 0.8 * dense + 0.2 * table.weights
        torch.testing.assert_close(table.gather_averaged(torch.arange(9)), dense, rtol=1e-5, atol=1e-6)
    again = PuzzleTable(9, 3, ema_rate=0.8)
    again.load_state_dict({name: value.clone() for name, value in table.state_dict().items()})
    assert torch.equal(again.gather_averaged(torch.arange(9)), table.gather_averaged(torch.arange(9)))
    with pytest.raises(ValueError, match="set ema_puzzle_rows=false"):
        again.load_state_dict({"weights": table.weights})
    assert torch.equal(PuzzleTable(2, 2).gather_averaged(torch.tensor([1])), torch.zeros(1, 2))
