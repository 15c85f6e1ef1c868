"""training/data.py: how often a run will visit a puzzle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dataset.sampling.visits import IntervalVisits
from models.arch import ArchConfig
from tests.builders.splits import FakeSplit
from training.config import PretrainConfig
from training.data import VisitOutlook, describe_visits

GROUPS = [[1] * 40, [1] * 3, [2] * 90]


def splits(weights: Any = None) -> list[Any]:
    split = FakeSplit(GROUPS)
    split.group_weights = weights
    return [split]


@pytest.mark.parametrize("weights", [None, np.array([1, 0.5, 3.0])])
def test_the_outlook_is_what_drawn_visits_give(weights: Any) -> None:
    (split,) = splits(weights)
    visited = []
    for seed in range(400):
        drawn = IntervalVisits(split.layout, 40, seed, 0, weights)
        visited.append(np.bincount(drawn.visits(0, drawn.count).puzzles, minlength=133))
    outlook = VisitOutlook.from_splits([split], 40)
    counts = np.array(visited)
    assert outlook.puzzles == 133
    assert outlook.mean == pytest.approx(counts.mean(), rel=0.01)
    assert outlook.never == pytest.approx((counts == 0).mean(), abs=0.01)
    assert outlook.once == pytest.approx((counts == 1).mean(), abs=0.01)


def config_of(epochs: int, **settings: Any) -> PretrainConfig:
    return PretrainConfig(data_paths=["d"], epochs=epochs, eval_interval=epochs, **settings)


def test_rows_that_are_hardly_trained_are_said_with_a_remedy() -> None:
    few, many = describe_visits(config_of(10), splits()), describe_visits(config_of(2000), splits())
    assert "each of 133 puzzles is visited 0.226 times on average: 84% of them never, 13% once" in few
    assert "set arch.puzzle_embedding=composed and fresh_augmentations=true" in few
    assert "composed" not in many
    assert "nothing is trained" in describe_visits(config_of(1).model_copy(update={"epochs": 0}), splits())
    composed = ArchConfig(puzzle_embedding="composed")
    assert "set arch" not in describe_visits(config_of(10, arch=composed), splits())
    fresh = describe_visits(config_of(10, arch=composed, fresh_augmentations=True), splits())
    assert fresh == "each of 3 tasks is visited 10 times on average, each time under a new augmentation"


def test_puzzles_that_share_a_row_need_no_remedy() -> None:
    shared = FakeSplit(GROUPS, num_puzzle_identifiers=1)
    assert "set arch" not in describe_visits(config_of(10), [shared])  # type: ignore[list-item]


def test_a_data_set_of_questions_alone_has_nothing_to_visit() -> None:
    assert "no puzzles to train on" in describe_visits(config_of(10), [FakeSplit([[]])])  # type: ignore[list-item]
