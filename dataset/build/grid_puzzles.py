"""Builds Sudoku and maze data sets: settings -> puzzles, made or read from CSV -> augmented examples -> files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from dataset.augmentation import NUM_DIHEDRAL, dihedral
from dataset.build import maze, sudoku
from dataset.build.puzzle_files import GridPuzzles, find_files, join_puzzles, stack_puzzles
from dataset.encoding import PAD
from dataset.layouts.tables import Columns, read_rows
from dataset.storage import DataOrigin, Manifest, PlainExamples, write_examples
from utils.errors import SettingError

Progress = Callable[[int, int], None]

SUDOKU_EXTREME, MAZE_HARD = "sapientinc/sudoku-extreme", "sapientinc/maze-30x30-hard-1k"
GENERATE = "generate"
DEFAULT_SIZE = 1000
TEST_FRACTION = 10
"""One of this many puzzles is for test, if a table has both."""
MOST_ATTEMPTS = 50
"""Sudoku are made this many times at most, to find enough that are difficult enough."""


class GridPuzzleSettings(BaseModel):
    """The settings that Sudoku and mazes share."""

    source_repo: str = Field(
        GENERATE,
        description="generate; a table (CSV, JSON lines or parquet, gzipped or not) or a text of boards; a folder with "
        "train.csv and test.csv or with one table; or a data set on the Hugging Face hub",
    )
    subsample_size: int = Field(
        0, ge=0, description="training puzzles to make, or to draw from the file; 0: make 1000, or use all of the file"
    )
    test_size: int = Field(
        0,
        ge=0,
        description="test puzzles to make, or to take from the start of the file; 0: make 1000, or use all of the "
        "file.  Of one table for both, this many are drawn by the seed; 0: a tenth of it",
    )
    question_column: str = Field("", description="the column of the questions, if it has none of the usual names")
    answer_column: str = Field("", description="the column of the answers, if it has none of the usual names")
    rating_column: str = Field("", description="the column of the difficulty, if it is not rating or difficulty")
    seed: int = Field(42, ge=0, description="the same seed gives the same bytes")
    workers: int = Field(0, ge=0, description="number of threads; 0: one per core")

    def recorded(self) -> dict[str, object]:
        """Returns the settings that the manifest records: those that decide which puzzles there are."""
        columns = {name for name in type(self).model_fields if name.endswith("_column")}
        return self.model_dump(exclude={"output_dir", "workers", "source_repo", *columns})

    @property
    def columns(self) -> Columns:
        return Columns(self.question_column, self.answer_column, self.rating_column)


class SudokuSettings(GridPuzzleSettings):
    """The command line of `build_dataset.py sudoku`."""

    output_dir: str = Field("data/sudoku", description="the folder of the data set")
    size: int = Field(9, description="side of the Sudoku to make: 4, 6 or 9")
    clues: int = Field(0, ge=0, description="fewest digits that stay in a Sudoku that is made; 0: as few as possible")
    num_aug: int = Field(0, ge=0, description="augmentations of each training puzzle, besides itself")
    min_difficulty: int = Field(
        0, ge=0, description="leave out easier puzzles (difficulty: the file's rating, or the guesses of a solver)"
    )


class MazeSettings(GridPuzzleSettings):
    """The command line of `build_dataset.py maze`."""

    output_dir: str = Field("data/maze", description="the folder of the data set")
    size: int = Field(30, ge=5, description="side of the mazes to make")
    min_way: int = Field(
        0, ge=0, description="fewest steps from start to goal; 0: 110 for 30 x 30, in proportion for other sizes"
    )
    aug: bool = Field(False, description="add the seven other dihedral transforms of each training maze")


def build_sudoku(settings: SudokuSettings, progress: Progress) -> Manifest:
    """Builds a Sudoku data set.

    Raises:
        SettingError, DataError: naming the setting, or the file and its row, and the remedy.  Nothing is left behind.
    """
    if settings.size not in sudoku.GENERATED:
        raise SettingError(f"--size {settings.size} is not the side of a Sudoku: use 4, 6 or 9")
    min_difficulty = settings.min_difficulty

    def read(path: Path, needs_answers: bool) -> GridPuzzles:
        rows = [
            (*sudoku.parse_sudoku(row.question, row.answer, row.where), row.rating)
            for row in read_rows(path, settings.columns, needs_answers, bool(min_difficulty or settings.rating_column))
            if row.rating >= min_difficulty
        ]
        return stack_puzzles(rows, path)

    def make(count: int, seed: int) -> GridPuzzles:
        return _make_sudoku(count, seed, settings, progress)

    train, test = _load_splits(settings, SUDOKU_EXTREME, make, read)
    questions, answers = _augment_sudoku(train, settings.num_aug + 1, settings.seed)
    test = _leave_out_trained(test, questions)
    _print_quartiles("difficulty", test.difficulty)
    tokens = sudoku.to_tokens
    test_answers = np.where(test.has_answer[:, None], tokens(test.answers), PAD)
    return write_examples(
        Path(settings.output_dir),
        {
            "train": PlainExamples(
                tokens(questions), tokens(answers), np.full(len(train.questions), settings.num_aug + 1)
            ),
            "test": PlainExamples(tokens(test.questions), test_answers, np.ones(len(test.questions), dtype=np.int64)),
        },
        sudoku.vocab_size(sudoku.side_of(questions.shape[1])),
        DataOrigin(
            sources=[f"sudoku:{settings.source_repo}"],
            settings=settings.recorded(),
            counts={
                "train_puzzles": len(train.questions),
                "mean_test_difficulty_x100": round(100 * float(test.difficulty.mean())),
            },
        ),
    )


def _make_sudoku(count: int, seed: int, settings: SudokuSettings, progress: Progress) -> GridPuzzles:
    """Makes Sudoku until `count` of them are difficult enough."""
    least = settings.min_difficulty
    workers = settings.workers or os.cpu_count() or 1
    parts: list[GridPuzzles] = []
    missing = count
    for attempt in range(MOST_ATTEMPTS):
        made = GridPuzzles(
            *sudoku.generate_sudoku(
                missing * (2 if least else 1), settings.size, seed + attempt, settings.clues, workers, progress
            )
        )
        parts.append(made.take(made.difficulty >= least))
        missing = count - sum(len(part.questions) for part in parts)
        if missing <= 0:
            return join_puzzles(parts).take(np.arange(count))
    raise SettingError(f"--min-difficulty {least} is too rare among Sudoku of side {settings.size}: lower it")


def _augment_sudoku(train: GridPuzzles, copies: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns questions and answers, uint8 [N * copies, cells]: each puzzle itself, then its augmentations."""
    rng = np.random.default_rng((seed, 1))
    questions, answers = (np.repeat(grids, copies, axis=0) for grids in (train.questions, train.answers))
    for i in range(len(questions)):
        if i % copies:
            questions[i], answers[i] = sudoku.augment_sudoku(questions[i], answers[i], rng)
    return questions, answers


