"""Sudoku and maze data sets: settings -> puzzles, made or read from CSV -> augmented examples -> files."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from dataset import storage
from dataset.augmentation import NUM_DIHEDRAL, dihedral
from dataset.build import maze, sudoku
from dataset.storage import Examples, Manifest

Progress = Callable[[int, int], None]
Boards = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Questions and answers uint8 [N, cells], difficulty int64 [N]."""

SUDOKU_EXTREME, MAZE_HARD = "sapientinc/sudoku-extreme", "sapientinc/maze-30x30-hard-1k"
GENERATE = "generate"


class BoardSettings(BaseModel):
    """What the command lines of Sudoku and maze have in common."""

    source_repo: str = Field(
        GENERATE, description="generate; a folder with train.csv and test.csv; or a data set on the Hugging Face hub"
    )
    subsample_size: int = Field(
        0, ge=0, description="training puzzles: so many are made, or drawn from the file's; 0: 1000, or all of the file"
    )
    test_size: int = Field(
        0, ge=0, description="test puzzles: so many are made, or the first of the file; 0: 1000, or all of the file"
    )
    seed: int = Field(42, ge=0, description="the same seed gives the same bytes")
    workers: int = Field(0, ge=0, description="threads; 0: one per core")


class SudokuSettings(BoardSettings):
    """The command line of `build_dataset.py sudoku`."""

    output_dir: str = Field("data/sudoku", description="where the data set goes")
    size: int = Field(9, description="side of the boards that are made: 4, 6 or 9")
    clues: int = Field(0, ge=0, description="digits left at least on a board that is made; 0: as few as can be")
    num_aug: int = Field(0, ge=0, description="guises of each training puzzle besides itself")
    min_difficulty: int = Field(
        0, ge=0, description="leave out puzzles of less (of a file: its rating; else guesses of a solver)"
    )


class MazeSettings(BoardSettings):
    """The command line of `build_dataset.py maze`."""

    output_dir: str = Field("data/maze", description="where the data set goes")
    size: int = Field(30, ge=5, description="side of the mazes that are made")
    min_way: int = Field(0, ge=0, description="fewest steps from start to goal; 0: 110 for 30 x 30, else in proportion")
    aug: bool = Field(False, description="add the seven other dihedral transforms of each training maze")


def build_sudoku(settings: SudokuSettings, progress: Progress) -> Manifest:
    """Builds a Sudoku data set.

    Raises:
        ValueError: naming the setting, or the file and its row, and the remedy.  Nothing is left behind.
    """
    if settings.size not in sudoku.BOXES:
        raise ValueError(f"--size {settings.size} is no Sudoku: use 4, 6 or 9")
    workers = settings.workers or os.cpu_count() or 1
    least = settings.min_difficulty

    def make(count: int, seed: int) -> Boards:
        found: list[Boards] = []
        missing = count
        for attempt in range(50):
            boards = sudoku.generate(
                missing * (2 if least else 1), settings.size, seed + attempt, settings.clues, workers, progress
            )
            found.append(_only(boards, boards[2] >= least))
            missing = count - sum(len(part[0]) for part in found)
            if missing <= 0:
                return _only(_joined(found), np.arange(count))
        raise ValueError(f"--min-difficulty {least} is too rare among boards of side {settings.size}: lower it")

    def read(path: Path) -> Boards:
        rows = [
            (*sudoku.parse(question, answer, where), rating)
            for question, answer, rating, where in _csv_rows(path)
            if rating >= least
        ]
        return _stacked(rows, path)

    train, test = _splits(settings, SUDOKU_EXTREME, make, read)
    rng = np.random.default_rng((settings.seed, 1))
    copies = settings.num_aug + 1
    questions, answers = (np.repeat(boards, copies, axis=0) for boards in train[:2])
    for i in range(len(questions)):
        if i % copies:
            questions[i], answers[i] = sudoku.augment(questions[i], answers[i], rng)
    test = _unseen(test, questions)
    _report("difficulty", test[2])
    return storage.write_examples(
        Path(settings.output_dir),
        {
            "train": Examples(sudoku.tokens(questions), sudoku.tokens(answers), np.full(len(train[0]), copies)),
            "test": Examples(sudoku.tokens(test[0]), sudoku.tokens(test[1]), np.ones(len(test[0]), dtype=np.int64)),
        },
        vocab_size=sudoku.vocab_size(sudoku.side(questions.shape[1])),
        sources=[f"sudoku:{settings.source_repo}"],
        settings=settings.model_dump(exclude={"output_dir", "workers", "source_repo"}),
        counts={"train_puzzles": len(train[0]), "mean_test_difficulty_x100": round(100 * float(test[2].mean()))},
    )


