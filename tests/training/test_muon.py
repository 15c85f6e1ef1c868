"""training/optim/muon.py: published steps, orthogonal matrices, and runs that are cut off and go on."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.builders.programs import run_script
from tests.builders.runs import last
from tests.builders.states import assert_equal, batch_of, copy_rows, state_of, train_on, trained
from tests.conftest import ROOT, SMALL
from training import checkpoint
from training.config import OptimizerConfig
from training.optim.muon import COEFFICIENTS, LARGEST, Muon, orthogonalise, update_scale
from training.optim.optimizers import NetworkOptimizer
from training.step import train_step
from utils.metrics_log import read_metrics

GOLDEN = Path(os.environ.get("TRM_GOLDEN_MORE_DIR", ROOT / "../shared/golden_more"))
CASES = sorted(GOLDEN.glob("muon*.json"))
YES, NO = torch.tensor(True), torch.tensor(False)


def muon_of(weights: dict[str, Tensor], **settings: Any) -> Muon:
    config = OptimizerConfig(**({"optimizer": "muon"} | settings))
    return Muon({name: nn.Parameter(value.clone()) for name, value in weights.items()}, config, torch.float32)


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Matrices under the names that they have in a network."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a.qkv_proj": (24, 8), "a.o_proj": (8, 8), "b.o_proj": (8, 8), "a.gate_up_proj": (32, 8)}
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def step(muon: Muon, gradients: dict[str, Tensor], lr: float = 1e-2, is_finite: Tensor = YES) -> dict[str, Tensor]:
    for name, p in muon.parameters.items():
        p.grad = gradients[name]
    muon.step(lr, is_finite)
    return {name: p.detach() for name, p in muon.parameters.items()}


@pytest.mark.skipif(not CASES, reason=f"no vectors in {GOLDEN} (TRM_GOLDEN_MORE_DIR names the folder)")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_steps_are_the_published_ones(path: Path) -> None:
    """To 2 % of a step, and to 0.01 % with its rounding: the published code orthogonalises directions of bfloat16."""
    case = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz")) as arrays:
        found = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    names = [f"p{i}" for i in range(len(case["shapes"]))]
    muon = muon_of(
        {name: found[f"{name}/start"] for name in names},
        weight_decay=case["weight_decay"],
        muon_momentum=case["defaults"]["momentum"],
        muon_split=False,
        muon_coefficients="urm",
    )
    for i in range(sum(key.startswith("p0/after") for key in found)):
        for name in names:
            p, before = muon.parameters[name], found[f"{name}/after{i - 1}" if i else f"{name}/start"]
            p.data.copy_(before)
            p.grad = found[f"{name}/grad{i}"]
        muon.step(case["lr"], YES)
        for name in names:
            before, wanted = found[f"{name}/after{i - 1}" if i else f"{name}/start"], found[f"{name}/after{i}"]
            direction = (found[f"{name}/grad{i}"] + muon.config.muon_momentum * muon.momentum[name]).bfloat16().float()
            rate = case["lr"] * update_scale(*direction.shape, "adam")
            rounded = orthogonalise(direction[None], COEFFICIENTS["urm"])[0]
            as_published = before * (1 - case["lr"] * case["weight_decay"]) - rate * rounded
            size = (wanted - before).norm()
            assert (muon.parameters[name] - wanted).norm() < 0.02 * size, (name, i)
            assert (as_published - wanted).norm() < 1e-4 * size, (name, i)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("jordan", 0.65, 1.2), ("urm", 0.4, 1.9), ("polar_express", 0.8, 1.2)]
)
@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_singular_values_become_one(name: str, low: float, high: float, shape: tuple[int, int]) -> None:
    """Within the bounds that the polynomials have on [0.01, 1]."""
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(3, *shape, generator=generator) * 1e-3
    found = orthogonalise(matrices, COEFFICIENTS[name], LARGEST[name])
    values = torch.linalg.svdvals(found)
    assert values.max() < high and values[:, : min(shape) // 2].min() > low
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    wanted = u @ vh
    cosine = (found * wanted).sum((1, 2)) / (found.norm(dim=(1, 2)) * wanted.norm(dim=(1, 2)))
    assert (cosine > 0.9).all(), cosine


@pytest.mark.parametrize("name", COEFFICIENTS)
@pytest.mark.parametrize("columns", [16, 24, 25, 64])
def test_iterations_are_a_plain_loop(name: str, columns: int) -> None:
    """In float64, also for matrices of nearly a low rank, whose small singular values rounding could lose."""
    generator = torch.Generator().manual_seed(2)
    matrices = torch.randn(4, 16, columns, generator=generator)
    matrices[2:] = matrices[2:, :, :2] @ matrices[2:, :2] + 1e-4 * matrices[2:]
    x = matrices.double() / (LARGEST[name] * matrices.double().norm(dim=(1, 2), keepdim=True))
    for a, b, c in COEFFICIENTS[name]:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found = orthogonalise(matrices, COEFFICIENTS[name], LARGEST[name]).double()
    assert ((found - x).norm(dim=(1, 2)) < 1e-3 * x.norm(dim=(1, 2))).all()


def test_matrices_of_one_shape_do_not_mix() -> None:
    weights, gradients = random_weights(), random_weights(1)
    together = step(muon_of(weights), gradients)
    for name in weights:
        alone = step(muon_of({name: weights[name]}), gradients)
        torch.testing.assert_close(together[name], alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["muon", "normuon"])
def test_a_fused_projection_is_split(optimizer: str) -> None:
    """Its step is that of three matrices by themselves, and another one if it is taken as one matrix."""
    name = "a.qkv_proj.weight"
    weights, gradients = random_weights()[name], random_weights(1)[name]
    thirds = {f"{i}.o_proj.weight": part for i, part in enumerate(weights.chunk(3))}
    apart = step(
        muon_of(thirds, optimizer=optimizer),
        {f"{i}.o_proj.weight": part for i, part in enumerate(gradients.chunk(3))},
    )
    wanted = torch.cat(list(apart.values()))
    fused = step(muon_of({name: weights}, optimizer=optimizer), {name: gradients})[name]
    whole = step(muon_of({name: weights}, optimizer=optimizer, muon_split=False), {name: gradients})[name]
    torch.testing.assert_close(fused, wanted, rtol=1e-5, atol=1e-6)
    assert (whole - weights - (fused - weights)).norm() > 0.1 * (fused - weights).norm()


def test_normuon_is_a_plain_loop() -> None:
    """Two steps of one matrix, row by row."""
    name, lr, beta = "x.o_proj.weight", 0.02, 0.9
    p = random_weights()["a.o_proj.weight"]
    muon = muon_of(
        {name: p},
        optimizer="normuon",
        weight_decay=0.1,
        normuon_beta2=beta,
        muon_scale="spectral",
        muon_coefficients="jordan",
    )
    momentum, mean_square = torch.zeros_like(p), [0.0] * len(p)
    for i in (1, 2):
        gradient = random_weights(i)["a.o_proj.weight"]
        got = step(muon, {name: gradient}, lr)[name]
        momentum = 0.95 * momentum + gradient
        direction = orthogonalise((gradient + 0.95 * momentum)[None], COEFFICIENTS["jordan"])[0]
        rows = []
        for r, row in enumerate(direction):
            mean_square[r] = beta * mean_square[r] + (1 - beta) * float((row**2).mean())
            rows.append(row / mean_square[r] ** 0.5)
        scaled = torch.stack(rows)
        p = p * (1 - lr * 0.1) - lr * scaled * direction.norm() / scaled.norm()
        torch.testing.assert_close(got, p, rtol=1e-4, atol=1e-5)


def test_scales() -> None:
    """Of one step without decay: the root mean square is about 0.2 lr for Adam's scale."""
    generator = torch.Generator().manual_seed(0)
    p = torch.zeros(64, 16)
    gradient = torch.randn(64, 16, generator=generator)
    adam, spectral = (
        step(muon_of({"p": p}, muon_scale=scale), {"p": gradient}, lr=1.0)["p"] for scale in ("adam", "spectral")
    )
    assert float(adam.square().mean().sqrt()) == pytest.approx(0.2, rel=0.15)
    assert float(torch.linalg.matrix_norm(spectral, 2)) == pytest.approx(2.0, rel=0.15)  # sqrt(64 / 16)


