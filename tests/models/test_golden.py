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
from training.optim.optimizers import OptimizerConfig, build_optimizer
from training.optim.schedule import lr_factor

GOLDEN = Path(os.environ.get("TRM_GOLDEN_DIR", "../shared/golden"))
CASES = sorted(path.stem for path in GOLDEN.glob("*.json") if path.with_suffix(".npz").exists())
PREFIX = "model.inner."
METRIC_NAMES = (*METRICS, "q_continue_loss")

ROUNDING_FACTOR, MOST_ROUNDING = 8, 100
"""How far from the vectors a value may be, in what moving the weights by rounding does, and in tolerances."""

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

    def build(self, moved: bool = False) -> tuple[ACTStep, PuzzleTable]:
        """The start of a run; `moved`: with every weight off by half a unit in its last place."""
        config = self.spec["config"]
        network = Network(self.arch, config["vocab_size"], config["seq_len"])
        state = self.under(f"state/{PREFIX}")
        rows = state.pop("puzzle_emb.weights")
        if moved:
            generator = torch.Generator().manual_seed(0)
            signs = {key: torch.rand(value.shape, generator=generator).sub(0.5).sign() for key, value in state.items()}
            state = {key: value * (1 + 2**-24 * signs[key].double()) for key, value in state.items()}
        network.load_state_dict(state, strict=True)
        table = PuzzleTable(*rows.shape)
        table.weights.copy_(rows)
        return ACTStep(network, ignore_label=IGNORE).train(self.training), table

    def compare(self, got: dict[str, torch.Tensor], moved: dict[str, torch.Tensor], key: str, tolerance: float) -> None:
        """Records and bounds the largest error of a value, relative to the largest wanted one.

        Another processor adds in another order, which some cases magnify to more than the tolerance.  What a case makes
        of rounding is measured: `moved` is the same run with every weight off by half a unit in its last place.
        """
        want = self.wanted(key)
        assert got[key].shape == want.shape, f"{key}: {tuple(got[key].shape)} instead of {tuple(want.shape)}"
        error, rounding = distance(got[key], want), distance(moved[key], got[key])
        kind = "/".join(key.split("/")[int(key.startswith("step")) :][:1])
        self.worst[kind] = max(error, self.worst.get(kind, 0.0))
        allowed = max(tolerance, min(ROUNDING_FACTOR * rounding, MOST_ROUNDING * tolerance))
        assert error <= allowed, f"{key}: off by {error:.2e} of the largest value, {allowed:.0e} allowed"

    def wanted(self, key: str) -> torch.Tensor:
        """The published value of what `steps_of` or `trajectory_of` call so."""
        if key in self.arrays:
            return self.tensor(key)
        if key.startswith("trajectory/loss"):
            return self.tensor("trajectory/loss")[int(key.rpartition("/")[2])]
        kind, _, name = key.partition("/")
        return self.tensor(f"{kind}/{PREFIX}{name}")

    def report(self, name: str) -> None:
        print(f"\n{name}: largest errors " + ", ".join(f"{key} {value:.1e}" for key, value in self.worst.items()))


def _unlabelled_halt_loss(labels: torch.Tensor, q_halt: torch.Tensor) -> torch.Tensor:
    """What the published code adds for slots without labels when evaluating, and this one leaves out on purpose."""
    empty = (labels == IGNORE).all(-1)
    return torch.nn.functional.softplus(-q_halt[empty]).sum()


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    """The largest difference, relative to the largest wanted value."""
    if not want.numel():
        return 0.0
    got, want = got.detach().double(), want.detach().double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-6))


