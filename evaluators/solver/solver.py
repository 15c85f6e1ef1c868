"""Solves one puzzle after the other with a network: fine-tunes on its demonstrations, predicts, counts votes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dataset import storage
from dataset.build import distinct_augmentations
from dataset.encoding import VOCAB_SIZE
from dataset.storage import PuzzleCatalog, Split
from dataset.tasks import Task, parse_task
from evaluators.grid_puzzles.kinds import identify_kind
from evaluators.inference.canvas_choice import CanvasFallback, suggest_sizes
from evaluators.inference.engine import PredictionOptions
from evaluators.inference.predict import predict_all
from evaluators.report.task_values import describe_traces
from evaluators.solver.solution import Solution
from evaluators.voting import Candidate, count_votes
from training.checkpoint import (
    NetworkConfig,
    Weights,
    initialise_network,
    initialise_rows,
    load_weights,
    locate_weights,
    network_config,
)
from training.config import EvalConfig, roles_of
from training.data import open_training_data
from training.launch.overrides import validate
from training.prepare.compiler import should_compile
from training.prepare.precision import choose_dtype, replace_emulated
from training.prepare.prepare import prepare
from training.state import TrainState
from training.step import train_step
from utils import distributed
from utils.errors import CheckpointError, DataError, SettingError
from utils.progress import Progress

AUGMENTATIONS = 64
STEPS = 200
BATCH = 32

ROLES = roles_of(EvalConfig)
SETTINGS = frozenset(name for name, roles in ROLES.items() if roles.solver != "refused")
"""Settings of `eval_arc_k10.py` that a puzzle is solved with; the others are about runs, data sets and files."""


class Solver:
    """A network that solves one puzzle after the other, each from the same start.

    Args:
        weights: of an ARC network.
        network: its architecture and canvas.
        settings: of fine-tuning and prediction (`SETTINGS`), by the names that `eval_arc_k10.py` has for them.

    Raises:
        CheckpointError: if the network is not one for ARC's grids.
        SettingError: naming the setting that is wrong.
    """

    def __init__(self, weights: Weights, network: NetworkConfig, settings: Mapping[str, Any]) -> None:
        tokens, cells = network.tokens.vocab_size, network.canvas.seq_len
        kind = identify_kind(tokens, cells, weights.record.sources)
        if tokens != VOCAB_SIZE or network.canvas.side is None or kind is not None:
            raise CheckpointError(
                f"{weights.source} is not a network for ARC's grids ({tokens} tokens, {cells} cells"
                f"{'' if kind is None else f', for {kind.plural} of side {kind.side}'}): name another one"
            )
        for name in sorted(settings.keys() - SETTINGS):
            if (roles := ROLES.get(name.split(".")[0])) is not None:  # other names are refused below, with the nearest
                remedy = f"use {roles.instead}" if roles.instead else "leave it out, or run eval_arc_k10.py"
                raise SettingError(f"{name} cannot be set for a single puzzle: {remedy}")
        self._weights, self._network, self._side = weights, network, network.canvas.side
        self._settings = self._defaults() | dict(settings)
        self._device = torch.device("cpu")  # until the settings are checked
        self.config_for(finetune_steps=1, seed=0)  # refuses what is wrong before there is any puzzle
        self._device = distributed.setup(self._settings["device"])

    @classmethod
    def load(cls, path: str | Path, **settings: Any) -> Solver:
        """Returns a solver with the weights at `path`.

        Args:
            path: a folder that `python -m training.export .. --format folder` has written, a checkpoint, a run, or
                hf://OWNER/NAME[/FILE][@REVISION] on the Hugging Face hub.
            settings: such as `device="cuda"`, `global_batch_size=64`, `lr=1e-4`, `compile=True`; by default the rates
                of the network's last training.

        Raises:
            CheckpointError: if there are no such weights.
            SettingError: if a setting is wrong.
        """
        weights = load_weights(locate_weights(path))
        return cls(weights, network_config(weights), settings)

    def predict(
        self, task: Mapping[str, Any], *, augmentations: int = AUGMENTATIONS, finetune_steps: int = STEPS, seed: int = 0
    ) -> list[list[Candidate]]:
        """Returns ranked attempts at every test input of one task.

        Args:
            task: `{"train": [{"input": grid, "output": grid}, ..], "test": [{"input": grid}, ..]}`; a grid is a list of
                rows, or an array [h, w], of colours 0 to 9.  Test outputs may be there; they are not looked at.
            augmentations: how many different ones to learn from and to vote with, besides the task itself.
            finetune_steps: optimizer steps on the demonstrations before prediction.
            seed: of augmentations and batches; on a CPU the same seed gives the same attempts.

        Returns:
            per test input, in order, `Candidate`s, best first: `grid` uint8 [h, w], `votes` (of `augmentations` + 1 at
            most) and `mean_halt`, from 0 to 1, how sure the network was on average that it was right.

        Raises:
            DataError: naming what is wrong with the task, or that it is larger than the network's canvas.
        """
        return self.solve(task, augmentations=augmentations, finetune_steps=finetune_steps, seed=seed).attempts

    def solve(
        self,
        task: Task | Mapping[str, Any],
        *,
        name: str = "puzzle",
        augmentations: int = AUGMENTATIONS,
        finetune_steps: int = STEPS,
        seed: int = 0,
    ) -> Solution:
        """Returns the attempts at a task, and all that there is to show of them.

        The other arguments, and what is raised, are `predict`'s.

        Args:
            task: a `Task`, or a dictionary as `predict` takes it.
            name: the id of a task that is given as a dictionary, which has none.
        """
        if not isinstance(task, Task):
            task = parse_task(name, "own", dict(task), name)
        self.check(task)
        unsolved = _without_outputs(task)
        if augmentations < 0 or finetune_steps < 0 or seed < 0:
            raise SettingError("augmentations, finetune_steps and seed must not be negative")
        train, test, catalog = _open_puzzle(unsolved, augmentations, seed, self._side)
        config = self.config_for(finetune_steps, seed)
        state = self._fine_tune(train, config, finetune_steps)
        return _predict(state, config, task, test, catalog)

    def check(self, task: Task) -> None:
        """Raises DataError if a grid is larger than the network's canvas; test outputs are not looked at."""
        if (largest := _without_outputs(task).max_side) > self._side:
            raise DataError(
                f"{task.id} has a grid of {largest} cells in a row, the network's canvas is {self._side} x "
                f"{self._side}: use a network that was trained on a larger one"
            )

    def _defaults(self) -> dict[str, Any]:
        """Returns the rates of the network's last training and a small batch.

        There is no average and no compilation: for a few steps these two cost more than they give.
        """
        stages = self._weights.record.stages
        recipe = stages[-1].recipe if stages else {}
        defaults = {
            name: value for name, value in recipe.items() if name in ROLES and ROLES[name].solver == "inherited"
        }
        if recipe.get("canvases") is not None:
            defaults["canvases"] = "fitted"  # to the puzzle
        return {**defaults, "lr_min_ratio": 0.1, "global_batch_size": BATCH, "device": "auto", "compile": False}

    def config_for(self, finetune_steps: int, seed: int) -> EvalConfig:
        """Returns the settings of one puzzle's fine-tuning and prediction.

        Raises:
            SettingError: naming the setting that is wrong.
        """
        arch = replace_emulated(choose_dtype(self._network.arch, self._device), self._device).model_dump()
        settings = {"lr_warmup_steps": min(20, finetune_steps // 5), **self._settings, "seed": seed}
        run = {"data_paths": ["a puzzle"], "epochs": 1, "eval_interval": None}
        config = validate({"arch": arch, **run, **settings}, EvalConfig)
        # An epoch visits the one task once, and a visit is at least one example: these fill the batches of all steps.
        return config.model_copy(update={"epochs": max(1, finetune_steps) * config.global_batch_size})

    def _fine_tune(self, train: Split, config: EvalConfig, steps: int) -> TrainState:
        """Returns a train state after `steps` steps on the demonstrations.

        It starts from the network's weights, and from the mean of the trained rows.
        """
        training = open_training_data(config, [train])
        shape = replace(training.shape, row_stride=self._network.canvas.row_stride)
        state = prepare(TrainState(config, shape, self._device), should_compile(config, self._device))
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


def _without_outputs(task: Task) -> Task:
    """Returns the task as a solver may see it."""
    return replace(task, test=tuple((grid, None) for grid, _ in task.test))


def _open_puzzle(task: Task, augmentations: int, seed: int, side: int) -> tuple[Split, Split, PuzzleCatalog]:
    """Returns a data set of one task in memory: its demonstrations to train on, its test inputs to predict."""
    chosen = distinct_augmentations.sample_augmentations(task, augmentations, seed)
    return storage.splits_in_memory([task], {task.id}, [chosen], side=side)


def _predict(state: TrainState, config: EvalConfig, task: Task, split: Split, catalog: PuzzleCatalog) -> Solution:
    """Predicts the test inputs of a task and counts the votes."""
    canvases, fallback = state.shape.canvases, None
    if len(canvases) > 1:
        fallback = CanvasFallback.from_sizes(canvases, suggest_sizes(split, catalog, {task.id: task}))
    snapshot = predict_all(state, split, PredictionOptions.from_config(config, trace=True), fallback)
    assert snapshot is not None, "a puzzle is solved by one process"
    votes = count_votes(snapshot.predictions, catalog, config.ranking)
    return Solution(task, votes, describe_traces(snapshot.trace, catalog))
