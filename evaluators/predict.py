"""Predicts examples of a split, all ranks together, the un-augmented ones first, and stops whenever it is told to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dataset.batches import Batch, EvalBatches
from dataset.prefetch import prefetch
from dataset.storage import Split
from evaluators.predictions import Predictions, Trace
from models.recursion import Latents
from training.state import TrainState
from training.step import to_slots
from utils import collectives, distributed
from utils.agreement import Agreement
from utils.progress import Progress

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Examples int64 [N], their predicted tokens uint8 [N, C], halting logits float32 [N], after which step int32 [N]."""

Recent = deque[tuple[Tensor, Tensor]]
"""Tokens uint8 [B, C] and halting logits [B] of all slots after each of the last steps, on the device."""

Traced = tuple[np.ndarray, np.ndarray]
"""Examples int64 [N] and their tokens after each step uint8 [N, steps, C]."""

REPORTS = 10
"""How often the predictions so far are handed out while those of the augmentations are made."""


def predict(state: TrainState, split: Split, batch_size: int, use_ema: bool = True) -> Predictions | None:
    """Predictions of all examples of `split`: on rank 0 in the split's order, None elsewhere.  Collective."""
    return deque(predict_in_rounds(state, split, batch_size, use_ema), maxlen=1)[0]


@torch.inference_mode()
def seconds_per_batch(
    state: TrainState, split: Split, batch_size: int, max_steps: int | None = None
) -> tuple[float, float]:
    """How long a batch takes, and how much longer the first one, which compiles.  The slowest rank's."""
    batches = EvalBatches([split], batch_size, distributed.rank(), distributed.world_size())
    examples, batch = next(iter(batches))
    seconds: list[float] = []
    for _ in range(2):
        started = time.monotonic()
        _Together(state, max_steps or state.config.arch.halt_max_steps, False).run(examples, batch)
        seconds.append(time.monotonic() - started)
    first, second = (max(times) for times in zip(*distributed.all_gather_object(seconds), strict=True))
    return second, max(0.0, first - second)


def in_rounds(split: Split) -> tuple[np.ndarray, int]:
    """All examples, those of the un-augmented puzzles first, then of the first augmentation of each group, and so on:
    int64 [N], and how many the first round has."""
    starts = np.asarray(split.puzzle_indices, dtype=np.int64)
    rounds = np.repeat(split.rounds(), starts[1:] - starts[:-1])
    return np.argsort(rounds, kind="stable"), int((rounds == 0).sum())


