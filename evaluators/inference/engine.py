"""Runs the network on batches of examples of one canvas: static batching and continuous batching."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dataset.canvas import Canvas
from dataset.sampling.joined import Batch
from models import draws
from models.disturbance import Disturbance
from models.losses import mean_nll
from models.recursion import Latents
from training.config import EvalConfig
from training.state import TrainState
from training.step import to_device, to_slots

EarlyExit = Literal[False, "halt"] | int
"""When an example takes no more steps: after all steps (False), when the network would halt ("halt"), or after so many
equal answers in a row."""


@dataclass(frozen=True)
class PredictionOptions:
    """How a split is predicted.

    batch_size: examples per step over all ranks.
    use_ema: predict with the averaged weights if there are any.
    early_exit: see `EarlyExit`; the next example takes the place of one that exits.  False is as published.
    max_steps: the most ACT steps of an example; None for `arch.halt_max_steps`.
    vote_steps: each example's answers after so many of its last steps are predictions.
    trace: keep what un-augmented examples look like after each step, unless they exit early.
    noise, random_starts: how latents are disturbed (`models.disturbance.Disturbance`); by default they are not.
    """

    batch_size: int
    use_ema: bool = True
    early_exit: EarlyExit = False
    max_steps: int | None = None
    vote_steps: int = 1
    trace: bool = False
    noise: float = 0.0
    random_starts: bool = False

    @classmethod
    def from_config(cls, config: EvalConfig, trace: bool = False) -> PredictionOptions:
        """Returns how a run's settings ask for predictions."""
        return cls(
            batch_size=config.eval_batch_size or config.global_batch_size,
            use_ema=config.eval_ema,
            early_exit=config.early_exit,
            max_steps=config.eval_halt_max_steps,
            vote_steps=config.vote_steps,
            trace=trace,
            noise=config.eval_latent_noise,
            random_starts=config.eval_random_starts,
        )


class PredictionBatch(NamedTuple):
    """Answers on canvases of one size; an example has several rows if several of its steps vote.

    examples: int64 [N].  tokens: uint8 [N, C].  q_halt: float32 [N], halting logits.
    steps: int32 [N], after how many ACT steps.  lm_loss: float32 [N], mean negative log-likelihood per cell of the true
    output; not a number where that is not known, and for all steps of an example but its last.
    """

    examples: np.ndarray
    tokens: np.ndarray
    q_halt: np.ndarray
    steps: np.ndarray
    lm_loss: np.ndarray


class TraceBatch(NamedTuple):
    """Examples int64 [N] and their tokens after each step uint8 [N, steps, C]."""

    examples: np.ndarray
    tokens: np.ndarray


LastSteps = deque[tuple[Tensor, Tensor]]
"""Tokens uint8 [B, C] and halting logits [B] of all slots after each of the last steps, on the device."""


ReadLabels = Callable[[np.ndarray], np.ndarray]
"""Returns the labels of some examples on the canvas, [N, C]; what is larger than the canvas is cut off."""


class Batching(Protocol):
    """Predicts batches of one canvas."""

    traces: list[TraceBatch]
    """The traces of all batches until now; always empty unless the options ask for them."""

    def predict(self, examples: np.ndarray, batch: Batch) -> PredictionBatch | None:
        """Returns the answers that are now known, of this batch or of earlier ones; None if there are none yet.

        Args:
            examples: int64 [B], -1 for a blank row.
        """

    def finish(self) -> PredictionBatch | None:
        """Returns the answers that are still missing, if there are any."""


def open_batching(
    state: TrainState, canvas: Canvas, options: PredictionOptions, read_labels: ReadLabels | None = None
) -> Batching:
    """Returns what predicts batches on a canvas: continuous batching if examples may exit early."""
    kind = ContinuousBatching if options.early_exit else StaticBatching
    return kind(state, canvas, options, read_labels)


def _max_steps(state: TrainState, options: PredictionOptions) -> int:
    return options.max_steps or state.config.arch.halt_max_steps


def _initial_latents(state: TrainState, slots: int, cells: int) -> Latents:
    empty = state.network.empty_latents(slots, cells, state.device)
    return tuple(init.expand_as(z).clone() for init, z in zip(state.network.initial_latents(), empty, strict=True))


