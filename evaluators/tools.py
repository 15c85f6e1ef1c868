"""Votes and submissions without the model:

python -m evaluators.tools recount DATA_SET PREDICTIONS.. --out FOLDER     votes of one or several runs, pooled
python -m evaluators.tools compare DATA_SET PREDICTIONS..                  every ranking, scored side by side
python -m evaluators.tools merge SUBMISSION.. --out FILE --attempts 2      attempts of several submissions in turn
python -m evaluators.tools validate SUBMISSION CHALLENGES                  against Kaggle's challenges file
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from dataset.storage import open_catalog, open_test_tasks
from dataset.tasks import load_challenges, parse_grid
from evaluators import arc, scores, submission
from evaluators.inference.predictions import Predictions
from evaluators.voting import RANKINGS, count_votes
from utils.cli import command


def recount(data: Path, paths: list[Path], out: Path, attempts: int, ranking: str, steps: int | None = None) -> str:
    """Counts the votes of saved predictions anew and writes submissions and scores; returns the table.

    Args:
        steps: the answers after so many of each example's last ACT steps count, of those that were saved; None: all.
    """
    parts = [Predictions.load(path) for path in paths]
    if steps is not None:
        parts = [part.last(steps) for part in parts]
    conditions = {
        **{"data_path": str(data), "predictions": [str(path) for path in paths]},
        **{"ranking": ranking, "vote_steps": steps, "attempts": attempts},
    }
    metrics = arc.evaluate(
        parts, open_catalog(data), open_test_tasks(data), out, conditions, attempts=attempts, ranking=ranking
    )
    return arc.table(metrics, out)


def compare(data: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """pass@k over test inputs under every ranking, of each file's votes alone and of all together, after an example's
    last ACT step alone and after the last 2, 4, .. that were saved.

    Returns:
        one row per way of counting: `files`, `steps`, `ranking`, `votes_per_input` and `pass@K`.

    Raises:
        ValueError: if a file is none of predictions, or a solution is not known.
    """
    catalog, tasks = open_catalog(data), open_test_tasks(data)
    if not scores.has_solutions(tasks):
        raise ValueError(f"{data} has no solutions for all test inputs: rankings cannot be compared")
    inputs = sum(len(task["test"]) for task in tasks.values())
    parts = {str(path): Predictions.load(path) for path in paths}
    saved = 1 + max(int(part.places().max(initial=0)) for part in parts.values())
    pools = {name: [part] for name, part in parts.items()}
    if len(parts) > 1:
        pools["all together"] = list(parts.values())
    rows = []
    for (files, pool), steps, ranking in itertools.product(pools.items(), _doubling(saved), RANKINGS):
        votes = count_votes(Predictions.joined([part.last(steps) for part in pool]), catalog, ranking)
        found = scores.pass_at_k(votes, tasks)
        assert found is not None
        counted = sum(candidate.votes for candidates in votes.values() for candidate in candidates)
        row = {"files": files, "steps": steps, "ranking": ranking, "votes_per_input": counted / inputs}
        rows.append(row | {f"pass@{k}": found[f"ARC/pass@{k}_inputs"] for k in scores.KS})
    return rows


def _doubling(last: int) -> list[int]:
    """1, 2, 4, .. and `last`."""
    return [*(1 << i for i in range(last.bit_length()) if 1 << i < last), last]


def comparison_table(rows: list[dict[str, Any]]) -> str:
    """What `compare` found, as people read it."""
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


def read_submission(path: Path) -> Any:
    """Raises ValueError if the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): name a submission file") from None


def _entries(path: Path) -> dict[str, list[dict[str, Any]]]:
    """A submission file whose every entry has attempts, each a grid.

    Raises:
        ValueError: naming the file, the task and the test input that has none.
    """
    given = read_submission(path)
    if not isinstance(given, dict):
        raise ValueError(f"{path} is no submission: it holds a {type(given).__name__}, not tasks by id")
    for task, entries in given.items():
        if not isinstance(entries, list):
            raise ValueError(f"{path}: task {task!r} has no list of entries, one per test input: correct it")
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) or "attempt_1" not in entry:
                raise ValueError(f"{path}: task {task!r}, test input {i} has no attempt_1: correct it")
            for name, grid in entry.items():
                parse_grid(grid, f"{path}: task {task!r}, test input {i}, {name}")
    return given


def merge(paths: list[Path], attempts: int) -> submission.Submission:
    """The first attempts of each submission in turn, then the second ones, .., each grid once, `attempts` in all.

    Raises:
        ValueError: if one is no submission, or they are not for the same tasks and test inputs.
    """
    if attempts < 1:
        raise ValueError(f"--attempts {attempts}: a submission has at least one attempt per test input")
    given = [_entries(path) for path in paths]
    shapes = [{task: len(entries) for task, entries in one.items()} for one in given]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            f"{paths[0]} and the others are not for the same test inputs: merge those of one challenges file"
        )
    merged: submission.Submission = {}
    for task, entries in given[0].items():
        merged[task] = []
        for i in range(len(entries)):
            ranked = [one[task][i] for one in given]
            most = max(len(entry) for entry in ranked)
            turns = [entry.get(f"attempt_{n}") for n in range(1, most + 1) for entry in ranked]
            grids: list[list[list[int]]] = []
            for grid in turns:
                if grid is not None and grid not in grids:
                    grids.append(grid)
            grids = (grids + [grids[0]] * attempts)[:attempts]
            merged[task].append({f"attempt_{n}": grid for n, grid in enumerate(grids, start=1)})
    return merged


def validate(path: Path, challenges: Path, attempts: int | None) -> str:
    """Raises ValueError for the first thing that the competition would refuse."""
    tasks = load_challenges(challenges)
    given = read_submission(path)
    if attempts is None:
        first = next(iter(given.values()), None) if isinstance(given, dict) else None
        attempts = len(first[0]) if isinstance(first, list) and first and isinstance(first[0], dict) else 2
    submission.validate(given, tasks, attempts)
    inputs = sum(len(task["test"]) for task in tasks.values())
    return f"{path} is valid: {len(tasks)} tasks, {inputs} test inputs, {attempts} attempts each"


@command
def main() -> None:
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
            sub.add_argument("--steps", type=int, help="ACT steps of each example that vote, its last ones; all saved")
    sub = commands.add_parser("merge")
    sub.add_argument("submissions", type=Path, nargs="+")
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--attempts", type=int, default=2)
    sub = commands.add_parser("validate")
    sub.add_argument("submission", type=Path)
    sub.add_argument("challenges", type=Path)
    sub.add_argument("--attempts", type=int)
    given = parser.parse_args()
    if given.command == "recount":
        print(recount(given.data, given.predictions, given.out, given.attempts, given.ranking, given.steps))
    elif given.command == "compare":
        print(comparison_table(compare(given.data, given.predictions)))
    elif given.command == "merge":
        submission.write(merge(given.submissions, given.attempts), given.out)
        print(f"{given.out}: {len(given.submissions)} submissions merged, {given.attempts} attempts per test input")
    else:
        print(validate(given.submission, given.challenges, given.attempts))


if __name__ == "__main__":
    main()
