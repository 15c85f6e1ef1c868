"""The learning rate as a plain function of the step."""

from __future__ import annotations

import math


def lr_factor(
    step: int, warmup: int, total: int, min_ratio: float, schedule: str = "cosine", decay_fraction: float = 0.2
) -> float:
    """Returns what the base rate is multiplied with at `step` (counted from 1).

    It is step / warmup while step < warmup.  Then it falls from 1 to `min_ratio` at `total` steps: along half a cosine,
    along a line, or with `warmup_stable_decay` along a line in the last `decay_fraction` of all steps.  It stays 1 with
    `constant`.
    """
    if step < warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    begin = warmup if schedule != "warmup_stable_decay" else max(warmup, total * (1 - decay_fraction))
    progress = max(0.0, (step - begin) / max(1, total - begin))
    fallen = 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else 1 - progress
    return min_ratio + (1 - min_ratio) * fallen
