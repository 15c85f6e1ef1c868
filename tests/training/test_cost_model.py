"""training/metrics/cost_model.py: published figures, and what networks and steps really hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.arch import ArchConfig
from models.kernels.convolution import KERNELS
from models.network import Network
from tests.builders.states import kept_bytes, recurrent_state, tensors, train_on
from training.metrics import cost_model
from training.metrics.cost_model import Machine, Workload

PUBLISHED = ArchConfig(H_cycles=3, L_cycles=4)


def test_the_published_figures() -> None:
    """15.9 GFLOP per application of two blocks over 916 places, 398 GFLOP per example and step at H3/L4."""
    assert 2 * cost_model.block_flop(PUBLISHED, 916) == pytest.approx(15.9e9, rel=5e-3)
    step = cost_model.step_flop(PUBLISHED, [Workload(900, 1)])
    assert step == pytest.approx(398e9, rel=5e-3)
    assert cost_model.block_runs(PUBLISHED) == (30, 10)


def test_a_step_of_the_published_urm_is_96_applications_of_a_block() -> None:
    """48 forward, 24 of them with a gradient; a backward pass counts as two."""
    urm = ArchConfig(name="urm", H_cycles=2, L_cycles=6, L_layers=4, mlp_conv="raster2", puzzle_emb_len=0)
    runs = cost_model.block_runs(urm)
    assert runs == (48, 24) and runs.forward + 2 * runs.with_gradient == 96


@pytest.mark.parametrize("name", ["trm", "trm_singlez", "trm_hier6", "urm", "hrm", "transformers_baseline"])
@pytest.mark.parametrize(
    "settings",
    [
        *({}, {"mlp_t": True}, {"pos_encodings": "learned"}, {"no_ACT_continue": False}),
        *({"mlp_conv": conv} for conv in KERNELS),
    ],
)
def test_weights_and_products_are_counted_as_they_are(name: str, settings: dict[str, Any]) -> None:
    """Against the network itself and PyTorch's own count of floating-point operations."""
    arch = ArchConfig(
        **{"name": name, "hidden_size": 32, "num_heads": 2, "H_cycles": 2, "L_cycles": 3, "H_layers": 2, "L_layers": 1},
        **{"puzzle_emb_ndim": 32, "puzzle_emb_len": 2, "forward_dtype": "float32", **settings},
    )
    network = Network(arch, 12, 20)
    assert sum(p.numel() for p in network.parameters()) == cost_model.weight_count(arch, 20)
    latents = network.empty_latents(3, 20)
    # The counter does not know the fused kernel of a CPU.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(latents, torch.zeros(3, 20, dtype=torch.uint8), torch.zeros(3, 32))
    assert counter.get_total_flops() == pytest.approx(cost_model.predict_flop(arch, [Workload(20, 3)]), rel=0.01)


def test_workloads_of_several_lengths_add_up() -> None:
    workloads = [Workload(900, 2), Workload(100, 6)]
    together = cost_model.step_flop(PUBLISHED, workloads)
    assert together == sum(cost_model.step_flop(PUBLISHED, [each]) for each in workloads)
    assert cost_model.step_flop(PUBLISHED, workloads, recomputes=True) == pytest.approx(together * 60 / 50, rel=1e-3)
    short, long = (cost_model.step_memory(PUBLISHED, [Workload(cells, 8)], 1000) for cells in (100, 900))
    both = cost_model.step_memory(PUBLISHED, [Workload(100, 8), Workload(900, 8)], 1000)
    assert both.activations == short.activations + long.activations and both.weights == long.weights


def test_memory_is_what_a_state_holds() -> None:
    state = recurrent_state()
    held = tensors(train_on(state, 1, total_steps=100))
    memory = cost_model.step_memory(state.config.arch, [Workload(16, 4)], 20)
    size = {part: 0 for part in ("network", "optimizer", "ema", "puzzle_table", "carry")}
    for key, value in held.items():
        part = key.split("/")[0]
        if part in size and "init" not in key:
            size[part] += value.numel() * value.element_size()
    assert memory.weights / 2 == size["network"]
    assert memory.moments == pytest.approx(size["optimizer"], abs=8)
    assert memory.average == size["ema"] and memory.puzzle_rows == size["puzzle_table"]
    assert memory.carry / 2 == pytest.approx(size["carry"], rel=0.02)


@pytest.mark.slow
def test_activations_are_what_the_compiled_step_keeps() -> None:
    """The compiler's choice of what is kept needs none of its C++."""
    state = recurrent_state()
    state.act_step.train().compile(backend="aot_eager_decomp_partition", dynamic=False)
    kept = kept_bytes(state)
    arch = state.config.arch
    working = cost_model.weight_count(arch, 16) * cost_model.FLOAT
    assert kept == pytest.approx(cost_model.step_memory(arch, [Workload(16, 4)], 20).activations + working, rel=0.2)


def test_more_ranks_pay_for_the_wire_and_small_steps_for_launches() -> None:
    machine = Machine(flops=1e15, fraction=0.5, launch=5e-6, link=1e11)
    one, two = (cost_model.step_seconds(PUBLISHED, [Workload(900, 384)], machine, ranks) for ranks in (1, 2))
    sent = 4 * cost_model.weight_count(PUBLISHED, 900) + 4 * 512 * 384
    assert two - one == pytest.approx(sent / 1e11)
    assert cost_model.step_seconds(PUBLISHED, [Workload(25, 1)], machine) == cost_model.launches(PUBLISHED) * 5e-6
    # Rows outside: those of the rank's own examples come, the gradients of all ranks go, and the host updates them.
    outside = replace(machine, bus=1e10, row=1e-6)
    longer = cost_model.step_seconds(PUBLISHED, [Workload(900, 384)], outside, ranks=2, rows_elsewhere=True) - two
    assert longer == pytest.approx(384 * (4 * 512 * 3 / 1e10 + 2e-6))
