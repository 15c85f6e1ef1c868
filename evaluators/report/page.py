"""report.html: what a run predicted, task by task, on one page that needs no server.

    python -m evaluators.report RUN                       the latest evaluation of a run's folder -> RUN/report.html
    python -m evaluators.report --data DATA_SET [--out FILE]   a built data set: its tasks as the model sees them

The page is static: everything it shows lies in it as JSON, escaped so that no task's name can become markup, and is
drawn by the script in `evaluators/pages/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.augmentation import Augmentation
from dataset.decoding import crop
from dataset.storage import PuzzleCatalog, Split, open_catalog, open_split, open_test_tasks
from evaluators import arc
from evaluators.inference.predictions import Predictions, Trace
from evaluators.scores import SCORES, evaluations, rank_of
from evaluators.voting import Candidate, Votes, count_votes
from utils.metrics_log import read_metrics
from utils.plot import select_curves

PAGES = Path(__file__).resolve().parent / "assets"
REPORT = "report.html"

SOLVED, WRONG_CELLS, WRONG_SHAPE, UNKNOWN = "solved", "wrong cells", "wrong shape", "unknown"


def palette() -> dict[str, str]:
    """Every colour of the page by name, as `#rrggbb` and of the light theme: `c0` to `c9` are ARC's own."""
    light = (PAGES / "report.css").read_text(encoding="utf-8").partition("@media")[0]
    return dict(re.findall(r"--([\w-]+): *(#[0-9a-fA-F]{6})", light))


def rows_of(grid: Any) -> str:
    """A grid as text, a digit a cell, `/` between rows."""
    return "/".join("".join(str(int(cell)) for cell in row) for row in grid)


def status_of(candidates: Sequence[Candidate], truth: Any | None, within: int) -> str:
    """How near the best `within` candidates of a test input come to the truth."""
    if truth is None:
        return UNKNOWN
    wanted = np.asarray(truth)
    best = candidates[:within]
    if any(np.array_equal(c.grid, wanted) for c in best):
        return SOLVED
    return WRONG_CELLS if any(c.grid.shape == wanted.shape for c in best) else WRONG_SHAPE


def differing(grid: str, truth: str | None) -> set[tuple[int, int]]:
    """The cells (row, column) in which a grid's text is not the truth's; none where the shapes differ."""
    rows, wanted = grid.split("/"), (truth or "").split("/")
    if (len(rows), len(rows[0])) != (len(wanted), len(wanted[0])):
        return set()
    return {(r, c) for r, row in enumerate(rows) for c, sign in enumerate(row) if sign != wanted[r][c]}


def describe(
    test_tasks: Mapping[str, Any], votes: Votes, traces: Mapping[tuple[str, int], list[str]], attempts: int
) -> list[dict[str, Any]]:
    """What the page shows of each task, as plain values."""
    described = []
    for name, task in test_tasks.items():
        tests = []
        for i, pair in enumerate(task["test"]):
            candidates = votes.get((name, i), [])
            truth = pair.get("output")
            tests.append(
                {
                    "input": rows_of(pair["input"]),
                    "truth": None if truth is None else rows_of(truth),
                    "status": status_of(candidates, truth, attempts),
                    "attempts": [
                        {
                            "grid": rows_of(c.grid),
                            "votes": c.votes,
                            "halt": round(c.mean_halt, 4),
                            "caption": f"{n}: {arc.counted(c.votes, 'vote')}, halting {c.mean_halt:.0%}",
                        }
                        for n, c in enumerate(candidates[:attempts], start=1)
                    ],
                    "candidates": len(candidates),
                    "votes": sum(c.votes for c in candidates),
                    "summary": _summary(candidates, attempts, truth),
                    "steps": traces.get((name, i), []),
                }
            )
        train = [{"input": rows_of(pair["input"]), "output": rows_of(pair["output"])} for pair in task["train"]]
        described.append({"id": name, "train": train, "test": tests})
    return described


def _summary(candidates: Sequence[Candidate], attempts: int, truth: Any | None) -> str:
    if not candidates:
        return "No prediction shows a grid; the input itself is submitted"
    votes = arc.counted(sum(c.votes for c in candidates), "vote")
    shown = min(attempts, len(candidates))
    said = f"The best {shown} of {arc.counted(len(candidates), 'candidate')} by {votes}"
    rank = float("inf") if truth is None else rank_of([c.grid for c in candidates], truth)
    # What was predicted yet not submitted is lost by the ranking alone.
    return said + (f"; the truth is candidate {rank:.0f}" if attempts < rank < float("inf") else "")


def trace_grids(trace: Trace | None, catalog: PuzzleCatalog) -> dict[tuple[str, int], list[str]]:
    """The grid after each ACT step of every un-augmented test input; empty text where none is shown."""
    if trace is None:
        return {}
    side = round(trace.tokens.shape[2] ** 0.5)
    return {
        (catalog.lookup(int(identifier))[0], int(index)): [rows_of(crop(canvas, side)) for canvas in canvases]
        for canvases, identifier, index in zip(trace.tokens, trace.puzzle_identifiers, trace.test_index, strict=True)
    }


