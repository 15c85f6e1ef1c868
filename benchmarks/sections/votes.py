"""Measures the way from token canvases to counted votes, on one core."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from dataset.augmentation import Augmentation
from dataset.storage import PuzzleCatalog
from evaluators.inference.predictions import Predictions
from evaluators.voting import count_votes


def measure(device: torch.device) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    names = ["<blank>"]
    for task in range(40):
        for _ in range(100):
            colours = (0, *(int(c) for c in rng.permutation(9) + 1))
            names.append(Augmentation(int(rng.integers(8)), colours).name(f"task{task}"))
    catalog = PuzzleCatalog.from_names(names)
    identifiers = rng.integers(1, len(names), 40_000).astype(np.int32)
    tokens = np.zeros((len(identifiers), 900), dtype=np.uint8)
    canvas = tokens.reshape(-1, 30, 30)
    for n, identifier in enumerate(identifiers):
        side = 8 + int(identifier) % 18
        canvas[n, :side, :side] = 2 + (int(identifier) + n % 3) % 10
        canvas[n, side : side + 1, :side] = canvas[n, :side, side : side + 1] = 1
    predictions = Predictions(
        tokens=tokens,
        q_halt=rng.normal(size=len(tokens)).astype(np.float32),
        puzzle_identifiers=identifiers,
        test_index=np.zeros(len(tokens), np.int32),
        steps=np.ones(len(tokens), np.int32),
    )
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        count_votes(predictions, catalog)
        best = min(best, time.perf_counter() - started)
    return {"predictions cropped, restored and counted, 1/s": len(tokens) / best}
