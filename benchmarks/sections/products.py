"""Measures the matrix products that a training step makes: each in its own shape, layout and dtype.

What these products take is the least that the step can take on this machine.  A large square product reaches more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import timing
from benchmarks.sections import steps
from benchmarks.sections.steps import Size

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

LEAST_SHARE = 0.005
"""Of the operations; smaller products are not measured."""


class Product(NamedTuple):
    """[M, K] times [K, N], in which pass; whether a factor is read by columns."""

    M: int
    K: int
    N: int
    turned_a: bool
    turned_b: bool
    is_backward: bool

    @property
    def flop(self) -> int:
        return 2 * self.M * self.K * self.N

    def __str__(self) -> str:
        return f"{self.M} x {self.K} x {self.N} {'backward' if self.is_backward else 'forward'}" + (
            {(True, False): ", a by columns", (False, True): ", b by columns", (True, True): ", both by columns"}
        ).get((self.turned_a, self.turned_b), "")


class _ProductLog(TorchDispatchMode):
    """Counts the matrix products that are made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            a, b = args[-2:]
            in_backward = torch._C._current_autograd_node() is not None
            self.found[Product(*a.shape, b.shape[1], _is_turned(a), _is_turned(b), in_backward)] += 1
        return func(*args, **(kwargs or {}))


def _is_turned(x: Tensor) -> bool:
    return x.stride(0) == 1 and x.stride(1) != 1


def products_of(step: Callable[[], object]) -> dict[Product, int]:
    """Returns the products that an eager call makes, and how often, the largest number of operations first."""
    with _ProductLog() as log:
        step()
    return dict(sorted(log.found.items(), key=lambda item: -item[0].flop * item[1]))


def seconds_of(product: Product, dtype: torch.dtype, device: torch.device, budget: float = 0.4) -> float:
    """Returns the shortest time of a product."""
    M, K, N = product[:3]
    a = torch.randn((K, M) if product.turned_a else (M, K), device=device).to(dtype)
    b = torch.randn((N, K) if product.turned_b else (K, N), device=device).to(dtype)
    a, b = a.T if product.turned_a else a, b.T if product.turned_b else b
    calls = 10 if device.type == "cuda" else 1  # on a GPU the wait for one of them would count

    def multiply() -> None:
        for _ in range(calls):
            a @ b

    return timing.best(multiply, device, least=3, budget=budget) / calls


def measure(
    device: torch.device, sizes: Sequence[Size] | None = None, dtypes: Mapping[str, torch.dtype] = DTYPES
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for size in sizes or steps.sizes(device)[:2]:
        products = products_of(steps.ours(size, device, compiled=False))
        total = sum(product.flop * count for product, count in products.items())
        found[f"{size.name}: products of a step, GFLOP"] = total / 1e9
        for name, dtype in dtypes.items():
            seconds = flop = 0.0
            for product, count in products.items():
                if product.flop * count < LEAST_SHARE * total:
                    continue
                took = seconds_of(product, dtype, device)
                key = f"{size.name}: {product}, {count} times, {name}, GFLOP/s"
                found[key] = product.flop / took / 1e9
                seconds, flop = seconds + count * took, flop + count * product.flop
            found[f"{size.name}: all products {name}, GFLOP/s"] = flop / seconds / 1e9
            found[f"{size.name}: all products {name}, ms"] = 1e3 * seconds * total / flop
    return found


def table(found: dict[str, Any]) -> str:
    """Returns the results as a table in Markdown: a row for each product, a column for each dtype."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in found.items():
        if key.endswith(", GFLOP/s"):
            what, _, dtype = (
                key.removesuffix(", GFLOP/s").replace(": all products ", ": all products, ").rpartition(", ")
            )
            rows.setdefault(what, {})[dtype] = value
    dtypes = list(next(iter(rows.values()), {}))
    lines = [f"| product | {' | '.join(f'{dtype}, GFLOP/s' for dtype in dtypes)} |", "|---" * (1 + len(dtypes)) + "|"]
    lines += [f"| {what} | {' | '.join(f'{rates[d]:,.0f}' for d in dtypes)} |" for what, rates in rows.items()]
    return "\n".join(lines)
