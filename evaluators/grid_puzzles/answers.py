"""What was predicted of Sudoku or mazes, and the files and lines that say it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.grid_puzzles.kinds import GridKind
from utils.files import write_atomically


@dataclass(frozen=True)
class GridAnswers:
    """Predicted answers to puzzles of one kind.

    questions, answers: tokens, uint8 [N, cells].
    truths: the right answers, uint8 [N, cells]; PAD in every cell where an answer is not known.
    q_halt: float32 [N], halting logits.  steps: int32 [N], ACT steps.
    """

    kind: GridKind
    questions: np.ndarray
    answers: np.ndarray
    truths: np.ndarray
    q_halt: np.ndarray
    steps: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def halting(self) -> np.ndarray:
        """How sure the network was that it is right, from 0 to 1: float64 [N]."""
        return np.asarray(0.5 * (1 + np.tanh(0.5 * self.q_halt.astype(np.float64))))

    @cached_property
    def checks(self) -> list[dict[str, bool]]:
        """Which rules each answer keeps."""
        both = zip(self.questions, self.answers, strict=True)
        return [self.kind.check(question, answer) for question, answer in both]

    @property
    def is_known(self) -> np.ndarray:
        """Whether the right answer is known, bool [N]."""
        return np.asarray(self.truths.any(1))

    @property
    def is_right(self) -> np.ndarray:
        """Whether the prediction is the right answer, bool [N]; False where that is not known."""
        return np.asarray((self.answers == self.truths).all(1))

    def rows(self) -> list[dict[str, Any]]:
        """Returns one row per puzzle, as the files have them."""
        known = bool(self.is_known.any())
        rows = []
        for i, checks in enumerate(self.checks):
            row = {
                "question": self.kind.to_text(self.questions[i]),
                "prediction": self.kind.to_text(self.answers[i]),
                "halting": round(float(self.halting[i]), 4),
                "steps": int(self.steps[i]),
                **checks,
            }
            if known:
                is_known = bool(self.is_known[i])
                row |= {
                    "answer": self.kind.to_text(self.truths[i]) if is_known else None,
                    "right": bool(self.is_right[i]) if is_known else None,
                }
            rows.append(row)
        return rows

    def write_csv(self, path: Path) -> None:
        """Writes the rows as a table; what is not known is empty."""
        rows = self.rows()
        stream = io.StringIO()
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else ["question"], lineterminator="\n")
        writer.writeheader()
        words = {True: "yes", False: "no", None: ""}
        for row in rows:
            writer.writerow({k: words[v] if v is None or isinstance(v, bool) else v for k, v in row.items()})
        write_atomically(path, stream.getvalue())

    def write_json(self, path: Path, conditions: dict[str, Any]) -> None:
        """Writes the rows, and under what conditions they were made, as JSON."""
        value = {"kind": self.kind.name, "puzzles": self.rows(), "conditions": conditions}
        write_atomically(path, json.dumps(value) + "\n")

    def count_kept(self) -> str:
        """Returns, in words, how many answers keep every rule."""
        keeps = sum(all(checks.values()) for checks in self.checks)
        return f"{keeps} of {len(self)} answers keep every rule"

    def describe(self, shown: int) -> str:
        """Returns the first answers as boards, with how sure each is and which rules it keeps, and counts of all."""
        lines = []
        for i in range(min(shown, len(self))):
            lines.append(
                f"{self.kind.name} {i + 1}: halting {self.halting[i]:.0%} after {self.steps[i]} steps, "
                f"{self.kind.describe_checks(self.checks[i])}"
            )
            lines += [f"  {line}" for line in self.kind.draw(self.answers[i]).split("\n")]
        if len(self) > shown:
            lines.append(f"and {len(self) - shown} more")
        lines.append(self.count_kept())
        if known := int(self.is_known.sum()):
            lines.append(f"{int(self.is_right.sum())} of the {known} whose answer is given are right")
        return "\n".join(lines)
