"""Measures what rounding does to the published vectors' cases: the constants `ROUNDING` of tests/test_golden.py.

    python -m tests.golden.rounding
    ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE python -m tests.golden.rounding

Run this on a commit whose numbers are known to be right, and keep the larger of both figures.
"""

from __future__ import annotations

import json
from collections import defaultdict

import torch
from torch import Tensor

from tests.models.test_golden import CASES, PREFIX, Case, distance, is_exact, kind_of, steps_of, trajectory_of

DRAWS = 8


def all_of(case: Case) -> dict[str, Tensor]:
    """Returns every value of a case that rounding changes."""
    found = {key: value for key, value in steps_of(case).items() if not is_exact(key)}
    return found | (trajectory_of(case)[0] if case.spec["optimizer_steps"] else {})


def move(case: Case, seed: int) -> None:
    """Moves every weight by half a unit in its last place, up or down."""
    generator = torch.Generator().manual_seed(seed)
    for key in case.under(f"state/{PREFIX}"):
        value = case.tensor(f"state/{PREFIX}{key}")
        sign = torch.rand(value.shape, generator=generator).sub(0.5).sign().double()
        case.arrays[f"state/{PREFIX}{key}"] = (value * (1 + 2**-24 * sign)).float().numpy()


def main() -> None:
    measured = {}
    for name in CASES:
        plain, worst = all_of(Case(name)), defaultdict(float)
        for seed in range(DRAWS):
            case = Case(name)
            move(case, seed)
            for key, value in all_of(case).items():
                worst[kind_of(key)] = max(worst[kind_of(key)], distance(value, plain[key]))
        measured[name] = {kind: float(f"{value:.1e}") for kind, value in worst.items()}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
