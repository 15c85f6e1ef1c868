"""The learning rate as a plain function of the step."""

from __future__ import annotations

import math


def lr_factor(step: int, warmup: int, total: int, min_ratio: float) -> float:
    """Returns what the base rate is multiplied with at `step` (counted from 1).

    It is step / warmup while step < warmup, then a cosine from 1 to `min_ratio` at `total` steps.  A ratio of 1 is
    constant.
    """
    if step < warmup:
        return step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
