"""Mazes: generated so that the way is long, or read from the CSV files of Maze-Hard; augmented; as tokens.

A maze is text, row by row: `#` wall, space, `S` start, `G` goal; in the answer `o` marks the shortest way.  As tokens
these five are 1 to 5, PAD is 0 (arXiv 2506.21734).
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np

from dataset.hashing import splitmix64

CHARACTERS = "# SGo"
VOCAB_SIZE = len(CHARACTERS) + 1
WALL, OPEN, START, GOAL, WAY = range(1, VOCAB_SIZE)


def parse(text: str, where: str) -> np.ndarray:
    """Tokens uint8 [side * side] of a maze's text.

    Raises:
        ValueError: naming `where`, if it is not a square of the five characters.
    """
    if strange := set(text) - set(CHARACTERS):
        raise ValueError(f"{where} holds {sorted(strange)[0]!r}: a maze is made of the characters {CHARACTERS!r}")
    side = round(len(text) ** 0.5)
    if not text or side * side != len(text):
        raise ValueError(f"{where} has {len(text)} cells, which is no square")
    return np.array([CHARACTERS.index(character) + 1 for character in text], dtype=np.uint8)


@numba.njit(nogil=True, cache=True)
def distances(maze, side, start):  # type: ignore[no-untyped-def]
    """Steps from `start` to every cell of a maze of tokens [side * side], -1 where walls are in between: int64."""
    found = np.full(side * side, -1, np.int64)
    queue = np.empty(side * side, np.int64)
    queue[0], found[start] = start, 0
    head, tail = 0, 1
    while head < tail:
        cell = queue[head]
        head += 1
        row, col = cell // side, cell % side
        for turn in range(4):
            r, c = row + (turn == 0) - (turn == 1), col + (turn == 2) - (turn == 3)
            if 0 <= r < side and 0 <= c < side:
                neighbour = r * side + c
                if maze[neighbour] != WALL and found[neighbour] < 0:
                    found[neighbour] = found[cell] + 1
                    queue[tail] = neighbour
                    tail += 1
    return found


@numba.njit(nogil=True, cache=True)
def _carve(side, state, maze):  # type: ignore[no-untyped-def]
    """A spanning tree of passages, by depth-first search in random order: between two cells there is exactly one way.

    Returns the state of the generator after it.
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
def _generate(side, min_way, seeds, mazes, answers, lengths):  # type: ignore[no-untyped-def]
    for k in range(len(seeds)):
        state = seeds[k]
        while lengths[k] < min_way:
            state = _carve(side, state, mazes[k])
            open_cells = np.flatnonzero(mazes[k] == OPEN)
            state = splitmix64(state)
            start = open_cells[np.int64(state % np.uint64(len(open_cells)))]
            steps = distances(mazes[k], side, start)
            far = np.flatnonzero(steps >= min_way)
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
                answers[k, cell] = WAY


def generate(
    count: int, side: int, seed: int, min_way: int, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mazes with exactly one way from start to goal, of at least `min_way` steps.

    Returns:
        mazes, answers uint8 [count, side * side] as tokens; lengths of the ways int64 [count].

    Raises:
        ValueError: if mazes of this side have no such way.
    """
    rooms = (side - 1) // 2
    if side < 5 or min_way < 1 or min_way > rooms * rooms * 2 // 3:
        raise ValueError(
            f"mazes of side {side} with ways of at least {min_way} steps are not to be found: "
            f"the side must be at least 5 and the way at most {max(0, rooms * rooms * 2 // 3)}"
        )
    mazes, answers = (np.zeros((count, side * side), dtype=np.uint8) for _ in range(2))
    lengths = np.zeros(count, dtype=np.int64)
    seeds = np.random.default_rng((seed, side)).integers(1, 2**63, count).astype(np.uint64)
    for first in range(0, count, 64):
        part = slice(first, first + 64)
        _generate(side, min_way, seeds[part], mazes[part], answers[part], lengths[part])
        if progress is not None:
            progress(min(first + 64, count), count)
    return mazes, answers, lengths
