"""The settings of what training asks for in each step of an example, how deep it recurses, and what disturbs it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from training.config.roles import setting
from training.config.section import Section
from utils.errors import SettingError


class SupervisionSettings(Section):
    """What training asks for in each ACT step of an example, and how deep a step recurses.  Evaluations do not change.

    docs/learning.md says where each comes from.
    """

    topic = "Supervision"

    sharpening_targets: bool = setting(
        False,
        "in step s of K = arch.halt_max_steps each cell of the target is hidden with probability 1 - s / K, and what "
        "was once shown stays shown; every example takes all its steps",
        resume="fixed",
        recipe=True,
        solver="accepted",
    )
    step_weights: Literal["equal", "linear"] = setting(
        "equal",
        "how much the token loss of each step counts. linear: 2 s / (K + 1) in step s of K = arch.halt_max_steps",
        resume="reported",
        recipe=True,
        solver="accepted",
    )
    depth_curriculum: list[tuple[float, int, int]] | None = setting(
        None,
        "recurse less early in the run: [[fraction,H_cycles,L_cycles],..], each from that fraction of the steps on, "
        "such as [[0,1,2],[0.3,2,4],[0.6,3,6]]; the last is the depth of arch. null: that depth in all steps",
        resume="reported",
        recipe=True,
        solver="accepted",
    )

    @field_validator("depth_curriculum", mode="before")
    @classmethod
    def _check_depths(cls, value: Any) -> Any:
        if value is None:
            return value
        is_shaped = isinstance(value, list) and all(isinstance(one, list | tuple) and len(one) == 3 for one in value)
        numbers = [number for one in value for number in one] if is_shaped else []
        if not numbers or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
            raise SettingError(f"write null or a list such as [[0,1,2],[0.5,3,6]], not {value}")
        starts = [one[0] for one in value]
        if starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= 1:
            raise SettingError(f"its fractions must begin at 0, grow and stay below 1, not be {starts}")
        if any(cycles < 1 or cycles != int(cycles) for one in value for cycles in one[1:]):
            raise SettingError(f"its cycles must be whole numbers from 1 on, not {value}")
        return value


class DisturbanceSettings(Section):
    """Noise in training that the network has to correct; see also `arch.damping`."""

    topic = "Noise"

    latent_noise: float = setting(
        0.0,
        "in training, add normal noise of this deviation at every update of a latent",
        resume="fixed",
        recipe=True,
        solver="accepted",
        ge=0,
    )
    random_starts: bool = setting(
        False,
        "in training, start each example from latents that are drawn for it, in place of the network's initial ones",
        resume="fixed",
        recipe=True,
        solver="accepted",
    )
