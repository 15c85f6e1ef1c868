"""Reads the Sudoku or mazes that somebody gives to complete: a board as text, a text file, or a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dataset.layouts.board_text import SIDES, SQUARES, cells_of, is_maze, split_boards
from dataset.layouts.json_text import has_lines, is_json_name, open_text, read_json
from dataset.layouts.tables import Columns, TableRow, is_table_in_json, read_rows
from utils.errors import DataError


def read_given(given: str, columns: Columns) -> list[TableRow] | None:
    """Returns the puzzles of a file, or of a text that is no file's name; None if the file has an ARC task.

    Args:
        columns: of a table, where they have none of the usual names.

    Raises:
        InputError: naming the file and the line, what was found and the remedy.
    """
    if not os.path.isfile(given):  # unlike Path.is_file it takes names of any length
        return _read_text(given)
    path = Path(given)
    if _has_arc_task(path):
        return None
    rows = list(read_rows(path, columns, needs_answers=False, needs_ratings=False))
    if not rows:
        raise DataError(f"{path} has no puzzle below its header: write one per row")
    return rows


def _read_text(given: str) -> list[TableRow]:
    cells, is_path = len(cells_of(given)), os.path.isabs(given)  # which may be as long as a board
    if not is_maze(given) and "\n" not in given and (is_path or cells not in SQUARES):
        raise DataError(
            f"there is no file {given}: name a JSON file with one task, a table or text of Sudoku or mazes, or write a "
            f"Sudoku as 16, 36, 81 or 256 cells (these are {cells})"
        )
    return [TableRow(board.text, "", 0.0, board.where) for board in split_boards(given, "the board")]


def _has_arc_task(path: Path) -> bool:
    """Returns whether a file is JSON without boards: an ARC task, or what will be refused as one."""
    if has_lines(path) or path.name.lower().endswith(".parquet"):
        return False
    if is_json_name(path.name):
        value = read_json(path)
        return not is_table_in_json(value) and not _is_board(value)
    try:
        with open_text(path) as stream:
            return stream.read(64).lstrip().startswith("{")
    except (UnicodeError, EOFError, OSError):
        return False  # the reader of tables says what is wrong


def _is_board(value: Any) -> bool:
    """Returns whether a JSON value is the rows of a Sudoku, or several of these."""
    is_rows = isinstance(value, list) and len(value) in SIDES and all(isinstance(row, list | str) for row in value)
    if is_rows and all(len(row) == len(value) for row in value):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(row, str) for row in value)