@pytest.mark.parametrize("optimizer", ["muon", "normuon"])
def test_where_it_may_not_step_nothing_changes(optimizer: str) -> None:
    muon = muon_of(random_weights(), optimizer=optimizer)
    step(muon, random_weights(1))
    before = {name: value.clone() for name, value in (*muon.parameters.items(), *muon.state_dict().items())}
    step(muon, {name: torch.full_like(value, float("nan")) for name, value in random_weights().items()}, 1e-2, NO)
    for name, value in (*muon.parameters.items(), *muon.state_dict().items()):
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("matrices", "wanted"), [("blocks", 4), ("all", 7)])
def test_what_muon_trains(matrices: str, wanted: int) -> None:
    """Four projections of one block; with `all` the token embedding and the two heads too.  Each weight has one
    optimizer."""
    state = state_of(optimizer="muon", muon_matrices=matrices)
    optimizer = state.optimizer
    assert isinstance(optimizer, NetworkOptimizer) and optimizer.muon is not None and optimizer.adam is not None
    assert len(optimizer.muon.parameters) == wanted
    names = [*optimizer.muon.parameters, *optimizer.adam.parameters]
    assert sorted(names) == sorted(name for name, _ in state.network.named_parameters())


def test_rates_are_in_proportion() -> None:
    """A higher muon_lr moves the blocks further, and the rest as before."""
    slow, fast = (trained(1, optimizer="muon", muon_lr=lr) for lr in (1e-2, 3e-2))
    start = state_of(optimizer="muon")
    for name, p in start.network.named_parameters():
        one, three = (dict(state.network.named_parameters())[name] - p for state in (slow, fast))
        if ".layers." in name:
            torch.testing.assert_close(three, 3 * one, rtol=1e-3, atol=1e-5)
        else:
            assert torch.equal(one, three), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("split", [True, False])
