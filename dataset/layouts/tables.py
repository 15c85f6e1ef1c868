"""Reads Sudoku and mazes from files: tables (CSV, JSON lines, parquet), with and without a header, and plain text."""

from __future__ import annotations

import csv
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dataset.layouts.board_text import BLANKS, SQUARES, cells_of, has_other_letters, is_maze, split_boards
from dataset.layouts.json_text import has_lines, is_json_name, open_text, read_json, read_lines
from utils.errors import DataError, SettingError

NAMES = {
    "question": (
        *("question", "questions", "quiz", "quizzes", "puzzle", "puzzles", "board", "boards", "sudoku", "maze"),
        *("mazes", "problem", "input"),
    ),
    "answer": ("answer", "answers", "solution", "solutions", "solved", "output"),
    "rating": ("rating", "difficulty"),
}
"""The names of columns that are known, in the order in which they are tried."""

_KNOWN_NAMES = {*NAMES["question"], *NAMES["answer"]}
_NUMBER = re.compile(r"[+-]?([0-9]{1,18}([.,][0-9]*)?|\.[0-9]+)(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_NO_RATING = ("", "-", "?", "na", "n/a", "nan", "none", "null")
_DELIMITERS = ",;\t|"
_ZIP = b"PK\x03\x04"
_UNREADABLE = (OSError, EOFError, zlib.error, csv.Error)

Row = tuple[int, list[str]]
"""The number of the line that a row ends in, and its cells."""


class TableRow(NamedTuple):
    """A puzzle as text; answer empty if it is not known; rating 0 if the file has none; where: how errors name it."""

    question: str
    answer: str
    rating: float
    where: str


class Columns(NamedTuple):
    """The names of columns that a user gave; empty where the known names are looked for."""

    question: str = ""
    answer: str = ""
    rating: str = ""


Places = tuple[int, int | None, int | None]
"""Where question, answer and rating are; None if there is no such column."""


def read_rows(
    path: Path, columns: Columns, needs_answers: bool = True, needs_ratings: bool = True
) -> Iterator[TableRow]:
    """Yields the puzzles of a file.

    Columns are known by the names given, by usual names, or without a header by what is in the first row.  A file that
    is no table is read as text, by `split_boards`.

    Args:
        needs_answers: refuse puzzles without an answer.
        needs_ratings: refuse ratings that are no numbers.  Otherwise they count as 0, which is said once.

    Raises:
        SettingError, DataError: naming the file and the line, or its columns and the option that names one.
    """
    rows = _rows_of(path, columns)
    if rows is None:
        yield from _text_rows(path, needs_answers)
        return
    number, header = next(rows, (1, []))
    if not header:
        raise DataError(f"{path} is empty: name a table of puzzles, or their text")
    rates_in_words = False
    if not any(columns) and _is_board_row(header):
        rows = itertools.chain([(number, header)], rows)
        places = _places_by_content(header, path)
    else:
        places = _places_by_name([name.strip() for name in header], columns, path, needs_answers)
    for number, row in rows:
        where = f"{path}, line {number}"
        question, answer, rating = (
            row[place] if place is not None and place < len(row) else "" for place in places
        )  # fewer cells than columns: the last ones are empty
        if not any(cell.strip() for cell in row) and not question:
            continue  # as spreadsheets write below a table
        if places[1] is None and question and _has_second_board(row, question):
            raise _no_column("answer", header, path)
        if not question or not (answer.strip() or not needs_answers):
            raise DataError(
                f"{where} has no {'question' if not question else 'answer'}: correct the file, or leave the row out"
            )
        value = _rating_of(rating)
        if value is None and needs_ratings:
            raise DataError(
                f"{where} has the rating {rating.strip()!r}, which is not a number: correct the file, or name another "
                "column by --rating-column"
            )
        if value is None and not rates_in_words:
            rates_in_words = True
            print(f"{path} has ratings that are no numbers, such as {rating.strip()!r}: they count as 0")
        yield TableRow(question, answer if answer.strip() else "", value or 0.0, where)


def _rating_of(text: str) -> float | None:
    """Returns a rating, which may have a decimal comma; 0 if it is missing, None if it is not a number."""
    value = text.strip()
    if value.lower() in _NO_RATING:
        return 0.0
    return float(value.replace(",", ".")) if _NUMBER.fullmatch(value) else None


def _rows_of(path: Path, columns: Columns) -> Iterator[Row] | None:
    """Returns the rows of a table, its header included; None if the file is no table."""
    if path.name.lower().endswith(".parquet"):
        return _parquet_rows(path)
    if is_json_name(path.name):
        return _json_rows(path)
    first, second = _first_lines(path)
    delimiter = _delimiter_of(first, second, columns)
    return None if delimiter is None and first else _csv_rows(path, delimiter or ",")


def _first_lines(path: Path) -> tuple[str, str]:
    """Returns the first two lines of a file that are not blank; empty ones if there are fewer.

    Raises:
        SettingError, DataError: if it cannot be read as text.
    """
    try:
        with path.open("rb") as raw:
            if raw.read(4) == _ZIP:
                raise DataError(f"{path} is a zip archive or a spreadsheet: unpack it, or save it as CSV")
        with open_text(path) as stream:
            first, second = [*itertools.islice((line for line in stream if line.strip()), 2), "", ""][:2]
    except FileNotFoundError:
        raise SettingError(f"there is no file {path}: a source folder contains train.csv and test.csv") from None
    except UnicodeError as error:
        raise DataError(f"{path} is not text in UTF-8 or UTF-16 ({error}): save it as UTF-8") from None
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from None
    return first, second


def _delimiter_of(first: str, second: str, columns: Columns) -> str | None:
    """Returns what stands between the columns of a table, given its first two lines; None if it is no table."""
    words = [] if is_maze(first) else first.split()
    if sum(map(_looks_like_board, words)) > 1 and _is_board_row(words):
        return " "
    delimiter = max(_DELIMITERS, key=first.count)
    cells, below = (next(csv.reader([line], delimiter=delimiter), []) for line in (first, second))
    has_boards = any(_looks_like_board(cell) for cell in below)
    is_named = any(cell.strip().lower() in _KNOWN_NAMES for cell in cells)
    if any(columns) or (is_named and (len(cells) > 1 or has_boards or not second)):
        return delimiter
    return delimiter if _is_board_row(cells) or (len(cells) > 1 and has_boards) else None


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    try:
        with open_text(path) as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            for row in reader:
                if row:
                    yield reader.line_num, row
    except UnicodeError as error:
        raise DataError(f"{path} is not text in UTF-8 or UTF-16 ({error}): save it as UTF-8") from None
    except _UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({error}): download it again") from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise SettingError(
            f"{path} is a parquet file, and to read it the package pyarrow is missing: "
            'pip install pyarrow, or pip install -e ".[parquet]"'
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


def is_table_in_json(value: Any) -> bool:
    """Returns whether a JSON value is an object, or a list of objects, with the names of questions."""
    rows = value if isinstance(value, list) else [value]
    return bool(rows) and all(isinstance(row, dict) and _KNOWN_NAMES & {*map(str.lower, row)} for row in rows)


def _json_rows(path: Path) -> Iterator[Row] | None:
    """Returns the rows of JSON objects, a row of their names before them; None if there are no objects."""
    numbered = list(read_lines(path)) if has_lines(path) else [(1, read_json(path))]
    if len(numbered) == 1 and isinstance(numbered[0][1], list):
        numbered = list(enumerate(numbered[0][1], start=1))
    if not numbered or not all(isinstance(row, dict) for _, row in numbered):
        return None
    names = list(dict.fromkeys(name for _, row in numbered for name in row))
    rows = [(number, ["" if row.get(name) is None else str(row[name]) for name in names]) for number, row in numbered]
    return iter([(0, names), *rows])


def _text_rows(path: Path, needs_answers: bool) -> Iterator[TableRow]:
    with open_text(path) as stream:  # `_first_lines` has read it before
        boards = split_boards(stream.read(), str(path))
    found = f"{len(boards)} board{'s' if len(boards) > 1 else ''}"
    if needs_answers:
        raise DataError(
            f"{path} has {found} without answers, which cannot be trained on: name a table with a column for answers"
        )
    print(f"{path} is read as text: {found}, the first one from {boards[0].where.split(', ')[-1]}")
    yield from (TableRow(board.text, "", 0.0, board.where) for board in boards)


def _looks_like_board(cell: str) -> bool:
    if is_maze(cell):
        return math.isqrt(len(cell)) ** 2 == len(cell) or "\n" in cell
    return len(cells_of(cell)) in SQUARES and not has_other_letters(cell)


def _is_board_row(row: Sequence[str]) -> bool:
    """Returns whether a row has two boards of one size, or one board beside other cells; names are no boards."""
    sizes = [len(cells_of(cell)) for cell in row if _looks_like_board(cell)]
    if len(sizes) >= 2:
        return sizes[0] == sizes[1]
    return len(sizes) == 1 and len(row) > 1 and not any(cell.strip().lower() in _KNOWN_NAMES for cell in row)


def _places_by_content(row: Sequence[str], path: Path) -> Places:
    """Returns where question and answer are in a table without a header: the question is the one with more blanks."""
    boards = [i for i, cell in enumerate(row) if _looks_like_board(cell)]
    if len(boards) > 2:
        raise SettingError(f"{path} has no header and {len(boards)} columns of boards: add a header that names them")
    if len(boards) == 1:
        print(f"{path} has no header: column {boards[0] + 1} is the question, and there are no answers")
        return boards[0], None, None
    question, answer = sorted(boards, key=lambda i: -sum(cell in BLANKS for cell in row[i]))
    print(f"{path} has no header: column {question + 1} is the question, column {answer + 1} the answer")
    return question, answer, None


def _has_second_board(row: Sequence[str], question: str) -> bool:
    """Returns whether a row has another board of the question's size, which no column names as its answer."""
    cells = len(cells_of(question))
    return _looks_like_board(question) and sum(len(cells_of(cell)) == cells for cell in row) > 1


def _no_column(role: str, header: Sequence[str], path: Path) -> DataError:
    return DataError(
        f"{path} has no column {role}, only {', '.join(header) or 'nothing'}: name it by --{role}-column"
        + (" (boards without answers cannot be trained or scored)" if role == "answer" else "")
    )


def _places_by_name(header: Sequence[str], columns: Columns, path: Path, needs_answers: bool) -> Places:
    lower = [name.lower().lstrip("\ufeff") for name in header]
    places: dict[str, int | None] = {}
    for role, given in columns._asdict().items():
        if given and given.lower() not in lower:
            raise SettingError(f"--{role}-column {given}: {path} has no such column, only {', '.join(header)}")
        wanted = (given.lower(),) if given else NAMES[role]
        places[role] = next((lower.index(name) for name in wanted if name in lower), None)
    question, answer = places["question"], places["answer"]
    for role, place in (("question", question), ("answer", answer)):
        if place is None and (role == "question" or needs_answers):
            raise _no_column(role, header, path)
    assert question is not None
    known = {"question": "question", "answer": "answer"}
    named = {"question": header[question]} | ({} if answer is None else {"answer": header[answer]})
    if any(name.lower() != known[role] for role, name in named.items()):
        print(f"{path}: " + ", ".join(f"{role} = {name}" for role, name in named.items()))
    return question, answer, places["rating"]
