"""What the page and pictures show of a task, as plain values: grids are text, a digit per cell, `/` between rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataset.decoding import crop
from dataset.storage import PuzzleCatalog
from dataset.tasks import Task
from evaluators.inference.predictions import Trace
from evaluators.scores import rank_of
from evaluators.voting import Candidate, Votes
from utils.progress import count_of

SOLVED, WRONG_CELLS, WRONG_SHAPE, UNKNOWN = "solved", "wrong cells", "wrong shape", "unknown"


def format_grid(grid: np.ndarray) -> str:
    """Returns a grid as text."""
    return "/".join("".join(map(str, row)) for row in np.asarray(grid).tolist())


def judge_candidates(candidates: Sequence[Candidate], truth: np.ndarray | None) -> str:
    """Returns how near the candidates of a test input come to its truth."""
    if truth is None:
        return UNKNOWN
    if any(np.array_equal(candidate.grid, truth) for candidate in candidates):
        return SOLVED
    return WRONG_CELLS if any(candidate.grid.shape == truth.shape for candidate in candidates) else WRONG_SHAPE


def find_differences(grid: str, truth: str | None) -> set[tuple[int, int]]:
    """Returns the cells (row, column) in which a grid's text differs from the truth's; none if the shapes differ."""
    rows, wanted = grid.split("/"), (truth or "").split("/")
    if (len(rows), len(rows[0])) != (len(wanted), len(wanted[0])):
        return set()
    return {(r, c) for r, row in enumerate(rows) for c, sign in enumerate(row) if sign != wanted[r][c]}


def describe_tasks(
    tasks: Mapping[str, Task], votes: Votes, traces: Mapping[tuple[str, int], list[str]], attempts: int
) -> list[dict[str, Any]]:
    """Returns what the page shows of each task.

    Args:
        traces: see `describe_traces`.
        attempts: how many candidates of each test input are shown.

    Returns:
        of each task `id`, the grids of `train`, and of each `test` input its grids, how near the attempts come
        (`status`), the place of the truth among all candidates (`rank`, None if it is not among them), the attempts
        with their votes, the numbers of all candidates and votes, and the answer after each ACT step.
    """
    described = []
    for name, task in tasks.items():
        tests = [
            _describe_test(grid, truth, votes.get((name, index), []), traces.get((name, index), []), attempts)
            for index, (grid, truth) in enumerate(task.test)
        ]
        train = [
            {"input": format_grid(grid), "output": format_grid(output)}
            for grid, output in task.train
            if output is not None
        ]
        described.append({"id": name, "train": train, "test": tests})
    return described


def _describe_test(
    grid: np.ndarray, truth: np.ndarray | None, candidates: Sequence[Candidate], steps: list[str], attempts: int
) -> dict[str, Any]:
    best = candidates[:attempts]
    rank = float("inf") if truth is None else rank_of([candidate.grid for candidate in candidates], truth)
    return {
        "input": format_grid(grid),
        "truth": None if truth is None else format_grid(truth),
        "status": judge_candidates(best, truth),
        "rank": None if rank == float("inf") else int(rank),
        "attempts": [
            {
                "grid": format_grid(candidate.grid),
                "votes": candidate.votes,
                "halt": round(candidate.mean_halt, 4),
                "caption": f"{n}: {_count_votes(candidate.votes)}, halting {candidate.mean_halt:.0%}",
            }
            for n, candidate in enumerate(best, start=1)
        ],
        "candidates": len(candidates),
        "votes": sum(candidate.votes for candidate in candidates),
        "summary": _summarise(candidates, attempts, rank),
        "steps": steps,
    }


def _summarise(candidates: Sequence[Candidate], attempts: int, rank: float) -> str:
    if not candidates:
        return "No prediction shows a grid; the input itself is submitted"
    votes = _count_votes(sum(candidate.votes for candidate in candidates))
    shown = min(attempts, len(candidates))
    summary = f"The best {shown} of {count_of(len(candidates), 'candidate', 'candidates')} by {votes}"
    # Only the ranking is to blame for a truth that was predicted and not submitted.
    return summary + (f"; the truth is candidate {rank:.0f}" if attempts < rank < float("inf") else "")


def _count_votes(votes: float) -> str:
    """Returns a number of votes in words; weighted votes to a tenth."""
    return count_of(int(votes), "vote", "votes") if votes == int(votes) else f"{votes:,.1f} votes"


def describe_traces(trace: Trace | None, catalog: PuzzleCatalog) -> dict[tuple[str, int], list[str]]:
    """Returns the grid after each ACT step, as text, of every un-augmented test input; "" if a step shows none."""
    if trace is None:
        return {}
    side = round(trace.tokens.shape[2] ** 0.5)
    return {
        (catalog.lookup(int(identifier))[0], int(index)): [format_grid(crop(canvas, side)) for canvas in canvases]
        for canvases, identifier, index in zip(trace.tokens, trace.puzzle_identifiers, trace.test_index, strict=True)
    }
