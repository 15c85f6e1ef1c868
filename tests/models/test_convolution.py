"""models/kernels/convolution.py against a plain loop, on whole canvases and parts of them, and in a network."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.canvas import Canvas
from dataset.data_shape import DataShape
from dataset.sampling.joined import Batch
from evaluators.inference.engine import PredictionOptions, open_batching
from models.kernels.convolution import KERNELS, DepthwiseConv, Layout, convolve, shifted_products
from models.layers import Block, ConvSwiGLU
from models.network import Network
from tests.builders.networks import B, arch_of, needs_cpu_compiler
from tests.builders.states import RECURRENT, RECURRENT_SHAPE, batch_of, state_of
from training.slots.micro_batches import MicroBatch
from training.state import TrainState
from training.step import train_step

CHANNELS = 5


def positions_of(prefix: int, height: int, width: int, stride: int) -> list[int]:
    """The position of each place: the prefix, then prefix + stride * row + column."""
    cells = [prefix + stride * row + column for row in range(height) for column in range(width)]
    return [*range(prefix), *cells]


def by_hand(kind: str, a: Tensor, weight: Tensor, bias: Tensor, prefix: int, width: int, stride: int) -> Tensor:
    """The convolution, place by place: which neighbours there are is decided by positions alone."""
    height = (a.shape[1] - prefix) // width
    at = {position: s for s, position in enumerate(positions_of(prefix, height, width, stride))}
    rows = []
    for position in at:
        if kind == "canvas3x3" and position < prefix:
            rows.append(a[:, at[position]])
            continue
        total = bias.expand(len(a), -1)
        if kind == "canvas3x3":
            row, column = divmod(position - prefix, stride)
            for i, j in itertools.product(range(3), range(3)):
                near_row, near_column = row + i - 1, column + j - 1
                if 0 <= near_row < height and 0 <= near_column < width:
                    total = total + a[:, at[prefix + stride * near_row + near_column]] * weight[:, 0, i, j]
        else:
            for j in range(weight.shape[-1]):
                if (near := at.get(position + j - 1)) is not None:
                    total = total + a[:, near] * weight[:, 0, j]
        rows.append(total)
    return torch.stack(rows, dim=1)


def drawn(kind: str, seed: int = 0) -> DepthwiseConv:
    conv = DepthwiseConv(CHANNELS, kind).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in conv.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return conv


@pytest.mark.parametrize("kind", list(KERNELS))
@pytest.mark.parametrize(("height", "width", "stride"), [(4, 4, 4), (3, 2, 4), (2, 4, 4), (1, 3, 9), (3, 1, 30)])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_it_is_the_loop_computed_by_hand(kind: str, height: int, width: int, stride: int, prefix: int) -> None:
    """Values and all gradients."""
    conv = drawn(kind)
    a = torch.randn(2, prefix + height * width, CHANNELS, dtype=torch.float64, requires_grad=True)
    back = torch.randn(a.shape, dtype=torch.float64)
    found = conv(a, Layout(prefix, height, width, joined=width == stride))
    wanted = by_hand(kind, a, conv.weight, conv.bias, prefix, width, stride)
    torch.testing.assert_close(found, wanted)
    inputs = (a, conv.weight, conv.bias)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, back), torch.autograd.grad(wanted, inputs, back), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("kernel", "compiled"),
    [((1, 2), False), ((1, 3), False), ((3, 3), False), pytest.param((3, 3), True, marks=pytest.mark.slow)],
)
def test_shifted_products_are_the_convolution(kernel: tuple[int, int], compiled: bool) -> None:
    """What other devices than a CPU compute."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 3, 4, CHANNELS), (CHANNELS, 1, *kernel), (CHANNELS,))
    inputs = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    back = torch.randn(sizes[0], generator=generator)
    other = torch.compile(shifted_products, fullgraph=True, dynamic=False) if compiled else shifted_products
    found, wanted = (function(*inputs) for function in (other, convolve))
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, back), torch.autograd.grad(wanted, inputs, back), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", list(KERNELS))
def test_a_neighbour_on_a_fitted_canvas_is_the_neighbour_on_the_large_one(kind: str) -> None:
    """Cells of a part of the canvas come out as on the whole one that is empty elsewhere."""
    conv, prefix, side, height, width = drawn(kind), 2, 6, 3, 4
    large = torch.zeros(1, side, side, CHANNELS, dtype=torch.float64)
    large[:, :height, :width] = torch.randn(1, height, width, CHANNELS, dtype=torch.float64)
    rows = torch.randn(1, prefix, CHANNELS, dtype=torch.float64)
    part = large[:, :height, :width].flatten(1, 2)
    on_part = conv(torch.cat((rows, part), dim=1), Layout(prefix, height, width, joined=False))
    on_large = conv(torch.cat((rows, large.flatten(1, 2)), dim=1), Layout(prefix, side, side, joined=True))
    torch.testing.assert_close(on_part[:, :prefix], on_large[:, :prefix])
    cells = on_large[:, prefix:].unflatten(1, (side, side))[:, :height, :width].flatten(1, 2)
    torch.testing.assert_close(on_part[:, prefix:], cells)


def test_the_swiglu_has_a_second_silu_after_the_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    mlp = ConvSwiGLU(4, 1.0, "raster2")
    for parameter in mlp.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    h = torch.randn(2, 3, 4, generator=generator)
    gate, up = (h @ half.T for half in mlp.gate_up_proj.weight.chunk(2))
    a = F.silu(gate) * up
    before = torch.cat((torch.zeros_like(a[:, :1]), a[:, :-1]), dim=1)
    mixed = before * mlp.dwconv.weight[:, 0, 0] + a * mlp.dwconv.weight[:, 0, 1] + mlp.dwconv.bias
    torch.testing.assert_close(mlp(h), F.silu(mixed) @ mlp.down_proj.weight.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("kind", "size"), [("raster2", 2), ("raster3", 3), ("canvas3x3", 9)])
