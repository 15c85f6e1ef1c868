"""Agreement of `arch=urm` with vectors of the published implementation (float32, CPU).

They are every urm*.json + urm*.npz of the folder that TRM_GOLDEN_MORE_DIR names (default ../shared/golden_more).
All tolerances are constants: nothing that the code under test computes can widen them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.arch import ArchConfig
from models.network import Network
from models.puzzles.table import PuzzleTable
from training import checkpoint
from training.export import published_format

GOLDEN = Path(os.environ.get("TRM_GOLDEN_MORE_DIR", "../shared/golden_more"))
CASES = sorted(path.stem for path in GOLDEN.glob("urm*.json") if path.with_suffix(".npz").exists())

OUTPUTS, GRADIENTS = 1e-5, 1e-4
"""Allowed errors, relative to the largest value of a tensor."""

pytestmark = pytest.mark.skipif(
    not CASES, reason=f"no golden vectors in {GOLDEN} (TRM_GOLDEN_MORE_DIR names the folder)"
)

SAME_NAMES = (
    *("puzzle_emb_ndim", "hidden_size", "expansion", "num_heads", "pos_encodings", "L_cycles", "H_cycles"),
    *("rope_theta", "rms_norm_eps"),
)


def arrays_of(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def build(name: str, arrays: dict[str, Tensor], folder: Path) -> tuple[Network, PuzzleTable | None]:
    """Reads the start weights as a published checkpoint is read."""
    spec = json.loads((GOLDEN / f"{name}.json").read_text())
    arch = ArchConfig(
        **{"name": "urm", "L_layers": spec["num_layers"], "halt_max_steps": spec["loops"], "puzzle_emb_len": 0},
        **{"mlp_conv": "raster2", "forward_dtype": spec["forward_dtype"]},
        **{key: spec[key] for key in SAME_NAMES if key in spec},
    )
    prefix = "_orig_mod.model.inner."
    state = {prefix + key.removeprefix("state/"): value for key, value in arrays.items() if key.startswith("state/")}
    save_file(state, folder / "published.safetensors")
    weights = checkpoint.load_weights(folder / "published.safetensors")
    network = Network(arch, spec["vocab_size"], spec["seq_len"])
    checkpoint.initialise_network(network, weights)
    table = None
    if weights.puzzle_rows is not None:
        table = PuzzleTable(*weights.puzzle_rows.shape)
        table.weights.copy_(weights.puzzle_rows)
    written = published_format.published_state(weights)
    assert written.keys() == state.keys() and all(torch.equal(written[key], state[key]) for key in state)
    return network, table


def compare(key: str, got: Tensor | None, want: Tensor, allowed: float) -> None:
    assert got is not None and got.shape == want.shape, key
    error = float((got.detach().double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-6))
    assert error <= allowed, f"{key}: off by {error:.2e} of the largest value, {allowed:.0e} allowed"


@pytest.mark.parametrize("name", CASES)
def test_outputs_carry_and_gradients(name: str, tmp_path: Path) -> None:
    arrays = arrays_of(name)
    network, table = build(name, arrays, tmp_path)
    steps = sorted({key.split("/")[0] for key in arrays if key.startswith("step")}, key=lambda step: int(step[4:]))
    assert steps
    latents = (arrays[f"{steps[0]}/hidden_before"],)
    for step in steps:
        here = {key.removeprefix(f"{step}/"): value for key, value in arrays.items() if key.startswith(f"{step}/")}
        compare(f"{step}/hidden_before", latents[0], here["hidden_before"], OUTPUTS)
        network.zero_grad()
        rows = None if table is None else table.gather(here["puzzle_identifiers"])
        out = network(latents, here["inputs"], rows)
        q = torch.stack((out.q_halt, out.q_continue), dim=1)
        loss = (out.logits * here["R"]).sum() + (q * here["r"]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        found = {"hidden_after": out.latents[0], "logits": out.logits, "q": q}
        for key, value in found.items():
            compare(f"{step}/{key}", value, here[key], OUTPUTS)
        gradients = {key: value for key, value in here.items() if key.startswith("grad/")}
        assert {checkpoint.published_name(key.removeprefix("grad/")) for key in gradients} == {
            key for key, _ in network.named_parameters()
        }
        for key, value in gradients.items():
            parameter = network.get_parameter(checkpoint.published_name(key.removeprefix("grad/")))
            compare(f"{step}/{key}", parameter.grad, value, GRADIENTS)
        latents = out.latents


@pytest.mark.parametrize("name", CASES)
def test_the_carry_starts_from_the_stored_vector(name: str, tmp_path: Path) -> None:
    arrays = arrays_of(name)
    network, _ = build(name, arrays, tmp_path)
    (initial,) = network.initial_latents()
    assert torch.equal(initial, arrays["state/init_hidden"])
    assert torch.equal(initial.expand_as(arrays["step0/hidden_before"]), arrays["step0/hidden_before"])
