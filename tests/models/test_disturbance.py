"""models/draws.py and models/disturbance.py: numbers that follow from keys, and what they do to the latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models import draws
from models.disturbance import Disturbance, Updates
from models.layers import truncated_normal
from models.recursion import RECURSIONS
from tests.builders.networks import B, C, arch_of, build, inputs_of

KEYS = torch.tensor([0, 1, 2**32 - 1])


def test_draws_have_their_distributions() -> None:
    many = torch.arange(50)
    flat = draws.uniform(many, 4000).flatten().sort().values
    assert float(flat[0]) >= 0 and float(flat[-1]) < 1
    assert float((flat - torch.linspace(0, 1, len(flat))).abs().max()) < 0.004  # Kolmogorov: 0.0036 at 1 %
    wide = draws.normal(many, 40, 100)
    sorted_normal = wide.flatten().sort().values[::100]
    expected = torch.special.ndtri((torch.arange(0, wide.numel(), 100) + 0.5) / wide.numel())
    assert float((sorted_normal - expected)[20:-20].abs().max()) < 0.06
    assert abs(float(wide.mean())) < 0.01 and abs(float(wide.std()) - 1) < 0.01
    cut = draws.cut_normal(many, 40, 100)
    like = truncated_normal(200_000, std=1.0, generator=torch.Generator().manual_seed(0))
    assert abs(float(cut.std()) - 1) < 0.005 and float(cut.abs().max()) <= float(like.abs().max()) + 0.01
    quantiles = torch.linspace(0.01, 0.99, 50)
    assert float((cut.flatten()[:200_000].quantile(quantiles) - like.quantile(quantiles)).abs().max()) < 0.03
    u = (2 * draws.uniform(KEYS, 4, 5) + (2.0**-24 - 1)) * math.erf(math.sqrt(2))
    exact = torch.erfinv(u.double()) * math.sqrt(2) / draws._DEVIATION
    torch.testing.assert_close(draws.cut_normal(KEYS, 4, 5).double(), exact, rtol=1e-5, atol=1e-6)


def test_draws_of_different_keys_and_counters_are_independent() -> None:
    wide = draws.normal(torch.arange(40), 10, 500).flatten(1).double().numpy()
    correlations = np.corrcoef(wide) - np.eye(40)
    assert np.abs(correlations).max() < 5 / math.sqrt(5000)
    halves = draws.normal(torch.arange(40), 10, 500).flatten(0, 1)
    assert abs(float((halves[:, :250] * halves[:, 250:]).mean())) < 0.02  # cosine and sine of the same angle
    derived = [draws.derive(KEYS, *numbers) for numbers in ((0, 1), (1, 0), (0,), (1,), (0, 2), (-1,))]
    assert len({int(key) for keys in derived for key in keys}) == 3 * len(derived)
    assert all(0 <= int(key) < draws.KEYS for keys in derived for key in keys)
    one_each = draws.derive(KEYS, torch.tensor([5, 6, 7], dtype=torch.int32))
    assert [int(one_each[i]) == int(draws.derive(KEYS[i : i + 1], 5 + i)) for i in range(3)] == [True] * 3


def plain_hash(x: int) -> int:
    """What `draws` computes of one integer, in Python."""
    for _ in range(2):
        x = ((x >> 16) ^ x) * 0x45D9F3B % 2**32
    return (x >> 16) ^ x


def test_draws_are_these_numbers_on_every_machine() -> None:
    """Against a plain loop; a resumed run and other ranks rely on it."""
    key = int(draws.derive(torch.tensor([7]), 3))
    assert key == plain_hash((7 + 4 * 0x9E3779B1) % 2**32)
    wanted = [(plain_hash(key ^ plain_hash(i)) >> 8) / 2**24 for i in range(6)]
    assert draws.uniform(torch.tensor([key]), 6)[0].tolist() == wanted


@pytest.mark.parametrize("name", [name for name in RECURSIONS if name != "trm_hier6"])
def test_damping_takes_a_part_of_each_update(name: str) -> None:
    """All but a thousandth stays at damping 0.999, and the gradient reaches the weights."""
    inputs, rows = inputs_of()
    latents = tuple(torch.randn(z.shape) for z in build(arch_of(name)).empty_latents(B, C))
    moved = []
    for damping in (0.0, 0.5, 0.999):
        out = build(arch_of(name, damping=damping))(latents, inputs, rows)
        moved.append(max(float((new - z).abs().mean()) for new, z in zip(out.latents, latents, strict=True)))
        out.logits.sum().backward()
    assert moved[2] < 0.02 * moved[0] and moved[2] < moved[1] < moved[0]


def test_one_damped_noisy_update_is_the_formula() -> None:
    h, new = torch.randn(3, 4, 6), torch.randn(3, 4, 6)
    steps = torch.tensor([0, 1, 4])
    updates = Updates(0.25, Disturbance(KEYS, noise=0.1), steps)
    f = updates.of(lambda h, injected: new)
    for call in range(2):
        key = [draws.derive(KEYS[i : i + 1], draws.NOISE, int(steps[i]), call) for i in range(3)]
        noise = torch.cat([draws.normal(one, 4, 6) for one in key])
        torch.testing.assert_close(f(h, None), 0.25 * h + 0.75 * new + 0.1 * noise)
    assert Updates(0.0, None, None).of(f) is f


def test_every_update_of_every_step_has_noise_of_its_own() -> None:
    drawn: list[Tensor] = []

    def f(h: Tensor, injected: Tensor | None) -> Tensor:
        return torch.zeros_like(h)

    for step in range(3):
        update = Updates(0.0, Disturbance(KEYS, noise=1.0), torch.full((3,), step)).of(f)
        drawn += [update(torch.zeros(3, 10, 50), None).flatten(1) for _ in range(3)]
    rows = torch.cat(drawn).double().numpy()
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 5 / math.sqrt(500)


def test_random_starts_replace_the_latents_of_examples_without_a_step() -> None:
    latents = (torch.ones(3, 4, 6), torch.ones(3, 4, 6))
    steps = torch.tensor([0, 1, 0])
    first, second = Disturbance(KEYS, random_starts=True).start(latents, steps)
    assert torch.equal(first[1], torch.ones(4, 6)) and not torch.equal(first[0], first[2])
    assert not torch.equal(first[0], second[0])
    again, _ = Disturbance(KEYS, random_starts=True).start(latents, steps)
    assert torch.equal(again, first)
    assert Disturbance(KEYS, noise=0.1).start(latents, steps) is latents


@pytest.mark.parametrize("settings", [{"pos_encodings": "learned"}, {}])
def test_the_network_is_told_its_step_and_starts_as_one_that_is_not(settings: dict[str, Any]) -> None:
    inputs, rows = inputs_of()
    plain, told = build(arch_of(**settings)), build(arch_of(step_embedding=2, **settings))
    latents = tuple(torch.randn(z.shape) for z in plain.empty_latents(B, C))
    steps = torch.tensor([0, 1, 5])
    wanted = plain(latents, inputs, rows).logits
    assert torch.equal(told(latents, inputs, rows, steps=steps).logits, wanted)
    assert told.embed_steps is not None
    with torch.no_grad():
        told.embed_steps.embedding_weight.copy_(torch.tensor([[0.0], [1.0]]).expand(2, 32))
    found = told(latents, inputs, rows, steps=steps).logits
    assert torch.equal(found[0], wanted[0]) and not torch.allclose(found[1], wanted[1])
    assert torch.equal(found[2], told(latents, inputs, rows, steps=torch.tensor([0, 1, 1])).logits[2])
    with pytest.raises(AssertionError, match="arch.step_embedding needs"):
        told(latents, inputs, rows)


def test_damping_and_six_latents_contradict() -> None:
    with pytest.raises(ValueError, match=r"arch\.damping=0\.05 and arch\.name=trm_hier6 contradict"):
        arch_of("trm_hier6", damping=0.05)
