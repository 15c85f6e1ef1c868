"""The named comparisons: what differs between their arms, in settings of the training scripts."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.learning.task_sets import Form
from utils.errors import SettingError

BATCH = 64

COMMON = (
    *("arch.hidden_size=128", "arch.num_heads=4", "arch.H_cycles=1", "arch.L_cycles=2", "arch.halt_max_steps=2"),
    *("arch.puzzle_emb_len=2", f"global_batch_size={BATCH}", "lr=1e-3", "lr_min_ratio=0.1", "lr_warmup_steps=100"),
    *("puzzle_emb_lr=1e-2", "ema=true", "ema_rate=0.995", "log_every=50", "checkpoint_minutes=null"),
    *("checkpoint_steps=200", "arch.forward_dtype=auto"),  # float32 on a processor that has no bfloat16
)
"""A small network and a short run: width 128, recursion H1/L2, two ACT steps, batch 64."""

SUDOKU_BATCH = 128

SUDOKU = (
    *("+experiment=sudoku_small", f"global_batch_size={SUDOKU_BATCH}", "time_budget=null", "log_every=50"),
    *("checkpoint_minutes=null", "checkpoint_steps=200"),
)
"""The recipe sudoku_small, which ends after so many steps instead of after so many minutes."""

STAGES = ("pretrain:", "finetune:")
"""Before a setting of an arm: it is set for this stage of the form `new_tasks` alone."""


@dataclass(frozen=True)
class Comparison:
    """Arms on one task set, the first of which the others are compared with.

    arms: settings by name.
    steps: optimizer steps of a run; the arms' runs of equal time make more or fewer.
    tuned: rates to try for each arm, settings that are all tried once; empty if the arms are as they are.
    augmentations: of each task in the data set.  augmentations_of: the same by arm, for arms that differ in it.
    generated_of: for arms whose pretraining also sees generated pairs, how many of them for each original one.
    common: settings of all arms.  batch: the batch size that they set.
    evaluations: how often a run is evaluated, the last time at its end.
    target: the fraction of test boards whose steps and time are compared, for the form `boards`.

    Raises:
        SettingError: if the arms do not try the same number of rates, or a setting is for a stage that there is not.
    """

    task_set: str
    form: Form
    arms: dict[str, tuple[str, ...]]
    steps: int = 1800
    augmentations: int = 16
    tuned: dict[str, tuple[str, ...]] = field(default_factory=dict)
    augmentations_of: dict[str, int] = field(default_factory=dict)
    generated_of: dict[str, float] = field(default_factory=dict)
    common: tuple[str, ...] = COMMON
    batch: int = BATCH
    evaluations: int = 1
    target: float | None = None

    def __post_init__(self) -> None:
        numbers = {arm: len(set(self.tuned.get(arm, ()))) for arm in self.arms}
        if self.tuned and (len(set(numbers.values())) > 1 or self.tuned.keys() - self.arms.keys()):
            raise SettingError(f"the arms try {numbers} rates: give each arm of the comparison the same number")
        staged = [word for words in self.arms.values() for word in words if word.startswith(STAGES)]
        if staged and self.form != "new_tasks":
            raise SettingError(f"{staged[0]} is for one stage, and {self.form} has one alone: leave the prefix out")
        if self.generated_of and self.form != "new_tasks":
            raise SettingError(
                f"in the form {self.form} every task is scored, and generated pairs would tell its rule: take new_tasks"
            )


RATES = ("lr=5e-4", "lr=1e-3", "lr=2e-3")
MUON_RATES = ("lr=1e-3", "lr=2e-3", "lr=4e-3")

MUON = ("optimizer=muon", "lr=2e-3")
"""Muon where no rate is tuned: in the middle of its rates, as lr=1e-3 is of AdamAtan2's."""

COMPOSED = ("arch.puzzle_embedding=composed", "arch.puzzle_emb_len=0")
"""The number of prefix tokens is that of the composition."""

