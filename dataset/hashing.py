"""Counter-based random numbers: the same integer gives the same number on any machine, thread and version."""

from __future__ import annotations

import hashlib

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


@njit(cache=True, nogil=True, inline="always")
def splitmix64(x: np.uint64) -> np.uint64:
    """Returns the output of splitmix64 for state `x` (Steele, Lea and Flood 2014): a bijection of the 64-bit integers.

    `x` must be a `numpy.uint64`: with a signed integer numba would compute with floats.
    """
    z = x + _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


def task_seed(seed: int, task_id: str) -> np.uint64:
    """Returns a seed for a generator that depends on `seed` and `task_id` alone."""
    digest = hashlib.sha256(f"{seed}:{task_id}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))
