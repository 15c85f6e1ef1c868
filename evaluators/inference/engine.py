"""Slots that predict: batches of examples of one canvas in, answers out."""

from __future__ import annotations

from collections import deque
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from dataset.canvas import Canvas
from dataset.sampling.joined import Batch
from models.recursion import Latents
from training.state import TrainState
from training.step import to_slots

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Examples int64 [N], their predicted tokens uint8 [N, C], halting logits float32 [N], after which step int32 [N]."""

Recent = deque[tuple[Tensor, Tensor]]
"""Tokens uint8 [B, C] and halting logits [B] of all slots after each of the last steps, on the device."""

Traced = tuple[np.ndarray, np.ndarray]
"""Examples int64 [N] and their tokens after each step uint8 [N, steps, C]."""

EarlyExit = Literal[False, "halt"] | int
"""When an example takes no more steps: after all of them, when the network would halt, or after so many equal answers
in a row."""


class Runner(Protocol):
    """What predicts batches of one canvas."""

    def run(self, examples: np.ndarray, batch: Batch, traced: list[Traced] | None = None) -> Found | None:
        """Answers that are now known, of this batch or of earlier ones."""

    def finish(self) -> Found | None:
        """The answers that are still missing."""


def runner_for(
    state: TrainState, canvas: Canvas, steps: int, use_ema: bool, vote_steps: int = 1, early_exit: EarlyExit = False
) -> Runner:
    """
    Args:
        steps: that an example takes at most.  use_ema: use the averaged puzzle rows where there are any.
        vote_steps: of each example its answers after so many of its last steps are predictions.
    """
    positions = state.network.positions_of(*canvas, device=state.device)
    if early_exit:
        return _Refilled(state, positions, steps, use_ema, vote_steps, early_exit)
    return _Together(state, positions, steps, use_ema, vote_steps)


def _initial(state: TrainState, slots: int, cells: int) -> Latents:
    empty = state.network.empty_latents(slots, cells, state.device)
    return tuple(init.expand_as(z).clone() for init, z in zip(state.network.initial_latents(), empty, strict=True))


def _rows(state: TrainState, identifiers: Tensor, use_ema: bool) -> Tensor | None:
    if state.table is None:
        return None
    return state.table.gather_averaged(identifiers) if use_ema else state.table.weights[identifiers.to(torch.int64)]


class _Together:
    """Every example of a batch takes every step; nothing is fetched before the last."""

    def __init__(self, state: TrainState, positions: Tensor, steps: int, use_ema: bool, vote_steps: int) -> None:
        self.state, self.positions, self.steps = state, positions, steps
        self.use_ema, self.vote_steps = use_ema, vote_steps

    def run(self, examples: np.ndarray, batch: Batch, traced: list[Traced] | None = None) -> Found:
        slots = to_slots(batch, self.state.device)
        latents = _initial(self.state, *slots.inputs.shape)
        rows = _rows(self.state, slots.puzzle_identifiers, self.use_ema)
        each: list[Tensor] = []
        recent: Recent = deque(maxlen=self.vote_steps)
        for _ in range(self.steps):
            latents, tokens, q_halt, _ = self.state.predict_step(latents, slots.inputs, rows, self.positions)
            recent.append((tokens.clone(), q_halt.clone()))
            if traced is not None:
                each.append(recent[-1][0])
        keep = examples >= 0
        if traced is not None:
            traced.append((examples[keep], torch.stack(each, 1).cpu().numpy()[keep]))
        return _answers(recent, np.flatnonzero(keep), examples, np.full(len(keep), self.steps, dtype=np.int32))

    def finish(self) -> None:
        return None


class _Refilled:
    """A slot whose example leaves takes the next one, so that the batch stays full."""

    def __init__(
        self,
        state: TrainState,
        positions: Tensor,
        steps: int,
        use_ema: bool,
        vote_steps: int,
        leave_at: Literal["halt"] | int,
    ) -> None:
        self.state, self.positions, self.steps = state, positions, steps
        self.use_ema, self.leave_at = use_ema, leave_at
        self._recent: Recent = deque(maxlen=vote_steps)
        self._examples = np.empty(0, dtype=np.int64)

    def run(self, examples: np.ndarray, batch: Batch, traced: list[Traced] | None = None) -> Found | None:
        """Works until every example of the batch has a slot; those that are not through keep theirs for the next."""
        if not len(self._examples):
            self._examples = np.full(len(examples), -1, dtype=np.int64)
            slots = to_slots(batch, self.state.device)
            self._inputs, self._identifiers = torch.zeros_like(slots.inputs), torch.zeros_like(slots.puzzle_identifiers)
            self._latents = _initial(self.state, *slots.inputs.shape)
            self._fresh = _initial(self.state, 1, slots.inputs.shape[1])
            self._taken = np.zeros(len(examples), dtype=np.int32)
            self._before = torch.zeros_like(slots.inputs)
            self._equal = torch.zeros(len(examples), dtype=torch.int32, device=self.state.device)
        waiting = np.flatnonzero(examples >= 0)
        found: list[Found] = []
        while len(waiting):
            free = np.flatnonzero(self._examples < 0)
            now, waiting = waiting[: len(free)], waiting[len(free) :]
            self._fill(free[: len(now)], examples[now], batch, now)
            if len(waiting):
                found.append(self._step())
        return _joined(found)

    def finish(self) -> Found | None:
        found: list[Found] = []
        while len(self._examples) and (self._examples >= 0).any():
            found.append(self._step())
        return _joined(found)

    def _fill(self, places: np.ndarray, examples: np.ndarray, batch: Batch, rows: np.ndarray) -> None:
        at = torch.from_numpy(places).to(self.state.device)
        chosen = Batch(batch.inputs[rows], batch.labels[rows], batch.puzzle_identifiers[rows])
        slots = to_slots(chosen, self.state.device)
        self._inputs[at], self._identifiers[at] = slots.inputs, slots.puzzle_identifiers
        for z, fresh in zip(self._latents, self._fresh, strict=True):
            z[at] = fresh
        self._equal[at] = 0
        self._examples[places], self._taken[places] = examples, 0

    def _step(self) -> Found:
        rows = _rows(self.state, self._identifiers, self.use_ema)
        latents, tokens, q_halt, halts = self.state.predict_step(self._latents, self._inputs, rows, self.positions)
        self._latents = tuple(z.clone() for z in latents)
        self._taken += 1
        self._recent.append((tokens.clone(), q_halt.clone()))
        leaves = (halts if self.leave_at == "halt" else self._stays_equal(tokens) >= self.leave_at).cpu().numpy()
        out = np.flatnonzero((self._examples >= 0) & (leaves | (self._taken >= self.steps)))
        found = _answers(self._recent, out, self._examples, self._taken)
        self._examples[out] = -1
        return found

    def _stays_equal(self, tokens: Tensor) -> Tensor:
        """How many times in a row each slot's example has now had the same answer, int32 [B]."""
        same = (tokens == self._before).all(-1) & (self._equal > 0)
        self._equal = torch.where(same, self._equal + 1, 1)
        self._before = tokens.clone()
        return self._equal


def _answers(recent: Recent, places: np.ndarray, examples: np.ndarray, taken: np.ndarray) -> Found:
    """What some slots answered after each of the last steps, as far as these were their examples' own.

    Args:
        places: int [P], the slots.  examples, taken: of every slot, [B].
    """
    found: list[Found] = []
    for back, (tokens, q_halt) in enumerate(reversed(recent)):
        own = places[taken[places] > back]
        at = torch.from_numpy(own).to(tokens.device)
        found.append((examples[own], tokens[at].cpu().numpy(), q_halt[at].cpu().numpy(), taken[own] - back))
    joined = _joined(found)
    assert joined is not None, "no step has been made"
    return joined


def _joined(found: list[Found]) -> Found | None:
    if not found:
        return None
    examples, tokens, q_halt, steps = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return examples, tokens, q_halt, steps
