"""Counts votes and handles submissions without the model:

python -m evaluators.tools recount DATA_SET PREDICTIONS.. --out FOLDER     votes of one or several runs, pooled
python -m evaluators.tools compare DATA_SET PREDICTIONS..                  every ranking, scored side by side
python -m evaluators.tools merge SUBMISSION.. --out FILE --attempts 2      attempts of several submissions in turn
python -m evaluators.tools validate SUBMISSION CHALLENGES                  against Kaggle's challenges file

SUBMISSION is a file of tasks by id, a file ID.json with the entries of one task, or a folder of these.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from dataset.storage import open_catalog, open_test_tasks
from dataset.tasks import load_challenges
from evaluators.arc import ArcScorer
from evaluators.inference.predictions import Predictions, PredictionSnapshot
from evaluators.scores import KS, has_solutions, pass_at_k
from evaluators.submission import (
    NO_ANSWER,
    Submission,
    check_submission,
    count_gaps,
    number_of,
    read_submission,
    write_submission,
)
from evaluators.voting import RANKINGS, count_votes, vote_weight
from utils.cli import command
from utils.errors import DataError, SettingError, SubmissionError


def recount(
    data: Path,
    paths: list[Path],
    out: Path,
    attempts: int,
    ranking: str,
    steps: int | None = None,
    half_life: float | None = None,
) -> str:
    """Counts the votes of saved predictions again, writes submissions and scores, and returns the scores in words.

    Args:
        paths: of several evaluations, the latest last.
        steps: how many of each example's last kept ACT steps vote; None: all.
        half_life: after so many evaluations a vote counts half; None: votes of all count the same.
    """
    if half_life is not None and half_life <= 0:
        raise SettingError(f"--half-life {half_life:g}: name a positive number of evaluations")
    parts = [Predictions.load(path) for path in paths]
    if steps is not None:
        parts = [part.last(steps) for part in parts]
    conditions = {
        "data_path": str(data),
        "predictions": [str(path) for path in paths],
        "ranking": ranking,
        "vote_steps": steps,
        "attempts": attempts,
        "pool_half_life": half_life,
    }
    ages = range(len(parts) - 1, 0, -1)
    weights = [vote_weight(age, half_life) for age in ages]
    scorer = ArcScorer(open_catalog(data), open_test_tasks(data), attempts, ranking)
    result = scorer.score(PredictionSnapshot(parts[-1]), conditions, earlier=parts[:-1], weights=weights)
    result.write(out)
    return result.summary(out)


def compare(data: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """Returns pass@k over test inputs for every way to count.

    These are every ranking, of each file's votes alone and of all together, after an example's last ACT step alone and
    after the last 2, 4, .. that were kept.

    Returns:
        one row per way to count: `files`, `steps`, `ranking`, `votes_per_input` and `pass@K`.

    Raises:
        SubmissionError: if a file is not one of predictions.
        DataError: if a solution is not known.
    """
    catalog, tasks = open_catalog(data), open_test_tasks(data)
    if not has_solutions(tasks):
        raise DataError(f"{data} has no solutions for all test inputs: rankings cannot be compared")
    inputs = sum(len(task.test) for task in tasks.values())
    parts = {str(path): Predictions.load(path) for path in paths}
    kept_steps = 1 + max(int(part.steps_from_end().max(initial=0)) for part in parts.values())
    pools = {name: [part] for name, part in parts.items()}
    if len(parts) > 1:
        pools["all together"] = list(parts.values())
    rows = []
    for (files, pool), steps, ranking in itertools.product(pools.items(), _doubling(kept_steps), RANKINGS):
        votes = count_votes(Predictions.joined([part.last(steps) for part in pool]), catalog, ranking)
        scores = pass_at_k(votes, tasks)
        assert scores is not None
        counted = sum(candidate.votes for candidates in votes.values() for candidate in candidates)
        row = {"files": files, "steps": steps, "ranking": ranking, "votes_per_input": counted / inputs}
        rows.append(row | {f"pass@{k}": scores[f"ARC/pass@{k}_inputs"] for k in KS})
    return rows


def _doubling(last: int) -> list[int]:
    """Returns 1, 2, 4, .. and `last`."""
    return [*(1 << i for i in range(last.bit_length()) if 1 << i < last), last]


def format_comparison(rows: list[dict[str, Any]]) -> str:
    """Returns what `compare` found as a table."""
    width = 2 + max(len(row["files"]) for row in rows)
    names = [name for name in rows[0] if name.startswith("pass@")]
    lines = [
        f"{'predictions':<{width}}{'steps':>6}  {'ranking':<11}{'votes':>7}  " + "".join(f"{n:>11}" for n in names)
    ]
    lines += [
        f"{row['files']:<{width}}{row['steps']:>6}  {row['ranking']:<11}{row['votes_per_input']:>7.1f}  "
        + "".join(f"{row[name]:>11.1%}" for name in names)
        for row in rows
    ]
    return "\n".join(lines)


def merge(paths: list[Path], attempts: int) -> Submission:
    """Returns the first attempts of each submission in turn, then the second ones, .., each grid once.

    Args:
        attempts: per test input.  An input with fewer different grids repeats its first one; one without any has `[]`.

    Raises:
        SubmissionError: if one is not a submission, or they are not for the same tasks and test inputs.
    """
    if attempts < 1:
        raise SettingError(f"--attempts {attempts}: a submission has at least one attempt per test input")
    given = [read_submission(path) for path in paths]
    shapes = [{task: len(entries) for task, entries in one.items()} for one in given]
    if unanswered := [task for task, number in shapes[0].items() if not number]:
        raise SubmissionError(f"{paths[0]}: task {unanswered[0]!r} has no entries: it needs one per test input")
    if any(shape != shapes[0] for shape in shapes):
        raise SubmissionError(
            f"{paths[0]} and the others are not for the same test inputs: merge those of one challenges file"
        )
    return {
        task: [_merge_entries([one[task][i] for one in given], attempts) for i in range(len(entries))]
        for task, entries in given[0].items()
    }


def _merge_entries(entries: list[dict[str, Any]], attempts: int) -> dict[str, list[list[int]]]:
    """Returns the merged attempts at one test input."""
    grids: list[list[list[int]]] = []
    for n in sorted({number_of(name) for entry in entries for name in entry}):
        for entry in entries:
            grid = entry.get(f"attempt_{n}")
            if grid is not None and grid != NO_ANSWER and grid not in grids:
                grids.append(grid)
    grids = (grids + [grids[0] if grids else NO_ANSWER] * attempts)[:attempts]
    return {f"attempt_{n}": grid for n, grid in enumerate(grids, start=1)}


def validate(path: Path, challenges: Path, attempts: int | None) -> str:
    """Checks a submission as the competition does; returns that it is valid, in words, with what is not answered.

    Args:
        attempts: per test input; None: as many as the entries have.

    Raises:
        SubmissionError: naming the first thing that the competition would refuse.
    """
    tasks = load_challenges(challenges)
    given = read_submission(path)
    if attempts is None:
        attempts = max(
            (number_of(name) for entries in given.values() for entry in entries for name in entry), default=2
        )
    check_submission(given, tasks, attempts, gaps=True)
    inputs, gaps = sum(len(task.test) for task in tasks.values()), count_gaps(given, attempts)
    return f"{path} is valid: {len(tasks)} tasks, {inputs} test inputs, {attempts} attempts each" + (
        f"; {gaps} of the {inputs * attempts} attempts are no answer" if gaps else ""
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluators.tools", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("recount", "compare"):
        sub = commands.add_parser(name)
        sub.add_argument("data", type=Path)
        sub.add_argument("predictions", type=Path, nargs="+")
        if name == "recount":
            sub.add_argument("--out", type=Path, required=True)
            sub.add_argument("--attempts", type=int, default=10)
            sub.add_argument("--ranking", choices=list(RANKINGS), default="votes")
            sub.add_argument("--steps", type=int, help="how many of each example's last kept ACT steps vote; all")
            sub.add_argument("--half-life", type=float, help="a vote of so many files before the last counts half")
    sub = commands.add_parser("merge")
    sub.add_argument("submissions", type=Path, nargs="+")
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--attempts", type=int, default=2)
    sub = commands.add_parser("validate")
    sub.add_argument("submission", type=Path)
    sub.add_argument("challenges", type=Path)
    sub.add_argument("--attempts", type=int)
    return parser


def run_tool(given: argparse.Namespace) -> str:
    """Runs a command; returns what to print."""
    if given.command == "recount":
        return recount(
            given.data, given.predictions, given.out, given.attempts, given.ranking, given.steps, given.half_life
        )
    if given.command == "compare":
        return format_comparison(compare(given.data, given.predictions))
    if given.command == "merge":
        write_submission(merge(given.submissions, given.attempts), given.out)
        return f"{given.out}: {len(given.submissions)} submissions merged, {given.attempts} attempts per test input"
    return validate(given.submission, given.challenges, given.attempts)


@command
def main() -> None:
    print(run_tool(_parser().parse_args()))


if __name__ == "__main__":
    main()
