"""One evaluation of `eval_arc_k10.py`: what is predicted, when it is reported, where it is written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from dataset import storage
from dataset.storage import Split
from evaluators import arc, exact, report, scores
from evaluators import time_split as budgets
from evaluators.inference.canvas_choice import Ladder
from evaluators.inference.engine import Traced
from evaluators.inference.gather import gather_trace, in_rounds
from evaluators.inference.predict import predict_in_rounds, seconds_to_predict
from evaluators.inference.predictions import Predictions
from evaluators.scores import is_done
from evaluators.time_split import Shares
from evaluators.voting import count_votes
from training import checkpoint
from training.config import EvalConfig
from training.launch.run import Run
from training.state import TrainState
from utils import distributed
from utils.files import write_atomically
from utils.timers import Deadline


class Evaluation:
    """The test split of a run's data set, under the run's settings.

    Raises:
        ValueError: if the data set does not hold what is to be evaluated.
    """

    def __init__(self, run: Run, config: EvalConfig) -> None:
        self._run, self._config = run, config
        (self._path,) = config.data_paths
        self.split: Split = storage.open_split(self._path, "test")
        self._test_tasks: dict[str, Any] = {}
        if self._is_arc:
            self._test_tasks = storage.open_test_tasks(self._path)
            self._catalog = storage.open_catalog(self._path)
            if config.tasks is not None:
                self._choose(config.tasks)
        if config.vote_augmentations is not None:
            self.split = self.split.first_puzzles(config.vote_augmentations)
        self._submit_seconds = 0.0
        self._batch_size = config.eval_batch_size or config.global_batch_size
        self._ladder: Ladder | None = None

    @property
    def _is_arc(self) -> bool:
        return "arc" in self._config.evaluators

    def _choose(self, wanted: list[str]) -> None:
        if unknown := sorted(set(wanted) - self._test_tasks.keys()):
            raise ValueError(f"tasks={unknown[0]} is no test task of {self._path}: leave it out")
        self._test_tasks = {name: task for name, task in self._test_tasks.items() if name in wanted}
        index = [i for i, name in enumerate(self._catalog.task_ids) if name in wanted]
        self.split = self.split.restricted_to(np.flatnonzero(np.isin(self._catalog.task_of, index)))

    def warn_of_seen_tasks(self) -> None:
        """Says which of the tasks to score the checkpoint has been trained on, whatever they were called there."""
        manifest = storage.open_manifest(self._path)
        scored = {key for key, how in manifest.task_keys.items() if how == "demonstrations"} if manifest else set()
        seen = checkpoint.seen_tasks(self._config)
        whole = sum(seen.get(key) == "whole" for key in scored)
        shown = sum(seen.get(key) == "demonstrations" for key in scored)
        if whole:
            self._run.say(
                f"warning: load_checkpoint was trained on the test outputs of {whole} of the {len(scored)} tasks that "
                "are scored, under this or another name or augmentation: scores on them mean nothing"
            )
        if shown:
            self._run.say(
                f"load_checkpoint has seen the demonstrations, not the test outputs, of {shown} of the {len(scored)} "
                "tasks that are scored: they are not new to it"
            )

    def training_split(self) -> Split:
        """What to fine-tune on."""
        split = storage.open_split(self._path, "train")
        if self._config.finetune_on == "test_tasks":
            split = split.restricted_to(self.split.puzzle_identifiers)
        if self._config.train_augmentations is not None:
            split = split.first_puzzles(self._config.train_augmentations)
        return split

    def submit_inputs(self) -> None:
        """Writes a submission that is valid though nothing is predicted yet: every input as its own answer."""
        if self._is_arc and not (self._run.directory / arc.SUBMISSION).exists():
            started = time.monotonic()
            self._submit(Predictions.empty(self.split.metadata.seq_len))
            self._submit_seconds = time.monotonic() - started

    def _submit(self, predictions: Predictions) -> None:
        if distributed.is_main():
            self._run.directory.mkdir(parents=True, exist_ok=True)
            votes = count_votes(predictions, self._catalog, self._config.ranking)
            arc.write_submissions(votes, self._test_tasks, self._run.directory, self._config.attempts)

    def divide(self, state: TrainState, budget: Deadline | None) -> Shares | None:
        """How the time is divided; measures a batch of prediction for it.  Collective."""
        if budget is None:
            return None
        predict_all, predict_first, compiling = seconds_to_predict(
            state, self.split, self._batch_size, self._config.eval_halt_max_steps, self._ladder_of(state)
        )
        shares = budgets.divide(
            budget,
            predict_all=predict_all,
            predict_first=predict_first,
            submit=self._submit_seconds,
            start_up=compiling,  # the training step is larger, and the compiler warm
            predictions=self.split.num_examples * self._config.vote_steps,
            state_bytes=state.num_bytes(),
        )
        left = max(0.0, budget.seconds_left())
        tuning = 0.0 if shares.training is None else shares.training - time.monotonic()
        self._run.say(
            f"{left:.0f} s left: {tuning:.0f} s of fine-tuning, {left - tuning:.0f} s for prediction and writing"
        )
        return distributed.broadcast_object(shares)

    def _ladder_of(self, state: TrainState) -> Ladder:
        """The canvases of the run, and where each test example starts."""
        if self._ladder is None:
            canvases = state.shape.canvases or (self.split.metadata.canvas,)
            if len(canvases) > 1 and self._is_arc:
                self._ladder = Ladder.of(canvases, self.split, self._catalog, self._test_tasks)
            else:
                self._ladder = Ladder((self.split.metadata.canvas,))
        return self._ladder

    def _pooled(self, step: int) -> list[str]:
        """The run's earlier evaluations of these puzzles whose votes count too, by the names of their folders."""
        count = (self._config.pool_checkpoints or 1) - 1
        found = [
            folder.name
            for folder in scores.evaluations(self._run.directory)
            if int(folder.name.rpartition("_")[2]) < step
            and scores.conditions_of(folder).get("puzzles") == self._run.identity["puzzles"]
        ]
        return found[-count:] if count else []

    def run(self, state: TrainState, until: float | None = None) -> None:
        """Predicts, scores and writes, unless that has been done under these conditions.  Collective.

        Args:
            until: `time.monotonic()` on rank 0 at which prediction stops.
        """
        config, folder = self._config, self._run.directory / f"evaluation_step_{state.step}"
        pooled = distributed.from_main(lambda: self._pooled(state.step))
        conditions = config.conditions | {"step": state.step, "data_path": self._path, **self._run.identity}
        conditions["pooled"] = pooled
        if not config.evaluators or distributed.from_main(lambda: is_done(folder, conditions)):
            return
        predictions: Predictions | None = None
        traced: list[Traced] = []
        ladder = self._ladder_of(state)
        for predictions in predict_in_rounds(
            state,
            self.split,
            self._batch_size,
            config.eval_ema,
            until=until,
            early_exit=config.early_exit,
            max_steps=config.eval_halt_max_steps,
            vote_steps=config.vote_steps,
            traced=traced,
            ladder=ladder,
        ):
            if self._is_arc and predictions is not None and until is not None:
                self._submit(predictions)
        trace = gather_trace(traced, self.split)
        if predictions is None:
            return
        if self._is_arc:
            folder.mkdir(parents=True, exist_ok=True)
            if trace is not None:
                trace.save(folder / arc.TRACE)
            predictions.save(folder / arc.PREDICTIONS)
            parts = [*(Predictions.load(self._run.directory / name / arc.PREDICTIONS) for name in pooled), predictions]
            several = len(ladder.canvases) > 1
            metrics = arc.evaluate(
                *(parts, self._catalog, self._test_tasks, folder, conditions),
                *(config.attempts, config.ranking, ladder.repeated if several else None),
            )
            for name in (arc.SUBMISSION, arc.KAGGLE_SUBMISSION):
                write_atomically(self._run.directory / name, (folder / name).read_text(encoding="utf-8"))
            self._run.say(arc.table(metrics, folder))
            if several:
                self._run.say(f"{ladder.repeated} of {len(predictions)} answers were made again on a larger canvas")
            self._run.metrics.write(state.step, metrics)
            page = report.of_run(self._run.directory, Path(self._path))
            write_atomically(self._run.directory / report.REPORT, page)
            self._run.say(f"to look at: {self._run.directory / report.REPORT}")
            return
        # Where time was up these are fewer than all, those of the first batches.
        examples = np.sort(in_rounds(self.split)[0][: len(predictions)])
        metrics = exact.evaluate(predictions, self.split, folder, conditions, examples)
        self._run.say(exact.table(metrics, folder))
        self._run.metrics.write(state.step, metrics)