def page(title: str, content: Mapping[str, Any]) -> str:
    """The page's text.

    Args:
        content: `tasks` (see `describe`), and optionally `scores`, `conditions`, `curves`.
    """
    # Inside a script element only "<" could end it; as an escape it is the same JSON.
    data = json.dumps({"title": title, **content}, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", " ")
    parts = {name: (PAGES / name).read_text(encoding="utf-8") for name in ("report.html", "report.css", "report.js")}
    text = parts["report.html"]
    for mark, value in (("/*CSS*/", parts["report.css"]), ("/*JS*/", parts["report.js"]), ("/*DATA*/", data)):
        head, _, tail = text.partition(mark)
        text = head + value + tail
    return text


def described_run(run: Path, data: Path | None = None) -> tuple[str, dict[str, Any]]:
    """Title and content of the page of a run's latest evaluation.

    Args:
        data: its data set, where it is not where the run found it.

    Raises:
        ValueError: if the folder holds no evaluation, or its data set is not to be found.
    """
    folders = evaluations(run)
    if not folders:
        raise ValueError(f"{run} holds no evaluation: name the folder of a run of eval_arc_k10.py")
    folder = folders[-1]
    try:
        scores = json.loads((folder / SCORES).read_text(encoding="utf-8"))
        conditions = scores.pop("conditions", {})
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / SCORES} cannot be read ({error}): evaluate again") from None
    data = data or Path(conditions.get("data_path") or "")
    catalog, test_tasks = open_catalog(data), open_test_tasks(data)
    counted = [run / name for name in conditions.get("pooled", [])] + [folder]
    predictions = Predictions.joined([Predictions.load(path / arc.PREDICTIONS) for path in counted])
    trace = Trace.load(folder / arc.TRACE) if (folder / arc.TRACE).exists() else None
    log = run / "metrics.jsonl"
    chosen = conditions.get("tasks") or list(test_tasks)
    tasks = describe(
        {name: task for name, task in test_tasks.items() if name in chosen},
        count_votes(predictions, catalog, conditions.get("ranking", "votes")),
        trace_grids(trace, catalog),
        int(conditions.get("attempts", 10)),
    )
    content = {
        "scores": scores,
        "conditions": conditions,
        "curves": select_curves(read_metrics(log) if log.exists() else []),
    }
    return f"{run.name}, step {conditions.get('step', '?')}", {"tasks": tasks, **content}


def of_run(run: Path, data: Path | None = None) -> str:
    """The page of a run's latest evaluation; see `described_run`."""
    return page(*described_run(run, data))


def described_puzzle(data: Path, name: str, seed: int = 0) -> dict[str, Any]:
    """One puzzle of a data set's train split as one visit shows it, under its own or a task's name.

    Args:
        seed: of the visit.

    Raises:
        ValueError: if there is no such puzzle.
    """
    split, catalog = open_split(data, "train"), open_catalog(data)
    task, augmentation = Augmentation.parse(name)
    found = np.zeros(len(catalog), dtype=bool)
    if task in catalog.task_ids:
        found = (catalog.task_of == catalog.task_ids.index(task)) & (catalog.dihedral == augmentation.dihedral)
        found &= (catalog.colours == augmentation.colours).all(1)
    puzzles = np.flatnonzero(np.isin(split.puzzle_identifiers, np.flatnonzero(found)))
    if not len(puzzles):
        raise ValueError(f"{name[:80]!r} is no puzzle that {data} trains on: name one that its page lists")
    return _as_seen(split, catalog, int(puzzles[0]), seed)


def of_data(data: Path, most: int = 200, puzzles: int = 4, seed: int = 0) -> str:
    """The page of a data set before training: of each task a few augmented puzzles as one visit shows them.

    Args:
        most: tasks at most.  puzzles: of each task.  seed: of the visits.
    """
    split, catalog = open_split(data, "train"), open_catalog(data)
    tasks = []
    for group in range(min(most, len(split.group_indices) - 1)):
        first, end = int(split.group_indices[group]), int(split.group_indices[group + 1])
        tasks += [_as_seen(split, catalog, puzzle, seed) for puzzle in range(first, min(end, first + puzzles))]
    return page(f"{data.name}: as the model sees it", {"tasks": tasks})


def _as_seen(split: Split, catalog: PuzzleCatalog, puzzle: int, seed: int) -> dict[str, Any]:
    """What `describe` says of a task, for one puzzle of a split: whole canvases, no tests."""
    side = round(split.metadata.seq_len**0.5)
    examples = np.arange(split.puzzle_indices[puzzle], split.puzzle_indices[puzzle + 1])
    inputs, labels = split.read(examples, np.full(len(examples), seed + 1, dtype=np.uint64))
    canvases = [{"input": _tokens(a, side), "output": _tokens(b, side)} for a, b in zip(inputs, labels, strict=True)]
    return {"id": catalog.name(int(split.puzzle_identifiers[puzzle])), "train": canvases, "test": []}


def _tokens(canvas: np.ndarray, side: int) -> str:
    """A whole canvas: colours as digits, PAD as `.`, EOS as `e`."""
    signs = ".e0123456789"
    return "/".join("".join(signs[token] for token in row) for row in canvas.reshape(side, side))
