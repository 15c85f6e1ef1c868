"""models/network.py, layers.py, recursion.py against the plain reference, and what each setting changes."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.sections import reference
from models.act import ACTStep, Slots, initial_carry, refill
from models.arch import ArchConfig
from models.layers import Attention, Block, Linear, rms_norm, rotary, rotary_2d, rotate, truncated_normal
from models.network import Network
from models.recursion import RECURSIONS
from tests.builders.networks import B, C, V, arch_of, build, inputs_of, needs_cpu_compiler


def latents_of(network: Network, cells: int = C) -> tuple[torch.Tensor, ...]:
    return tuple(
        init.expand_as(z).clone()
        for init, z in zip(network.initial_latents(), network.empty_latents(B, cells), strict=True)
    )


def _close(mine: torch.Tensor | None, theirs: torch.Tensor | None, name: str) -> None:
    """Equal up to rounding, which in a gradient is relative to its largest entries."""
    assert mine is not None and theirs is not None, name
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-4, name


@pytest.mark.parametrize(("H_cycles", "L_cycles"), [(1, 1), (2, 3), (3, 1)])
def test_trm_is_the_reference(H_cycles: int, L_cycles: int) -> None:
    """Outputs, carry and every gradient, over three steps of the carry."""
    network = build(arch_of(H_cycles=H_cycles, L_cycles=L_cycles))
    plain = reference.ReferenceTRM(network.arch, network.state_dict(), C)
    tokens, rows = inputs_of()
    latents = expected = latents_of(network)
    for _ in range(3):
        network.zero_grad()
        plain.zero_grad()
        mine, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        out = network(latents, tokens, mine)
        z_H, z_L, logits, q = plain(*expected, tokens, theirs)
        torch.testing.assert_close(out.logits, logits, rtol=1e-4, atol=3e-5)
        torch.testing.assert_close(torch.stack((out.q_halt, out.q_continue), 1), q, rtol=1e-4, atol=3e-5)
        (out.logits.square().sum() + out.q_halt.sum()).backward()
        (logits.square().sum() + q[:, 0].sum()).backward()
        for name, parameter in network.named_parameters():
            _close(parameter.grad, plain.weight(name).grad, name)
        _close(mine.grad, theirs.grad, "rows")
        latents, expected = out.latents, (z_H, z_L)
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=3e-5)


def test_gradients_reach_only_the_last_cycle() -> None:
    """The carry takes no gradient from an earlier cycle, so one cycle from its result has the same gradients."""
    network = build(arch_of(H_cycles=3))
    tokens, rows = inputs_of()
    network(latents_of(network), tokens, rows).logits.square().sum().backward()
    whole = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    one = Network(arch_of(H_cycles=1), V, C)
    two = Network(arch_of(H_cycles=2), V, C)
    one.load_state_dict(network.state_dict())
    two.load_state_dict(network.state_dict())
    with torch.no_grad():
        before = two(latents_of(network), tokens, rows).latents
    one(before, tokens, rows).logits.square().sum().backward()
    for name, gradient in whole.items():
        _close(gradient, one.get_parameter(name).grad, name)


def test_attention_ignores_the_order_of_places_without_positions() -> None:
    network = build(arch_of(pos_encodings="none"))
    tokens, rows = inputs_of()
    order = torch.randperm(C, generator=torch.Generator().manual_seed(1))
    plain = network(latents_of(network), tokens, rows).logits
    permuted = network(latents_of(network), tokens[:, order], rows).logits
    torch.testing.assert_close(permuted, plain[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_positions_matter(positions: str) -> None:
    network = build(arch_of(pos_encodings=positions))
    tokens, rows = inputs_of()
    order = torch.arange(C).flip(0)
    plain = network(latents_of(network), tokens, rows).logits
    assert not torch.allclose(network(latents_of(network), tokens[:, order], rows).logits, plain[:, order], atol=1e-3)


def test_rotary_attention_depends_on_distances_alone() -> None:
    h = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    attention = Attention(32, num_heads=4)
    for weight in attention.parameters():
        weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(weight))) / 6
    near, far = (attention(h, rotary(torch.arange(9) + shift, 8, 10_000.0)) for shift in (0, 700))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-4)


def test_rotation_keeps_lengths() -> None:
    x = torch.randn(2, 9, 4, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, rotary(torch.arange(9), 8, 10_000.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


def test_norm_has_unit_mean_square() -> None:
    x = 7 * torch.randn(4, 5, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rms_norm(x, 1e-5).square().mean(-1), torch.ones(4, 5), rtol=1e-4, atol=1e-4)


def test_truncated_normal_has_its_deviation() -> None:
    draw = truncated_normal(400, 400, std=0.3, generator=torch.Generator().manual_seed(0))
    assert float(draw.std()) == pytest.approx(0.3, rel=0.01)
    assert float(draw.abs().max()) <= 0.3 * 2 / 0.8796 + 1e-4


def test_initial_halting_is_improbable() -> None:
    network = build(arch_of())
    out = network(latents_of(network), *inputs_of())
    assert torch.equal(out.q_halt, torch.full((B,), -5.0))


def test_a_row_is_padded_to_the_prefix() -> None:
    network = build(arch_of(puzzle_emb_ndim=40, puzzle_emb_len=3))
    tokens, rows = inputs_of(width=40)
    e = network.embed(tokens, rows)
    flat = e[:, :3].reshape(B, -1) / math.sqrt(32)
    torch.testing.assert_close(flat[:, :40], rows)
    assert not flat[:, 40:].any()


@pytest.mark.parametrize("name", list(RECURSIONS))
def test_every_variant_uses_its_latents_and_its_row(name: str) -> None:
    """Every latent of the carry, the tokens and the puzzle's row change the answer."""
    network = build(arch_of(name, L_cycles=6 if name == "trm_hier6" else 2))
    tokens, rows = inputs_of()
    latents = latents_of(network)
    assert len(latents) == {"trm_hier6": 7, "trm": 2, "hrm": 2}.get(name, 1)
    plain = network(latents, tokens, rows)
    for i in range(len(latents)):
        moved = tuple(
            z + torch.randn(z.shape, generator=torch.Generator().manual_seed(9)) * (i == j)
            for j, z in enumerate(latents)
        )
        other = network(moved, tokens, rows)
        changed = [not torch.allclose(a, b, atol=1e-4) for a, b in zip(plain.latents, other.latents, strict=True)]
        assert changed[0], f"latent {i}"
    assert not torch.allclose(network(latents, (tokens + 1) % V, rows).logits, plain.logits, atol=1e-3)
    assert not torch.allclose(network(latents, tokens, rows + 1).logits, plain.logits, atol=1e-3)


