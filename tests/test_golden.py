"""Agreement with vectors that the published implementation computed (float32, CPU).

Reads every NAME.json + NAME.npz of the folder named by TRM_GOLDEN_DIR (default ../shared/golden).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from models.act import ACTStep, Carry, Slots, initial_carry, refill_data
from models.arch import ArchConfig
from models.ema import EMA
from models.losses import IGNORE, METRICS
from models.network import Network
from models.puzzle_table import PuzzleTable
from training.optimizers import OptimizerConfig, build_optimizer
from training.schedule import lr_factor

GOLDEN = Path(os.environ.get("TRM_GOLDEN_DIR", "../shared/golden"))
CASES = sorted(path.stem for path in GOLDEN.glob("*.json") if path.with_suffix(".npz").exists())
PREFIX = "model.inner."
METRIC_NAMES = (*METRICS, "q_continue_loss")

pytestmark = pytest.mark.skipif(not CASES, reason=f"no golden vectors in {GOLDEN} (TRM_GOLDEN_DIR names the folder)")


class Case:
    """One case: its settings, its arrays, and models built from them."""

    def __init__(self, name: str) -> None:
        self.spec = json.loads((GOLDEN / f"{name}.json").read_text())
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        config = self.spec["config"]
        known = {key: value for key, value in config.items() if key in ArchConfig.model_fields}
        self.arch = ArchConfig(name=self.spec["arch"], loss_type=self.spec["loss"], **known)
        self.training: bool = self.spec["train"]
        self.worst: dict[str, float] = {}

    def tensor(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): self.tensor(key) for key in self.arrays if key.startswith(prefix)}

    def batch(self, i: int) -> Slots:
        return Slots(*(self.tensor(f"batch{i}/{field}") for field in Slots._fields))

    def build(self) -> tuple[ACTStep, PuzzleTable]:
        config = self.spec["config"]
        network = Network(self.arch, config["vocab_size"], config["seq_len"])
        state = self.under(f"state/{PREFIX}")
        rows = state.pop("puzzle_emb.weights")
        network.load_state_dict(state, strict=True)
        table = PuzzleTable(*rows.shape)
        table.weights.copy_(rows)
        return ACTStep(network, ignore_label=IGNORE).train(self.training), table

    def close(self, key: str, got: torch.Tensor, want: torch.Tensor, tolerance: float) -> None:
        """Records and bounds the largest error, relative to the largest wanted value."""
        assert got.shape == want.shape, f"{key}: {tuple(got.shape)} instead of {tuple(want.shape)}"
        got, want = got.detach().double(), want.double()
        error = float((got - want).abs().max() / want.abs().max().clamp(min=1e-6)) if want.numel() else 0.0
        kind = key.split("/")[0]
        self.worst[kind] = max(error, self.worst.get(kind, 0.0))
        assert error <= tolerance, f"{key}: off by {error:.2e} of the largest value, {tolerance:.0e} allowed"

    def report(self, name: str) -> None:
        print(f"\n{name}: largest errors " + ", ".join(f"{key} {value:.1e}" for key, value in self.worst.items()))


def _unlabelled_halt_loss(labels: torch.Tensor, q_halt: torch.Tensor) -> torch.Tensor:
    """What the published code adds for slots without labels when evaluating, and this one leaves out on purpose."""
    empty = (labels == IGNORE).all(-1)
    return torch.nn.functional.softplus(-q_halt[empty]).sum()


@pytest.mark.parametrize("name", CASES)
def test_steps(name: str) -> None:
    """Outputs, carry, losses, metrics and gradients of a chain of ACT steps with unchanged weights."""
    case = Case(name)
    step, table = case.build()
    network = step.network
    names = network.recursion.latents
    carry = initial_carry(network, case.batch(0))
    for i in range(case.spec["act_steps"]):
        at = f"step{i}/"
        batch = case.batch(i)
        rows = table.gather(refill_data(carry, batch).puzzle_identifiers)
        network.zero_grad()
        carry, loss, metrics, out = step(carry, batch, rows)
        missing = 0.0 if case.training else _unlabelled_halt_loss(carry.data.labels, out.q_halt)
        case.close("loss", loss + 0.5 * missing, case.tensor(at + "loss"), 1e-5)
        case.close("out/logits", out.logits, case.tensor(at + "out/logits"), 1e-5)
        case.close("out/q_halt", out.q_halt, case.tensor(at + "out/q_halt_logits"), 1e-5)
        case.close("out/q_continue", out.q_continue, case.tensor(at + "out/q_continue_logits"), 1e-5)
        assert torch.equal(out.logits.argmax(-1), case.tensor(at + "out/preds"))
        wanted = case.under(at + "metrics/")
        assert set(METRIC_NAMES[: len(metrics)]) == set(wanted)
        for metric, value in zip(METRIC_NAMES, metrics, strict=False):
            value = value + missing if metric == "q_halt_loss" else value
            case.close(f"metrics/{metric}", value, wanted[metric], 1e-5)
        inner = dict(zip(names, carry.latents, strict=True))
        assert {f"inner.{n}" for n in inner} == {k for k in case.under(at + "carry/") if k.startswith("inner.")}
        for latent, value in inner.items():
            case.close(f"carry/{latent}", value, case.tensor(f"{at}carry/inner.{latent}"), 1e-5)
        for field in ("steps", "halted"):
            assert torch.equal(getattr(carry, field), case.tensor(f"{at}carry/{field}")), field
        for field, value in carry.data._asdict().items():
            assert torch.equal(value, case.tensor(f"{at}carry/data.{field}")), field
        if case.training:
            loss.backward()
            gradients = case.under(f"{at}grad/{PREFIX}")
            assert gradients.keys() == {n for n, p in network.named_parameters() if p.grad is not None}
            for key, value in gradients.items():
                case.close(f"grad/{key}", network.get_parameter(key).grad, value, 1e-4)
            case.close("grad/rows", rows.grad, case.tensor(at + "grad/puzzle_emb_rows"), 1e-4)
    case.report(name)


@pytest.mark.parametrize("name", CASES)
def test_optimizer_trajectory(name: str) -> None:
    """Weights, averaged weights, rows, rates and losses of full training steps."""
    case = Case(name)
    if not case.spec["optimizer_steps"]:
        pytest.skip("the case has no optimizer steps")
    hyper, batch_size = case.spec["hyper"], case.spec["config"]["batch_size"]
    step, table = case.build()
    network = step.network
    optimizer = build_optimizer(
        dict(network.named_parameters()),
        OptimizerConfig(lr=hyper["lr"], weight_decay=hyper["weight_decay"], beta1=hyper["beta1"], beta2=hyper["beta2"]),
    )
    assert optimizer is not None
    ema = EMA(network, hyper["ema_rate"])
    carry: Carry = initial_carry(network, case.batch(0))
    for i in range(case.spec["optimizer_steps"]):
        batch = case.batch(i)
        identifiers = refill_data(carry, batch).puzzle_identifiers
        rows = table.gather(identifiers)
        carry, loss, _, _ = step(carry, batch, rows)
        (loss / batch_size).backward()
        factor = lr_factor(i + 1, hyper["lr_warmup_steps"], hyper["total_steps"], hyper["lr_min_ratio"])
        table.apply_gradients(identifiers, rows.grad, hyper["puzzle_emb_lr"] * factor, hyper["puzzle_emb_weight_decay"])
        optimizer.step(hyper["lr"] * factor, torch.tensor(True))
        ema.update()
        assert hyper["lr"] * factor == pytest.approx(float(case.arrays["trajectory/lr"][i]), rel=1e-9)
        wanted = torch.as_tensor(case.arrays["trajectory/loss"][i])
        case.close("trajectory/loss", loss, wanted, 1e-4)
    trained = case.under(f"trained/{PREFIX}")
    want_rows = trained.pop("puzzle_emb.weights")
    for key, value in trained.items():
        case.close(f"trained/{key}", network.state_dict()[key], value, 1e-4)
    for key, value in case.under(f"ema/{PREFIX}").items():
        case.close(f"ema/{key}", ema.shadow[key], value, 1e-4)
    equal = torch.isclose(table.weights, want_rows, rtol=1e-5, atol=1e-7).double().mean()
    assert equal > 0.99, f"only {float(equal):.1%} of the puzzle rows' entries agree"
    case.report(name)
