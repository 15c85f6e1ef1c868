"""Takes text apart into boards, Sudoku or mazes: one per line, or one over several lines, with frames and titles."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from utils.errors import DataError

SIDES = (4, 6, 8, 9, 10, 12, 14, 15, 16)
"""The sides of the Sudoku that are read."""

SQUARES = frozenset(side * side for side in SIDES)
ALPHABETS = ("123456789ABCDEFG", "0123456789ABCDEF", "ABCDEFGHIJKLMNOP")
"""The digits 1, 2, .. as people write them.  In the second one 0 is a digit, and blanks are dots."""

BLANKS = ".0 _-*"
"""Characters that stand for a blank cell of a Sudoku."""

SMALLEST_MAZE = 5
_VERTICAL = "|│║┃"
_HORIZONTAL = "-+=─━═┼╋╬┬┴├┤┌┐└┘╔╗╚╝╠╣╦╩╟╢╤╧╪╫" + _VERTICAL
_PARTS = re.compile(rf"[^\s,;:/+{{}}\[\]()'\"{_VERTICAL}]+")
_TITLE = re.compile(r"\s*(#|//|.*[^\W\d_a-p])", re.IGNORECASE)
"""A line that is no row of a Sudoku: a comment, or a line with letters that no digit is written as."""


class BoardText(NamedTuple):
    """The text of one board; where: how errors name it."""

    text: str
    where: str


class _Line(NamedTuple):
    """A line with cells, its number from 1, and whether blank lines or titles stand before it."""

    number: int
    text: str
    is_apart: bool


def parts_of(text: str) -> list[str]:
    """Returns what stands between blanks, commas, brackets, quotes and frames."""
    return _PARTS.findall(text)


def cells_of(text: str) -> list[str]:
    """Returns the cells of a Sudoku as single characters, letters in capitals.

    Numbers above 9 with blanks or commas between them become letters of the first of `ALPHABETS`.
    """
    if len(text) not in SQUARES and len(text.strip()) in SQUARES:
        text = text.strip()
    if len(text) not in SQUARES:
        parts = parts_of(text)
        if len(parts) in SQUARES and all(_is_number(part) for part in parts):
            return ["." if part in BLANKS or int(part) == 0 else ALPHABETS[0][int(part) - 1] for part in parts]
        text = "".join(parts)
    return list(text.upper())


def has_other_letters(text: str) -> bool:
    """Returns whether a text has letters that no digit of a Sudoku is written as, as titles and names have."""
    return bool(_TITLE.match(text))


def _is_number(part: str) -> bool:
    return part in BLANKS or (part.isascii() and part.isdigit() and int(part) <= max(SIDES))


def is_maze(text: str) -> bool:
    """Returns whether a text is of mazes: it has more walls than digits, and not at the start of lines alone."""
    inside = re.sub(r"(?m)^\s*#+(?=\s*\w)", "", text)
    return inside.count("#") > sum(character.isdigit() for character in inside)


def split_boards(text: str, name: str) -> list[BoardText]:
    """Returns the boards of a text, each as `cells_of` or the parser of mazes takes it.

    Args:
        name: how errors name the text, such as the path of its file.

    Raises:
        DataError: naming the line that does not fit to the others.
    """
    return _split_mazes(text, name) if is_maze(text) else _split_sudoku(text, name)


# --- Sudoku

Count = Callable[[str], int | None]
"""Returns the cells of a line; None if it is not written in that way."""


def _count_parts(line: str) -> int | None:
    parts = parts_of(line)
    return len(parts) if all(_is_number(part) or len(part) == 1 for part in parts) else None


def _count_characters(line: str) -> int | None:
    return len("".join(parts_of(line)))


def _split_sudoku(text: str, name: str) -> list[BoardText]:
    _refuse_other_maze(text, name)
    lines = _lines_with_cells(text)
    width = max((len(line.text) for line in lines), default=0)
    for count in (_count_parts, _count_characters):
        cells = _common_count(lines, count, least=1.0) or _common_count(lines, count, least=0.5)
        if cells is not None:
            break
    else:  # blank cells may be written as blanks
        if width not in SIDES:
            raise _no_board(text, name)
        return _over_lines([line._replace(text=line.text.ljust(width)) for line in lines], width, len, name, glue="")
    if cells in SQUARES and not (cells in SIDES and _are_rows_of_16(lines)):
        return _one_per_line(lines, cells, count, name)
    return _over_lines(lines, cells, count, name)


def _common_count(lines: Sequence[_Line], count: Count, least: float) -> int | None:
    """Returns how many cells most lines have, if that is a row or a board and at least this fraction of them has it."""
    for cells, times in Counter(count(line.text) for line in lines).most_common(1):
        if cells is not None and (cells in SIDES or cells in SQUARES) and times >= least * len(lines):
            return cells
    return None


def _refuse_other_maze(text: str, name: str) -> None:
    """Raises DataError for a maze whose walls are written as something else."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    is_block = len(lines) >= SMALLEST_MAZE and len({len(line) for line in lines}) == 1
    if is_block and "S" in text and "G" in text:
        others = "".join(sorted(set("".join(lines)) - set(" SGo")))
        raise DataError(
            f"{name} looks like a maze with other characters ({others[:10]!r}): write walls as #, open cells as "
            "blanks, start and goal as S and G"
        )