def test_variants_hold_the_networks_they_name() -> None:
    counts = {
        name: {key.split(".")[0] for key in build(arch_of(name)).state_dict() if "level" in key} for name in RECURSIONS
    }
    assert counts["hrm"] == {"L_level", "H_level"}
    assert counts["transformers_baseline"] == {"H_level"}
    assert all(counts[name] == {"L_level"} for name in ("trm", "trm_singlez", "trm_hier6", "urm"))


def test_mlp_over_the_sequence_mixes_places_and_needs_no_heads() -> None:
    network = build(arch_of(mlp_t=True))
    assert not [key for key in network.state_dict() if "self_attn" in key]
    tokens, rows = inputs_of()
    plain = network(latents_of(network), tokens, rows).logits
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % V
    assert (network(latents_of(network), changed, rows).logits - plain)[:, -1].abs().max() > 1e-4


def test_without_a_table_there_is_no_prefix() -> None:
    arch = arch_of(puzzle_emb_ndim=0, puzzle_emb_len=0)
    network = build(arch)
    tokens, _ = inputs_of()
    assert arch.prefix_len == 0
    assert network.embed(tokens, None).shape == (B, C, 32)
    assert network(latents_of(network), tokens, None).logits.shape == (B, C, V)


def test_bfloat16_computes_in_bfloat16_on_float32_weights() -> None:
    network, narrow = build(arch_of()), build(arch_of(forward_dtype="bfloat16"))
    tokens, rows = inputs_of()
    wide, out = network(latents_of(network), tokens, rows), narrow(latents_of(narrow), tokens, rows)
    assert out.latents[0].dtype == out.logits.dtype == torch.bfloat16
    assert out.q_halt.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in narrow.parameters())
    difference = (out.logits.float() - wide.logits).abs().max() / wide.logits.abs().max()
    assert 0 < difference < 0.1


def test_other_canvases_need_no_other_network() -> None:
    network = build(arch_of())
    tokens, rows = inputs_of()
    whole = network(latents_of(network, 8), tokens[:, :8], rows)
    assert whole.logits.shape == (B, 8, V)
    positions = torch.arange(3 + 8)
    placed = network(latents_of(network, 8), tokens[:, :8], rows, positions)
    torch.testing.assert_close(placed.logits, whole.logits)
    positions[5:] += 30
    moved = network(latents_of(network, 8), tokens[:, :8], rows, positions)
    assert not torch.allclose(moved.logits, whole.logits, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_size": 30}, "not a multiple of arch.num_heads"),
        ({"hidden_size": 12}, "even head width"),
        ({"name": "trm_hier6", "L_cycles": 7}, "at most 6"),
        ({"name": "hrm", "H_layers": 0}, "H_layers >= 1"),
        ({"puzzle_emb_ndim": 200}, "does not fit 3 prefix tokens"),
    ],
)
def test_contradictions_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        arch_of(**({"name": "trm"} | settings))


