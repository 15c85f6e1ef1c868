"""Mazes: generates some with a long path, or reads the text of Maze-Hard; both become tokens.

A maze is a text, row by row: `#` wall, space, `S` start, `G` goal; in the answer `o` marks the shortest path.  As
tokens these five characters are 1 to 5, and PAD is 0 (arXiv 2506.21734).
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from dataset.hashing import splitmix64
from utils.errors import DataError, SettingError

CHARACTERS = "# SGo"
VOCAB_SIZE = len(CHARACTERS) + 1
WALL, OPEN, START, GOAL, PATH = range(1, VOCAB_SIZE)


def parse_maze(text: str, where: str) -> np.ndarray:
    """Returns the tokens of a maze's text, uint8 [side * side].

    Raises:
        DataError: naming `where`, if it is not a square of the five characters.
    """
    if "\n" in text.strip("\r\n"):  # row by row in one cell of a table
        rows = text.strip("\r\n").splitlines()
        text = "".join(row.ljust(len(rows)) for row in rows)
    if strange := set(text) - set(CHARACTERS):
        raise DataError(
            f"{where} contains {sorted(strange)[0]!r}: a maze consists of walls #, open cells (blanks), S, G and, in "
            "answers, o, so write it with these"
        )
    side = round(len(text) ** 0.5)
    if not text or side * side != len(text):
        raise DataError(f"{where} has {len(text)} cells, which is not a square: correct the file")
    return np.array([CHARACTERS.index(character) + 1 for character in text], dtype=np.uint8)


def parse_solved_maze(question: str, answer: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens of a maze and of its answer, uint8 [side * side] each.

    Args:
        answer: empty if it is not known; its tokens are then zeros.

    Raises:
        DataError: naming `where`, if the answer is not the maze with a path drawn in.
    """
    maze = parse_maze(question, where)
    if not answer:
        return maze, np.zeros_like(maze)
    solved = parse_maze(answer, where)
    if not np.array_equal(maze, np.where(solved == PATH, OPEN, solved)):
        raise DataError(f"{where}: the answer is not the question with a path drawn in: correct the file")
    return maze, solved


@numba.njit(nogil=True, cache=True)
def distances(maze, side, start):  # type: ignore[no-untyped-def]
    """Returns the steps from `start` to each cell of a maze of tokens [side * side], -1 where walls are in between:
    int64 [side * side]."""
    steps = np.full(side * side, -1, np.int64)
    queue = np.empty(side * side, np.int64)
    queue[0], steps[start] = start, 0
    head, tail = 0, 1
    while head < tail:
        cell = queue[head]
        head += 1
        row, col = cell // side, cell % side
        for turn in range(4):
            r, c = row + (turn == 0) - (turn == 1), col + (turn == 2) - (turn == 3)
            if 0 <= r < side and 0 <= c < side:
                neighbour = r * side + c
                if maze[neighbour] != WALL and steps[neighbour] < 0:
                    steps[neighbour] = steps[cell] + 1
                    queue[tail] = neighbour
                    tail += 1
    return steps


@numba.njit(nogil=True, cache=True)
def _carve(side, state, maze):  # type: ignore[no-untyped-def]
    """Carves a spanning tree of passages, by depth-first search in random order: two cells have exactly one path.

    Returns the state of the random generator.
    """
    maze[:] = WALL
    rooms = (side - 1) // 2
    trail = np.empty(rooms * rooms, np.int64)
    trail[0], depth = 0, 1
    maze[side + 1] = OPEN
    while depth:
        row, col = trail[depth - 1] // rooms, trail[depth - 1] % rooms
        state = splitmix64(state)
        offset = np.int64(state >> np.uint64(62))
        moved = False
        for k in range(4):
            turn = (offset + k) % 4
            r, c = row + (turn == 0) - (turn == 1), col + (turn == 2) - (turn == 3)
            if 0 <= r < rooms and 0 <= c < rooms and maze[(2 * r + 1) * side + 2 * c + 1] == WALL:
                maze[(row + r + 1) * side + col + c + 1] = OPEN
                maze[(2 * r + 1) * side + 2 * c + 1] = OPEN
                trail[depth] = r * rooms + c
                depth += 1
                moved = True
                break
        if not moved:
            depth -= 1
    return state


@numba.njit(nogil=True, cache=True)
def _generate(side, min_steps, seeds, mazes, answers, lengths):  # type: ignore[no-untyped-def]
    """Fills mazes, answers [N, side * side] and lengths [N], one for each seed.  A maze without a path that is long
    enough is carved again."""
    for k in range(len(seeds)):
        state = seeds[k]
        while lengths[k] < min_steps:
            state = _carve(side, state, mazes[k])
            open_cells = np.flatnonzero(mazes[k] == OPEN)
            state = splitmix64(state)
            start = open_cells[np.int64(state % np.uint64(len(open_cells)))]
            steps = distances(mazes[k], side, start)
            far = np.flatnonzero(steps >= min_steps)
            if len(far) == 0:
                continue
            state = splitmix64(state)
            cell = far[np.int64(state % np.uint64(len(far)))]
            lengths[k] = steps[cell]
            mazes[k, start], mazes[k, cell] = START, GOAL
            answers[k] = mazes[k]
            while steps[cell] > 1:  # back along falling distances
                row, col = cell // side, cell % side
                for turn in range(4):
                    r, c = row + (turn == 0) - (turn == 1), col + (turn == 2) - (turn == 3)
                    if 0 <= r < side and 0 <= c < side and steps[r * side + c] == steps[cell] - 1:
                        cell = r * side + c
                        break
                answers[k, cell] = PATH


def generate_mazes(
    count: int, side: int, seed: int, min_steps: int, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes mazes with exactly one path from start to goal, which has at least `min_steps` steps.

    Args:
        progress: called with (mazes made, count).

    Returns:
        mazes, answers uint8 [count, side * side] as tokens; lengths of the paths int64 [count].

    Raises:
        SettingError: if mazes of this side have no such path.
    """
    rooms = (side - 1) // 2
    longest = max(0, rooms * rooms * 2 // 3)
    if side < 5 or not 1 <= min_steps <= longest:
        raise SettingError(
            f"mazes of side {side} with paths of at least {min_steps} steps cannot be found: "
            f"use --size 5 or more, and --min-way {longest} or less"
        )
    mazes, answers = (np.zeros((count, side * side), dtype=np.uint8) for _ in range(2))
    lengths = np.zeros(count, dtype=np.int64)
    seeds = np.random.default_rng((seed, side)).integers(1, 2**63, count).astype(np.uint64)
    for first in range(0, count, 64):
        part = slice(first, first + 64)
        _generate(side, min_steps, seeds[part], mazes[part], answers[part], lengths[part])
        if progress is not None:
            progress(min(first + 64, count), count)
    return mazes, answers, lengths
