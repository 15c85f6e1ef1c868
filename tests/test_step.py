"""training/step.py as a whole: one graph, compiled once, and the same with activations computed again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from dataset.batches import Batch
from dataset.canvases import Canvas
from dataset.lanes import Position
from models.act import ACTStep, Slots, initial_carry, refill
from training.config import PretrainConfig
from training.lanes import Part, whole
from training.state import DataShape, TrainState
from training.step import train_step

B, C, V, PUZZLES = 4, 16, 12, 20
VARIANTS = ["trm", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline"]


def state_of(name: str = "trm", **settings: Any) -> TrainState:
    arch = {
        **{"name": name, "hidden_size": 32, "num_heads": 1, "H_cycles": 2, "L_cycles": 2, "H_layers": 1, "L_layers": 1},
        **{"puzzle_emb_ndim": 32, "puzzle_emb_len": 2, "halt_max_steps": 3, "expansion": 1.0},
    }
    config = PretrainConfig(
        arch={**arch, "forward_dtype": settings.pop("forward_dtype", "float32")},
        **{"data_paths": ["none"], "global_batch_size": B, "epochs": 1, "ema": True, "lr": 1e-3, "lr_warmup_steps": 0},
        **{"device": "cpu", "compile": False, **settings},
    )
    return TrainState(config, DataShape(V, C, PUZZLES, 0), torch.device("cpu"))


def batch_of(step: int) -> Batch:
    rng = np.random.default_rng(step)
    inputs, labels = rng.integers(0, V, (2, B, C)).astype(np.uint8)
    return Batch(inputs, labels, rng.integers(1, PUZZLES, B).astype(np.int32))


def trained(state: TrainState, steps: int = 4) -> dict[str, torch.Tensor]:
    for step in range(steps):
        train_step(state, whole(batch_of(step)), total_steps=100)
    state.guard.raise_if_bad()
    return {f"{part}.{key}": value for part, tensors in state.state_dict().items() for key, value in tensors.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_activations_computed_again_change_nothing(name: str) -> None:
    """Weights, averages, moments, puzzle rows and carry after four steps, to the bit."""
    plain, again = (trained(state_of(name, activation_checkpointing=on)) for on in (False, True))
    assert plain.keys() == again.keys()
    assert float(plain["puzzle_table.weights"].abs().max()) > 0
    for key, value in plain.items():
        assert torch.equal(value, again[key]), key


@pytest.mark.slow
def test_activations_computed_again_change_nothing_compiled() -> None:
    plain, again = (trained(state_of(activation_checkpointing=on, compile=True)) for on in (False, True))
    for key in (key for key in plain if key.startswith(("network", "puzzle_table"))):
        torch.testing.assert_close(plain[key], again[key], rtol=0, atol=1e-4, msg=key)


def kept_bytes(state: TrainState) -> int:
    """What a forward pass keeps for the backward pass."""
    seen: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    slots = Slots(
        *(torch.from_numpy(array) for array in (batch_of(0).inputs, batch_of(0).labels, np.ones(B, np.int32)))
    )
    rows = torch.zeros(B, 32, requires_grad=True)
    step: ACTStep = state.act_step
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = step(refill(initial_carry(state.network, slots), slots, state.network.initial_latents()), rows)
    assert result[1].requires_grad
    return sum(seen.values())


def test_activations_computed_again_are_not_kept() -> None:
    assert kept_bytes(state_of(activation_checkpointing=True)) < 0.5 * kept_bytes(state_of())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"activation_checkpointing": True}, {"forward_dtype": "bfloat16"}])
def test_the_step_and_prediction_are_one_graph_each_and_compiled_once(settings: dict[str, Any]) -> None:
    torch._dynamo.reset()
    counters.clear()
    state = state_of(compile=True, **settings)
    trained(state, 3)
    latents = state.network.empty_latents(B, C)
    asked = [(torch.full((B, C), n, dtype=torch.uint8), torch.full((B, 32), float(n))) for n in range(4)]
    with torch.inference_mode():
        state.predict_step(latents, *asked[0])
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(3, 12):
            train_step(state, whole(batch_of(step)), total_steps=100)
        with torch.inference_mode():
            for inputs, rows in asked[1:]:
                state.predict_step(latents, inputs, rows)
    assert counters["stats"]["unique_graphs"] == 2
    state.guard.raise_if_bad()


def test_every_canvas_is_one_graph_and_none_is_compiled_again() -> None:
    """With the compiler's own backend left out: what is counted is how often the step is traced."""
    torch._dynamo.reset()
    counters.clear()
    canvases = (Canvas(2, 3), Canvas(3, 3), Canvas(4, 4))
    state = state_of()
    shape = DataShape(V, C, PUZZLES, 0, None, canvases, (0.5, 0.3, 0.2))
    config = state.config.model_copy(update={"micro_batch_size": 1, "global_batch_size": 8})
    state = TrainState(config, shape, torch.device("cpu"))
    state.act_step.compile(backend="aot_eager", dynamic=False)
    assert state.lanes.rota is not None

    def step(number: int) -> None:
        parts = []
        for lane, chunk in state.lanes.rota.turn():  # type: ignore[union-attr]
            rng = np.random.default_rng((number, lane, chunk))
            size = state.lanes.lanes[lane].chunk_size
            inputs, labels = rng.integers(0, V, (2, size, canvases[lane].cells)).astype(np.uint8)
            parts.append(Part(lane, chunk, Batch(inputs, labels, np.ones(size, np.int32)), Position()))
        train_step(state, parts, total_steps=1000)

    for number in range(6):
        step(number)
    assert all(lane.chunks for lane in state.lanes)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == len(canvases)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for number in range(6, 30):
            step(number)
    state.guard.raise_if_bad()
