"""The learning rate and the depth of the recursion as plain functions of the step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from models.recursion import Depth

Curriculum = Sequence[tuple[float, int, int]]
"""From which fraction of the steps on how many H and L cycles are made."""


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


def depth_at(curriculum: Curriculum | None, step: int, total: int) -> Depth | None:
    """Returns how deep `step` (counted from 1) of `total` recurses; None for as deep as the network says.

    Args:
        curriculum: the setting `depth_curriculum`.
    """
    if curriculum is None:
        return None
    H_cycles, L_cycles = [cycles for begin, *cycles in curriculum if step > begin * total][-1]
    return Depth(H_cycles, L_cycles)


def steps_at_depths(curriculum: Curriculum | None, made: int, total: int) -> dict[Depth | None, int]:
    """Returns how many of the steps after the first `made` recurse how deep."""
    if curriculum is None:
        return {None: total - made}
    begins = [max(made, math.floor(begin * total)) for begin, *_ in curriculum] + [total]
    steps: Counter[Depth | None] = Counter()
    for (_, H_cycles, L_cycles), begin, end in zip(curriculum, begins[:-1], begins[1:], strict=True):
        steps[Depth(H_cycles, L_cycles)] += end - begin
    return steps