@torch.inference_mode()
def predict_in_rounds(
    state: TrainState,
    split: Split,
    batch_size: int,
    use_ema: bool = True,
    *,
    until: float | None = None,
    early_exit: Literal[False, "halt"] | int = False,
    max_steps: int | None = None,
    vote_steps: int = 1,
    traced: list[Traced] | None = None,
) -> Iterator[Predictions | None]:
    """Predictions so far: after the un-augmented examples, a few times after that, and at the end.

    Args:
        batch_size: examples per step over all ranks.
        use_ema: predict with the averaged weights where there are any.
        until: `time.monotonic()` at which to stop, as rank 0's clock says; None predicts everything.
        early_exit: an example takes no more steps from the first at which the network would halt ("halt"), or after
            so many equal answers in a row, and the next one takes its place.  False: every example takes all steps,
            as published.
        max_steps: steps of an example at most; None for `arch.halt_max_steps`.
        vote_steps: of each example its answers after so many of its last steps are predictions.
        traced: gets what this rank's un-augmented examples look like after each step, unless they exit early.

    Yields:
        on rank 0 the predictions in the split's order, None elsewhere.  Collective.
    """
    order, first_round = in_rounds(split)
    averaged = state.ema.applied() if use_ema and state.ema is not None else nullcontext()
    batches = EvalBatches([split], batch_size, distributed.rank(), distributed.world_size(), order)
    steps = max_steps or state.config.arch.halt_max_steps
    reports = {
        -(-first_round // batches.stride),
        *(len(batches) * i // REPORTS for i in range(1, REPORTS)),
        len(batches),
    }
    clock, agreement, collected = _Clock(until), Agreement(every=1), _Collected(split)
    with averaged, Progress(len(batches), "predict", unit="batch", items_per_step=batch_size) as progress:
        runner = (
            _Refilled(state, steps, use_ema, vote_steps, early_exit)
            if early_exit
            else _Together(state, steps, use_ema, vote_steps)
        )
        for done, (examples, batch) in enumerate(prefetch(iter(batches)), start=1):
            in_first_round = (done - 1) * batches.stride < first_round
            collected.add(runner.run(examples, batch, traced if in_first_round else None))
            progress.update(1)
            stop = (agreement.offer(int(clock.is_up())) or (0,))[0]
            if done == len(batches) or stop:
                collected.add(runner.finish())
            if done in reports or stop:
                yield collected.gather()
                clock.restart()  # what is done with a report is not a batch's time
            if stop:
                break
        agreement.close()
        if not len(batches):
            yield collected.gather()


def gather_trace(traced: list[Traced], split: Split) -> Trace | None:
    """The traces of the un-augmented examples of all ranks, on rank 0; None elsewhere or if there are none.
    Collective."""
    gathered = collectives.gather_objects_to_main(traced)
    parts = [part for rank in gathered or [] for part in rank]
    if not parts:
        return None
    examples, tokens = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
    keep = split.rounds()[puzzle] == 0
    index = (examples - split.puzzle_indices[puzzle]).astype(np.int32)
    return Trace(tokens[keep], np.asarray(split.puzzle_identifiers[puzzle], dtype=np.int32)[keep], index[keep])


class _Clock:
    """Whether there is no time for another batch as long as the longest so far, on rank 0."""

    def __init__(self, until: float | None) -> None:
        self._until, self._longest, self._before = until, 0.0, time.monotonic()

    def restart(self) -> None:
        self._before = time.monotonic()

    def is_up(self) -> bool:
        now = time.monotonic()
        self._longest = max(self._longest, now - self._before)
        self._before = now
        # Two batches: the ranks learn of it one batch later.
        return self._until is not None and distributed.is_main() and now + 2 * self._longest > self._until


class _Collected:
    """Gathers what was found to rank 0, each time only what is new."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._new: list[Found] = []
        self._all: list[Found] = []

    def add(self, found: Found | None) -> None:
        if found is not None and len(found[0]):
            self._new.append(found)

    def gather(self) -> Predictions | None:
        gathered = collectives.gather_objects_to_main(self._new)
        self._new = []
        if gathered is None:
            return None
        self._all += [found for rank in gathered for found in rank]
        split = self._split
        if not self._all:
            return Predictions.empty(split.metadata.seq_len)
        examples, tokens, q_halt, steps = (np.concatenate(parts) for parts in zip(*self._all, strict=True))
        order = np.lexsort((steps, examples))  # answers of one example are much alike: side by side they compress
        examples = examples[order]
        puzzle = np.searchsorted(split.puzzle_indices, examples, side="right") - 1
        return Predictions(
            tokens=tokens[order],
            q_halt=q_halt[order],
            puzzle_identifiers=np.asarray(split.puzzle_identifiers[puzzle], dtype=np.int32),
            test_index=(examples - split.puzzle_indices[puzzle]).astype(np.int32),
            steps=steps[order],
        )


def _initial(state: TrainState, slots: int, cells: int) -> Latents:
    empty = state.network.empty_latents(slots, cells, state.device)
    return tuple(init.expand_as(z).clone() for init, z in zip(state.network.initial_latents(), empty, strict=True))


def _rows(state: TrainState, identifiers: Tensor, use_ema: bool) -> Tensor | None:
    if state.table is None:
        return None
    return state.table.averaged(identifiers) if use_ema else state.table.weights[identifiers.to(torch.int64)]


class _Together:
    """Every example of a batch takes every step; nothing is fetched before the last."""

    def __init__(self, state: TrainState, steps: int, use_ema: bool, vote_steps: int = 1) -> None:
        self.state, self.steps, self.use_ema, self.vote_steps = state, steps, use_ema, vote_steps

    def run(self, examples: np.ndarray, batch: Batch, traced: list[Traced] | None = None) -> Found:
        slots = to_slots(batch, self.state.device)
        latents = _initial(self.state, *slots.inputs.shape)
        rows = _rows(self.state, slots.puzzle_identifiers, self.use_ema)
        each: list[Tensor] = []
        recent: Recent = deque(maxlen=self.vote_steps)
        for _ in range(self.steps):
            latents, tokens, q_halt, _ = self.state.predict_step(latents, slots.inputs, rows)
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
        self, state: TrainState, steps: int, use_ema: bool, vote_steps: int, leave_at: Literal["halt"] | int
    ) -> None:
        self.state, self.steps, self.use_ema, self.leave_at = state, steps, use_ema, leave_at
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
        latents, tokens, q_halt, halts = self.state.predict_step(self._latents, self._inputs, rows)
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
