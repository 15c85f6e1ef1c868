"""Solves puzzles in someone's own code:

    from evaluators.solver import Solver

    solver = Solver.load("FOLDER")                  # an exported network, or a checkpoint
    attempts = solver.predict(task)                 # task: a dictionary as in ARC's JSON files
    for attempt in attempts[0][:2]:                 # of the first test input, best first
        print(attempt.votes, attempt.grid)          # grid: uint8 [h, w]

A network knows a puzzle by its row of the puzzle table, and a new puzzle has none: so it starts from the mean of the
trained rows, and network and row learn from the puzzle's demonstrations, under augmentations, before they predict.  The
parts are those of `eval_arc_k10.py`: splits, batches, `train_step`, predictions, votes.
"""

from evaluators.solver.files import ATTEMPTS, pictures_in, read_puzzles, to_json
from evaluators.solver.solution import Solution
from evaluators.solver.solver import AUGMENTATIONS, BATCH, SETTINGS, STEPS, Solver
from evaluators.solver.summary import format_answer, format_table, suggest_next

__all__ = [
    "ATTEMPTS",
    "AUGMENTATIONS",
    "BATCH",
    "SETTINGS",
    "STEPS",
    "Solution",
    "Solver",
    "format_answer",
    "format_table",
    "pictures_in",
    "read_puzzles",
    "suggest_next",
    "to_json",
]
