"""Muon and NorMuon: the momentum of a weight matrix, made orthogonal, is the step.

Muon is Jordan et al. 2024 (kellerjordan.github.io/posts/muon); its scale that matches Adam's is Moonlight's
(arXiv 2502.16982); NorMuon is arXiv 2510.05491.

`torch.optim.Muon` does not serve here: it cannot decide on the device to make no step, orthogonalises one matrix after
the other and always in bfloat16, and takes a fused projection as one matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.config import OptimizerConfig

Coefficients = Sequence[tuple[float, float, float]]

COEFFICIENTS: dict[str, Coefficients] = {
    "jordan": [(3.4445, -4.7750, 2.0315)] * 5,
    "urm": [
        (7.2086, -15.5131, 9.0178),
        (3.9623, -2.5813, 0.4542),
        (3.9466, -2.5765, 0.4544),
        (3.8991, -2.5671, 0.4566),
        (3.7186, -2.5308, 0.4653),
    ],
    "polar_express": [
        (8.1566, -22.4833, 15.8788),
        (4.0429, -2.8089, 0.5000),
        (3.8917, -2.7725, 0.5061),
        (3.2858, -2.3681, 0.4645),
        (2.3465, -1.7098, 0.4232),
    ],
}
"""The polynomials a x + b x^3 + c x^5 that each iteration applies to the singular values.  jordan: one for all five
iterations.  urm: those of URM's published training (arXiv 2512.14693).  polar_express: arXiv 2505.16932."""

LARGEST = {"jordan": 1.0, "urm": 1.0, "polar_express": 1.02}
"""What the Frobenius norm is multiplied with before it divides, so that rounding leaves no singular value above 1."""

FUSED = {"qkv_proj": 3, "gate_up_proj": 2}
"""Projections that hold several matrices, one below the other: how many."""