def _step_and_noise(
    state: TrainState, options: PredictionOptions, examples: np.ndarray, taken: np.ndarray
) -> tuple[Tensor, Disturbance | None] | tuple[()]:
    """Returns the last arguments of a prediction step, `steps` and `disturbance`; none where neither is needed.

    What disturbs an example follows from the seed and the example, so neither batches nor ranks change it.

    Args:
        examples, taken: of each slot, int [B].
    """
    is_disturbed = options.noise > 0 or options.random_starts
    if not (is_disturbed or state.config.arch.step_embedding):
        return ()
    steps = to_device(taken.astype(np.int32), state.device)
    if not is_disturbed:
        return steps, None
    seed = torch.full((len(examples),), state.config.seed % draws.KEYS, device=state.device)
    keys = draws.derive(seed, draws.PREDICTIONS, to_device(examples, state.device))
    return steps, Disturbance(keys, options.noise, options.random_starts)


class StaticBatching:
    """Gives every example of a batch every step; nothing is fetched from the device before the last step."""

    def __init__(
        self, state: TrainState, canvas: Canvas, options: PredictionOptions, read_labels: ReadLabels | None = None
    ) -> None:
        self.state, self.options, self._read_labels = state, options, read_labels
        self.positions, self.width = state.network.positions_of(*canvas, device=state.device), canvas.width
        self.steps = _max_steps(state, options)
        self.traces: list[TraceBatch] = []

    def predict(self, examples: np.ndarray, batch: Batch) -> PredictionBatch:
        slots = to_slots(batch, self.state.device)
        latents = _initial_latents(self.state, *slots.inputs.shape)
        rows = self.state.tables.gather_averaged(slots, self.options.use_ema)
        every_step: list[Tensor] = []
        last_steps: LastSteps = deque(maxlen=self.options.vote_steps)
        for step in range(self.steps):
            more = _step_and_noise(self.state, self.options, examples, np.full(len(examples), step))
            found = self.state.predict_step(latents, slots.inputs, rows, self.positions, self.width, *more)
            latents, tokens, q_halt, _, logits = found
            last_steps.append((tokens.clone(), q_halt.clone()))
            if self.options.trace:
                every_step.append(last_steps[-1][0])
        is_used = examples >= 0
        if self.options.trace:
            self.traces.append(TraceBatch(examples[is_used], torch.stack(every_step, 1).cpu().numpy()[is_used]))
        taken = np.full(len(examples), self.steps, dtype=np.int32)
        losses = _Losses(self.state, logits, self._read_labels)
        return _read_answers(last_steps, np.flatnonzero(is_used), examples, taken, losses)

    def finish(self) -> None:
        return None


