"""Measures an evaluation beside what its network takes alone: ARC-AGI-2's 172 test inputs.

A few augmentations are evaluated, with everything that `eval_arc_k10.py` does after its training.  Then many are, by a
stand-in for the network that takes no time, which shows how long the rest takes.  Together they give the evaluation of
many, which would take a CPU hours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import timing
from dataset.canvas import Canvas
from dataset.encoding import PAD
from dataset.sampling.joined import Batch
from dataset.storage import open_split
from evaluators.evaluation import Evaluation, open_test_set
from evaluators.inference.canvas_choice import CanvasFallback
from evaluators.inference.engine import PredictionOptions, open_batching
from evaluators.inference.predictions import PREDICTIONS, Predictions
from evaluators.scores import evaluation_folder
from models.act import PredictStep
from training.config import EvalConfig
from training.data import open_training_data
from training.prepare.prepare import prepare
from training.state import TrainState


class Scale(NamedTuple):
    """width, H_cycles, L_cycles, most ACT steps, examples at once; augmentations of the two evaluations (few,
    many)."""

    D: int
    H: int
    L: int
    steps: int
    B: int
    few: int
    many: int


DEMO = Scale(128, 1, 2, 4, 64, 2, 100)
"""The demonstration's network on canvases of 30 x 30, with more ACT steps, of which early exit can save some."""

PUBLISHED = Scale(512, 3, 4, 16, 768, 20, 100)

Way = Literal["static", "early exit", "fitted"]

WAYS: tuple[Way, ...] = ("static", "early exit", "fitted")

SIDES = (1 / 2, 3 / 4, 1)
"""Of the canvases to choose from, in terms of the whole one.  They are three, since each has to be compiled."""


def settings_of(way: Way, whole: Canvas) -> dict[str, Any]:
    """Returns the settings of one way to predict.

    Args:
        whole: the data set's canvas.
    """
    if way == "fitted":
        return {"canvases": [[int(side * whole.height), int(side * whole.width)] for side in SIDES]}
    return {"early_exit": "halt"} if way == "early exit" else {}


class Answering(torch.nn.Module):
    """A prediction step that answers each example by its input, and halts each after a number of steps of its own.

    An untrained network neither closes its grids nor halts.  This one computes as much as a trained one.

    Args:
        step: what computes.  most: no example takes more steps.
        computes: whether it computes at every call; False: once for each number of cells.

    calls: how often each number of cells was computed.  last: the arguments of its last call.
    """

    def __init__(self, step: PredictStep, most: int, computes: bool) -> None:
        super().__init__()
        self._step, self._most, self._computes = step, most, computes
        self.network = step.network
        self.calls: Counter[int] = Counter()
        self.last: dict[int, tuple[Any, ...]] = {}
        self._taken: dict[int, tuple[Tensor, Tensor]] = {}
        self._results: dict[int, tuple[Any, ...]] = {}

    def forward(self, latents: Any, inputs: Tensor, *more: Any) -> tuple[Any, ...]:
        cells = inputs.shape[1]
        self.calls[cells] += 1
        self.last[cells] = (latents, inputs, *more)
        if self._computes or cells not in self._results:
            self._results[cells] = self._step(latents, inputs, *more)
        found, _, _, _, logits = self._results[cells]
        halts = self._halt(inputs)
        return found, inputs.to(torch.uint8), halts.to(torch.float32), halts, logits

    def _halt(self, inputs: Tensor) -> Tensor:
        """Returns which slots end: each example after 1 to `most` steps, by what is in it."""
        weights = torch.arange(1, inputs.shape[1] + 1, device=inputs.device) % 251
        key = (inputs.to(torch.int64) * weights).sum(-1)
        before, taken = self._taken.get(inputs.shape[1], (torch.full_like(key, -1), torch.zeros_like(key)))
        taken = torch.where((key == before) & (taken < self._most), taken, 0) + 1
        halts = taken >= 1 + key % self._most
        self._taken[inputs.shape[1]] = key, torch.where(halts, 0, taken)
        return halts