def orthogonalise(matrices: Tensor, coefficients: Coefficients, largest: float = 1.0) -> Tensor:
    """Returns matrices whose singular values are all near 1 and whose singular vectors are the same.

    Newton-Schulz iterations with an odd polynomial of the fifth degree.

    Args:
        matrices: [n, rows, columns], rows <= columns for speed; computed in their dtype, float32 or bfloat16.
        largest: what the Frobenius norm is multiplied with before it divides.
    """
    norm = torch.linalg.matrix_norm(matrices, keepdim=True, dtype=torch.float32)
    x = matrices / (largest * norm).clamp(min=1e-7).to(matrices.dtype)
    if _iterates_on_gram(x.shape[1], x.shape[2], x.dtype, x.device):
        return _polynomial_of_gram(x @ x.mT, coefficients) @ x
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterates_on_gram(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Returns whether to iterate on X X^T, which takes fewer operations for wide matrices, but more precision.

    In bfloat16 the result of a matrix of low rank is far too large.  A GPU rounds float32 to TF32 in products, with
    which it is too inexact.
    """
    return device.type == "cpu" and dtype == torch.float32 and 2 * columns > 3 * rows


def _polynomial_of_gram(gram: Tensor, coefficients: Coefficients) -> Tensor:
    """Returns P for which P X is what the iterations make of X.

    Each of them multiplies X by q = a + b G + c G^2, and so G = X X^T by q^2; all of these matrices commute.

    Args:
        gram: G, [n, rows, rows].
    """
    product = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for i, (a, b, c) in enumerate(coefficients):
        q = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # without a, which baddbmm's beta adds below
        product = torch.baddbmm(product, q, product, beta=a) if i else a * product + q
        if i + 1 < len(coefficients):
            gram = torch.baddbmm(gram, q, gram, beta=a)
            gram = torch.baddbmm(gram, gram, q, beta=a)
    return product


def orthogonalise_flop(rows: int, columns: int, iterations: int, dtype: torch.dtype, device: torch.device) -> int:
    """Returns the operations of `orthogonalise` for one matrix, rows <= columns."""
    large, small = 2 * rows * rows * columns, 2 * rows**3
    if _iterates_on_gram(rows, columns, dtype, device):
        return 2 * large + (4 * iterations - 3) * small
    return iterations * (2 * large + small)


class Muon:
    """Muon over several matrices; those of one shape are orthogonalised together.

    With `optimizer=normuon` each row of a step is divided by the root of its running mean square, and the whole matrix
    keeps its norm.

    Args:
        parameters: by name, matrices [rows, columns] that are trained.
        dtype: of the iterations.

    Attributes:
        momentum: by name, of the gradients.  row_mean_square: by name, [rows, 1]; empty without `normuon`.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, dtype: torch.dtype) -> None:
        assert parameters and all(p.ndim == 2 for p in parameters.values())
        self.parameters, self.config, self.dtype = dict(parameters), config, dtype
        self.momentum = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.row_mean_square: dict[str, Tensor] = {}
        if config.optimizer == "normuon":
            self.row_mean_square = {name: p.new_zeros(len(p), 1) for name, p in self.parameters.items()}
        self._lr = torch.zeros((), dtype=torch.float64, device=next(iter(self.parameters.values())).device)
        self._update: Callable[..., None] = _update

    def compile(self) -> None:
        """Compiles the update into few kernels, from the next step on."""
        self._update = torch.compile(_update, fullgraph=True, dynamic=False)

    @torch.no_grad()
    def step(self, lr: float, is_finite: Tensor) -> None:
        """Makes one step at rate `lr` if `is_finite` (bool []) is true, else none."""
        self._lr.fill_(lr)
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        self._update(
            [self.parameters[name].data for name in names],
            [self.parameters[name].grad for name in names],
            [self.momentum[name] for name in names],
            [self.row_mean_square[name] for name in names if name in self.row_mean_square],
            [self._parts(name) for name in names],
            self._lr,
            is_finite,
            self.config,
            self.dtype,
        )

    def _parts(self, name: str) -> int:
        """Returns how many matrices a parameter holds."""
        return FUSED.get(name.split(".")[-2], 1) if self.config.muon_split and "." in name else 1

    def flop(self) -> int:
        """Returns the floating-point operations of one step, those of matrix products."""
        total, iterations = 0, len(COEFFICIENTS[self.config.muon_coefficients])
        for name, p in self.parameters.items():
            parts = self._parts(name)
            rows, columns = sorted((p.shape[0] // parts, p.shape[1]))
            total += parts * orthogonalise_flop(rows, columns, iterations, self.dtype, p.device)
        return total

    def state_dict(self) -> dict[str, Tensor]:
        named = {f"momentum.{name}": value for name, value in self.momentum.items()}
        return named | {f"row_mean_square.{name}": value for name, value in self.row_mean_square.items()}


def _update(
    weights: list[Tensor],
    gradients: list[Tensor],
    momentum: list[Tensor],
    row_mean_square: list[Tensor],
    parts: list[int],
    lr: Tensor,
    is_finite: Tensor,
    config: OptimizerConfig,
    dtype: torch.dtype,
) -> None:
    """Updates all weights in place.  `parts` says how many matrices each of them holds."""
    directions = []
    for g, m in zip(gradients, momentum, strict=True):
        m_new = torch.add(g, m, alpha=config.muon_momentum)
        directions.append(torch.add(g, m_new, alpha=config.muon_momentum))  # Nesterov's
        m.copy_(torch.where(is_finite, m_new, m))
    matrices = [d.view(n, len(d) // n, -1) for d, n in zip(directions, parts, strict=True)]
    steps = _orthogonalise_by_shape(matrices, config.muon_coefficients, dtype)
    if row_mean_square:
        steps = [
            _even_rows(step, mean_square, is_finite, config.normuon_beta2)
            for step, mean_square in zip(steps, row_mean_square, strict=True)
        ]
    keep = torch.where(is_finite, (1 - lr * config.weight_decay).to(torch.float32), 1.0)
    for p, step in zip(weights, steps, strict=True):
        rate = (-lr * update_scale(step.shape[1], step.shape[2], config.muon_scale)).to(torch.float32)
        step = torch.where(is_finite, step, 0)  # it may not be a number, which no factor makes 0
        p.mul_(keep).addcmul_(step.view_as(p), rate)


def _orthogonalise_by_shape(matrices: list[Tensor], coefficients: str, dtype: torch.dtype) -> list[Tensor]:
    """Returns each [n, rows, columns] orthogonalised, in float32.  Those of one shape are computed together."""
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        by_shape[tuple(sorted(matrix.shape[1:]))].append(i)
    found: dict[int, Tensor] = {}
    for members in by_shape.values():
        tall = [matrices[i].shape[1] > matrices[i].shape[2] for i in members]
        wide = [matrices[i].mT if turns else matrices[i] for i, turns in zip(members, tall, strict=True)]
        steps = orthogonalise(torch.cat(wide).to(dtype), COEFFICIENTS[coefficients], LARGEST[coefficients])
        apart = steps.to(torch.float32).split([len(matrix) for matrix in wide])
        for i, turns, step in zip(members, tall, apart, strict=True):
            found[i] = step.mT.contiguous() if turns else step
    return [found[i] for i in range(len(matrices))]


def _even_rows(step: Tensor, mean_square: Tensor, is_finite: Tensor, beta: float) -> Tensor:
    """Returns NorMuon's step [n, rows, columns]: rows divided by the root of their mean square, which it updates."""
    square = torch.lerp(mean_square.view(*step.shape[:2], 1), step.square().mean(-1, keepdim=True), 1 - beta)
    mean_square.copy_(torch.where(is_finite, square.view_as(mean_square), mean_square))
    even = step / (square + 1e-10).sqrt()
    norm, new_norm = (torch.linalg.matrix_norm(x, keepdim=True) for x in (step, even))
    return even * (norm / new_norm.clamp(min=1e-7))


def update_scale(rows: int, columns: int, scale: str) -> float:
    """Returns what an orthogonal step is multiplied with, beside the rate.

    adam: 0.2 * sqrt(the larger side), which gives the step the root mean square of Adam's, so that Adam's rates fit.
    spectral: sqrt(max(1, rows / columns)), which bounds how much the output of a layer changes.
    """
    return 0.2 * max(rows, columns) ** 0.5 if scale == "adam" else max(1.0, rows / columns) ** 0.5