class ContinuousBatching:
    """Gives the slot of an example that exits to the next example, so that the batch stays full."""

    def __init__(
        self, state: TrainState, canvas: Canvas, options: PredictionOptions, read_labels: ReadLabels | None = None
    ) -> None:
        self.state, self.options, self._read_labels = state, options, read_labels
        self.positions, self.width = state.network.positions_of(*canvas, device=state.device), canvas.width
        self.steps = _max_steps(state, options)
        self.traces: list[TraceBatch] = []
        self._last_steps: LastSteps = deque(maxlen=options.vote_steps)
        self._examples = np.empty(0, dtype=np.int64)  # of each slot, -1 where it is free

    def predict(self, examples: np.ndarray, batch: Batch) -> PredictionBatch | None:
        """Steps until every example of the batch has a slot; those that have not exited keep it for the next call."""
        if not len(self._examples):
            self._open_slots(batch)
        waiting = np.flatnonzero(examples >= 0)
        answers: list[PredictionBatch] = []
        while len(waiting):
            free = np.flatnonzero(self._examples < 0)
            entering, waiting = waiting[: len(free)], waiting[len(free) :]
            self._fill(free[: len(entering)], examples[entering], batch, entering)
            if len(waiting):
                answers.append(self._step())
        return _join(answers)

    def finish(self) -> PredictionBatch | None:
        answers: list[PredictionBatch] = []
        while (self._examples >= 0).any():
            answers.append(self._step())
        return _join(answers)

    def _open_slots(self, batch: Batch) -> None:
        """Makes as many slots as the batch has rows, all of them free."""
        slots = to_slots(batch, self.state.device)
        count, cells = slots.inputs.shape
        self._slots = slots.map(torch.clone)  # free slots compute too, so they need examples that make sense
        self._examples = np.full(count, -1, dtype=np.int64)
        self._taken = np.zeros(count, dtype=np.int32)
        self._latents = _initial_latents(self.state, count, cells)
        self._fresh = _initial_latents(self.state, 1, cells)
        self._previous = torch.zeros_like(slots.inputs)
        self._equal = torch.zeros(count, dtype=torch.int32, device=self.state.device)

    def _fill(self, free: np.ndarray, examples: np.ndarray, batch: Batch, rows: np.ndarray) -> None:
        """Puts rows of the batch, which are these examples, into free slots."""
        at = torch.from_numpy(free).to(self.state.device)
        chosen = to_slots(batch.take(rows), self.state.device)
        self._slots = self._slots.map(lambda old, new: old.index_copy(0, at, new), chosen)
        for z, fresh in zip(self._latents, self._fresh, strict=True):
            z[at] = fresh
        self._equal[at] = 0
        self._examples[free], self._taken[free] = examples, 0

    def _step(self) -> PredictionBatch:
        """Advances all slots by one step; returns the answers of the examples that exit."""
        rows = self.state.tables.gather_averaged(self._slots, self.options.use_ema)
        inputs = self._slots.inputs
        more = _step_and_noise(self.state, self.options, self._examples, self._taken)
        found = self.state.predict_step(self._latents, inputs, rows, self.positions, self.width, *more)
        latents, tokens, q_halt, halts, logits = found
        self._latents = tuple(z.clone() for z in latents)
        self._taken += 1
        self._last_steps.append((tokens.clone(), q_halt.clone()))
        exit_at = self.options.early_exit
        exits = (halts if exit_at == "halt" else self._count_equal(tokens) >= exit_at).cpu().numpy()
        leaving = np.flatnonzero((self._examples >= 0) & (exits | (self._taken >= self.steps)))
        losses = _Losses(self.state, logits, self._read_labels)
        answers = _read_answers(self._last_steps, leaving, self._examples, self._taken, losses)
        self._examples[leaving] = -1
        return answers

    def _count_equal(self, tokens: Tensor) -> Tensor:
        """Returns how many times in a row each slot's example has now had the same answer, int32 [B]."""
        same = (tokens == self._previous).all(-1) & (self._equal > 0)
        self._equal = torch.where(same, self._equal + 1, 1)
        self._previous = tokens.clone()
        return self._equal


@dataclass(frozen=True)
class _Losses:
    """The negative log-likelihoods of a step's answers, computed for those that are asked for.

    logits: of all slots, [B, C, V].
    """

    state: TrainState
    logits: Tensor
    read_labels: ReadLabels | None

    def of(self, slots: np.ndarray, examples: np.ndarray) -> Tensor:
        """Returns those of some slots and their examples, float32 [P] on the device; see `PredictionBatch.lm_loss`."""
        unknown = torch.full((len(slots),), torch.nan, device=self.logits.device)
        if self.read_labels is None or not len(slots):
            return unknown
        labels, ignored = self.read_labels(examples), self.state.act_step.ignore_label
        is_known = (labels != ignored).any(1)
        if not is_known.any():
            return unknown
        logits = self.logits[to_device(slots, self.logits.device)]
        nll = mean_nll(logits, to_device(labels, self.logits.device), self.state.config.arch.loss_type, ignored).to(
            torch.float32
        )
        return torch.where(to_device(is_known, self.logits.device), nll, unknown)


def _read_answers(
    last_steps: LastSteps, slots: np.ndarray, examples: np.ndarray, taken: np.ndarray, losses: _Losses
) -> PredictionBatch:
    """Fetches what some slots answered after each of the last steps that their examples have taken.

    Args:
        slots: int [P].
        examples, taken: the example of every slot and its number of steps, [B].
        losses: of the last step.
    """
    lm_loss = losses.of(slots, examples[slots])
    answers: list[PredictionBatch] = []
    for back, (tokens, q_halt) in enumerate(reversed(last_steps)):
        own = slots[taken[slots] > back]
        at = torch.from_numpy(own).to(tokens.device)
        answers.append(
            PredictionBatch(
                examples=examples[own],
                tokens=tokens[at].cpu().numpy(),
                q_halt=q_halt[at].cpu().numpy(),
                steps=taken[own] - back,
                lm_loss=np.full(len(own), np.nan, np.float32) if back else lm_loss.cpu().numpy(),
            )
        )
    joined = _join(answers)
    assert joined is not None, "no step has been made"
    return joined


def _join(batches: Sequence[PredictionBatch]) -> PredictionBatch | None:
    if not batches:
        return None
    return PredictionBatch(*(np.concatenate(column) for column in zip(*batches, strict=True)))
