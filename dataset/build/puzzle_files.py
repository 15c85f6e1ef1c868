"""Finds the tables of Sudoku and mazes, in a file, a folder or on the Hugging Face hub, and stacks their puzzles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import DataError, SettingError

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class GridPuzzles(NamedTuple):
    """Puzzles on square grids: questions and answers uint8 [N, cells], difficulty int64 or float64 [N].

    An answer that is not known is zeros.
    """

    questions: np.ndarray
    answers: np.ndarray
    difficulty: np.ndarray

    @property
    def has_answer(self) -> np.ndarray:
        """Whether the answer of each puzzle is known, bool [N]."""
        return np.asarray(self.answers.any(1))

    def take(self, chosen: np.ndarray) -> GridPuzzles:
        """Returns some of the puzzles; `chosen`: their numbers, or bool [N]."""
        return GridPuzzles(self.questions[chosen], self.answers[chosen], self.difficulty[chosen])


def join_puzzles(parts: Iterable[GridPuzzles]) -> GridPuzzles:
    """Returns the puzzles of all parts, in order."""
    return GridPuzzles(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def stack_puzzles(rows: Sequence[tuple[np.ndarray, np.ndarray, float]], path: Path) -> GridPuzzles:
    """Makes puzzles of (question, answer, difficulty), all read from `path`.

    Raises:
        DataError, SettingError: if there are none, or they differ in size.
    """
    if not rows:
        raise SettingError(
            f"{path} has no puzzle that is difficult enough, or none at all: lower --min-difficulty, or fill the file"
        )
    if len({question.size for question, _, _ in rows}) > 1:
        raise DataError(f"{path} has puzzles of several sizes: use one size per data set")
    questions, answers, difficulty = zip(*rows, strict=True)
    whole = all(float(value).is_integer() for value in difficulty)
    return GridPuzzles(
        np.stack(questions), np.stack(answers), np.array(difficulty, dtype=np.int64 if whole else np.float64)
    )


def find_files(source_repo: str, published: str) -> tuple[Path, Path | None]:
    """Returns the tables for training and for test; the second is None if one table has both.

    Args:
        source_repo: a table, a folder with one table or with train and test, or a data set on the hub, which is
            downloaded.
        published: a name on the hub that errors suggest.

    Raises:
        SettingError: if it is none of these, or cannot be downloaded.
    """
    place = Path(source_repo)
    if place.is_file():
        return place, None
    if not place.is_dir():
        return _download(source_repo, "train.csv", published), _download(source_repo, "test.csv", published)
    tables = sorted(p for p in place.iterdir() if p.name.lower().endswith(ENDINGS) and not p.name.startswith("."))
    named = {
        split: [p for p in tables if re.match(rf"{split}(?![a-z])", p.name.lower())] for split in ("train", "test")
    }
    for split, found in named.items():
        if len(found) > 1:
            raise SettingError(
                f"{place} has several tables called {split} ({found[0].name}, {found[1].name}): leave one of them there"
            )
    if named["train"] and named["test"]:
        return named["train"][0], named["test"][0]
    if len(tables) != 1:
        listed = ", ".join(p.name for p in tables[:4]) or "none"
        raise SettingError(
            f"there is no file {place / 'train.csv'} with {place / 'test.csv'}: a source folder contains both, or one "
            f"table ({', '.join(ENDINGS)}); its tables: {listed}"
        )
    return tables[0], None


def _download(repo: str, name: str, published: str) -> Path:
    if repo.count("/") != 1:
        raise SettingError(
            f"--source-repo {repo} is not a folder, a file or a name on the hub: use generate, a folder or {published}"
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