def build(folder: Path, augmentations: int) -> None:
    """Builds the evaluation tasks of ARC-AGI-2 with so many augmentations each."""
    command = [sys.executable, "build_dataset.py", "--subsets", "evaluation", "--test-set-name", "evaluation"]
    command += ["--num-aug", str(augmentations), "--output-dir", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


class EvaluationRun(NamedTuple):
    """An evaluation that gave N answers.

    seconds: of all of it.  cells, steps: of each answer, int [N].  calls: of the network, on each number of cells.
    alone: the seconds of a call; empty where nothing was computed.
    """

    seconds: float
    cells: np.ndarray
    steps: np.ndarray
    calls: Mapping[int, int]
    alone: Mapping[int, float]


def config_of(scale: Scale, data: Path, way: Way, augmentations: int, compiled: bool, folder: Path) -> EvalConfig:
    arch = {
        "hidden_size": scale.D,
        "num_heads": scale.D // 32 if scale.D < 512 else 8,
        "H_cycles": scale.H,
        "L_cycles": scale.L,
        "puzzle_emb_ndim": scale.D,
        "puzzle_emb_len": 2 if scale.D < 512 else 16,
        "halt_max_steps": scale.steps,
    }
    settings = {
        "data_paths": [str(data)],
        "checkpoint_path": str(folder),
        "arch": arch,
        "global_batch_size": scale.B,
        "vote_augmentations": augmentations,
        "train_augmentations": 1,
        "compile": compiled,
        "ema": True,
        **settings_of(way, open_split(data, "test").metadata.canvas),
    }
    return EvalConfig(**settings)


def evaluate(config: EvalConfig, device: torch.device, folder: Path, computes: bool) -> EvaluationRun:
    """Evaluates fresh weights once, everything compiled before."""
    evaluation = Evaluation(config, folder, {"data": [], "puzzles": ""})
    shape = open_training_data(config, [evaluation.training_split()]).shape
    state = prepare(TrainState(config, shape, device), bool(config.compile))
    real = state.predict_step
    answering = Answering(real, config.arch.halt_max_steps, computes)
    state.predict_step = answering  # type: ignore[assignment]
    canvases = shape.canvases or (shape.whole,)
    _warm_up(state, canvases, PredictionOptions.from_config(config))
    answering.calls.clear()
    started = timing.clock()
    result = evaluation.run(state)
    assert result is not None, "nothing was evaluated"
    result.write_page(folder)
    timing.synchronise(device)
    seconds = timing.clock() - started
    with torch.inference_mode():
        alone = {
            cells: timing.seconds(lambda: real(*answering.last[cells]), device, least=3, budget=2.0)  # noqa: B023
            for cells in (answering.calls if computes else ())
        }
    answers = Predictions.load(evaluation_folder(folder, state.step) / PREDICTIONS)
    sizes = open_test_set(config).sizes
    fallback = CanvasFallback(canvases) if sizes is None else CanvasFallback.from_sizes(canvases, sizes)
    levels = fallback.first_levels(np.arange(len(answers)))
    cells = np.array([canvas.cells for canvas in canvases])[levels]
    return EvaluationRun(seconds, cells, answers.steps, dict(answering.calls), alone)


@torch.inference_mode()
def _warm_up(state: TrainState, canvases: Sequence[Canvas], options: PredictionOptions) -> None:
    """Predicts on every canvas once, so that all is compiled."""
    for canvas in canvases:
        cells = np.full((options.batch_size, canvas.cells), PAD, dtype=np.uint8)
        batch = Batch(cells, cells, np.ones(len(cells), dtype=np.int32))
        batching = open_batching(state, canvas, replace(options, max_steps=1))
        batching.predict(np.arange(len(cells)), batch)
        batching.finish()


def network_seconds(run: EvaluationRun, alone: Mapping[int, float], slots: int) -> float:
    """Returns what the steps of all answers take in full batches."""
    return sum(int(run.steps[run.cells == cells].sum()) / slots * seconds for cells, seconds in alone.items())


def measure(
    device: torch.device, scale: Scale | None = None, compiled: bool = True, data: Path | None = None
) -> dict[str, Any]:
    """Measures each way to predict.

    Args:
        data: a data set with ARC tasks; None builds ARC-AGI-2's evaluation tasks.
    """
    scale = scale or (PUBLISHED if device.type == "cuda" else DEMO)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if data is None:
            data = Path(scratch, "data")
            build(data, scale.many)
        seconds: dict[str, float] = {}
        steps: dict[str, int] = {}
        for way in WAYS:
            torch._dynamo.reset()

            def run(augmentations: int, computes: bool) -> EvaluationRun:
                folder = Path(scratch, f"{way}-{augmentations}")  # noqa: B023
                config = config_of(scale, data, way, augmentations, compiled, folder)  # noqa: B023
                return evaluate(config, device, folder, computes)

            few, many = run(scale.few, True), run(scale.many, False)
            seconds[way], steps[way] = few.seconds, int(few.steps.sum())
            alone = network_seconds(few, few.alone, scale.B)
            # What the network would have computed for many, idle slots and repeats included.
            computed = sum(calls * few.alone[cells] for cells, calls in many.calls.items())
            share = network_seconds(many, few.alone, scale.B) / (computed + many.seconds)
            found |= {
                f"{way}: {len(few.steps)} answers, s": few.seconds,
                f"{way}: the network alone, s": alone,
                f"{way}: example-steps/s of the network alone": few.steps.sum() / alone,
                f"{way}: share of the network alone, %": 100 * alone / few.seconds,
                f"{way}: {len(many.steps)} answers without the network, s": many.seconds,
                f"{way}: share of the network alone at {len(many.steps)} answers, %": 100 * share,
            }
        found["early exit / static, steps"] = steps["early exit"] / steps["static"]
        found["early exit / static, seconds"] = seconds["early exit"] / seconds["static"]
    return found
