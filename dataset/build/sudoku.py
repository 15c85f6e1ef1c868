"""Sudoku: generates some with exactly one solution, or reads the text of Sudoku-Extreme; augments them; both become
tokens.

A Sudoku of n x n digits is a row of n * n tokens: PAD 0, blank 1, digit d is d + 1.  For 9 x 9 this is as published
(arXiv 2506.21734): 81 cells, 11 tokens.  Boxes are sqrt(n) x sqrt(n), but for n = 6 two rows by three columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from dataset.hashing import splitmix64
from dataset.layouts.board_text import ALPHABETS, BLANKS, SIDES, SQUARES, cells_of
from utils.errors import DataError

BOXES = dict(zip(SIDES, ((2, 2), (2, 3), (2, 4), (3, 3), (2, 5), (3, 4), (2, 7), (3, 5), (4, 4)), strict=True))
"""Rows and columns of a box, by the side of the Sudoku."""

GENERATED = (4, 6, 9)
"""Sides of which Sudoku are made; larger ones are read."""

TOKEN_OF_BLANK = 1


def to_tokens(digits: np.ndarray) -> np.ndarray:
    """Returns the tokens, uint8 [N, n * n], of digits [N, n * n] with 0 for a blank."""
    return (digits + TOKEN_OF_BLANK).astype(np.uint8)


def vocab_size(n: int) -> int:
    """Returns the number of tokens: PAD, blank and n digits."""
    return n + 2


@numba.njit(nogil=True, cache=True)
def _search(board, n, box_h, box_w, limit, state, solution):  # type: ignore[no-untyped-def]
    """Counts the solutions of `board` [n * n], up to `limit`.  It always fills a cell with the fewest candidates.

    Args:
        state: 0 tries candidates in order; any other number, in an order drawn from it.
        solution: [n * n], receives the first solution.

    Returns:
        The number of solutions, and of guesses: cells that had several candidates when they were filled.
    """
    cells = n * n
    grid = board.copy()
    rows, cols, boxes = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    boxes_per_row = n // box_w
    everything = (1 << n) - 1
    for i in range(cells):
        if grid[i] > 0:
            bit = 1 << (np.int64(grid[i]) - 1)
            r, c = i // n, i % n
            b = r // box_h * boxes_per_row + c // box_w
            if (rows[r] | cols[c] | boxes[b]) & bit:
                return 0, 0
            rows[r] |= bit
            cols[c] |= bit
            boxes[b] |= bit
    trail, left = np.empty(cells, np.int64), np.empty(cells, np.int64)
    depth, solutions, guesses = 0, 0, 0
    while True:
        fewest, best, candidates = n + 1, -1, 0
        for i in range(cells):
            if grid[i] == 0:
                r, c = i // n, i % n
                free = everything & ~(rows[r] | cols[c] | boxes[r // box_h * boxes_per_row + c // box_w])
                count = 0
                rest = free
                while rest:
                    rest &= rest - 1
                    count += 1
                if count < fewest:
                    fewest, best, candidates = count, i, free
                    if count <= 1:
                        break
        if best < 0:
            solutions += 1
            if solutions == 1:
                solution[:] = grid
            if solutions >= limit:
                return solutions, guesses
        else:
            guesses += fewest > 1
            trail[depth], left[depth] = best, candidates
            depth += 1
        while depth > 0:  # the next candidate of the latest cell that has one
            i = trail[depth - 1]
            r, c = i // n, i % n
            b = r // box_h * boxes_per_row + c // box_w
            if grid[i] > 0:
                bit = 1 << (np.int64(grid[i]) - 1)
                rows[r] &= ~bit
                cols[c] &= ~bit
                boxes[b] &= ~bit
                grid[i] = 0
            if left[depth - 1] == 0:
                depth -= 1
                continue
            skip = 0
            if state:
                state = splitmix64(np.uint64(state))
                count = 0
                rest = left[depth - 1]
                while rest:
                    rest &= rest - 1
                    count += 1
                skip = np.int64((state >> np.uint64(33)) % np.uint64(count))
            rest = left[depth - 1]
            for _ in range(skip):
                rest &= rest - 1
            bit = rest & -rest
            left[depth - 1] &= ~bit
            digit = 0
            while (1 << digit) < bit:
                digit += 1
            grid[i] = digit + 1
            rows[r] |= bit
            cols[c] |= bit
            boxes[b] |= bit
            break
        if depth == 0:
            return solutions, guesses


def solve_sudoku(board: np.ndarray, limit: int = 2) -> tuple[int, int, np.ndarray]:
    """Solves a Sudoku uint8 [n * n], with 0 for a blank.

    Returns:
        The number of solutions up to `limit`; the guesses that were needed; the first solution (zeros if there is
        none).  The guesses with `limit=1` are the difficulty of a puzzle here.
    """
    n = side_of(board.size)
    solution = np.zeros(board.size, dtype=np.uint8)
    found, guesses = _search(board.astype(np.uint8), n, *BOXES[n], limit, np.uint64(0), solution)
    return int(found), int(guesses), solution


def side_of(cells: int) -> int:
    """Returns n of a Sudoku of n * n cells.

    Raises:
        DataError: if there is no such Sudoku here.
    """
    for n in BOXES:
        if n * n == cells:
            return n
    raise DataError(f"{cells} cells are not a Sudoku: its side must be one of {', '.join(map(str, BOXES))}")


@numba.njit(nogil=True, cache=True)
def _generate(n, box_h, box_w, clues, seeds, puzzles, solutions, difficulties):  # type: ignore[no-untyped-def]
    """Fills puzzles, solutions [N, n * n] and difficulties [N], one for each seed."""
    cells = n * n
    spare = np.zeros(cells, np.uint8)
    order = np.arange(cells)
    for k in range(len(seeds)):
        state = splitmix64(seeds[k])
        _search(np.zeros(cells, np.uint8), n, box_h, box_w, 1, state | np.uint64(1), solutions[k])
        puzzle = solutions[k].copy()
        for i in range(cells - 1, 0, -1):
            state = splitmix64(state)
            j = np.int64(state % np.uint64(i + 1))
            order[i], order[j] = order[j], order[i]
        left = cells
        for i in order:
            if left <= clues:
                break
            digit = puzzle[i]
            puzzle[i] = 0
            found, _ = _search(puzzle, n, box_h, box_w, 2, np.uint64(0), spare)
            if found > 1:
                puzzle[i] = digit
            else:
                left -= 1
        puzzles[k] = puzzle
        difficulties[k] = _search(puzzle, n, box_h, box_w, 1, np.uint64(0), spare)[1]


PUZZLES_AT_ONCE = 64


def generate_sudoku(
    count: int, n: int, seed: int, clues: int = 0, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes puzzles with exactly one solution: takes out digits in random order as long as the solution stays unique.

    Args:
        clues: fewest digits that stay; 0 takes out as many as possible.
        progress: called with (puzzles made, count).

    Returns:
        puzzles, solutions uint8 [count, n * n]; difficulty int64 [count].
    """
    box_h, box_w = BOXES[n]
    puzzles, solutions = (np.zeros((count, n * n), dtype=np.uint8) for _ in range(2))
    difficulties = np.zeros(count, dtype=np.int64)
    seeds = np.random.default_rng((seed, n)).integers(1, 2**63, count).astype(np.uint64)

    def fill(first: int) -> int:
        part = slice(first, first + PUZZLES_AT_ONCE)
        _generate(n, box_h, box_w, clues, seeds[part], puzzles[part], solutions[part], difficulties[part])
        return len(seeds[part])

    with ThreadPoolExecutor(workers) as pool:
        done = 0
        for made in pool.map(fill, range(0, count, PUZZLES_AT_ONCE)):
            done += made
            if progress is not None:
                progress(done, count)
    return puzzles, solutions, difficulties


