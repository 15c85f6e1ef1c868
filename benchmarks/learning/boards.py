"""Compares arms by the steps and the CPU time to a fraction of test boards that are solved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.learning.runs import Job
from evaluators.scores import evaluated_step, list_evaluations


@dataclass(frozen=True)
class BoardOutcome:
    """What one run has reached.

    curve: [step, fraction of the test boards that are completely right] of each evaluation.
    boards: how many test boards there are.  cpu_seconds: of the whole run; None if it was cut off.
    """

    seed: int
    steps: int
    cpu_seconds: float | None
    boards: int
    curve: list[list[float]]

    def steps_to(self, target: float) -> int | None:
        """Returns the step of the first evaluation that reaches the target; None if none does."""
        return next((int(step) for step, solved in self.curve if solved >= target), None)

    def seconds_to(self, target: float) -> float | None:
        """Returns the CPU seconds to that evaluation: its part of the run's, since all intervals have the same work.

        Start-up and compilation are spread over the intervals.
        """
        step = self.steps_to(target)
        return None if step is None or self.cpu_seconds is None else self.cpu_seconds * step / self.curve[-1][0]


def board_outcome_of(job: Job) -> BoardOutcome:
    """Reads a run that is done."""
    folders = list_evaluations(job.folder)
    scores = [json.loads((folder / "scores.json").read_text(encoding="utf-8")) for folder in folders]
    return BoardOutcome(
        seed=job.seed,
        steps=job.steps,
        cpu_seconds=job.cpu_seconds(),
        boards=scores[-1]["exact/examples"],
        curve=[
            [evaluated_step(folder), found["exact/exact_accuracy"]]
            for folder, found in zip(folders, scores, strict=True)
        ],
    )


def boards_as_json(outcomes: Mapping[str, Sequence[BoardOutcome]]) -> dict[str, list[dict[str, Any]]]:
    return {arm: [asdict(outcome) for outcome in runs] for arm, runs in outcomes.items()}


def boards_from_json(found: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[BoardOutcome]]:
    return {arm: [BoardOutcome(**outcome) for outcome in runs] for arm, runs in found.items()}


def format_boards(report: Mapping[str, Any]) -> str:
    """Returns the results of one comparison of boards as Markdown."""
    target, lines = report["target"], []
    for budget, runs in report["outcomes"].items():
        outcomes = boards_from_json(runs)
        first = next(iter(outcomes.values()))
        lines += [
            f"**{report['name']}, {budget}.** To {target:.0%} of {first[0].boards:,} test boards, at the first of "
            f"{len(first[0].curve)} evaluations that reaches it, {len(first)} seed(s), {report['cpu']}. A run that "
            "does not reach it is shown as -.",
            "",
            "| | steps, by seed | CPU s, by seed | solved at the end |",
            "|---|---|---|---|",
        ]
        for arm, found in outcomes.items():
            steps = ", ".join(str(run.steps_to(target) or "-") for run in found)
            seconds = ", ".join("-" if (s := run.seconds_to(target)) is None else f"{s:.0f}" for run in found)
            ends = [run.curve[-1][1] for run in found]
            lines.append(f"| {arm} | {steps} | {seconds} | {min(ends):.1%} to {max(ends):.1%} |")
        lines.append("")
    return "\n".join(lines)
