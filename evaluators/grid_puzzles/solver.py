"""Completes Sudoku and mazes in someone's own code, without training:

    from evaluators.grid_puzzles.solver import GridPuzzleSolver

    solver = GridPuzzleSolver.load("FOLDER")                 # an exported network, a checkpoint, or a run
    answers = solver.solve(["53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"])
    print(answers.describe(shown=1), answers.halting[0])

Such a network needs no demonstrations: all its puzzles have one rule, which it has learnt.  The parts are those of
`eval_arc_k10.py` with evaluators=[exact].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset import storage
from dataset.data_shape import DataShape
from dataset.encoding import BLANK_IDENTIFIER
from dataset.layouts.tables import TableRow
from dataset.storage import PlainExamples
from evaluators.grid_puzzles.answers import GridAnswers
from evaluators.grid_puzzles.kinds import identify_kind, name_of_kind
from evaluators.inference.engine import PredictionOptions
from evaluators.inference.predict import predict_all
from training.checkpoint import NetworkConfig, Weights, initialise_network, load_weights, locate_weights, network_config
from training.config import EvalConfig, roles_of
from training.launch.overrides import validate
from training.prepare.compiler import should_compile
from training.prepare.precision import choose_dtype, replace_emulated
from training.prepare.prepare import prepare
from training.state import TrainState
from utils import distributed
from utils.errors import CheckpointError, DataError, SettingError

SETTINGS = frozenset(("device", "compile", "eval_batch_size", "eval_halt_max_steps", "early_exit"))
"""Settings of `eval_arc_k10.py` that have an effect on a prediction without training."""

CELLS_AT_ONCE = 1 << 16
"""By default so many cells are predicted in one batch."""


class GridPuzzleSolver:
    """A network that completes Sudoku or mazes of one size.

    Args:
        weights: of such a network.
        network: its architecture and canvas.
        settings: of prediction (`SETTINGS`), by the names that `eval_arc_k10.py` has for them.

    Raises:
        CheckpointError: if the network is of another kind, such as one for ARC.
        SettingError: naming the setting that is wrong.
    """

    def __init__(self, weights: Weights, network: NetworkConfig, settings: Mapping[str, Any]) -> None:
        tokens, cells = network.tokens.vocab_size, network.canvas.seq_len
        kind = identify_kind(tokens, cells, weights.record.sources)
        if kind is None:
            raise CheckpointError(
                f"{weights.source} is not a network for Sudoku or mazes ({tokens} tokens, {cells} cells): name another "
                "one, or give it an ARC task"
            )
        for name in sorted(settings.keys() - SETTINGS):
            if name.split(".")[0] in roles_of(EvalConfig):  # other names are refused below, with the nearest
                raise SettingError(
                    f"{name} has no effect on a {kind.name}, which is predicted without training: leave it out"
                )
        self.kind = kind
        self._weights, self._network, self._settings = weights, network, dict(settings)
        self._device = torch.device("cpu")  # until the settings are checked
        self._config()  # refuses what is wrong before there is any puzzle
        self._device = distributed.setup(self._settings.get("device", "auto"))

    @classmethod
    def load(cls, path: str | Path, **settings: Any) -> GridPuzzleSolver:
        """Returns a solver with the weights at `path`, which can be what `Solver.load` takes.

        Raises:
            CheckpointError: if there are no such weights, or they are of another kind of puzzle.
            SettingError: if a setting is wrong.
        """
        weights = load_weights(locate_weights(path))
        return cls(weights, network_config(weights), settings)

    def _config(self) -> EvalConfig:
        arch = replace_emulated(choose_dtype(self._network.arch, self._device), self._device).model_dump()
        run = {"data_paths": ["puzzles"], "epochs": 1, "eval_interval": None, "evaluators": ["exact"], "ema": False}
        batch = max(1, CELLS_AT_ONCE // self._network.canvas.seq_len)
        defaults = {"device": "auto", "compile": False, "eval_batch_size": batch, "global_batch_size": 1}
        return validate({"arch": arch, **run, **defaults, **self._settings}, EvalConfig)

    def solve(self, questions: Sequence[str | TableRow]) -> GridAnswers:
        """Returns the answers to puzzles, which are predicted together, in batches.

        Args:
            questions: each as text, as tables and files have them (docs/data.md), or as a row of such a file, whose
                answer is only compared.

        Raises:
            DataError: naming the puzzle that is not of the network's kind and size, and what is wrong with it.
        """
        rows = [
            TableRow(given, "", 0.0, f"puzzle {number}") if isinstance(given, str) else given
            for number, given in enumerate(questions, start=1)
        ]
        if not rows:
            raise DataError("there is no puzzle to complete: give at least one")
        if (name := name_of_kind(rows[0].question)) != self.kind.name:
            raise DataError(
                f"{rows[0].where} is a {name}, and {self._weights.source} is a network for {self.kind.plural} of side "
                f"{self.kind.side}: use other weights"
            )
        parsed = [self.kind.parse(row.question, row.answer, row.where) for row in rows]
        tokens, truths = (np.stack(column) for column in zip(*parsed, strict=True))
        return self._predict(tokens, truths)

    def _predict(self, questions: np.ndarray, truths: np.ndarray) -> GridAnswers:
        config = self._config()
        options = PredictionOptions.from_config(config)
        examples = PlainExamples(questions, truths, np.ones(len(questions), dtype=np.int64))
        split = storage.examples_in_memory(examples, self._network.tokens.vocab_size)
        shape = DataShape.from_metadata(split.metadata, split.metadata.num_puzzle_identifiers)
        shape = replace(shape, row_stride=self._network.canvas.row_stride)
        state = prepare(TrainState(config, shape, self._device), should_compile(config, self._device))
        initialise_network(state.network, self._weights)
        self._set_row(state)
        batch_size = min(options.batch_size, len(questions))
        snapshot = predict_all(state, split, replace(options, batch_size=batch_size))
        assert snapshot is not None, "puzzles are completed by one process"
        found = snapshot.predictions
        return GridAnswers(self.kind, questions, found.tokens, truths, found.q_halt, found.steps)

    def _set_row(self, state: TrainState) -> None:
        """Gives the network the one row that all its puzzles share.  An exported folder has it as the rows' mean."""
        if state.table is None:
            return
        rows, summary = self._weights.puzzle_rows, self._weights.row_summary()
        if rows is not None and len(rows):
            rows = rows if isinstance(rows, Tensor) else rows.dense()
            state.table.fill(rows[BLANK_IDENTIFIER])
        elif summary is not None:
            state.table.fill(summary.mean)
