"""dataset/layouts/board_text.py: boards as people write them, in a file or on a command line."""

from __future__ import annotations

import numpy as np
import pytest

from dataset.build.maze import generate_mazes, parse_maze
from dataset.build.sudoku import generate_sudoku, parse_sudoku
from dataset.layouts.board_text import is_maze, split_boards
from utils.errors import DataError

BOARDS = generate_sudoku(3, 9, seed=0, clues=30)[0]
TEXTS = ["".join(".123456789"[d] for d in board) for board in BOARDS]


def rows(text: str, side: int = 9) -> list[str]:
    return [text[first : first + side] for first in range(0, side * side, side)]


def boxed(text: str, bar: str = "|", rule: str = "------+-------+------") -> str:
    """As websites print it."""
    lines = [f" {bar} ".join(" ".join(row[c : c + 3]) for c in (0, 3, 6)) for row in rows(text)]
    return "\n".join([*lines[:3], rule, *lines[3:6], rule, *lines[6:]])


def framed(text: str) -> str:
    lines = [f"│ {line} │" if "│" in line else "├" + "─" * 23 + "┤" for line in boxed(text, "│", "").split("\n")]
    return "\n".join(["┌" + "─" * 23 + "┐", *lines, "└" + "─" * 23 + "┘"])


def listed(text: str) -> str:
    return str([[int(cell) for cell in row] for row in rows(text.replace(".", "0"))])


WRITINGS = {
    "one per line": "\n".join(TEXTS),
    "nine lines": "\n\n".join("\n".join(rows(text)) for text in TEXTS),
    "nine lines, nothing between": "\n".join("\n".join(rows(text)) for text in TEXTS),
    "bands apart": "\n\n".join("\n".join(rows(text)[r : r + 3]) for text in TEXTS for r in (0, 3, 6)),
    "website": "\n\n".join(map(boxed, TEXTS)),
    "frames": "\n".join(map(framed, TEXTS)),
    "titles": "\n".join(f"Grid {i:02}\n" + "\n".join(rows(text)) for i, text in enumerate(TEXTS)).replace(".", "0"),
    "comments": "# by hand\n[Puzzle]\n" + "\n\n".join("\n".join(rows(text)) for text in TEXTS),
    "81 columns": "\n".join(",".join(text.replace(".", "0")) for text in TEXTS),
    "lists": "\n".join(map(listed, TEXTS)),
    "bars": "\n".join("|".join(rows(text)) for text in TEXTS),
    "slashes": "\n".join("/".join(rows(text)) for text in TEXTS),
    "dashes": "\n\n".join("\n".join(rows(text.replace(".", "-"))) for text in TEXTS),
    "blanks": "\n\n".join("\n".join(row.rstrip() for row in rows(text.replace(".", " "))) for text in TEXTS),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("how", WRITINGS)
def test_the_same_boards_in_every_writing(how: str, line_end: str) -> None:
    found = split_boards(WRITINGS[how].replace("\n", line_end), "in.txt")
    assert len(found) == 3
    for board, wanted in zip(found, BOARDS, strict=True):
        assert np.array_equal(parse_sudoku(board.text, "", board.where)[0], wanted)


def test_where_a_board_stands() -> None:
    assert [board.where for board in split_boards(WRITINGS["one per line"], "in.txt")][1:] == [
        "in.txt, line 2",
        "in.txt, line 3",
    ]
    assert split_boards(WRITINGS["website"], "in.txt")[1].where == "in.txt, lines 13 to 23"


def test_lines_of_16_are_boards_or_rows() -> None:
    small = "1.34....4......2"
    assert len(split_boards("\n".join([small] * 16), "in.txt")) == 16
    assert len(split_boards("\n".join(["1.34....G......2"] * 16), "in.txt")) == 1
    assert len(split_boards("\n".join([" ".join(map(str, range(1, 17)))] * 16), "in.txt")) == 1
    assert len(split_boards("1.34....G......2", "in.txt")) == 1  # the parser says that G is too much


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n".join([TEXTS[0], TEXTS[1][1:], TEXTS[2]]), "in.txt, line 2 has 80 cells where the others have 81: "),
        ("\n".join([*rows(TEXTS[0]), "", *rows(TEXTS[1])[1:], "", *rows(TEXTS[2])]), "8 rows of 9 cells .* line 11, "),
        ("\n".join([*rows(TEXTS[0])[:8], "", *rows(TEXTS[1]), rows(TEXTS[0])[8]]), "8 rows of 9 cells .* line 1, "),
        ("\n".join([*rows(TEXTS[0])[:4], "12345678", *rows(TEXTS[0])[5:]]), "line 5 has 8 cells where the rows"),
        (TEXTS[0][:80], "in.txt has no board .its first line has 80 cells"),
        ("hello", "has no board"),
        ("", "has no board .it is empty"),
        ("XXXXX\nXS.GX\nXXXXX\nX...X\nXXXXX", "looks like a maze with other characters .'.X'"),
    ],
)
def test_what_does_not_fit_is_named(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        split_boards(text, "in.txt")
    assert "\n" not in str(error.value)


MAZES = generate_mazes(3, 7, seed=0, min_steps=6)[0]
LINES = ["\n".join("".join("?# SGo"[cell] for cell in row) for row in grid.reshape(7, 7)) for grid in MAZES]


@pytest.mark.parametrize(
    "text",
    [
        "\n\n".join(LINES),
        "\n".join(LINES),
        "\r\n\r\n".join(lines.replace("\n", "\r\n") for lines in LINES),
        "\n".join(lines.replace("\n", "") for lines in LINES),
        "\n\n\n".join(lines + "\n" for lines in LINES),
    ],
)
def test_mazes_in_every_writing(text: str) -> None:
    found = split_boards(text, "in.txt")
    assert is_maze(text) and len(found) == 3
    for maze, wanted in zip(found, MAZES, strict=True):
        assert np.array_equal(parse_maze(maze.text, maze.where), wanted)


def test_open_cells_at_the_end_of_a_line_may_be_stripped() -> None:
    text = "#####\n#S\n# ###\n#  G#\n#####"
    (maze,) = split_boards(text, "in.txt")
    assert maze.text == "######S   # ####  G######"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n".join(LINES[0].split("\n")[1:]), "line 1 has 6 rows and 7 columns .as in line 1.: only square"),
        (LINES[0] + "#\n", "7 rows and 8 columns .as in line 7."),
    ],
)
def test_mazes_that_are_not_square(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        split_boards(text, "in.txt")


@pytest.mark.parametrize("text", ["#1 easy\n" + TEXTS[0], "### a title\n" + "\n".join(rows(TEXTS[0])), TEXTS[0]])
def test_sudoku_with_comments_are_no_mazes(text: str) -> None:
    assert not is_maze(text)