def augment_sudoku(puzzle: np.ndarray, solution: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns the puzzle and its solution under a random augmentation.

    Digits are renamed; bands, the rows of each band, stacks and the columns of each stack are reordered.  Where boxes
    are square, half of the puzzles are also transposed.
    """
    n = side_of(puzzle.size)
    box_h, box_w = BOXES[n]
    digits = np.concatenate([[0], rng.permutation(n) + 1]).astype(np.uint8)
    rows = np.concatenate([band * box_h + rng.permutation(box_h) for band in rng.permutation(n // box_h)])
    cols = np.concatenate([stack * box_w + rng.permutation(box_w) for stack in rng.permutation(n // box_w)])
    transposed = box_h == box_w and rng.random() < 0.5

    def apply(board: np.ndarray) -> np.ndarray:
        grid = board.reshape(n, n)
        grid = grid.T if transposed else grid
        return digits[grid[rows][:, cols]].reshape(-1)

    return apply(puzzle), apply(solution)


def parse_sudoku(question: str, answer: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a puzzle and its solution, uint8 [n * n], from the text of a row of a table.

    Digits above 9 are letters (`ALPHABETS`), or the cells are numbers with blanks or commas between them.  A blank cell
    is `.`, 0 or another character of `BLANKS`.

    Args:
        answer: empty if it is not known; the solution is then zeros.

    Raises:
        DataError: naming `where`, if the answer is not a solution of the question.
    """
    asked, answered = cells_of(question), cells_of(answer)
    # An answer has all digits, so that it tells which alphabet is used.
    n = math.isqrt(len(answered))
    alphabet = next((a[:n] for a in ALPHABETS if set(answered) == set(a[:n])), None) or _alphabet_of(asked)
    value_of = dict.fromkeys(BLANKS, 0) | {digit: i for i, digit in enumerate(alphabet, start=1)}
    if not {*asked, *answered} <= value_of.keys():
        wrong = next(cell for cell in (*asked, *answered) if cell not in value_of)
        raise DataError(f"{where} contains something other than digits and dots ({wrong!r}): correct the file")
    puzzle, solution = (np.array([value_of[cell] for cell in cells], dtype=np.uint8) for cells in (asked, answered))
    if len(puzzle) not in SQUARES or (answer and len(puzzle) != len(solution)):
        found = f"{len(puzzle)} and {len(solution)} cells" if answer else f"{len(puzzle)} cells"
        short = len(puzzle) < 81 and question.strip().isdigit() and len(solution) in (0, 81)
        raise DataError(
            f"{where} has {found}: a 9 x 9 Sudoku has 81{' each' if answer else ''}, so correct the file"
            + (" (a spreadsheet may have dropped zeros at the start: keep boards as text)" if short else "")
        )
    most = max(puzzle.max(), solution.max(initial=0))
    if most > side_of(len(puzzle)):
        raise DataError(
            f"{where} has the digit {most}, which a Sudoku of {len(puzzle)} cells does not have: correct it"
        )
    if not answer:
        return puzzle, np.zeros_like(puzzle)
    if solve_sudoku(solution, 1)[0] != 1 or (solution == 0).any() or ((puzzle != 0) & (puzzle != solution)).any():
        raise DataError(f"{where}: the answer is not a solution of the question: correct the file")
    return puzzle, solution


def _alphabet_of(cells: list[str]) -> str:
    """Returns the alphabet of a board without an answer.

    It is letters alone where there are no digits, digits from 0 on where both 0 and another blank occur, else digits
    from 1 on.
    """
    used, blanks = set(cells) - set(BLANKS), set(cells) & set(BLANKS)
    if used and used <= set(ALPHABETS[2]):
        return ALPHABETS[2]
    return ALPHABETS[1] if len(cells) > 81 and "0" in blanks and len(blanks) > 1 else ALPHABETS[0]