SCALE_SHIFT = ("arch.puzzle_embedding=composed", "arch.composition=scale_shift")
"""With as many prefix tokens as the published arm has."""

SHARPENING = ("sharpening_targets=true", "step_weights=linear")
"""As DIS publishes it, with `arch.halt_max_steps` for its number of steps."""

GROWING = ("arch.H_cycles=2", "arch.L_cycles=4")
"""A depth that a curriculum can grow to; the other arms have H1/L2."""

NOISE = ("arch.damping=0.05", "latent_noise=0.01")
NOISE_IN_PREDICTIONS = ("eval_latent_noise=0.01", "eval_random_starts=true")
"""As EqR publishes it, with `random_starts`: predictions start and are disturbed as in training."""

EMBEDDINGS = {"table": (), "composed": COMPOSED}
AUGMENTATIONS = (1000, 200, 16)


def _embedding_arms() -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Returns the arms of the comparisons of embeddings, and the augmentations of each; all have as many votes.

    The first is the published table of 1,000 augmentations.
    """
    votes = ("vote_augmentations=17",)
    arms: dict[str, tuple[str, ...]] = {}
    numbers: dict[str, int] = {}
    for n in AUGMENTATIONS:
        for kind, words in EMBEDDINGS.items():
            arm = f"{kind}, {n}" if arms else "published"
            arms[arm], numbers[arm] = (*words, *votes), n
    arms["composed, fresh"] = (*COMPOSED, *votes, "fresh_augmentations=true")  # without end; those stored are for votes
    return arms, numbers | {"composed, fresh": AUGMENTATIONS[-1]}


EMBEDDING_ARMS, EMBEDDING_AUGMENTATIONS = _embedding_arms()

FALLING = ("optimizer=muon", "lr_schedule=linear", "lr_min_ratio=0")
"""Muon with a rate that falls to zero."""

MODERN = (*COMPOSED, *FALLING)
"""What helped each by itself: a row per task, Muon, and a rate that falls to zero."""

LOCAL = (*SCALE_SHIFT, "arch.puzzle_emb_ndim=256", "arch.mlp_conv=canvas3x3", *FALLING)
"""`MODERN` with as few prefix tokens as the published arm, and a convolution: what won the demonstration's trials."""

LEAN = (*LOCAL, "arch.L_cycles=1", "arch.expansion=2")
"""`LOCAL` with half the L cycles and half as wide a SwiGLU: no slower per step than the published arm."""

STAGED = ("pretrain:lr_schedule=constant", "pretrain:lr_min_ratio=1", "finetune:lr_warmup_steps=0")
"""One falling rate over both stages: constant in the first, and it does not start again in the second."""

FORMS: dict[str, tuple[Form, tuple[str, ...]]] = {
    "modern": ("held_out", LEAN),
    "modern_new_tasks": ("new_tasks", (*LEAN, *STAGED)),
}