def test_initial_weights(kind: str, size: int) -> None:
    """Uniform as PyTorch's own convolution has it, or such that nothing changes."""
    network = Network(arch_of(mlp_conv=kind), 12, 16, torch.Generator().manual_seed(0))
    conv = network.L_level.layers[0].mlp.dwconv  # type: ignore[union-attr]
    bound = size**-0.5
    for parameter in (conv.weight, conv.bias):
        assert 0.9 * bound < float(parameter.detach().abs().max()) <= bound
        assert float(parameter.detach().mean()) == pytest.approx(0, abs=0.15 * bound)
        assert float(parameter.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1)
    network = Network(arch_of(mlp_conv=kind, mlp_conv_init="identity"), 12, 16)
    conv = network.L_level.layers[0].mlp.dwconv  # type: ignore[union-attr]
    a = torch.randn(2, 3 + 16, conv.weight.shape[0])
    assert torch.equal(conv(a, Layout(3, 4, 4, True)), a)


def test_without_a_convolution_nothing_is_drawn_or_stored_for_it() -> None:
    network = Network(arch_of(), 12, 16, torch.Generator().manual_seed(0))
    assert not [name for name in network.state_dict() if "conv" in name]
    other = Network(arch_of(mlp_conv_init="identity"), 12, 16, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def layouts_seen(network: Network) -> set[Layout]:
    """Collects the layouts that blocks are called with."""
    seen: set[Layout] = set()
    for module in network.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda _, given: seen.add(given[2]))
    return seen


def canvas_state(arch: dict[str, Any], **settings: Any) -> TrainState:
    """A state of two canvases, one whole and one a part."""
    canvases = (Canvas(2, 3), Canvas(4, 4))
    shape = DataShape(12, 16, 20, 0, 4, canvases, (0.5, 0.5))
    return state_of(shape, arch=RECURRENT | arch, global_batch_size=4, micro_batch_size=2, **settings)


@pytest.mark.parametrize("arch", [{"name": "urm", "mlp_conv": "raster2"}, {"mlp_conv": "canvas3x3"}])
def test_training_and_prediction_tell_the_convolution_where_cells_are(arch: dict[str, Any]) -> None:
    state = canvas_state(arch)
    seen = layouts_seen(state.network)
    prefix = state.network.arch.prefix_len
    wanted = {Layout(prefix, 2, 3, False), Layout(prefix, 4, 4, True)}
    for number in range(4):
        micro_batches = []
        for bucket, chosen in state.carries.scheduler.next_step():  # type: ignore[union-attr]
            part = state.carries.buckets[bucket]
            tokens = np.random.default_rng(number).integers(1, 12, (2, part.size, part.canvas.cells)).astype(np.uint8)
            batch = Batch(*tokens, np.ones(part.size, np.int32))
            micro_batches.append(MicroBatch(bucket, chosen, batch, part.position))
        train_step(state, micro_batches, total_steps=10)
    state.guard.raise_if_bad()
    assert seen == wanted
    for options in (PredictionOptions(2), PredictionOptions(2, early_exit="halt")):
        for canvas in state.shape.canvases:
            seen.clear()
            batching = open_batching(state, canvas, options)
            cells = np.ones((2, canvas.cells), np.uint8)
            with torch.inference_mode():
                batching.predict(np.arange(2), Batch(cells, cells, np.ones(2, np.int32)))
                batching.finish()
            assert seen == {layout for layout in wanted if layout[1:3] == tuple(canvas)}


def test_a_part_of_the_canvas_needs_its_width() -> None:
    network = Network(arch_of(mlp_conv="raster2"), 12, 16, torch.Generator().manual_seed(0))
    tokens, rows = torch.ones(B, 8, dtype=torch.uint8), torch.zeros(B, 32)
    with pytest.raises(AssertionError, match="needs its width"):
        network(network.empty_latents(B, 8), tokens, rows, network.positions_of(2, 4))
    network(network.empty_latents(B, 8), tokens, rows, network.positions_of(2, 4), 4)


def test_a_rectangular_canvas_is_not_taken_for_its_transpose() -> None:
    network = Network(arch_of(mlp_conv="canvas3x3", pos_encodings="none"), 12, 36, torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 12, (1, 12), generator=torch.Generator().manual_seed(1))
    latents = tuple(z + 0.1 for z in network.empty_latents(1, 12))
    rows = torch.zeros(1, 32)
    tall, wide = (network(latents, tokens, rows, network.positions_of(12 // w, w), w).logits for w in (3, 4))
    assert not torch.allclose(tall, wide, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch",
    [
        {"name": "urm", "mlp_conv": "raster2", "pos_encodings": "rope2d", "L_cycles": 1},
        {"mlp_conv": "canvas3x3", "H_cycles": 1, "L_cycles": 1},
    ],
)
@needs_cpu_compiler
def test_a_compiled_step_is_the_eager_step(arch: dict[str, Any]) -> None:
    found = []
    for compiled in (False, True):
        state = state_of(RECURRENT_SHAPE, arch=RECURRENT | arch, compile=compiled, lr=1e-3)
        losses = []
        for step in range(4):
            train_step(state, batch_of(step, RECURRENT_SHAPE), total_steps=100)
            losses.append(state.sums.reduce()["lm_loss"])
        state.guard.raise_if_bad()
        found.append((losses, state.network.state_dict()))
    (losses, weights), (compiled_losses, compiled_weights) = found
    assert compiled_losses == pytest.approx(losses, rel=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(compiled_weights[name], value, rtol=0, atol=1e-4, msg=name)
