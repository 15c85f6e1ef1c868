"""The named comparisons: what differs between their arms, in settings of the training scripts."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.learning.task_sets import Form

BATCH = 64

COMMON = (
    *("arch.hidden_size=128", "arch.num_heads=4", "arch.H_cycles=1", "arch.L_cycles=2", "arch.halt_max_steps=2"),
    *("arch.puzzle_emb_len=2", f"global_batch_size={BATCH}", "lr=1e-3", "lr_min_ratio=0.1", "lr_warmup_steps=100"),
    *("puzzle_emb_lr=1e-2", "ema=true", "ema_rate=0.995", "log_every=50", "checkpoint_minutes=null"),
)
"""A small network and a short run: width 128, recursion H1/L2, two ACT steps, batch 64."""


@dataclass(frozen=True)
class Comparison:
    """Arms on one task set, the first of which the others are compared with.

    arms: settings by name.
    steps: optimizer steps of a run; the arms' runs of equal time make more or fewer.
    tuned: rates to try for each arm, settings that are all tried once; empty if the arms are as they are.
    augmentations: of each task in the data set.
    """

    task_set: str
    form: Form
    arms: dict[str, tuple[str, ...]]
    steps: int = 1800
    augmentations: int = 16
    tuned: dict[str, tuple[str, ...]] = field(default_factory=dict)


RATES = ("lr=5e-4", "lr=1e-3", "lr=2e-3")

COMPARISONS = {
    "muon": Comparison(
        "screening",
        "held_out",
        {"AdamAtan2": (), "Muon": ("optimizer=muon",), "NorMuon": ("optimizer=normuon",)},
        tuned={"AdamAtan2": RATES, "Muon": RATES, "NorMuon": RATES},
    ),
    "muon_polynomials": Comparison(
        "screening",
        "held_out",
        {
            "polar express": ("optimizer=muon",),
            "jordan": ("optimizer=muon", "muon_coefficients=jordan"),
            "urm": ("optimizer=muon", "muon_coefficients=urm"),
            "polar express, fused": ("optimizer=muon", "muon_split=false"),
        },
    ),
    "schedules": Comparison(
        "screening",
        "held_out",
        {
            "cosine": ("optimizer=muon",),
            "linear": ("optimizer=muon", "lr_schedule=linear"),
            "warm-up, stable, decay": ("optimizer=muon", "lr_schedule=warmup_stable_decay"),
            "constant": ("optimizer=muon", "lr_min_ratio=1"),
        },
    ),
}
