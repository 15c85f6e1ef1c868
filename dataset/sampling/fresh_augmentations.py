"""Draws a new augmentation for each visit (`fresh_augmentations=true`), so that a task has augmentations without end.

Nothing is stored: the augmentation of a visit follows from the visit's seed, and so from the run's seed and the
position in the stream alone.  All examples of a visit have the same one.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dataset.augmentation import NUM_COLOURS
from dataset.hashing import splitmix64

_AUGMENTATION_STREAM = np.uint64(0xA0761D6478BD642F)  # keeps augmentations independent of orders and offsets


def draw_augmentations(visit_seeds: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Returns an augmentation for each visit: uint8 [N, 11], dihedral transform and ten colours.

    Each of the 8 * 9! augmentations is equally probable.

    Args:
        visit_seeds: uint64 [N].
    """
    drawn = np.empty((len(visit_seeds), 1 + NUM_COLOURS), dtype=np.uint8)
    _draw(visit_seeds, drawn)
    return drawn


@njit(cache=True, nogil=True)
def _draw(visit_seeds: NDArray[np.uint64], drawn: NDArray[np.uint8]) -> None:
    """Fills `drawn`."""
    for n in range(len(visit_seeds)):
        state = splitmix64(visit_seeds[n] ^ _AUGMENTATION_STREAM)
        drawn[n, 0] = state >> np.uint64(61)
        for colour in range(10):
            drawn[n, 1 + colour] = colour
        for i in range(9, 1, -1):  # Fisher-Yates over the colours 1..9
            state = splitmix64(state)
            j = 1 + np.int64(((state >> np.uint64(32)) * np.uint64(i)) >> np.uint64(32))
            drawn[n, 1 + i], drawn[n, 1 + j] = drawn[n, 1 + j], drawn[n, 1 + i]
