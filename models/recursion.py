"""The recursion of each variant: what the variants differ in, beside the blocks that they have (`models.network`).

Each function takes the latents of the carry, the input embedding e [B, S, D] and the networks as plain functions
f(h, injected or None) -> h, and returns the new latents, with gradients for the part that the variant trains
through.  A latent is [B, S, D].  The heads read the last H refinement's z_H, or the one latent of `trm_singlez` and
`urm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Latents = tuple[Tensor, ...]
Apply = Callable[[Tensor, Tensor | None], Tensor]


class Depth(NamedTuple):
    """How deep one step recurses: `arch.H_cycles` and `arch.L_cycles`, or less early in a run (`depth_curriculum`)."""

    H_cycles: int
    L_cycles: int


def _trm_cycle(z_H: Tensor, z_L: Tensor, e: Tensor, f: Apply, L_cycles: int) -> tuple[Tensor, Tensor]:
    for _ in range(L_cycles):
        z_L = f(z_L, z_H + e)
    z_H = f(z_H, z_L)
    return z_H, z_L


def trm(latents: Latents, e: Tensor, f_L: Apply, f_H: Apply, depth: Depth) -> Latents:
    """One network for both levels; gradients through the last H cycle (arXiv 2510.04871, figure 3)."""
    z_H, z_L = latents
    with torch.no_grad():
        for _ in range(depth.H_cycles - 1):
            z_H, z_L = _trm_cycle(z_H, z_L, e, f_L, depth.L_cycles)
    return _trm_cycle(z_H, z_L, e, f_L, depth.L_cycles)


def trm_singlez(latents: Latents, e: Tensor, f_L: Apply, f_H: Apply, depth: Depth) -> Latents:
    """One latent that is answer and reasoning at once (the ablation of section 4.2)."""

    def cycle(z: Tensor) -> Tensor:
        for _ in range(depth.L_cycles):
            z = f_L(z, e)
        return f_L(z, None)

    (z,) = latents
    with torch.no_grad():
        for _ in range(depth.H_cycles - 1):
            z = cycle(z)
    return (cycle(z),)


def trm_hier6(latents: Latents, e: Tensor, f_L: Apply, f_H: Apply, depth: Depth) -> Latents:
    """Six reasoning latents, each written by its own L step (the multi-scale ablation of section 4.2)."""

    def cycle(z_H: Tensor, z_L: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        z_L = list(z_L)
        for i in range(depth.L_cycles):
            z_L[i] = f_L(sum(z_L[1:], z_L[0]), z_H + e)
        return f_L(z_H, sum(z_L[1:], z_L[0])), z_L

    z_H, z_L = latents[0], list(latents[1:])
    with torch.no_grad():
        for _ in range(depth.H_cycles - 1):
            z_H, z_L = cycle(z_H, z_L)
    z_H, z_L = cycle(z_H, z_L)
    return (z_H, *z_L)


def hrm(latents: Latents, e: Tensor, f_L: Apply, f_H: Apply, depth: Depth) -> Latents:
    """Two networks, gradients through the very last application of each (HRM, arXiv 2506.21734)."""
    z_H, z_L = latents
    with torch.no_grad():
        for h in range(depth.H_cycles):
            last = h == depth.H_cycles - 1
            for _ in range(depth.L_cycles - last):
                z_L = f_L(z_L, z_H + e)
            if not last:
                z_H = f_H(z_H, z_L)
    z_L = f_L(z_L, z_H + e)
    z_H = f_H(z_H, z_L)
    return z_H, z_L


def transformers_baseline(latents: Latents, e: Tensor, f_L: Apply, f_H: Apply, depth: Depth) -> Latents:
    """No recursion within a step: one deeper network refines z_H once."""
    (z_H,) = latents
    return (f_H(z_H, e),)


def urm(latents: Latents, e: Tensor, f_L: Apply, f_H: Apply, depth: Depth) -> Latents:
    """One latent, which every pass refines with the question added: `H_cycles` rounds of `L_cycles` passes, gradients
    through the last round (URM, arXiv 2512.14693)."""
    (h,) = latents
    with torch.no_grad():
        for _ in range((depth.H_cycles - 1) * depth.L_cycles):
            h = f_L(h, e)
    for _ in range(depth.L_cycles):
        h = f_L(h, e)
    return (h,)


class Recursion(NamedTuple):
    """A variant: its recursion, its latents, and the saved initial vector of each."""

    apply: Callable[[Latents, Tensor, Apply, Apply, Depth], Latents]
    latents: tuple[str, ...]
    inits: tuple[str, ...]


RECURSIONS: dict[str, Recursion] = {
    "trm": Recursion(trm, ("z_H", "z_L"), ("H_init", "L_init")),
    "trm_singlez": Recursion(trm_singlez, ("z_L",), ("L_init",)),
    "trm_hier6": Recursion(
        trm_hier6,
        ("z_H", *(f"z_L{i}" for i in range(1, 7))),
        ("H_init", *(f"L{i}_init" for i in range(1, 7))),
    ),
    "hrm": Recursion(hrm, ("z_H", "z_L"), ("H_init", "L_init")),
    "urm": Recursion(urm, ("h",), ("init_hidden",)),
    "transformers_baseline": Recursion(transformers_baseline, ("z_H",), ("H_init",)),
}