def build_maze(settings: MazeSettings, progress: Progress) -> Manifest:
    """Builds a maze data set.

    Raises:
        ValueError: naming the setting, or the file and its row, and the remedy.  Nothing is left behind.
    """
    min_way = settings.min_way or max(1, 110 * ((settings.size - 1) // 2) ** 2 // 196)

    def make(count: int, seed: int) -> Boards:
        return maze.generate(count, settings.size, seed, min_way, progress)

    def read(path: Path) -> Boards:
        rows = []
        for question, answer, rating, where in _csv_rows(path):
            asked, answered = maze.parse(question, where), maze.parse(answer, where)
            if not np.array_equal(asked, np.where(answered == maze.WAY, maze.OPEN, answered)):
                raise ValueError(f"{where}: the answer is not the question with a way drawn in: correct the file")
            rows.append((asked, answered, rating))
        return _stacked(rows, path)

    train, test = _splits(settings, MAZE_HARD, make, read)
    transforms = range(NUM_DIHEDRAL if settings.aug else 1)
    side = round(train[0].shape[1] ** 0.5)

    def turned(boards: np.ndarray) -> np.ndarray:
        grids = boards.reshape(-1, side, side)
        return np.array([dihedral(grid, t).reshape(-1) for grid in grids for t in transforms], dtype=np.uint8)

    questions, answers = turned(train[0]), turned(train[1])
    test = _unseen(test, questions)
    _report("steps from start to goal", (test[1] == maze.WAY).sum(1) + 1)
    return storage.write_examples(
        Path(settings.output_dir),
        {
            "train": Examples(questions, answers, np.full(len(train[0]), len(transforms))),
            "test": Examples(test[0], test[1], np.ones(len(test[0]), dtype=np.int64)),
        },
        vocab_size=maze.VOCAB_SIZE,
        sources=[f"maze:{settings.source_repo}"],
        settings=settings.model_dump(exclude={"output_dir", "workers", "source_repo"}) | {"min_way": min_way},
        counts={"train_puzzles": len(train[0])},
    )


def _splits(
    settings: BoardSettings, published: str, make: Callable[[int, int], Boards], read: Callable[[Path], Boards]
) -> tuple[Boards, Boards]:
    """Training and test puzzles from where the settings say."""
    if settings.source_repo == GENERATE:
        rng = np.random.default_rng((settings.seed, 0))
        seeds = rng.integers(0, 2**31, 2).tolist()
        return make(settings.subsample_size or 1000, seeds[0]), make(settings.test_size or 1000, seeds[1])
    folder = Path(settings.source_repo)
    paths = [folder / f"{split}.csv" for split in ("train", "test")]
    if not folder.is_dir():
        paths = [_download(settings.source_repo, path.name, published) for path in paths]
    train, test = (read(path) for path in paths)
    if 0 < settings.subsample_size < len(train[0]):
        rng = np.random.default_rng((settings.seed, 0))
        train = _only(train, np.sort(rng.choice(len(train[0]), settings.subsample_size, replace=False)))
    return train, _only(test, np.arange(min(settings.test_size or len(test[0]), len(test[0]))))


def _download(repo: str, name: str, published: str) -> Path:
    if repo.count("/") != 1:
        raise ValueError(
            f"--source-repo {repo} is no folder and no name on the hub: use generate, a folder or {published}"
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise ValueError(
            f"--source-repo {repo} is not a folder, and to fetch it the package huggingface_hub is missing: "
            'pip install -e ".[hub]"'
        ) from None
    try:
        return Path(hf_hub_download(repo_id=repo, filename=name, repo_type="dataset"))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ValueError(
            f"{name} of {repo} could not be fetched ({str(error).splitlines()[0]}): check the name and the network, "
            "or name a folder that holds it"
        ) from None


def _csv_rows(path: Path) -> Iterator[tuple[str, str, int, str]]:
    """question, answer, rating (0 without) and the place of each row of a published CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            if not {"question", "answer"} <= set(rows.fieldnames or ()):
                raise ValueError(f"{path} has no columns question and answer: expected the published CSV files")
            for number, row in enumerate(rows, start=2):
                where = f"{path}, line {number}"
                rating = row.get("rating") or "0"
                if not row["question"] or not row["answer"] or not rating.lstrip("-").isdigit():
                    raise ValueError(f"{where} lacks a question, an answer or a whole rating: correct the file")
                yield row["question"], row["answer"], int(rating), where
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: a source folder holds train.csv and test.csv") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): fetch it again") from None


def _stacked(rows: list[tuple[np.ndarray, np.ndarray, int]], path: Path) -> Boards:
    if not rows:
        raise ValueError(f"{path} has no puzzle that is difficult enough: lower --min-difficulty")
    if len({row[0].size for row in rows}) > 1:
        raise ValueError(f"{path} has puzzles of several sizes: use one size per data set")
    questions, answers = (np.stack([row[i] for row in rows]) for i in (0, 1))
    return questions, answers, np.array([row[2] for row in rows], dtype=np.int64)


def _joined(parts: list[Boards]) -> Boards:
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))  # type: ignore[return-value]


def _only(boards: Boards, chosen: np.ndarray) -> Boards:
    return tuple(column[chosen] for column in boards)  # type: ignore[return-value]


def _unseen(test: Boards, trained: np.ndarray) -> Boards:
    """The test puzzles whose question is not also a question of training, each once."""
    seen = {row.tobytes() for row in trained}
    keep = []
    for i, row in enumerate(test[0]):
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            keep.append(i)
    if len(keep) < len(test[0]):
        left_out = len(test[0]) - len(keep)
        print(f"{left_out} of {len(test[0])} test puzzles are left out: they are trained on, or twice there")
    if not keep:
        raise ValueError("every test puzzle is also trained on: raise --size or lower --subsample-size or --num-aug")
    return _only(test, np.array(keep))


def _report(what: str, values: np.ndarray) -> None:
    least, low, median, high, most = np.percentile(values, (0, 25, 50, 75, 100)).astype(int)
    print(f"test puzzles: {what} {least} to {most}, median {median} (quartiles {low} and {high})")
