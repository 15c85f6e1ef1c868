"""Says in words what was found for puzzles: which are solved, by how many votes, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from dataset.tasks import Task
from evaluators.solver.solution import Solution

UNKNOWN = "unknown"


def judge(rank: float | None, attempts: int) -> str:
    """Returns whether a test input is solved, by the rank of its true output (`Solution.ranks`)."""
    if rank is None:
        return UNKNOWN
    if rank > attempts:
        return "no"
    return "yes" if rank == 1 else f"attempt {rank:.0f}"


def format_answer(solution: Solution, attempts: int) -> str:
    """Returns the best attempt at each test input as digits, how sure it is, and whether it is right.

    Args:
        attempts: so many may be made at a test input.
    """
    lines = []
    for i, (candidates, rank) in enumerate(zip(solution.attempts, solution.ranks, strict=True), start=1):
        if not candidates:
            lines.append(f"test input {i}: no prediction showed a grid")
            continue
        best, votes = candidates[0], sum(c.votes for c in candidates)
        lines.append(
            f"test input {i}: {best.votes} of {votes} votes, the network is {best.mean_halt:.0%} sure"
            f"{_verdict(rank, attempts)}"
        )
        lines += ["  " + " ".join(map(str, row)) for row in best.grid.tolist()]
    return "\n".join(lines)


def _verdict(rank: float | None, attempts: int) -> str:
    """Returns what the true output in the file says of the best attempt; nothing where the file has none."""
    if rank is None:
        return ""
    if rank == 1:
        return ": right"
    if rank <= attempts:
        return f": wrong, and attempt {rank:.0f} is right"
    return ": wrong" + ("" if rank == float("inf") else f", and the right one is only candidate {rank:.0f}")


def format_table(
    solutions: Sequence[Solution], seconds: Sequence[float], attempts: int, given: Sequence[Task] = ()
) -> str:
    """Returns a line per test input, and how many of the puzzles are solved.

    Args:
        seconds: that each puzzle took.
        attempts: so many may be made at a test input.
        given: all puzzles in their order; those behind the last solution were not finished, and the end says so.
    """
    rows = [("puzzle", "solved", "votes", "sure", "seconds")]
    for solution, took in zip(solutions, seconds, strict=True):
        several = len(solution.attempts) > 1
        for i, (candidates, rank) in enumerate(zip(solution.attempts, solution.ranks, strict=True), start=1):
            name = f"{solution.puzzle.id}, input {i}" if several else solution.puzzle.id
            votes = f"{candidates[0].votes} of {sum(c.votes for c in candidates)}" if candidates else "none"
            sure = f"{candidates[0].mean_halt:.0%}" if candidates else ""
            rows.append((name, judge(rank, attempts), votes, sure, f"{took:.0f}" if i == 1 else ""))
    width = max(len(row[0]) for row in rows)
    lines = [f"{name:<{width}}  {solved:<10}{votes:>12}{sure:>7}{took:>9}" for name, solved, votes, sure, took in rows]
    known = [solved for solution in solutions if (solved := solution.is_solved(attempts)) is not None]
    if known:
        lines += ["", f"{sum(known)} of {len(known)} puzzles are solved within {attempts} attempts"]
    if left := [puzzle.id for puzzle in given[len(solutions) :]]:
        lines += ["", f"not finished, so without an answer: {', '.join(left)}"]
    return "\n".join(lines)


def suggest_next(solutions: Sequence[Solution], attempts: int, steps: int) -> str:
    """Returns one line on what to do next, by what is known of the answers.

    Args:
        steps: of fine-tuning that were made.
    """
    verdicts = [solution.is_solved(attempts) for solution in solutions]
    if False in verdicts:
        names = [solution.puzzle.id for solution, solved in zip(solutions, verdicts, strict=True) if solved is False]
        return (
            f"next: not solved: {', '.join(names)}. Learn longer (--steps {max(1, 2 * steps)}), add demonstrations, or "
            "take a network that was trained on more tasks"
        )
    if None in verdicts:
        return 'next: look at the picture; with an "output" beside the test input the answer is checked'
    return "next: copy the file, and change it into a puzzle of your own"