def build_maze(settings: MazeSettings, progress: Progress) -> Manifest:
    """Builds a maze data set.

    Raises:
        SettingError, DataError: naming the setting, or the file and its row, and the remedy.  Nothing is left behind.
    """
    min_steps = settings.min_way or max(1, 110 * ((settings.size - 1) // 2) ** 2 // 196)

    def make(count: int, seed: int) -> GridPuzzles:
        return GridPuzzles(*maze.generate_mazes(count, settings.size, seed, min_steps, progress))

    def read(path: Path, needs_answers: bool) -> GridPuzzles:
        return _read_mazes(path, settings.columns, needs_answers)

    train, test = _load_splits(settings, MAZE_HARD, make, read)
    transforms = range(NUM_DIHEDRAL if settings.aug else 1)
    questions, answers = (_transform_all(mazes, transforms) for mazes in (train.questions, train.answers))
    test = _leave_out_trained(test, questions)
    known = test.answers[test.has_answer]
    if len(known):
        _print_quartiles("steps from start to goal", (known == maze.PATH).sum(1) + 1)
    return write_examples(
        Path(settings.output_dir),
        {
            "train": PlainExamples(questions, answers, np.full(len(train.questions), len(transforms))),
            "test": PlainExamples(test.questions, test.answers, np.ones(len(test.questions), dtype=np.int64)),
        },
        maze.VOCAB_SIZE,
        DataOrigin(
            sources=[f"maze:{settings.source_repo}"],
            settings=settings.recorded() | {"min_way": min_steps},
            counts={"train_puzzles": len(train.questions)},
        ),
    )


def _read_mazes(path: Path, columns: Columns, needs_answers: bool) -> GridPuzzles:
    rows = [
        (*maze.parse_solved_maze(row.question, row.answer, row.where), row.rating)
        for row in read_rows(path, columns, needs_answers, needs_ratings=False)
    ]
    return stack_puzzles(rows, path)


def _transform_all(mazes: np.ndarray, transforms: range) -> np.ndarray:
    """Returns each maze under each transform: uint8 [N * transforms, cells]."""
    side = round(mazes.shape[1] ** 0.5)
    turned = [dihedral(grid, t).reshape(-1) for grid in mazes.reshape(-1, side, side) for t in transforms]
    return np.array(turned, dtype=np.uint8).reshape(-1, side * side)


def _load_splits(
    settings: GridPuzzleSettings,
    published: str,
    make: Callable[[int, int], GridPuzzles],
    read: Callable[[Path, bool], GridPuzzles],
) -> tuple[GridPuzzles, GridPuzzles]:
    """Makes or reads training and test puzzles.

    Args:
        make: takes their number and a seed.
        read: takes a table, and whether each puzzle in it needs an answer.
    """
    rng = np.random.default_rng((settings.seed, 0))
    if settings.source_repo == GENERATE:
        seeds = rng.integers(0, 2**31, 2).tolist()
        return (
            make(settings.subsample_size or DEFAULT_SIZE, seeds[0]),
            make(settings.test_size or DEFAULT_SIZE, seeds[1]),
        )
    train_path, test_path = find_files(settings.source_repo, published)
    train = read(train_path, test_path is not None)
    if test_path is not None:
        test = read(test_path, False)
    elif train.has_answer.all():
        train, test = _split(train, settings.test_size, rng, train_path)
    else:  # what has no answer cannot be trained on
        train, test = train.take(train.has_answer), train.take(~train.has_answer)
        print(
            f"{train_path}: {len(test.questions)} of its puzzles have no answer and are for test: they are predicted, "
            f"not scored; {len(train.questions)} are trained on" + ("" if len(train.questions) else " (use epochs=0)")
        )
    if 0 < settings.subsample_size < len(train.questions):
        train = train.take(np.sort(rng.choice(len(train.questions), settings.subsample_size, replace=False)))
    return train, test.take(np.arange(min(settings.test_size or len(test.questions), len(test.questions))))


def _split(both: GridPuzzles, test_size: int, rng: np.random.Generator, path: Path) -> tuple[GridPuzzles, GridPuzzles]:
    """Draws the test puzzles of a table that has no test table beside it; returns those of training and of test."""
    both = _each_once(both, path)
    total = len(both.questions)
    count = test_size or max(1, total // TEST_FRACTION)
    if count >= total:
        raise SettingError(
            f"{path} has {total} puzzles, and {count} of them for test would leave none: lower --test-size or add "
            "test.csv"
        )
    tested = np.zeros(total, dtype=bool)
    tested[rng.choice(total, count, replace=False)] = True
    print(f"{path} has no test table beside it: {count} of its {total} puzzles are drawn for test")
    return both.take(~tested), both.take(tested)


def _each_once(puzzles: GridPuzzles, path: Path) -> GridPuzzles:
    """Returns the puzzles without those whose question occurred before, so that none is drawn for both splits."""
    first = np.sort(np.unique(puzzles.questions, axis=0, return_index=True)[1])
    if len(first) == len(puzzles.questions):
        return puzzles
    total = len(puzzles.questions)
    print(f"{path}: {total - len(first)} of its {total} puzzles are repeated, and left out")
    return puzzles.take(first)


def _leave_out_trained(test: GridPuzzles, trained: np.ndarray) -> GridPuzzles:
    """Returns the test puzzles whose question is not also a question of training, each once."""
    seen = {row.tobytes() for row in trained}
    keep = []
    for i, row in enumerate(test.questions):
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            keep.append(i)
    total = len(test.questions)
    if len(keep) < total:
        print(f"{total - len(keep)} of {total} test puzzles are left out: they are trained on, or occur twice")
    if not keep:
        raise SettingError(
            "every test puzzle is also trained on: name a file with others, or raise --size or lower --subsample-size "
            "or --num-aug"
        )
    return test.take(np.array(keep))


def _print_quartiles(what: str, values: np.ndarray) -> None:
    numbers = np.percentile(values, (0, 25, 50, 75, 100))
    whole = np.issubdtype(values.dtype, np.integer)
    least, low, median, high, most = (str(int(number)) if whole else f"{number:.4g}" for number in numbers)
    print(f"test puzzles: {what} {least} to {most}, median {median} (quartiles {low} and {high})")
