"""What was found for one puzzle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataset.tasks import Task
from evaluators.report.task_values import describe_tasks
from evaluators.scores import rank_of
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

    @property
    def ranks(self) -> list[float | None]:
        """Per test input the rank, from 1, of the true output among the candidates; infinity if it is not among them.

        None where the puzzle does not say the output.
        """
        return [
            None if truth is None else rank_of([candidate.grid for candidate in candidates], truth)
            for (_, truth), candidates in zip(self.puzzle.test, self.attempts, strict=True)
        ]

    def is_solved(self, attempts: int) -> bool | None:
        """Whether each test input is solved by one of its first attempts; None if an output is not known."""
        ranks = self.ranks
        known = [rank for rank in ranks if rank is not None]
        return None if len(known) < len(ranks) else all(rank <= attempts for rank in known)

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
