"""What a Sudoku or a maze is to a reader: its text, how it is printed, and whether an answer keeps the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dataset.build import maze, sudoku
from dataset.encoding import PAD, VOCAB_SIZE
from dataset.layouts.board_text import ALPHABETS, is_maze
from utils.errors import DataError

BAD_CELL = "?"
"""How a token is written that no board has, such as padding."""


class GridKind(Protocol):
    """One kind of puzzle on square grids of one side."""

    name: str
    plural: str
    side: int

    def parse(self, question: str, answer: str, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the tokens of a puzzle and of its answer, uint8 [cells] each; PAD for an answer that is not known.

        Raises:
            DataError: naming `where`, if they are not of this kind and side.
        """

    def to_text(self, tokens: np.ndarray) -> str:
        """Returns the cells uint8 [cells] as one line, as tables have them."""

    def draw(self, tokens: np.ndarray) -> str:
        """Returns the board over several lines, as people write it."""

    def check(self, question: np.ndarray, answer: np.ndarray) -> dict[str, bool]:
        """Returns which rules an answer keeps, by their names."""

    def describe_checks(self, checks: dict[str, bool]) -> str:
        """Returns the same in words."""


class SudokuKind:
    """Sudoku of one side."""

    name = plural = "Sudoku"

    def __init__(self, side: int) -> None:
        self.side = side
        self._characters = np.array([BAD_CELL, ".", *ALPHABETS[0][:side]])

    def parse(self, question: str, answer: str, where: str) -> tuple[np.ndarray, np.ndarray]:
        puzzle, solution = sudoku.parse_sudoku(question, answer, where)
        _check_side(puzzle.size, self, where)
        tokens = sudoku.to_tokens
        return tokens(puzzle), tokens(solution) if answer else np.full_like(puzzle, PAD)

    def to_text(self, tokens: np.ndarray) -> str:
        return "".join(self._characters[np.where(tokens < len(self._characters), tokens, 0)])

    def draw(self, tokens: np.ndarray) -> str:
        height, width = sudoku.BOXES[self.side]
        text, lines = self.to_text(tokens), []
        for row in range(self.side):
            cells = text[row * self.side : (row + 1) * self.side]
            lines.append(" | ".join(" ".join(cells[c : c + width]) for c in range(0, self.side, width)))
            if (row + 1) % height == 0 and row + 1 < self.side:
                lines.append("-+-".join(["-" * (2 * width - 1)] * (self.side // width)))
        return "\n".join(lines)

    def check(self, question: np.ndarray, answer: np.ndarray) -> dict[str, bool]:
        height, width = sudoku.BOXES[self.side]
        grid = answer.reshape(self.side, self.side)
        boxes = grid.reshape(self.side // height, height, self.side // width, width).swapaxes(1, 2)
        given = question > sudoku.TOKEN_OF_BLANK
        return {
            "clues_kept": bool((question == answer)[given].all()),
            "rows_valid": self._has_every_digit(grid),
            "columns_valid": self._has_every_digit(grid.T),
            "boxes_valid": self._has_every_digit(boxes.reshape(self.side, self.side)),
        }

    def _has_every_digit(self, groups: np.ndarray) -> bool:
        digits = np.arange(1, self.side + 1) + sudoku.TOKEN_OF_BLANK
        return bool((np.sort(groups, axis=1) == digits).all())

    def describe_checks(self, checks: dict[str, bool]) -> str:
        broken = [name.removesuffix("_valid") for name, holds in checks.items() if not holds and name != "clues_kept"]
        clues = "clues kept" if checks["clues_kept"] else "clues not kept"
        return f"{clues}, " + (f"not valid: {', '.join(broken)}" if broken else "rows, columns and boxes valid")


class MazeKind:
    """Mazes of one side."""

    name, plural = "maze", "mazes"

    def __init__(self, side: int) -> None:
        self.side = side

    def parse(self, question: str, answer: str, where: str) -> tuple[np.ndarray, np.ndarray]:
        tokens, solved = maze.parse_solved_maze(question, answer, where)
        _check_side(tokens.size, self, where)
        for token, what in ((maze.START, "starts S"), (maze.GOAL, "goals G")):
            if (count := int((tokens == token).sum())) != 1:
                raise DataError(f"{where} has {count} {what}: a maze has one")
        return tokens, solved

    def to_text(self, tokens: np.ndarray) -> str:
        characters = np.array(list(BAD_CELL + maze.CHARACTERS))
        return "".join(characters[np.where(tokens < len(characters), tokens, 0)])

    def draw(self, tokens: np.ndarray) -> str:
        text = self.to_text(tokens)
        return "\n".join(text[row * self.side : (row + 1) * self.side] for row in range(self.side))

    def check(self, question: np.ndarray, answer: np.ndarray) -> dict[str, bool]:
        kept = np.array_equal(question, np.where(answer == maze.PATH, maze.OPEN, answer))
        starts, goals = (np.flatnonzero(question == token) for token in (maze.START, maze.GOAL))
        if not len(starts) or not len(goals):
            return {"maze_kept": kept, "path_connected": False, "path_shortest": False}
        start, goal = int(starts[0]), int(goals[0])
        path = np.where(answer == maze.PATH, maze.OPEN, maze.WALL).astype(np.uint8)
        path[[start, goal]] = maze.OPEN
        steps = int(maze.distances(path, self.side, start)[goal])
        shortest = int(maze.distances(question, self.side, start)[goal])
        marked = int((answer == maze.PATH).sum())
        return {
            "maze_kept": kept,
            "path_connected": steps > 0,
            "path_shortest": kept and steps == shortest and marked == steps - 1,
        }

    def describe_checks(self, checks: dict[str, bool]) -> str:
        kept = "maze kept" if checks["maze_kept"] else "walls, start or goal changed"
        if not checks["path_connected"]:
            return f"{kept}, the path does not lead from S to G"
        return f"{kept}, " + ("a shortest path" if checks["path_shortest"] else "a path, but not a shortest one alone")


def _check_side(cells: int, kind: GridKind, where: str) -> None:
    if cells != kind.side**2:
        side = round(cells**0.5)
        raise DataError(
            f"{where} is {side} x {side}, and the network completes {kind.side} x {kind.side}: use another network or "
            "board"
        )


def identify_kind(vocab_size: int, cells: int, sources: Sequence[str] = ()) -> GridKind | None:
    """Returns the kind of puzzle that tokens are of; None if it is none of these, such as ARC.

    Args:
        sources: of the data set, if they are known; Sudoku of side 10 have as many tokens as ARC.
    """
    side = round(cells**0.5)
    if side * side != cells:
        return None
    said = {source.split(":")[0] for source in sources} & {"sudoku", "maze"}
    is_sudoku = side in sudoku.BOXES and vocab_size == sudoku.vocab_size(side) and "maze" not in said
    if is_sudoku and ("sudoku" in said or vocab_size != VOCAB_SIZE):
        return SudokuKind(side)
    return MazeKind(side) if vocab_size == maze.VOCAB_SIZE else None


def name_of_kind(question: str) -> str:
    """Returns the name of the kind of puzzle that a question is written as."""
    return MazeKind.name if is_maze(question) else SudokuKind.name
