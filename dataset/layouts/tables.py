"""Reads tables of Sudoku and mazes: CSV or parquet, with and without a header."""

from __future__ import annotations

import csv
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataset.layouts.json_text import open_text
from utils.errors import DataError, SettingError

NAMES = {
    "question": ("question", "questions", "quiz", "quizzes", "puzzle", "puzzles", "board", "problem", "input"),
    "answer": ("answer", "answers", "solution", "solutions", "solved", "output"),
    "rating": ("rating", "difficulty"),
}
"""The names of columns that are known, in the order in which they are tried."""

_NUMBER = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_DELIMITERS = ",;\t|"


class TableRow(NamedTuple):
    """A puzzle as text; rating 0 if the file has none; where: how errors name the row."""

    question: str
    answer: str
    rating: float
    where: str


class Columns(NamedTuple):
    """The names of columns that a user gave; empty where the known names are looked for."""

    question: str = ""
    answer: str = ""
    rating: str = ""


def read_rows(path: Path, columns: Columns) -> Iterator[TableRow]:
    """Yields the rows of a table.  Its columns are known by the names given, by usual names, or without a header by
    what is in the first row.

    Raises:
        SettingError, DataError: naming the file and the line, or its columns and the option that names one.
    """
    rows = _parquet_rows(path) if path.name.lower().endswith(".parquet") else _csv_rows(path)
    number, header = next(rows, (1, []))
    if not any(columns) and _is_board_row(header):
        rows = itertools.chain([(number, header)], rows)
        places = _places_by_content(header, path)
    else:
        places = _places_by_name([name.strip() for name in header], columns, path)
    question, answer, rating = places
    for number, row in rows:
        where = f"{path}, line {number}"
        cells = [row[place] if place is not None and place < len(row) else "" for place in (question, answer, rating)]
        if not cells[0] or not cells[1]:
            raise DataError(f"{where} has no question or no answer: correct the file, or leave the row out")
        value = cells[2].strip() or "0"
        if not _NUMBER.fullmatch(value):
            raise DataError(f"{where} has the rating {value!r}, which is not a number: correct the file")
        yield TableRow(cells[0], cells[1], float(value), where)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with open_text(path) as stream:
            first = stream.readline()
            delimiter = max(_DELIMITERS, key=first.count) if first else ","
            lines = itertools.chain([first], stream)
            for number, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
                if row:
                    yield number, row
    except FileNotFoundError:
        raise SettingError(f"there is no file {path}: a source folder contains train.csv and test.csv") from None
    except (OSError, EOFError, zlib.error, UnicodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from None


def _parquet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise SettingError(
            f"{path} is a parquet file, and to read it the package pyarrow is missing: pip install pyarrow"
        ) from None
    try:
        table = parquet.ParquetFile(path)
        yield 1, list(table.schema_arrow.names)
        number = 1
        for batch in table.iter_batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, ["" if cell is None else str(cell) for cell in row]
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from None


def _looks_like_board(cell: str) -> bool:
    side = math.isqrt(len(cell))
    return side >= 4 and side * side == len(cell)


def _is_board_row(row: Sequence[str]) -> bool:
    """Returns whether a row has two cells of one square length, which names of columns do not have."""
    lengths = [len(cell) for cell in row if _looks_like_board(cell)]
    return len(lengths) >= 2 and lengths[0] == lengths[1]


def _places_by_content(row: Sequence[str], path: Path) -> tuple[int, int, int | None]:
    """Returns where question and answer are in a table without a header: the question is the one with more blanks."""
    boards = [i for i, cell in enumerate(row) if _looks_like_board(cell)]
    if len(boards) > 2:
        raise SettingError(f"{path} has no header and {len(boards)} columns of boards: add a header that names them")
    question, answer = sorted(boards, key=lambda i: -sum(cell in BLANKS for cell in row[i]))
    print(f"{path} has no header: column {question + 1} is the question, column {answer + 1} the answer")
    return question, answer, None


BLANKS = ".0 _-*"
"""Characters that stand for a blank cell."""


def _places_by_name(header: Sequence[str], columns: Columns, path: Path) -> tuple[int, int, int | None]:
    lower = [name.lower().lstrip("\ufeff") for name in header]
    places: dict[str, int | None] = {}
    for role, given in columns._asdict().items():
        if given and given.lower() not in lower:
            raise SettingError(f"--{role}-column {given}: {path} has no such column, only {', '.join(header)}")
        wanted = (given.lower(),) if given else NAMES[role]
        places[role] = next((lower.index(name) for name in wanted if name in lower), None)
    question, answer = places["question"], places["answer"]
    for role, place in (("question", question), ("answer", answer)):
        if place is None:
            raise DataError(
                f"{path} has no column {role}, only {', '.join(header) or 'nothing'}: name it by --{role}-column"
                + (" (boards without answers cannot be trained or scored)" if role == "answer" else "")
            )
    assert question is not None and answer is not None
    known = {"question": "question", "answer": "answer"}
    named = {role: header[place] for role, place in (("question", question), ("answer", answer))}
    if {role: name.lower() for role, name in named.items()} != known:
        print(f"{path}: question = {named['question']}, answer = {named['answer']}")
    return question, answer, places["rating"]
