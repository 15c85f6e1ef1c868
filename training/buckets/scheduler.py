"""Whose turn it is: which chunks of slots a step advances, when there are several canvases.

Slots of different canvases halt at different speeds.  On one canvas that needs no care: all slots take from one
stream, so that each example is taken as often as the stream has it, and slow ones simply occupy more slots.  With a
fixed number of slots per canvas, fast canvases would take more than their share.  Here each canvas (lane) has as many
chunks of slots as it needs, and a step advances just so many of each that what the lanes *take* stays in the proportion
of the stream, while every step advances `batch_size` slots in all.

Shapes stay fixed (a chunk's), and the host never waits for the device: what was taken becomes known some steps later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MEMORY = 0.98
"""How much of what was seen of a lane's halting still counts at the next report."""

LARGEST_CORRECTION = 0.5


class Rota:
    """Weighted turns: lane i is advanced in proportion to share_i / (takes per slot advanced), and is held to its share
    by what it has taken so far.

    Args:
        shares: of the stream's examples, per lane; a lane of share 0 never has a turn.
        chunk_sizes: slots of a chunk, per lane; of the lanes with a share the smallest must divide all others, and each
            must divide `batch_size`.
        batch_size: slots to advance in a step.
        most_steps: steps that a slot spends on an example at most (`halt_max_steps`).
    """

    def __init__(self, shares: Sequence[float], chunk_sizes: Sequence[int], batch_size: int, most_steps: int) -> None:
        self.shares = np.asarray(shares, dtype=np.float64)
        self.sizes = np.asarray(chunk_sizes, dtype=np.int64)
        self.batch_size, self.most_steps = batch_size, most_steps
        turning = self.sizes[self.shares > 0]
        assert not (batch_size % turning).any() and not (turning % turning.min()).any(), (batch_size, chunk_sizes)
        L = len(self.shares)
        self.pools = np.zeros(L, dtype=np.int64)  # chunks that exist
        self._next = np.zeros(L, dtype=np.int64)  # the chunk that has waited longest
        self._credit = np.zeros(L)  # slots that a lane is due
        self._wanted = self.shares * batch_size  # slots per step
        self._advanced = np.zeros(L, dtype=np.int64)  # slots, other than those of new chunks
        self._new = np.zeros(L, dtype=np.int64)  # slots of new chunks, each of which takes an example at once
        self._reported = np.zeros((2, L), dtype=np.int64)  # `_advanced` and `_new` when a report was asked for
        self._known = np.zeros((3, L), dtype=np.int64)  # taken, advanced and new as of the last report
        self._window = np.zeros((2, L))  # recent takes and advances, other than those of new chunks

    def turn(self) -> list[tuple[int, int]]:
        """The (lane, chunk) pairs of the next step, in order; `batch_size` slots in all.  A chunk whose number equals
        the size of its lane's pool so far is a new one."""
        self._credit += self._wanted
        left, used = self.batch_size, np.zeros_like(self.pools)
        had = self.pools.copy()
        chosen = []
        while left:
            lane = self._most_due(left, used, had)
            if used[lane] < had[lane]:
                chunk = int((self._next[lane] + used[lane]) % had[lane])
                used[lane] += 1
                self._advanced[lane] += self.sizes[lane]
            else:
                chunk = int(self.pools[lane])
                self.pools[lane] += 1
                self._new[lane] += self.sizes[lane]
            self._credit[lane] -= self.sizes[lane]
            left -= int(self.sizes[lane])
            chosen.append((lane, chunk))
        self._next = np.where(had > 0, (self._next + used) % np.maximum(had, 1), 0)
        return sorted(chosen)

    def _most_due(self, left: int, used: np.ndarray, had: np.ndarray) -> int:
        """The lane with the most credit among those whose chunk fits; a lane gets a new chunk only when it is well
        behind or nothing else is to be had.  Lanes that have none yet come first: what compiles does so in the first
        steps."""
        fits = (self.sizes <= left) & (self._wanted > 0)
        if (fits & (self.pools == 0)).any():
            fits &= self.pools == 0
        waiting = fits & (used < had)
        grows = fits & (self._credit >= 2 * self.sizes)
        allowed = waiting | grows if (waiting | grows).any() else fits
        return int(np.where(allowed, self._credit, -np.inf).argmax())

    def ask(self) -> None:
        """Notes what has been advanced up to now: the next `report` is about this moment."""
        self._reported = np.stack((self._advanced, self._new))

    def report(self, taken: Sequence[int]) -> None:
        """How many examples each lane had taken in all when `ask` was called."""
        now = np.concatenate((np.asarray(taken, dtype=np.int64)[None], self._reported))
        takes, advanced, new = now - self._known
        self._known = now
        self._window = MEMORY * self._window + np.stack((takes - new, advanced))
        # A slot takes an example at least every `most_steps`; what has hardly been advanced yet is taken to do just so.
        prior = self.sizes.astype(np.float64)
        rate = (self._window[0] + prior / self.most_steps) / (self._window[1] + prior)
        rate = np.clip(rate, 1 / self.most_steps, 1.0)
        behind = self.shares * now[0].sum() - now[0]
        scale = 4 * self.sizes * np.maximum(self.pools, 1)
        correction = np.clip(behind / scale, -LARGEST_CORRECTION, LARGEST_CORRECTION)
        weight = self.shares / rate * (1 + correction)
        self._wanted = self.batch_size * weight / weight.sum()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that `turn` depends on."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, np.array(state[name]))


_STATE = ("pools", "_next", "_credit", "_wanted", "_advanced", "_new", "_reported", "_known", "_window")