def test_products_are_counted(split: bool, dtype: torch.dtype) -> None:
    muon = muon_of(random_weights(), muon_split=split)
    muon.dtype = dtype
    with FlopCounterMode(display=False) as counter:
        step(muon, random_weights(1))
    assert muon.flop() == counter.get_total_flops()


@pytest.mark.parametrize("optimizer", ["muon", "normuon"])
def test_its_update_is_one_graph(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compiled on a GPU; other rates and a bad step do not compile it again."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    plain, compiled = (muon_of(random_weights(), optimizer=optimizer) for _ in range(2))
    torch._dynamo.reset()
    compiled.compile()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lr, is_finite in ((1e-2, YES), (2e-2, NO), (3e-2, YES)):
            for muon in (plain, compiled):
                step(muon, random_weights(1), lr, is_finite)
    for name, value in plain.parameters.items():
        torch.testing.assert_close(compiled.parameters[name], value, rtol=1e-5, atol=1e-6)


def test_pieces_of_a_batch_make_the_same_step() -> None:
    whole, pieces = (trained(2, optimizer="muon", micro_batch_size=size) for size in (None, 2))
    for (name, a), b in zip(whole.network.named_parameters(), pieces.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_frozen_blocks_stay_as_they_are() -> None:
    assert state_of(optimizer="muon", freeze_weights=True).optimizer is None
    start = {name: p.clone() for name, p in state_of(optimizer="muon").network.named_parameters()}
    frozen = trained(3, optimizer="muon", freeze_trunk=0.5)  # of ten steps
    assert frozen.optimizer is not None and not any(value.any() for value in frozen.optimizer.state_dict().values())
    assert all(torch.equal(p, start[name]) for name, p in frozen.network.named_parameters())
    train_on(frozen, 3, first=3)
    assert not any(torch.equal(p, start[name]) for name, p in frozen.network.named_parameters() if ".layers." in name)


def test_another_optimizer_starts_afresh_and_says_so(tmp_path: Path) -> None:
    before = trained(2)
    record = checkpoint.CheckpointRecord(config=before.config.model_dump(mode="json"))
    path = checkpoint.save_checkpoint(before, tmp_path / "before", record)
    said = {}
    for optimizer in ("adam_atan2", "muon"):
        state = state_of(optimizer=optimizer, load_checkpoint=str(path), ema=False)
        said[optimizer] = str(checkpoint.start_state(state, tmp_path / optimizer, {"data": [None], "puzzles": None}))
        assert state.optimizer is not None and not any(v.any() for v in state.optimizer.state_dict().values())
    assert "optimizer=" not in said["adam_atan2"]
    assert "trained with optimizer=adam_atan2, and optimizer=muon starts with fresh state" in said["muon"]


@pytest.mark.parametrize("optimizer", ["muon", "normuon"])
def test_its_state_survives(optimizer: str) -> None:
    whole, begun = trained(4, optimizer=optimizer), trained(2, optimizer=optimizer)
    resumed = state_of(optimizer=optimizer)
    resumed.load_state_dict(begun.state_dict(), begun.step)
    copy_rows(begun, resumed)
    for i in (2, 3):
        train_step(resumed, batch_of(i), total_steps=10)
    assert_equal(whole, resumed)


def test_a_run_goes_on_exactly_and_with_no_other_optimizer(small_data: Path, tmp_path: Path) -> None:
    """Cut off, refused with another optimizer, resumed, and on two ranks."""
    common = ("pretrain_no_eval.py", f"data_paths=[{small_data}]", "optimizer=muon", "ema=True", *SMALL)
    straight, cut, two = (f"checkpoint_path={tmp_path / name}" for name in ("straight", "cut", "two"))
    for words, ranks in (((straight, "epochs=8"), 1), ((cut, "epochs=4"), 1), ((two, "epochs=8"), 2)):
        done = run_script(*common, "eval_interval=4", *words, ranks=ranks)
        assert done.returncode == 0, done.stderr
    refused = run_script(*common, "eval_interval=4", cut, "epochs=8", "optimizer=normuon")
    assert refused.returncode == 2 and "optimizer" in refused.stderr and "muon" in refused.stderr
    assert run_script(*common, "eval_interval=4", cut, "epochs=8").returncode == 0
    for file in sorted(last(tmp_path / "straight").glob("*.safetensors")):
        assert file.read_bytes() == (last(tmp_path / "cut") / file.name).read_bytes(), file.name
    losses = [
        [line["lm_loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("straight", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