COMPARISONS = {
    "muon": Comparison(
        "screening",
        "held_out",
        {"published": (), "Muon": ("optimizer=muon",), "NorMuon": ("optimizer=normuon",)},
        tuned={"published": RATES, "Muon": MUON_RATES, "NorMuon": MUON_RATES},
    ),
    "muon_polynomials": Comparison(
        "screening",
        "held_out",
        {
            "published": (),
            "polar express": MUON,
            "jordan": (*MUON, "muon_coefficients=jordan"),
            "urm": (*MUON, "muon_coefficients=urm"),
            "polar express, fused": (*MUON, "muon_split=false"),
        },
    ),
    "schedules": Comparison(
        "screening",
        "held_out",
        {
            "published": ("lr_min_ratio=1",),  # constant after the warm-up
            "cosine": (),
            "linear": ("lr_schedule=linear",),
            "warm-up, stable, decay": ("lr_schedule=warmup_stable_decay",),
        },
    ),
    "puzzle_embedding": Comparison(
        "screening",
        "held_out",
        {
            "published": (),
            "composed, prefix": COMPOSED,
            "composed, scale and shift": SCALE_SHIFT,
            "composed, fresh augmentations": (*COMPOSED, "fresh_augmentations=true"),
        },
        augmentations=200,
    ),
    "convolution": Comparison(
        "screening",
        "held_out",
        {
            "published": (),
            **{kind: (f"arch.mlp_conv={kind}",) for kind in ("raster2", "raster3", "canvas3x3")},
        },
    ),
    "augmentations": Comparison(
        "screening",
        "held_out",
        # the same number of votes for each: what is compared is what was learnt
        {f"{name}": ("vote_augmentations=17",) for name in ("published", "200 augmentations", "16 augmentations")},
        augmentations_of={"published": 1000, "200 augmentations": 200, "16 augmentations": 16},
    ),
    "supervision": Comparison(
        "screening",
        "held_out",
        {
            "published": (),
            **{f"DIS, K={K}": (*SHARPENING, f"arch.halt_max_steps={K}") for K in (2, 3, 6)},
            "DIS, K=3, steps told": (*SHARPENING, "arch.halt_max_steps=3", "arch.step_embedding=3"),
            "deep": GROWING,
            "deep, curriculum": (*GROWING, "depth_curriculum=[[0,1,1],[0.3,1,2],[0.6,2,4]]"),
            "damping, noise": NOISE,
            "damping, noise, random starts": (*NOISE, "random_starts=true", *NOISE_IN_PREDICTIONS),
        },
    ),
    "ema": Comparison(
        "screening",
        "held_out",
        {
            "published": (),  # 0.995
            "0.99": ("ema_rate=0.99",),
            "0.998": ("ema_rate=0.998",),
            "none": ("ema=false",),
        },
    ),
    **{
        f"embedding_and_steps_{steps}": Comparison(
            "screening",
            "held_out",
            EMBEDDING_ARMS,
            steps=steps,
            augmentations_of=EMBEDDING_AUGMENTATIONS,
        )
        for steps in (900, 3600)
    },
    "best": Comparison(
        "decision",
        "new_tasks",
        {
            "published": (),
            "Muon": ("optimizer=muon",),
            "composed": COMPOSED,
            "composed, Muon": (*COMPOSED, "optimizer=muon"),
            "composed, Muon, canvas3x3": (*COMPOSED, "optimizer=muon", "arch.mlp_conv=canvas3x3"),
        },
        tuned={
            "published": RATES,
            "Muon": MUON_RATES,
            "composed": RATES,
            "composed, Muon": MUON_RATES,
            "composed, Muon, canvas3x3": MUON_RATES,
        },
    ),
    **{
        name: Comparison(
            "decision",
            form,
            {"published": (RATES[0],), "modern": (*arm, MUON_RATES[1])},  # the best of three on `screening`
            steps=1500,
            augmentations=8,
            common=(*COMMON, "canvases=fitted", "compile=false"),  # compiling six canvases would take a fifth of a run
        )
        for name, (form, arm) in FORMS.items()
    },
    "modern_small": Comparison(
        "screening",
        "held_out",
        {"published": (), "modern": MODERN, "scale and shift, canvas3x3": LOCAL},
        tuned={"published": RATES, "modern": MUON_RATES, "scale and shift, canvas3x3": MUON_RATES},
    ),
    "generated": Comparison(
        "decision",
        "new_tasks",
        {"published": (), "modern": MODERN, "generated pairs": MODERN, "three times as many": MODERN},
        tuned={
            "published": RATES,
            "modern": MUON_RATES,
            "generated pairs": MUON_RATES,
            "three times as many": MUON_RATES,
        },
        generated_of={"generated pairs": 1.0, "three times as many": 3.0},
        common=(*COMMON, "canvases=fitted"),
    ),
    "sudoku6": Comparison(
        "sudoku6",
        "boards",
        {"published": (), "Muon": MUON, "raster2": ("arch.mlp_conv=raster2",)},
        steps=1250,
        common=SUDOKU,
        batch=SUDOKU_BATCH,
        evaluations=8,
        target=0.95,
    ),
}