def _no_board(text: str, name: str) -> DataError:
    shown = next((line.strip() for line in text.splitlines() if line.strip()), "")
    cells = len(cells_of(shown)) if shown else 0
    found = f"its first line has {cells} cells: {shown[:40]!r}" if shown else "it is empty"
    return DataError(
        f"{name} has no board ({found}): write a Sudoku as 81 digits with dots for blanks, or as nine lines of nine; "
        "a maze as lines of walls #, blanks, S and G; or a table with a column question"
    )


def _lines_with_cells(text: str) -> list[_Line]:
    """Returns the rows of boards: without frames, titles, comments and blank lines."""
    every = text.splitlines()
    has_titles = [bool(_TITLE.match(line)) for line in every]
    # A dash is a blank cell if it stands in a line with digits, and part of a frame otherwise.
    rows = [line for line, titled in zip(every, has_titles, strict=True) if not titled]
    dashes_are_cells = any("-" in line and any(c.isalnum() for c in line) for line in rows)
    lines: list[_Line] = []
    is_apart = True
    for number, (line, titled) in enumerate(zip(every, has_titles, strict=True), start=1):
        characters = set(line) - {" ", "\t"}
        if not characters or titled:
            is_apart = True
        elif characters <= set(_HORIZONTAL) and not (dashes_are_cells and characters <= set("-" + _VERTICAL)):
            continue
        elif parts_of(line):  # a line of brackets alone has none
            lines.append(_Line(number, line, is_apart))
            is_apart = False
    return lines


def _are_rows_of_16(lines: Sequence[_Line]) -> bool:
    """Returns whether lines of 16 cells are rows of Sudoku of side 16, and not each one of side 4."""
    used = {character.upper() for line in lines for part in parts_of(line.text) for character in part} - set(BLANKS)
    return len(lines) % 16 == 0 and not (used <= set("1234") or used <= set("ABCD"))


def _one_per_line(lines: Sequence[_Line], cells: int, count: Count, name: str) -> list[BoardText]:
    for line in lines:
        if (found := count(line.text) or _count_characters(line.text)) != cells:
            raise DataError(
                f"{name}, line {line.number} has {found} cells where the others have {cells}: correct the line, or "
                "leave it out"
            )
    return [BoardText(line.text, f"{name}, line {line.number}") for line in lines]


def _over_lines(lines: Sequence[_Line], side: int, count: Count, name: str, glue: str = " ") -> list[BoardText]:
    for line in lines:
        if (found := count(line.text) or _count_characters(line.text)) != side:
            raise DataError(
                f"{name}, line {line.number} has {found} cells where the rows of a board have {side}: correct the line"
            )
    boards = [lines[first : first + side] for first in range(0, len(lines), side)]
    gaps = {tuple(line.is_apart for line in board[1:]) for board in boards}
    if len(lines) % side or len(gaps) > 1:
        starts = [i for i, line in enumerate(lines) if line.is_apart] + [len(lines)]
        together = [(first, last - first) for first, last in itertools.pairwise(starts)]
        first, rows = next((one for one in together if one[1] % side), together[-1])
        raise DataError(
            f"{name}: {rows} rows of {side} cells stand together from line {lines[first].number}, and a board has "
            f"{side} rows: correct the file"
        )
    return [
        BoardText(glue.join(line.text for line in board), f"{name}, lines {board[0].number} to {board[-1].number}")
        for board in boards
    ]


# --- mazes


def _split_mazes(text: str, name: str) -> list[BoardText]:
    groups: list[list[_Line]] = []
    is_apart = True
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            is_apart = is_apart or not groups or len(line) < max(len(row.text) for row in groups[-1])
            if is_apart:
                continue
        if is_apart:
            groups.append([])
        groups[-1].append(_Line(number, line, is_apart))
        is_apart = False
    return [maze for group in groups for maze in _mazes_of(group, name)]


def _mazes_of(rows: Sequence[_Line], name: str) -> list[BoardText]:
    """Returns the mazes of lines without a gap: each line one, or one below the other."""
    width, first = max(len(row.text) for row in rows), rows[0].number
    side = round(width**0.5)
    if side >= SMALLEST_MAZE and side * side == width and all("S" in row.text for row in rows):
        return [BoardText(row.text, f"{name}, line {row.number}") for row in rows]
    if width < SMALLEST_MAZE or len(rows) % width:
        raise DataError(
            f"{name}: the maze from line {first} has {len(rows)} rows and {width} columns (as in line "
            f"{next(row.number for row in rows if len(row.text) == width)}): only square mazes are read, so fill it up "
            "with walls"
        )
    mazes = [rows[start : start + width] for start in range(0, len(rows), width)]
    return [
        BoardText(
            "".join(row.text.ljust(width) for row in maze), f"{name}, lines {maze[0].number} to {maze[-1].number}"
        )
        for maze in mazes
    ]
