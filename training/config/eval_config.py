"""What `eval_arc_k10.py` adds to the settings of a run: fine-tuning, prediction, votes and time."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from training.config.roles import roles_of, setting
from training.config.run_config import RunConfig
from training.config.sections import Section
from utils.errors import SettingError


class FineTuningSettings(Section):
    """Which tasks and puzzles are fine-tuned on and evaluated."""

    topic = "Fine-tuning"

    finetune_on: Literal["train_split", "test_tasks"] = setting(
        "train_split",
        "all tasks of the train split, or only those that are in the test split too",
        resume="fixed",
    )
    train_augmentations: int | None = setting(
        None,
        "fine-tune on so many puzzles of each task, the un-augmented one first; null: all",
        resume="fixed",
        instead="the argument augmentations of predict, or --augmentations of solve.py",
        ge=1,
    )
    tasks: list[str] | None = setting(
        None, "ids of the test tasks to evaluate; null: all", resume="fixed", condition=True, min_length=1
    )


class PredictionSettings(Section):
    """How answers are predicted."""

    topic = "Prediction"

    eval_batch_size: int | None = setting(
        None, "examples per prediction step; null: global_batch_size", resume="reported", solver="accepted", ge=1
    )
    eval_halt_max_steps: int | None = setting(
        None,
        "ACT steps of a prediction; null: arch.halt_max_steps",
        resume="reported",
        condition=True,
        solver="accepted",
        ge=1,
    )
    early_exit: Literal[False, "halt"] | int = setting(
        False,
        "when a prediction may end early. false: never, every example takes all steps. halt (or true): as soon as the "
        "network would halt. k: after k equal answers in a row",
        resume="reported",
        condition=True,
        solver="accepted",
    )
    vote_augmentations: int | None = setting(
        None,
        "predict so many puzzles of each task, the un-augmented one first; null: all that are stored. Where fewer are "
        "stored, augmentations are drawn by the seed with arch.puzzle_embedding=composed, or without puzzle rows",
        resume="reported",
        condition=True,
        instead="the argument augmentations of predict, or --augmentations of solve.py",
        ge=1,
    )
    eval_ema: bool = setting(
        True,
        "predict with the averaged weights, if there are any",
        resume="reported",
        condition=True,
        solver="accepted",
    )


class PredictionNoiseSettings(Section):
    """Noise in predictions; by default there is none, also after a training with noise."""

    topic = "Noise in predictions"

    eval_latent_noise: float = setting(
        0.0,
        "add normal noise of this deviation at every update of a latent in predictions; see latent_noise",
        resume="reported",
        condition=True,
        solver="accepted",
        ge=0,
    )
    eval_random_starts: bool = setting(
        False,
        "start each prediction from latents that are drawn for its example; see random_starts",
        resume="reported",
        condition=True,
        solver="accepted",
    )


class VoteSettings(Section):
    """How the predictions of a test input become attempts at it."""

    topic = "Votes"

    ranking: Literal["votes", "mean_halt", "sum_halt"] = setting(
        "votes",
        "what candidates are ranked by: their votes, or the mean or the sum of their halting probabilities",
        resume="reported",
        condition=True,
        solver="accepted",
    )
    vote_steps: int = setting(
        1,
        "the answers after each of the last so many ACT steps are votes",
        resume="reported",
        condition=True,
        solver="accepted",
        ge=1,
    )
    pool_checkpoints: int | None = setting(
        None,
        "count the votes of the run's last so many evaluations together; null: of one evaluation alone",
        resume="reported",
        condition=True,
        ge=2,
    )
    pool_half_life: float | None = setting(
        None,
        "a vote of an evaluation that is a evaluations old counts 2^(-a / pool_half_life); null: votes of all count "
        "the same",
        resume="reported",
        condition=True,
        gt=0,
    )
    pool_runs: list[str] = setting(
        [],
        "folders of other finished runs of eval_arc_k10.py on the same data set, such as of another network: the votes "
        "of each one's last evaluation, or of its last pool_checkpoints, count too",
        resume="reported",
        condition=True,
    )
    attempts: int = setting(
        10,
        "attempts per test input in submission.json",
        resume="reported",
        condition=True,
        instead="as many as you want of those that predict returns, or --attempts of solve.py",
        ge=1,
    )


class TimeSettings(Section):
    """A run with a time limit always ends in time, with a submission."""

    topic = "Time"

    time_budget: float | None = setting(
        None,
        "minutes for the whole run, counted from the start of the command",
        resume="reported",
        condition=True,
        gt=0,
    )
    deadline: str | None = setting(
        None, "the same limit as a time of day: 17:30 or 2026-11-03T17:30", resume="reported", condition=True
    )


class EvalConfig(
    TimeSettings, VoteSettings, PredictionNoiseSettings, PredictionSettings, FineTuningSettings, RunConfig
):
    """`eval_arc_k10.py`: test-time fine-tuning, then prediction, votes, scores and submissions."""

    evaluators: list[str] = setting(
        ["arc"], "arc (votes, submissions, pass@k), exact (one answer), or none", resume="reported", condition=True
    )

    @field_validator("early_exit", mode="before")
    @classmethod
    def _check_early_exit(cls, value: Any) -> Any:
        if isinstance(value, bool):
            return "halt" if value else False
        if value != "halt" and not (isinstance(value, int) and value >= 2):
            raise SettingError(f"early_exit={value}: write false, halt, or how many equal answers in a row (2 or more)")
        return value

    @field_validator("evaluators")
    @classmethod
    def _check_evaluators(cls, value: list[str]) -> list[str]:
        if len(value) > 1 or set(value) - {"arc", "exact"}:
            raise SettingError(f"evaluators={value}: choose [arc], [exact] or []")
        return value

    @model_validator(mode="after")
    def _check_one_data_set(self) -> EvalConfig:
        if len(self.data_paths) != 1:
            raise SettingError(f"evaluation takes one data set, not data_paths={self.data_paths}")
        return self

    @model_validator(mode="after")
    def _check_time(self) -> EvalConfig:
        if self.time_budget is not None and self.deadline is not None:
            raise SettingError("time_budget and deadline are both set: leave one of them out")
        if self.pool_checkpoints is not None and (self.time_budget or self.deadline):
            raise SettingError(
                "pool_checkpoints pools the evaluations of several intervals, and a run in a given time makes one: "
                "leave it out, or pool saved predictions by evaluators.tools recount"
            )
        return self

    @model_validator(mode="after")
    def _check_votes(self) -> EvalConfig:
        about_votes = (self.ranking, self.vote_steps, self.pool_checkpoints, self.pool_runs)
        if "arc" not in self.evaluators and about_votes != ("votes", 1, None, []):
            raise SettingError(
                "ranking, vote_steps, pool_checkpoints and pool_runs are about votes: set evaluators=[arc]"
            )
        if self.ema_more_rates and ("arc" not in self.evaluators or not self.eval_ema or self.epochs == 0):
            raise SettingError(
                f"ema_more_rates={self.ema_more_rates} gives averages of this run's own weights votes: set "
                "evaluators=[arc], eval_ema=true and epochs above 0"
            )
        if self.ema_more_rates and (self.time_budget or self.deadline):
            raise SettingError(
                f"ema_more_rates={self.ema_more_rates} predicts everything several times, which a run in a given time "
                "does not: leave one of them out"
            )
        if self.pool_half_life is not None and self.pool_checkpoints is None:
            raise SettingError(
                f"pool_half_life={self.pool_half_life:g} is about the votes of several evaluations: set "
                "pool_checkpoints too"
            )
        return self

    @model_validator(mode="after")
    def _check_without_training(self) -> EvalConfig:
        if self.epochs == 0 and self.load_checkpoint is None:
            raise SettingError("epochs=0 evaluates a checkpoint as it is: name it by load_checkpoint=DIR")
        if self.epochs == 0 and self.puzzle_rows not in (None, "keep"):
            raise SettingError(
                f"epochs=0 evaluates the checkpoint as it is, which puzzle_rows={self.puzzle_rows} would undo: "
                "fine-tune (epochs > 0) or set puzzle_rows=keep"
            )
        return self

    @property
    def conditions(self) -> dict[str, Any]:
        """What a score depends on besides the weights and the data; it is written beside the score."""
        names = {name for name, roles in roles_of(EvalConfig).items() if roles.condition}
        return self.model_dump(mode="json", include=names) | self.arch.conditions

    @property
    def load_averaged(self) -> bool:
        """With epochs=0, the averaged weights are loaded only if `eval_ema` is set."""
        return self.eval_ema or self.epochs > 0

    @property
    def draws_votes(self) -> bool:
        """Whether puzzles that no table has a row for can be predicted, so that votes can be of any number."""
        return self.arch.is_composed or not self.arch.puzzle_emb_ndim

    @property
    def rows_from(self) -> str:
        return self.puzzle_rows or ("keep" if self.epochs == 0 else "mean")
