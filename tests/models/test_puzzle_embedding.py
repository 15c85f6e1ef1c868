"""models/puzzles/embedding.py: a prefix composed of a task's row and an augmentation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.arch import ArchConfig
from models.network import Network
from models.puzzles.embedding import ComposedEmbedding, ComposedRows
from tests.builders.networks import B, C, V, arch_of, build, inputs_of

IDENTITY = list(range(10))
COLOUR_0 = 2


def composed_arch(composition: str = "prefix", **settings: Any) -> ArchConfig:
    return arch_of(**({"puzzle_embedding": "composed", "composition": composition, "puzzle_emb_len": 12} | settings))


def rows_of(augmentations: list[tuple[int, list[int]]], width: int = 32, rank: int = 0, seed: int = 0) -> ComposedRows:
    generator = torch.Generator().manual_seed(seed)
    count = len(augmentations)
    return ComposedRows(
        torch.randn(count, width, generator=generator).requires_grad_(),
        torch.randn(count, rank, generator=generator).requires_grad_() if rank else None,
        torch.tensor([[transform, *colours] for transform, colours in augmentations], dtype=torch.uint8),
    )


def composer(network: Network) -> ComposedEmbedding:
    assert network.puzzle_embedding is not None
    return network.puzzle_embedding


def prefix_of(network: Network, rows: ComposedRows) -> Tensor:
    """The prefix [B, P, D] before it is scaled by sqrt(D)."""
    P, D = network.arch.prefix_len, network.arch.hidden_size
    inputs = torch.zeros(len(rows.tasks), C, dtype=torch.uint8)
    return network.embed(inputs, rows)[:, :P] / D**0.5


def test_places_hold_task_transform_and_what_colours_become() -> None:
    """Row 0 | transform | for each colour c: the vector of c plus that of the token which c became | zeros."""
    network = build(composed_arch())
    turned = [0, 2, 3, 1, 4, 5, 6, 7, 9, 8]  # 1 becomes 2, 2 becomes 3, 3 becomes 1
    rows = rows_of([(0, IDENTITY), (5, turned)])
    prefix = prefix_of(network, rows)
    tokens, own = network.embed_tokens.embedding_weight, composer(network)
    torch.testing.assert_close(prefix[:, 0], rows.tasks)
    torch.testing.assert_close(prefix[1, 1], own.dihedral.embedding_weight[5])
    for slot, colours in enumerate((IDENTITY, turned)):
        for colour in range(1, 10):
            expected = own.colours.embedding_weight[colour - 1] + tokens[COLOUR_0 + colours[colour]]
            torch.testing.assert_close(prefix[slot, 1 + colour], expected)
    assert not prefix[:, 11:].any()


def test_a_permutation_trades_the_places_of_the_colours_that_it_swaps() -> None:
    network = build(composed_arch())
    before, after = prefix_of(network, rows_of([(3, IDENTITY), (3, [0, 1, 2, 3, 7, 5, 6, 4, 8, 9])])).detach()
    own = composer(network).colours.embedding_weight.detach()
    moved = [place for place in range(1, 12) if not torch.equal(before[place], after[place])]
    assert moved == [5, 8]  # of the colours 4 and 7
    torch.testing.assert_close(before[5] - own[3], after[8] - own[6])
    torch.testing.assert_close(before[8] - own[6], after[5] - own[3])


def test_scale_and_shift_by_hand() -> None:
    """E = 10, so a colour's vector is one number.  gamma = 0.01 * sum of i^2 * vector of what i became; beta =
    the transform's first number + 2 * base."""
    arch = composed_arch("scale_shift", puzzle_emb_ndim=10)
    own = composer(build(arch))
    with torch.no_grad():
        own.dihedral.embedding_weight.copy_(torch.arange(8.0).unsqueeze(1).expand(8, 10))
        own.colours.embedding_weight.copy_(torch.arange(1.0, 10).unsqueeze(1))
        own.base.fill_(0.5)
        own.film.weight.zero_()
        own.film.bias.zero_()
        own.film.weight[:10, 11:] = 0.01 * torch.arange(1.0, 10) ** 2
        own.film.weight[10:, 0], own.film.weight[10:, 10] = 1.0, 2.0
    rows = rows_of([(6, IDENTITY), (1, [0, 2, 3, 9, 4, 5, 6, 7, 8, 1])], width=10)
    found = own(rows, build(arch).embed_tokens)
    # 2025 is the sum of cubes; 1 * 2 + 4 * 3 + 9 * 9 + 81 * 1 stands for 1 + 8 + 27 + 729 in the second one
    torch.testing.assert_close(found[0], (1 + 20.25) * rows.tasks[0] + 6 + 1)
    torch.testing.assert_close(found[1], (1 + 20.25 + 0.01 * (176 - 765)) * rows.tasks[1] + 1 + 1)


