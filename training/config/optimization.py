"""The settings of the optimizer and of the schedule of its rates."""

from __future__ import annotations

from typing import Literal

from training.config.roles import setting
from training.config.section import Section


class OptimizerConfig(Section):
    """The network is trained by AdamAtan2 (arXiv 2407.05872) with decoupled weight decay, or its matrices by Muon.

    `atan2_scale` is the factor a of the step a * atan2(m, sqrt(v)).  The package `adam-atan2-pytorch`, with which the
    published ARC-AGI-2 rates were tuned, uses 1.27.  The CUDA package `adam-atan2` of the original papers uses 1, so
    its steps are about 22 % shorter.
    """

    topic = "Optimizer"

    optimizer: Literal["adam_atan2", "muon", "normuon"] = setting(
        "adam_atan2",
        "what trains the network: AdamAtan2; or Muon, or NorMuon, for the matrices that muon_matrices names, and "
        "AdamAtan2 for the rest",
        resume="fixed",
        recipe=True,
        solver="inherited",
    )
    lr: float = setting(1e-4, "learning rate of the network", resume="reported", recipe=True, solver="inherited", gt=0)
    weight_decay: float = setting(
        0.1,
        "weight decay of the network: each step multiplies its weights by 1 - lr * weight_decay",
        resume="reported",
        recipe=True,
        solver="inherited",
        ge=0,
    )
    beta1: float = setting(
        0.9, "decay rate of AdamAtan2's first moment", resume="reported", recipe=True, solver="inherited", ge=0, lt=1
    )
    beta2: float = setting(
        0.95, "decay rate of AdamAtan2's second moment", resume="reported", recipe=True, solver="inherited", ge=0, lt=1
    )
    atan2_scale: float = setting(
        1.27,
        "factor of AdamAtan2's step: 1.27 as in the package adam-atan2-pytorch, 1 as in adam-atan2",
        resume="reported",
        recipe=True,
        solver="inherited",
        gt=0,
    )
    muon_lr: float | None = setting(
        None,
        "learning rate of the matrices that Muon trains; null: lr",
        resume="reported",
        recipe=True,
        solver="inherited",
        gt=0,
    )
    muon_momentum: float = setting(
        0.95, "decay rate of Muon's momentum", resume="reported", recipe=True, solver="inherited", ge=0, lt=1
    )
    muon_matrices: Literal["blocks", "all"] = setting(
        "blocks",
        "what Muon trains: the matrices of the blocks, or, as URM published, also embeddings and heads",
        resume="fixed",
        recipe=True,
        solver="inherited",
    )
    muon_split: bool = setting(
        True,
        "orthogonalise q, k, v, gate and up each by itself, though they are stored fused; false as URM published",
        resume="reported",
        recipe=True,
        solver="inherited",
    )
    muon_scale: Literal["adam", "spectral"] = setting(
        "adam",
        "size of Muon's step: adam: 0.2 * sqrt(larger side), so that Adam's rates fit; spectral: "
        "sqrt(max(1, rows / columns))",
        resume="reported",
        recipe=True,
        solver="inherited",
    )
    muon_coefficients: Literal["jordan", "urm", "polar_express"] = setting(
        "polar_express",
        "polynomials of Muon's five Newton-Schulz iterations: polar_express brings singular values between 0.86 and "
        "1.14, jordan between 0.68 and 1.14, urm, as URM published, between 0.45 and 1.84",
        resume="reported",
        recipe=True,
        solver="inherited",
    )
    normuon_beta2: float = setting(
        0.95,
        "decay rate of NorMuon's mean square of each row",
        resume="reported",
        recipe=True,
        solver="inherited",
        ge=0,
        lt=1,
    )


class StepSettings(Section):
    """How the learning rates change over the steps, and what happens at a bad step."""

    topic = "Schedule"

    lr_schedule: Literal["constant", "cosine", "linear", "warmup_stable_decay"] = setting(
        "cosine",
        "how the rates fall after the warm-up, down to lr_min_ratio: not at all, along half a cosine, along a line, or "
        "not until the last lr_decay_fraction of the steps, and along a line there",
        resume="reported",
        recipe=True,
        solver="accepted",
    )
    lr_decay_fraction: float = setting(
        0.2,
        "fraction of the steps, the last ones, in which lr_schedule=warmup_stable_decay lets the rates fall",
        resume="reported",
        recipe=True,
        solver="accepted",
        gt=0,
        le=1,
    )
    lr_min_ratio: float = setting(
        1.0,
        "the schedule ends at lr * lr_min_ratio; 1: the rate stays constant",
        resume="reported",
        recipe=True,
        solver="accepted",
        ge=0,
        le=1,
    )
    lr_warmup_steps: int = setting(
        2000, "steps in which the learning rates rise from 0", resume="reported", recipe=True, solver="accepted", ge=0
    )
    on_nonfinite: Literal["stop", "skip"] = setting(
        "stop",
        "what to do when a gradient is not finite: stop the run, or skip the step; nothing is updated either way",
        resume="reported",
        solver="accepted",
    )
