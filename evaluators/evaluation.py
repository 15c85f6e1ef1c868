"""Evaluates a run of `eval_arc_k10.py`: predict, score, write.

    train state -> PredictionSnapshot -> ArcResult or ExactResult -> submissions, scores, page

A result passes on what the next stage needs.  The predictions are on the disk before anything is made of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from dataset import storage
from dataset.build.duplicate_tasks import inputs_key
from dataset.canvas import Canvas
from dataset.sampling.drawn_puzzles import DrawnSplit
from dataset.storage import Split
from dataset.tasks import Task
from evaluators.arc import ArcScorer
from evaluators.grid_puzzles.exact import ExactScorer
from evaluators.inference.canvas_choice import CanvasFallback, suggest_sizes
from evaluators.inference.drawn_votes import extend_puzzles
from evaluators.inference.engine import PredictionOptions
from evaluators.inference.predict import measure_prediction, predict_all, predict_in_rounds
from evaluators.inference.predictions import PREDICTIONS, Predictions, PredictionSnapshot
from evaluators.scores import evaluated_step, evaluation_folder, is_evaluated, list_evaluations, read_conditions
from evaluators.submission import SUBMISSION
from evaluators.time_split import TimeSplit, split_time
from evaluators.voting import vote_weight
from training import checkpoint
from training.config import EvalConfig
from training.state import TrainState
from utils import distributed
from utils.errors import SettingError
from utils.progress import print0
from utils.timers import Deadline


class EvaluationResult(Protocol):
    """What a scorer makes of predictions.  It writes only what it is asked to write."""

    @property
    def metrics(self) -> dict[str, Any]:
        """The scores by name, as they are logged."""

    def write_submissions(self, folder: Path) -> None:
        """Replaces the submissions in a folder, for puzzles that are submitted."""

    def write(self, folder: Path) -> None:
        """Writes the submissions and `scores.json`, the latter last."""

    def write_page(self, run: Path) -> Path | None:
        """Replaces the page of a run and returns its path; None if there is no page for these puzzles."""

    def summary(self, folder: Path) -> str:
        """Returns the scores as people read them."""


class Scorer(Protocol):
    """What the setting `evaluators` chooses."""

    keeps_trace: bool
    """Whether it uses the answers after each ACT step."""

    def score(
        self,
        snapshot: PredictionSnapshot,
        conditions: Mapping[str, Any],
        earlier: Sequence[Predictions],
        weights: Sequence[float],
    ) -> EvaluationResult:
        """Returns the result of predictions, and of others whose votes count too, each with a weight."""


class TestSet(NamedTuple):
    """What is evaluated.

    sizes: the size of the canvas that each example probably needs, int [N, 2]; None if nothing suggests one.
    scorer: None if nothing is evaluated (`evaluators=[]`).
    tasks: the ARC tasks that are scored, by id; empty for other puzzles.
    """

    split: Split
    sizes: np.ndarray | None
    scorer: Scorer | None
    tasks: Mapping[str, Task] = MappingProxyType({})


def open_test_set(config: EvalConfig) -> TestSet:
    """Opens the test split of a run's data set, and what scores it.

    Raises:
        SettingError, DataError: if the data set does not have what the settings name.
    """
    (path,) = config.data_paths
    split = storage.open_split(path, "test")
    if config.vote_augmentations is not None:
        split = split.first_puzzles(config.vote_augmentations)
    if config.evaluators == ["exact"]:
        manifest = storage.open_manifest(path)
        return TestSet(split, None, ExactScorer(split, manifest.sources if manifest else ()))
    if config.evaluators != ["arc"]:
        return TestSet(split, None, None)
    catalog, tasks = storage.open_catalog(path), storage.open_test_tasks(path)
    if config.tasks is not None:
        tasks = _choose_tasks(tasks, config.tasks, path)
        split = split.restricted_to(np.concatenate([catalog.identifiers_of(name) for name in tasks]))
    if (votes := config.vote_augmentations) is not None:
        if config.draws_votes:
            split = extend_puzzles(split, catalog, tasks, votes, config.seed)
        elif (most := int(np.diff(split.layout.group_starts).max(initial=0))) < votes:
            print0(
                f"vote_augmentations={votes}: no task has more than {most}, and these vote: build with a larger "
                "--num-aug, or take arch.puzzle_embedding=composed, which draws more"
            )
    sizes = None if config.canvases is None else suggest_sizes(split, catalog, tasks)
    return TestSet(split, sizes, ArcScorer(catalog, tasks, config.attempts, config.ranking, split), tasks)


def _choose_tasks(tasks: Mapping[str, Task], wanted: Sequence[str], path: str) -> dict[str, Task]:
    if unknown := sorted(set(wanted) - tasks.keys()):
        raise SettingError(f"tasks={unknown[0]} is not a test task of {path}: leave it out")
    return {name: task for name, task in tasks.items() if name in wanted}


class Evaluation:
    """The evaluations of a run: one after each interval, or one when its time is up.

    Args:
        directory: the run's folder.
        identity: what a checkpoint says of its data (`data`, `puzzles`).

    Raises:
        SettingError, DataError: see `open_test_set`.
    """

    def __init__(self, config: EvalConfig, directory: Path, identity: Mapping[str, Any]) -> None:
        self._config, self._directory, self._identity = config, directory, identity
        self._test = open_test_set(config)
        traces = self._test.scorer is not None and self._test.scorer.keeps_trace
        self._options = PredictionOptions.from_config(config, traces)
        self._submit_seconds = self._longest_batch = 0.0
        if config.pool_runs:  # before a training that takes long
            distributed.from_main(lambda: self._list_pooled(0))

    @property
    def num_examples(self) -> int:
        """How many test examples are predicted."""
        return self._test.split.num_examples

    def training_split(self) -> Split:
        """Returns what to fine-tune on."""
        split = storage.open_split(self._config.data_paths[0], "train")
        if self._config.finetune_on == "test_tasks":
            split = split.restricted_to(self._test.split.puzzle_identifiers)
        if self._config.train_augmentations is not None:
            split = split.first_puzzles(self._config.train_augmentations)
        return split

    def describe_seen_tasks(self) -> list[str]:
        """Returns, in sentences, how many of the scored tasks the checkpoint was trained on, under whatever names."""
        manifest = storage.open_manifest(self._config.data_paths[0])
        scored = {key for key, how in manifest.task_keys.items() if how == "demonstrations"} if manifest else set()
        if self._config.tasks is not None:
            scored &= {inputs_key(task) for task in self._test.tasks.values()}
        seen = checkpoint.seen_tasks(self._config)
        whole = sum(seen.get(key) == "whole" for key in scored)
        shown = sum(seen.get(key) == "demonstrations" for key in scored)
        sentences = []
        if whole:
            sentences.append(
                f"warning: load_checkpoint was trained on the test outputs of {whole} of the {len(scored)} tasks that "
                "are scored, under this or another name or augmentation: scores on them mean nothing"
            )
        if shown:
            sentences.append(
                f"load_checkpoint has seen the demonstrations, not the test outputs, of {shown} of the {len(scored)} "
                "tasks that are scored: they are not new to it"
            )
        return sentences

    def submit_inputs(self) -> None:
        """Writes a submission that is valid before anything is predicted: what other runs have voted for (`pool_runs`),
        and every other input as its own answer."""
        if self._test.scorer is None or not distributed.is_main() or (self._directory / SUBMISSION).exists():
            return
        started = time.monotonic()
        nothing = PredictionSnapshot(Predictions.empty(self._test.split.metadata.seq_len))
        pooled = self._list_pooled(0)
        earlier = [Predictions.load(path / PREDICTIONS) for path, _ in pooled]
        weights = [weight for _, weight in pooled]
        self._test.scorer.score(nothing, {}, earlier, weights).write_submissions(self._directory)
        self._submit_seconds = time.monotonic() - started

    def split_time(self, state: TrainState, deadline: Deadline) -> TimeSplit:
        """Splits the time that is left, as rank 0 measures it on batches of prediction.  Collective."""
        took = measure_prediction(state, self._test.split, self._options, self._choose_canvases(state))
        self._longest_batch = took.longest_batch
        split = split_time(
            deadline,
            predict_all=took.everything,
            predict_first=took.first_round,
            start_up=took.compiling,  # a training step is larger, but then the compiler is warm
            submit=self._submit_seconds,
            predictions=self.num_examples * self._config.vote_steps,
            state_bytes=state.num_bytes() + state.tables.copied_bytes,
        )
        return distributed.broadcast_object(split)

    def run(self, state: TrainState, until: float | None = None) -> EvaluationResult | None:
        """Predicts, saves the predictions, scores them, and writes the evaluation's folder.  Collective.

        With a time limit, a submission with the predictions so far is written after each round.

        Args:
            until: `time.monotonic()` on rank 0 at which prediction stops.

        Returns:
            the result on rank 0; None elsewhere, and if this has been evaluated before under these conditions.
        """
        scorer, folder = self._test.scorer, evaluation_folder(self._directory, state.step)
        if scorer is None:
            return None
        conditions = distributed.from_main(lambda: self._find_conditions(folder, state.step))
        if conditions is None:
            return None
        for name, average in state.more_emas.items():
            options = replace(self._options, trace=False)
            of_average = predict_all(state, self._test.split, options, self._choose_canvases(state), average)
            if of_average is not None:
                of_average.save(folder / name)
        earlier = [Predictions.load(path) for path in self._pooled_files(conditions)] if distributed.is_main() else []
        result: EvaluationResult | None = None
        for snapshot in predict_in_rounds(
            state,
            self._test.split,
            self._options,
            self._choose_canvases(state),
            until=until,
            longest_batch=self._longest_batch,
        ):
            if snapshot is None or not (snapshot.is_final or until is not None):
                continue
            if snapshot.is_final:
                snapshot.save(folder)  # first: `evaluators.tools` can count their votes again if what follows fails
            result = scorer.score(snapshot, conditions, earlier, conditions["pool_weights"])
            result.write_submissions(self._directory)
        if result is not None:
            result.write(folder)
        return result

    def _choose_canvases(self, state: TrainState) -> CanvasFallback:
        """Returns the canvases of the run, and where each test example starts."""
        canvases: Sequence[Canvas] = state.shape.canvases
        if self._test.sizes is None or len(canvases) < 2:
            return CanvasFallback((self._test.split.metadata.canvas,))
        return CanvasFallback.from_sizes(canvases, self._test.sizes)

    def _find_conditions(self, folder: Path, step: int) -> dict[str, Any] | None:
        """Returns what the scores depend on; None if the folder has a complete evaluation under these conditions."""
        conditions = {
            **self._identity,  # first: its fingerprint `tasks` must not take the place of the setting
            **self._config.conditions,
            "step": step,
            "data_path": self._config.data_paths[0],
        }
        if isinstance(self._test.split, DrawnSplit):
            conditions["vote_seed"] = self._config.seed
        pooled = self._list_pooled(step)
        conditions["pooled"] = [os.path.relpath(path, self._directory) for path, _ in pooled]
        conditions["pool_weights"] = [weight for _, weight in pooled]
        return None if is_evaluated(folder, conditions) else conditions

    def _list_pooled(self, step: int) -> list[tuple[Path, float]]:
        """Returns the predictions whose votes count too, and what a vote of each counts: of other runs, of earlier
        evaluations of this run, and of the further averages of this one."""
        most, half_life = self._config.pool_checkpoints or 1, self._config.pool_half_life
        pooled = []
        for run in map(Path, self._config.pool_runs):
            latest = self._evaluations_of(run)[-most:]
            if not latest:
                raise SettingError(
                    f"pool_runs={run} has no evaluation of these puzzles: name the folder of a finished run of "
                    f"eval_arc_k10.py on {self._config.data_paths[0]}"
                )
            pooled += [(each, vote_weight(age, half_life)) for age, each in _with_ages(latest, newest=0)]
        own = [folder for folder in self._evaluations_of(self._directory) if evaluated_step(folder) < step]
        earlier = own[-(most - 1) :] if most > 1 else []
        pooled += [(each, vote_weight(age, half_life)) for age, each in _with_ages(earlier, newest=1)]
        own_folder = evaluation_folder(self._directory, step)
        return pooled + [(path, 1.0) for path in _averages_of(own_folder, self._config.ema_more_rates) if step]

    def _evaluations_of(self, run: Path) -> list[Path]:
        """Returns the folders of a run's evaluations of these puzzles, the latest last."""
        puzzles = self._identity["puzzles"]
        return [folder for folder in list_evaluations(run) if read_conditions(folder).get("puzzles") == puzzles]

    def _pooled_files(self, conditions: Mapping[str, Any]) -> list[Path]:
        return [self._directory / name / PREDICTIONS for name in conditions["pooled"]]


def _with_ages(folders: Sequence[Path], newest: int) -> list[tuple[int, Path]]:
    """Returns the folders of predictions of evaluations, the latest last, each with its age in evaluations, of which
    the latest has `newest`."""
    return [
        (newest + len(folders) - 1 - i, path)
        for i, folder in enumerate(folders)
        for path in (folder, *_averages_of(folder, read_conditions(folder).get("ema_more_rates") or []))
    ]


def _averages_of(folder: Path, rates: Sequence[float]) -> list[Path]:
    """Returns where an evaluation keeps the predictions of further averages (`TrainState.more_emas`)."""
    return [folder / f"ema_{rate}" for rate in rates]
