"""Reads Sudoku and maze puzzles from CSV files, in a folder or on the Hugging Face hub."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import DataError, SettingError

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")  # of no more digits than int64 has room for


class GridPuzzles(NamedTuple):
    """Puzzles on square grids: questions and answers uint8 [N, cells], difficulty int64 [N]."""

    questions: np.ndarray
    answers: np.ndarray
    difficulty: np.ndarray

    def take(self, chosen: np.ndarray) -> GridPuzzles:
        """Returns some of the puzzles; `chosen`: their numbers, or bool [N]."""
        return GridPuzzles(self.questions[chosen], self.answers[chosen], self.difficulty[chosen])


class CsvRow(NamedTuple):
    """A puzzle as text; rating 0 if the file has none; where: how errors name the row."""

    question: str
    answer: str
    rating: int
    where: str


def join_puzzles(parts: Iterable[GridPuzzles]) -> GridPuzzles:
    """Returns the puzzles of all parts, in order."""
    return GridPuzzles(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def stack_puzzles(rows: list[tuple[np.ndarray, np.ndarray, int]], path: Path) -> GridPuzzles:
    """Makes puzzles of (question, answer, difficulty), all read from `path`.

    Raises:
        DataError, SettingError: if there are none, or they differ in size.
    """
    if not rows:
        raise SettingError(f"{path} has no puzzle that is difficult enough: lower --min-difficulty")
    if len({question.size for question, _, _ in rows}) > 1:
        raise DataError(f"{path} has puzzles of several sizes: use one size per data set")
    questions, answers, difficulty = zip(*rows, strict=True)
    return GridPuzzles(np.stack(questions), np.stack(answers), np.array(difficulty, dtype=np.int64))


def find_files(source_repo: str, published: str) -> tuple[Path, Path]:
    """Returns train.csv and test.csv of a folder, or of a data set on the hub, which is downloaded.

    Args:
        published: a name on the hub that errors suggest.

    Raises:
        SettingError: if it is neither, or cannot be downloaded.
    """
    folder = Path(source_repo)
    if folder.is_dir():
        return folder / "train.csv", folder / "test.csv"
    return _download(source_repo, "train.csv", published), _download(source_repo, "test.csv", published)


def _download(repo: str, name: str, published: str) -> Path:
    if repo.count("/") != 1:
        raise SettingError(
            f"--source-repo {repo} is not a folder and not a name on the hub: use generate, a folder or {published}"
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise SettingError(
            f"--source-repo {repo} is not a folder, and to download it the package huggingface_hub is missing: "
            'pip install -e ".[hub]"'
        ) from None
    try:
        return Path(hf_hub_download(repo_id=repo, filename=name, repo_type="dataset"))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise SettingError(
            f"{name} of {repo} could not be downloaded ({str(error).splitlines()[0]}): check the name and the network, "
            "or name a folder that contains it"
        ) from None


def read_csv_rows(path: Path) -> Iterator[CsvRow]:
    """Yields the rows of a published CSV file.

    Raises:
        DataError: naming the file and the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            if not {"question", "answer"} <= set(rows.fieldnames or ()):
                raise DataError(f"{path} has no columns question and answer: use the published CSV files")
            for number, row in enumerate(rows, start=2):
                where = f"{path}, line {number}"
                rating = row.get("rating") or "0"
                if not row["question"] or not row["answer"] or not _WHOLE_NUMBER.fullmatch(rating):
                    raise DataError(f"{where} has no question, no answer or no whole rating: correct the file")
                yield CsvRow(row["question"], row["answer"], int(rating), where)
    except FileNotFoundError:
        raise SettingError(f"there is no file {path}: a source folder contains train.csv and test.csv") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from None