@pytest.mark.parametrize("composition", ["prefix", "scale_shift"])
def test_a_residual_row_is_projected_and_added_to_the_tasks(composition: str) -> None:
    network = build(composed_arch(composition, augmentation_rank=3))
    rows = rows_of([(0, IDENTITY), (2, IDENTITY)], rank=3)
    assert rows.residuals is not None
    residual = composer(network).residual
    assert residual is not None
    without = rows._replace(residuals=torch.zeros(2, 3))
    added = prefix_of(network, rows) - prefix_of(network, without)
    torch.testing.assert_close(added[:, 0], rows.residuals @ residual.weight.T, rtol=1e-4, atol=1e-5)
    assert not added[:, 1:].any()


@pytest.mark.parametrize("composition", ["prefix", "scale_shift"])
@pytest.mark.parametrize("name", ["trm", "urm", "hrm", "transformers_baseline"])
def test_no_gradient_leaks_between_slots_and_every_weight_gets_one(name: str, composition: str) -> None:
    network = build(composed_arch(composition, name=name, augmentation_rank=2))
    assert name in ("trm", "urm") or network.arch.prefix_len == (11 if composition == "prefix" else 1)
    with torch.no_grad():  # scale_shift starts with vectors of zeros
        for weight in composer(network).parameters():
            weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    rows = rows_of([(0, IDENTITY), (1, IDENTITY), (7, [0, *range(9, 0, -1)])], rank=2)
    latents = tuple(torch.ones_like(z) for z in network.empty_latents(B, C))
    out = network(latents, inputs_of()[0], rows)
    out.logits[1].square().sum().backward()
    for leaf in (rows.tasks, rows.residuals):
        assert leaf is not None and leaf.grad is not None
        assert leaf.grad[1].any() and not leaf.grad[0].any() and not leaf.grad[2].any()
    dihedral = composer(network).dihedral.embedding_weight.grad
    assert dihedral is not None and dihedral[1].any() and not dihedral[[0, 7]].any()
    for key, weight in composer(network).named_parameters():
        assert weight.grad is not None and weight.grad.any(), key


def test_a_composed_network_starts_like_the_one_with_a_table() -> None:
    """Its own weights are drawn after all others, so that comparisons begin at the same network."""
    table, composed = build(arch_of(puzzle_emb_len=12)), build(composed_arch())
    theirs = composed.state_dict()
    for key, value in table.state_dict().items():
        assert torch.equal(value, theirs.pop(key)), key
    assert theirs and all(key.startswith("puzzle_embedding.") for key in theirs)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"puzzle_emb_len": 10}, "needs 11 prefix tokens"),
        ({"puzzle_emb_ndim": 0}, "must be 1 to 32"),
        ({"puzzle_emb_ndim": 33}, "must be 1 to 32"),
        ({"composition": "scale_shift", "puzzle_emb_ndim": 9}, "puzzle_emb_ndim >= 10"),
        ({"puzzle_embedding": "table", "augmentation_rank": 1}, "is about composed embeddings"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        composed_arch(**settings)
    assert V > 10