@needs_cpu_compiler
def test_a_compiled_step_is_the_eager_step() -> None:
    """One graph without breaks, the same losses and gradients."""
    results = []
    for compiled in (False, True):
        network = build(arch_of(L_layers=1, L_cycles=1))
        step = ACTStep(network, ignore_label=0).train()
        if compiled:
            step.compile(fullgraph=True, dynamic=False)
        tokens, rows = inputs_of()
        slots = Slots(tokens.to(torch.uint8), tokens.roll(1, 0).to(torch.uint8), torch.arange(B, dtype=torch.int32))
        carry = initial_carry(network, slots)
        losses = []
        for _ in range(3):
            carry = refill(carry, slots, network.initial_latents())
            carry, loss, _, _ = step(carry, rows.clone().requires_grad_(), torch.tensor([0, 2, 0], dtype=torch.int32))
            loss.backward()
            losses.append(loss.detach())
        results.append((torch.stack(losses), network.L_level.layers[0].mlp.down_proj.weight.grad))
    torch.testing.assert_close(*(losses for losses, _ in results), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*(gradient for _, gradient in results), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pos_encodings", ["rope", "rope2d", "learned", "none"])
def test_a_part_of_the_canvas_is_embedded_and_turned_as_on_the_whole_one(pos_encodings: str) -> None:
    """Cells keep their place: what a cell's position does is the same on 3 x 4 as on 6 x 6."""
    arch = ArchConfig(hidden_size=32, num_heads=2, puzzle_emb_ndim=32, puzzle_emb_len=2, pos_encodings=pos_encodings)  # type: ignore[arg-type]
    network = Network(arch, 12, 36, torch.Generator().manual_seed(0))
    apart = Network(arch, 12, 36, torch.Generator().manual_seed(0), row_stride=30)  # a small canvas as part of a large
    tokens = torch.randint(0, 12, (2, 6, 6), generator=torch.Generator().manual_seed(1))
    rows = torch.randn(2, 32, generator=torch.Generator().manual_seed(2))
    part, whole = network.positions_of(3, 4), network.positions_of(6, 6)
    assert torch.equal(whole, torch.arange(2 + 36))  # on the whole canvas the position is the index
    assert part.tolist() == [0, 1, *(2 + 6 * row + column for row in range(3) for column in range(4))]
    on_whole = network.embed(tokens.flatten(1), rows, whole)
    on_part = network.embed(tokens[:, :3, :4].flatten(1), rows, part)
    assert torch.equal(on_part, on_whole[:, part])
    assert torch.equal(network.embed(tokens.flatten(1), rows), on_whole)
    assert apart.positions_of(2, 2).tolist() == [0, 1, 2, 3, 32, 33]
    assert torch.equal(apart.embed(tokens[:, :3, :4].flatten(1), rows, apart.positions_of(3, 4)), on_part)
    if pos_encodings in ("rope", "rope2d"):
        turns = {"rope": lambda p: rotary(p, 16, 1e4), "rope2d": lambda p: rotary_2d(p, 16, 1e4, 2, 6)}[pos_encodings]
        assert torch.equal(turns(part).cos, turns(whole).cos[part])
        assert torch.equal(turns(part).sin, turns(whole).sin[part])


def test_rotary_by_row_and_column_sees_only_differences_of_rows_and_columns() -> None:
    """q of one cell and k of another give the same product when both move by the same rows and columns, and another one
    when either distance changes; one-dimensional positions mix the two up."""
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def product(of: tuple[int, int], to: tuple[int, int]) -> float:
        turned = [
            rotate(x, rotary_2d(torch.tensor([2 + 30 * row + column]), 16, 1e4, 2, 30))
            for x, (row, column) in ((q, of), (k, to))
        ]
        return float((turned[0] * turned[1]).sum())

    assert product((1, 2), (4, 7)) == pytest.approx(product((11, 22), (14, 27)), rel=1e-4)
    assert product((1, 2), (4, 7)) == pytest.approx(product((0, 20), (3, 25)), rel=1e-4)
    assert product((1, 2), (4, 7)) != pytest.approx(product((1, 2), (5, 7)), rel=1e-2)
    assert product((1, 2), (4, 7)) != pytest.approx(product((1, 2), (4, 8)), rel=1e-2)
    with pytest.raises(ValueError, match="rope2d needs a head width that is a multiple of 4"):
        ArchConfig(hidden_size=12, num_heads=2, pos_encodings="rope2d")


@pytest.mark.parametrize("pos_encodings", ["rope", "rope2d", "learned"])
def test_positions_change_the_answer_on_a_part_of_the_canvas(pos_encodings: str) -> None:
    arch = ArchConfig(
        hidden_size=32, num_heads=2, puzzle_emb_ndim=32, puzzle_emb_len=2, pos_encodings=pos_encodings, H_cycles=1,  # type: ignore[arg-type]
        L_cycles=1, forward_dtype="float32",
    )  # fmt: skip
    network = Network(arch, 12, 36, torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 12, (1, 12), generator=torch.Generator().manual_seed(1))
    rows = torch.zeros(1, 32)
    latents = tuple(z + 0.1 for z in network.empty_latents(1, 12))
    tall, wide = (network(latents, tokens, rows, network.positions_of(*size)).logits for size in ((4, 3), (3, 4)))
    assert not torch.allclose(tall, wide, atol=1e-3)


def train_once(network: Network) -> list[torch.Tensor]:
    """Returns the logits and the gradients of one step."""
    tokens, rows = inputs_of()
    out = network(latents_of(network), tokens, rows)
    out.logits.float().square().sum().backward()
    return [out.logits, *(p.grad for p in network.parameters() if p.grad is not None)]


APPLICATIONS = {"trm": 3 * (2 + 1), "trm_singlez": 3 * (2 + 1), "trm_hier6": 3 * (2 + 1), "urm": 3 * 2, "hrm": 3 * 2}
"""How often L_level is applied with H_cycles=3, L_cycles=2."""


@pytest.mark.parametrize("name", list(RECURSIONS))
def test_hooks_see_every_application_of_a_block(name: str) -> None:
    network = build(arch_of(name, H_cycles=3, forward_dtype="bfloat16"))
    seen: dict[str, list[tuple[torch.Size, torch.dtype]]] = {}
    for path, module in network.named_modules():
        if isinstance(module, Block):
            module.register_forward_hook(
                lambda _, given, out, path=path: seen.setdefault(path, []).append((out.shape, out.dtype))
            )
    train_once(network)
    for path, outputs in seen.items():
        wanted = {"hrm": 3, "transformers_baseline": 1}[name] if path.startswith("H") else APPLICATIONS[name]
        assert outputs == [(torch.Size((B, network.arch.prefix_len + C, 32)), torch.bfloat16)] * wanted
    assert len(seen) == {"hrm": 3, "transformers_baseline": 1}.get(name, 2)


class Casts(TorchDispatchMode):
    """Counts how often each float32 tensor of more than one axis is cast to bfloat16, by its address."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16:
            self.count[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_weight_is_cast_once_in_a_step(checkpointing: bool) -> None:
    """Although a step applies it many times, and again in the backward pass with activation checkpointing."""
    network = build(arch_of(H_cycles=3, forward_dtype="bfloat16"))
    network.activation_checkpointing = checkpointing
    with Casts() as casts:
        train_once(network)
    weights = {n: p for n, p in network.named_parameters() if not n.startswith("q_head")}
    assert {name: casts.count[weight.data_ptr()] for name, weight in weights.items()} == dict.fromkeys(weights, 1)


@pytest.mark.slow
def test_blocks_can_be_compiled_one_by_one() -> None:
    network, other = build(arch_of()), build(arch_of())
    for block in other.L_level.layers:  # type: ignore[union-attr]
        block.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    for plain, compiled in zip(train_once(network), train_once(other), strict=True):
        _close(plain, compiled, "compiled")


class Wrapper(nn.Module):
    """Doubles what a block gives; the next norm takes it back."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: Any) -> torch.Tensor:
        return 2 * self.block(*inputs)


def test_blocks_can_be_wrapped_and_parametrised() -> None:
    network, wrapped, scaled = (build(arch_of(forward_dtype="bfloat16")) for _ in range(3))
    wrapped.L_level.layers[0] = Wrapper(wrapped.L_level.layers[0])  # type: ignore[union-attr]
    for module in list(scaled.modules()):
        if isinstance(module, Linear):
            torch.nn.utils.parametrize.register_parametrization(module, "weight", nn.Identity())
    plain = train_once(network)
    for mine, theirs in zip(train_once(scaled), plain, strict=True):
        assert torch.equal(mine, theirs)
    assert wrapped.get_parameter("L_level.layers.0.block.mlp.down_proj.weight").grad is None
    assert not torch.equal(train_once(wrapped)[0], plain[0])
    assert wrapped.get_parameter("L_level.layers.0.block.mlp.down_proj.weight").grad is not None


def test_a_layer_computes_in_the_dtype_of_its_input() -> None:
    block = build(arch_of()).L_level.layers[0]  # type: ignore[union-attr]
    for dtype in (torch.float32, torch.bfloat16):
        assert block(torch.randn(2, 9, 32).to(dtype)).dtype == dtype
