"""What was found for one puzzle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset.tasks import Task
from evaluators.report.task_values import describe_tasks
from evaluators.voting import Candidate, Votes


@dataclass(frozen=True)
class Solution:
    """What was found for one puzzle.

    puzzle: the task that was solved, with the test outputs that were given.
    votes: ranked candidates per (task id, test input).
    traces: the un-augmented answer to each after each ACT step, as text (`evaluators.report.task_values`).
    """

    puzzle: Task
    votes: Votes
    traces: Mapping[tuple[str, int], list[str]]

    @property
    def attempts(self) -> list[list[Candidate]]:
        """Per test input, in order, the candidates, best first; none if no prediction showed a grid."""
        return [self.votes.get((self.puzzle.id, index), []) for index in range(len(self.puzzle.test))]

    def describe(self, attempts: int) -> dict[str, Any]:
        """Returns what the report's page, and a picture, show of the puzzle."""
        return describe_tasks({self.puzzle.id: self.puzzle}, self.votes, self.traces, attempts)[0]

    @property
    def name(self) -> str:
        """Older name of `puzzle.id`."""
        return self.puzzle.id

    @property
    def task(self) -> dict[str, Any]:
        """Older name of `puzzle.to_json()`: the puzzle in Kaggle's layout."""
        return self.puzzle.to_json()

    @property
    def steps(self) -> Mapping[tuple[str, int], list[str]]:
        """Older name of `traces`."""
        return self.traces

    def described(self, attempts: int) -> dict[str, Any]:
        """Older name of `describe`."""
        return self.describe(attempts)
