"""Chooses which micro-batches a step computes when there are several canvases: deficit weighted round-robin.

Each canvas is a bucket with its own slots, and slots of different canvases halt at different speeds.  On one canvas
this needs no care: all slots take from one stream, so every example is taken equally often, and slow examples only
occupy more slots.  With a fixed number of slots per bucket, buckets whose slots halt fast would take too many.

The scheduler therefore works as network schedulers do that share a link between queues of different packet sizes
(Shreedhar and Varghese, 1995).  Each bucket has a deficit, counted in slots.  Every step adds the bucket's quantum to
it, and a micro-batch that is chosen subtracts its size.  The bucket with the largest deficit is chosen, until the step
has `batch_size` slots:

    quanta 2.5 and 1.5, every micro-batch one slot, batch_size 4:
    step 1:  11x11  11x11  11x11  30x30      deficits afterwards  -0.5  +0.5
    step 2:  11x11  11x11  30x30  30x30      deficits afterwards   0     0

The quanta follow what is measured: a bucket whose slots rarely take a new example gets a larger quantum, so that the
examples *taken* stay in the proportion of the data.  Shapes stay fixed, and the host never waits for the device: what
was taken becomes known some steps later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MEMORY = 0.98
"""How much of the measured halting still counts at the next report."""

LARGEST_CORRECTION = 0.5

OLD_NAMES = {
    "micro_batches": "pools",
    "next": "_next",
    "deficit": "_credit",
    "quantum": "_wanted",
    "advanced": "_advanced",
    "created": "_new",
    "reported": "_reported",
    "known": "_known",
    "window": "_window",
}
"""The name of each array in a saved state, and its name in checkpoints that were written before."""


class DeficitScheduler:
    """Deficit weighted round-robin over buckets.

    Args:
        fractions: of the examples in the data, for each bucket.  A bucket with fraction 0 is never chosen.
        sizes: slots of a micro-batch, for each bucket.  Each must divide `batch_size`, and the smallest must divide all
            others (buckets with fraction 0 left out).
        batch_size: slots in a step.
        max_steps: steps that a slot spends on one example at most (`halt_max_steps`).

    Attributes:
        micro_batches: int64 [buckets], how many groups of slots exist.
        advanced: int64 [buckets], slots that steps have computed, without those of new micro-batches.
        created: int64 [buckets], slots of new micro-batches; each takes an example at once.
    """

    def __init__(self, fractions: Sequence[float], sizes: Sequence[int], batch_size: int, max_steps: int) -> None:
        self.fractions = np.asarray(fractions, dtype=np.float64)
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.batch_size, self.max_steps = batch_size, max_steps
        used = self.sizes[self.fractions > 0]
        assert not (batch_size % used).any() and not (used % used.min()).any(), (batch_size, sizes)
        N = len(self.fractions)
        self.micro_batches = np.zeros(N, dtype=np.int64)
        self.advanced = np.zeros(N, dtype=np.int64)
        self.created = np.zeros(N, dtype=np.int64)
        self._next = np.zeros(N, dtype=np.int64)  # the micro-batch that has waited longest
        self._deficit = np.zeros(N)  # slots that a bucket is owed
        self._quantum = self.fractions * batch_size  # slots per step
        self._reported = np.zeros((2, N), dtype=np.int64)  # `advanced` and `created` at the last `begin_report`
        self._known = np.zeros((3, N), dtype=np.int64)  # taken, advanced and created at the last `report`
        self._window = np.zeros((2, N))  # recent takes and advances, without new micro-batches

    def next_step(self) -> list[tuple[int, int]]:
        """Returns the (bucket, number) pairs of the next step, in order; they have `batch_size` slots together.

        A number that equals the count of the bucket's micro-batches stands for a new one.
        """
        self._deficit += self._quantum
        left, used = self.batch_size, np.zeros_like(self.micro_batches)
        existing = self.micro_batches.copy()
        chosen = []
        while left:
            bucket = self._largest_deficit(left, used, existing)
            if used[bucket] < existing[bucket]:
                number = int((self._next[bucket] + used[bucket]) % existing[bucket])
                used[bucket] += 1
                self.advanced[bucket] += self.sizes[bucket]
            else:
                number = int(self.micro_batches[bucket])
                self.micro_batches[bucket] += 1
                self.created[bucket] += self.sizes[bucket]
            self._deficit[bucket] -= self.sizes[bucket]
            left -= int(self.sizes[bucket])
            chosen.append((bucket, number))
        self._next = np.where(existing > 0, (self._next + used) % np.maximum(existing, 1), 0)
        return sorted(chosen)

    def _largest_deficit(self, left: int, used: np.ndarray, existing: np.ndarray) -> int:
        """Returns the bucket with the largest deficit among those whose micro-batch still fits.

        Buckets without any micro-batch come first, so that everything is compiled in the first steps.  Apart from
        that a bucket gets a new micro-batch only when it is far behind or nothing else fits.
        """
        fits = (self.sizes <= left) & (self._quantum > 0)
        if (fits & (self.micro_batches == 0)).any():
            fits &= self.micro_batches == 0
        waiting = fits & (used < existing)
        grows = fits & (self._deficit >= 2 * self.sizes)
        allowed = waiting | grows if (waiting | grows).any() else fits
        return int(np.where(allowed, self._deficit, -np.inf).argmax())

    def begin_report(self) -> None:
        """Notes the counts of this moment: the next `report` is about it."""
        self._reported = np.stack((self.advanced, self.created))

    def report(self, taken: Sequence[int]) -> None:
        """Adjusts the quanta to how many examples each bucket had taken in total at `begin_report`."""
        now = np.concatenate((np.asarray(taken, dtype=np.int64)[None], self._reported))
        takes, advanced, created = now - self._known
        self._known = now
        self._window = MEMORY * self._window + np.stack((takes - created, advanced))
        # A slot takes an example at least every `max_steps`.  That is assumed of buckets with little evidence.
        prior = self.sizes.astype(np.float64)
        rate = (self._window[0] + prior / self.max_steps) / (self._window[1] + prior)
        rate = np.clip(rate, 1 / self.max_steps, 1.0)
        behind = self.fractions * now[0].sum() - now[0]
        scale = 4 * self.sizes * np.maximum(self.micro_batches, 1)
        correction = np.clip(behind / scale, -LARGEST_CORRECTION, LARGEST_CORRECTION)
        weight = self.fractions / rate * (1 + correction)
        self._quantum = self.batch_size * weight / weight.sum()

    def expected_slots(self, trial_steps: int = 100) -> list[int]:
        """Returns how many slots each bucket has in the end, if all slots halt equally fast."""
        trial = DeficitScheduler(self.fractions.tolist(), self.sizes.tolist(), self.batch_size, self.max_steps)
        for _ in range(trial_steps):
            trial.next_step()
        return (trial.micro_batches * trial.sizes).tolist()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Returns everything that `next_step` depends on."""
        return {
            "micro_batches": self.micro_batches,
            "next": self._next,
            "deficit": self._deficit,
            "quantum": self._quantum,
            "advanced": self.advanced,
            "created": self.created,
            "reported": self._reported,
            "known": self._known,
            "window": self._window,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, also under the names of older checkpoints."""
        read = {name: np.array(state[name] if name in state else state[old]) for name, old in OLD_NAMES.items()}
        self.micro_batches, self.advanced, self.created = (
            read["micro_batches"],
            read["advanced"],
            read["created"],
        )
        self._next, self._deficit, self._quantum = read["next"], read["deficit"], read["quantum"]
        self._reported, self._known, self._window = read["reported"], read["known"], read["window"]
