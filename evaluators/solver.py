"""Solves puzzles in someone's own code:

    from evaluators.solver import Solver

    solver = Solver.load("FOLDER")                  # an exported network, or a checkpoint
    attempts = solver.predict(task)                 # task: a dictionary as in ARC's JSON files
    for attempt in attempts[0][:2]:                 # of the first test input, best first
        print(attempt.votes, attempt.grid)          # grid: uint8 [h, w]

A network knows a puzzle by its row of the puzzle table, and a new puzzle has none: so it starts from the mean of the
trained rows, and network and row learn from the puzzle's demonstrations, under augmentations, before they predict.  The
parts are those of `eval_arc_k10.py`: a data set (in a temporary folder), batches, `train_step`, `predict`, votes.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset import storage, tasks
from dataset.build import distinct_augmentations
from dataset.encoding import VOCAB_SIZE
from dataset.storage import PuzzleCatalog
from dataset.tasks import Task
from evaluators.inference.canvas_choice import Ladder
from evaluators.inference.engine import Traced
from evaluators.inference.gather import gather_trace
from evaluators.inference.predict import predict_in_rounds
from evaluators.report import page as report
from evaluators.voting import Candidate, Votes, count_votes
from training.buckets.data import open_training_data
from training.checkpoint import (
    NetworkConfig,
    Weights,
    initialise_network,
    initialise_rows,
    load_weights,
    network_config,
)
from training.config import EvalConfig, roles_of
from training.launch.overrides import validate
from training.prepare.prepare import prepare
from training.state import TrainState
from training.step import train_step
from utils import distributed
from utils.progress import Progress

AUGMENTATIONS = 64
STEPS = 200
BATCH = 32

ROLES = roles_of(EvalConfig)
SETTINGS = frozenset(name for name, roles in ROLES.items() if roles.solver != "refused")
"""Settings of `eval_arc_k10.py` that a puzzle is solved with; the others are about runs, data sets and files."""


@dataclass(frozen=True)
class Solution:
    """What was found for one puzzle.

    task: as ARC's JSON has it.  votes: ranked candidates per (name, test input).  steps: of each the un-augmented
    answer after each ACT step, as text (`evaluators.report.rows_of`).
    """

    name: str
    task: Mapping[str, Any]
    votes: Votes
    steps: Mapping[tuple[str, int], list[str]]

    @property
    def attempts(self) -> list[list[Candidate]]:
        """Per test input, in order, the candidates, best first; none where no prediction showed a grid."""
        return [self.votes.get((self.name, i), []) for i in range(len(self.task["test"]))]

    def described(self, attempts: int) -> dict[str, Any]:
        """What the report's page, and a picture, show of the puzzle."""
        return report.describe({self.name: self.task}, self.votes, self.steps, attempts)[0]


