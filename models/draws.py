"""Counter-based random numbers on the device: the same key and counter give the same number, on any rank and after any
resume.

A key is an integer of 32 bits, held in int64.  Each example gets one when it enters its slot, and keeps it in the
carry.  Whatever is drawn for the example follows from the key and from numbers that say what is drawn.

Dimensions: B slots, S sequence, D hidden.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KEYS = 2**32
"""Keys are below this number."""

STARTS, NOISE, TARGETS, PREDICTIONS = range(4)
"""What is drawn for an example, or whose key is made: the first of the numbers that draws follow from."""

_MASK = KEYS - 1
_FACTOR = 0x45D9F3B  # of 27 bits, so that no product leaves int64
_SPACING = 0x9E3779B1
_WITHIN_TWO_SIGMA = math.erf(math.sqrt(2))
_DEVIATION = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / _WITHIN_TWO_SIGMA)
"""Of a unit normal cut at +-2."""

_ERFINV = (
    *(1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06),
    *(3.43273939e-07, 2.81022636e-08),
)
"""Coefficients of erfinv(u) / u in -log(1 - u^2) - 2.5, for |u| < 0.9966 (Giles 2010, single precision)."""


def _mix(x: Tensor) -> Tensor:
    """Scrambles integers of 32 bits; different ones stay different."""
    for _ in range(2):
        x = ((x >> 16) ^ x) * _FACTOR & _MASK
    return (x >> 16) ^ x


def derive(keys: Tensor, *numbers: int | Tensor) -> Tensor:
    """Returns a key for each of `keys` [B] and the same numbers; other numbers, or another order, give other keys.

    Args:
        numbers: integers from -1 to 2^30, each for all keys or one for each, [B].
    """
    for number in numbers:
        keys = _mix((keys + (number + 1) * _SPACING) & _MASK)
    return keys


def _bits(keys: Tensor, *shape: int) -> Tensor:
    """Returns integers of 32 bits, int64 [B, *shape]."""
    counter = torch.arange(math.prod(shape), device=keys.device).view(shape)
    return _mix(keys.view(-1, *(1,) * len(shape)) ^ _mix(counter))


def uniform(keys: Tensor, *shape: int) -> Tensor:
    """Returns numbers from 0 to 1, 1 excluded, float32 [B, *shape]."""
    return (_bits(keys, *shape) >> 8).to(torch.float32) * 2.0**-24


def normal(keys: Tensor, S: int, D: int) -> Tensor:
    """Returns numbers of mean 0 and deviation 1, float32 [B, S, D], by Box and Muller's method.

    Two numbers take one integer, 16 bits for the radius and 16 for the angle.  So none is beyond 4.9.
    """
    bits = _bits(keys, S, -(-D // 2))
    radius = torch.sqrt(-2 * torch.log(((bits >> 16).to(torch.float32) + 0.5) * 2.0**-16))
    angle = (bits & 0xFFFF).to(torch.float32) * (2 * math.pi * 2.0**-16)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=-1)[..., :D]


def cut_normal(keys: Tensor, S: int, D: int) -> Tensor:
    """Returns draws from a normal that is cut at +-2 sigma, of deviation 1, float32 [B, S, D].

    The compiler computes `torch.erfinv` on a CPU one number after the other, this polynomial many at once.
    """
    u = (2 * uniform(keys, S, D) + (2.0**-24 - 1)) * _WITHIN_TWO_SIGMA
    w = -torch.log(1 - u * u) - 2.5
    ratio = torch.full_like(w, _ERFINV[-1])
    for coefficient in _ERFINV[-2::-1]:
        ratio = coefficient + ratio * w
    return ratio * u * (math.sqrt(2) / _DEVIATION)