def steps_of(case: Case, moved: bool = False) -> dict[str, torch.Tensor]:
    """A chain of ACT steps with unchanged weights: outputs, carry, losses, metrics and gradients of each, by name."""
    step, table = case.build(moved)
    network = step.network
    carry = initial_carry(network, case.batch(0))
    found: dict[str, torch.Tensor] = {}
    for i in range(case.spec["act_steps"]):
        at = f"step{i}/"
        batch = case.batch(i)
        rows = table.gather(refill_data(carry, batch).puzzle_identifiers)
        network.zero_grad()
        carry, loss, metrics, out = step(carry, batch, rows)
        missing = 0.0 if case.training else _unlabelled_halt_loss(carry.data.labels, out.q_halt)
        found |= {
            at + "loss": loss + 0.5 * missing,
            at + "out/logits": out.logits,
            at + "out/q_halt_logits": out.q_halt,
            at + "out/q_continue_logits": out.q_continue,
            at + "out/preds": out.logits.argmax(-1),
            at + "carry/steps": carry.steps,
            at + "carry/halted": carry.halted,
        }
        for metric, value in zip(METRIC_NAMES, metrics, strict=False):
            found[f"{at}metrics/{metric}"] = value + missing if metric == "q_halt_loss" else value
        for latent, value in zip(network.recursion.latents, carry.latents, strict=True):
            found[f"{at}carry/inner.{latent}"] = value
        for field, value in carry.data._asdict().items():
            found[f"{at}carry/data.{field}"] = value
        if case.training:
            loss.backward()
            named = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
            found |= {f"{at}grad/{PREFIX}{name}": gradient.clone() for name, gradient in named.items()}
            found[at + "grad/puzzle_emb_rows"] = rows.grad
    return found


@pytest.mark.parametrize("name", CASES)
def test_steps(name: str) -> None:
    """Outputs, carry, losses, metrics and gradients of a chain of ACT steps with unchanged weights."""
    case = Case(name)
    got, moved = steps_of(case), steps_of(case, moved=True)
    published = {key for key in case.arrays if key.startswith("step")}
    untested = {key for key in published if key.endswith(("/all_finished", "/target_q_continue"))}
    assert got.keys() == published - untested
    for key in sorted(got):
        part = key.partition("/")[2]
        if part == "out/preds" or (part.startswith("carry/") and "inner" not in part):
            assert torch.equal(got[key], case.tensor(key)), key
        else:
            case.compare(got, moved, key, 1e-4 if part.startswith("grad/") else 1e-5)
    case.report(name)


def trajectory_of(case: Case, moved: bool = False) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Full training steps: weights, averaged weights and losses by name, and the puzzle rows."""
    hyper, batch_size = case.spec["hyper"], case.spec["config"]["batch_size"]
    step, table = case.build(moved)
    network = step.network
    rates = {key: hyper[key] for key in ("lr", "weight_decay", "beta1", "beta2")}
    optimizer = build_optimizer(dict(network.named_parameters()), OptimizerConfig(**rates))
    assert optimizer is not None
    ema = EMA(network, hyper["ema_rate"])
    carry: Carry = initial_carry(network, case.batch(0))
    found: dict[str, torch.Tensor] = {}
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
        found[f"trajectory/loss/{i}"] = loss
    found |= {f"trained/{name}": value for name, value in network.state_dict().items()}
    found |= {f"ema/{name}": value for name, value in ema.shadow.items()}
    return found, table.weights


@pytest.mark.parametrize("name", CASES)
def test_optimizer_trajectory(name: str) -> None:
    """Weights, averaged weights, rows, rates and losses of full training steps."""
    case = Case(name)
    if not case.spec["optimizer_steps"]:
        pytest.skip("the case has no optimizer steps")
    (got, rows), (moved, _) = trajectory_of(case), trajectory_of(case, moved=True)
    assert set(case.under(f"trained/{PREFIX}")) - {"puzzle_emb.weights"} == set(case.build()[0].network.state_dict())
    for key in got:
        case.compare(got, moved, key, 1e-4)
    equal = torch.isclose(rows, case.tensor(f"trained/{PREFIX}puzzle_emb.weights"), rtol=1e-5, atol=1e-7).double()
    assert equal.mean() > 0.99, f"only {float(equal.mean()):.1%} of the puzzle rows' entries agree"
    case.report(name)