class Solver:
    """A network that solves one puzzle after the other, each from the same start.

    Args:
        weights: of an ARC network.
        network: its architecture and canvas.
        settings: of fine-tuning and prediction (`SETTINGS`), by the names that `eval_arc_k10.py` has for them.

    Raises:
        ValueError: if the network is not one for ARC's grids, or naming the setting that is wrong.
    """

    def __init__(self, weights: Weights, network: NetworkConfig, settings: Mapping[str, Any]) -> None:
        if network.tokens.vocab_size != VOCAB_SIZE or network.canvas.side is None:
            raise ValueError(
                f"{weights.source} is no network for ARC's grids ({network.tokens.vocab_size} tokens, "
                f"{network.canvas.seq_len} cells): name another one"
            )
        for name in sorted(settings.keys() - SETTINGS):
            if (roles := ROLES.get(name.split(".")[0])) is not None:  # another name is refused below, with its nearest
                remedy = f"use {roles.instead}" if roles.instead else "leave it out, or run eval_arc_k10.py"
                raise ValueError(f"{name} cannot be set for a single puzzle: {remedy}")
        self._weights, self._network = weights, network
        self._settings = self._defaults() | dict(settings)
        self._config(1, 0)  # refuses what is wrong before any puzzle is there
        self._device = distributed.setup(self._settings["device"])

    @classmethod
    def load(cls, path: str | Path, **settings: Any) -> Solver:
        """A solver with the weights at `path`.

        Args:
            path: a folder that `python -m training.export .. --format folder` has written, a checkpoint, or a run.
            settings: such as `device="cuda"`, `global_batch_size=64`, `lr=1e-4`, `compile=True`; by default the rates
                of the network's last training.

        Raises:
            ValueError: if there are no such weights, or a setting is wrong.
        """
        weights = load_weights(Path(path))
        return cls(weights, network_config(weights), settings)

    def predict(
        self, task: Mapping[str, Any], *, augmentations: int = AUGMENTATIONS, finetune_steps: int = STEPS, seed: int = 0
    ) -> list[list[Candidate]]:
        """Ranked attempts at every test input of one task.

        Args:
            task: `{"train": [{"input": grid, "output": grid}, ..], "test": [{"input": grid}, ..]}`; a grid is a list of
                rows, or an array [h, w], of colours 0 to 9.  Test outputs may be there; they are not looked at.
            augmentations: distinct ones to look for, besides the task itself, to learn from and to vote with.
            finetune_steps: optimizer steps on the demonstrations before prediction.
            seed: of augmentations and batches; on a CPU the same seed gives the same attempts.

        Returns:
            per test input, in order, `Candidate`s, best first: `grid` uint8 [h, w], `votes` (of `augmentations` + 1 at
            most) and `mean_halt`, from 0 to 1, how sure the network was on average that it was right.

        Raises:
            ValueError: naming what is wrong with the task, or that it is larger than the network's canvas.
        """
        found = self.solve(task, augmentations=augmentations, finetune_steps=finetune_steps, seed=seed)
        return found.attempts

    def solve(
        self,
        task: Mapping[str, Any],
        *,
        name: str = "puzzle",
        augmentations: int = AUGMENTATIONS,
        finetune_steps: int = STEPS,
        seed: int = 0,
    ) -> Solution:
        """`predict` with all that there is to show of it."""
        parsed = tasks.parse_task(name, "own", dict(task), name)
        side = self._network.canvas.side
        assert side is not None
        unsolved = replace(parsed, test=tuple((grid, None) for grid, _ in parsed.test))
        if unsolved.max_side > side:
            raise ValueError(
                f"{name} has a grid of {unsolved.max_side} cells in a row, the network's canvas is {side} x {side}: "
                "use a network that was trained on a larger one"
            )
        if augmentations < 0 or finetune_steps < 0 or seed < 0:
            raise ValueError("augmentations, finetune_steps and seed must not be negative")
        with tempfile.TemporaryDirectory(prefix="trm-puzzle-") as folder:
            data = Path(folder) / "data"
            _write(data, unsolved, augmentations, seed, side)
            votes, steps = _predict(self._tuned(data, finetune_steps, seed), data, {name: unsolved.to_json()})
        return Solution(name, parsed.to_json(), votes, steps)

    def _defaults(self) -> dict[str, Any]:
        """The rates of the network's last training, a small batch, no average and no compilation: for a few steps these
        two cost more than they give."""
        stages = self._weights.record.get("stages", [])
        told = stages[-1]["recipe"] if stages else {}
        recipe = {name: value for name, value in told.items() if name in ROLES and ROLES[name].solver == "inherited"}
        if told.get("canvases") is not None:
            recipe["canvases"] = "fitted"  # to the puzzle
        return {**recipe, "lr_min_ratio": 0.1, "global_batch_size": BATCH, "device": "auto", "compile": False}

    def _config(self, steps: int, seed: int) -> EvalConfig:
        arch = self._network.arch.model_dump()
        settings = {"lr_warmup_steps": min(20, steps // 5), **self._settings, "seed": seed}
        config = validate(
            {"arch": arch, "data_paths": ["a puzzle"], "epochs": 1, "eval_interval": None, **settings}, EvalConfig
        )
        # A visit is at least one example, so that so many visits of the one task fill the batches of all steps.
        return config.model_copy(update={"epochs": max(1, steps) * config.global_batch_size})

    def _tuned(self, data: Path, steps: int, seed: int) -> TrainState:
        """A train state with the network's weights and every row the mean of the trained ones, after `steps` steps on
        the demonstrations."""
        config = self._config(steps, seed)
        training = open_training_data(config, [storage.open_split(data, "train")])
        shape = replace(training.shape, row_stride=self._network.canvas.row_stride)
        state = prepare(TrainState(config, shape, self._device), config.should_compile(self._device))
        initialise_network(state.network, self._weights)
        has_rows = self._weights.row_summary() is not None
        initialise_rows(state, self._weights, config.puzzle_rows or ("mean" if has_rows else "zero"), None)
        if state.ema is not None:
            state.ema.reset()
        if steps:
            with (
                Progress(steps, "fine-tune", items_per_step=config.global_batch_size) as progress,
                closing(training.batches(state.carries, 0, 0)) as made,
            ):
                for batch in itertools.islice(made, steps):
                    train_step(state, batch, steps)
                    progress.update(1)
            state.guard.raise_if_bad()
        return state


def _write(data: Path, task: Task, augmentations: int, seed: int, side: int) -> None:
    """A data set of one task: its demonstrations to train on, its test inputs to predict."""
    storage.write(
        data,
        [task],
        {task.id},
        [distinct_augmentations.choose(task, augmentations, seed)],
        fmt="compact",
        side=side,
        seed=seed,
        identifiers_start=1,
        sources=["a puzzle"],
        settings={},
        counts={},
        task_keys={},
        progress=lambda done, total: None,
    )


def _predict(
    state: TrainState, data: Path, test_tasks: Mapping[str, Any]
) -> tuple[Votes, dict[tuple[str, int], list[str]]]:
    """Votes, and the un-augmented answers after each step."""
    config, split = state.config, storage.open_split(data, "test")
    assert isinstance(config, EvalConfig)
    catalog: PuzzleCatalog = storage.open_catalog(data)
    canvases = state.shape.canvases
    traced: list[Traced] = []
    *_, predictions = predict_in_rounds(
        state,
        split,
        config.eval_batch_size or config.global_batch_size,
        config.eval_ema,
        early_exit=config.early_exit,
        max_steps=config.eval_halt_max_steps,
        vote_steps=config.vote_steps,
        traced=traced,
        ladder=Ladder.of(canvases, split, catalog, test_tasks) if len(canvases) > 1 else None,
    )
    assert predictions is not None
    trace = gather_trace(traced, split)
    return count_votes(predictions, catalog, config.ranking), report.trace_grids(trace, catalog)
