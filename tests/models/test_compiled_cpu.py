"""What makes a compiled step fast on a CPU: memory that is kept, tables that are computed once."""

from __future__ import annotations

import platform
import resource

import pytest
import torch
from torch import Tensor

from models.layers import computed_once
from tests.builders.networks import needs_cpu_compiler
from training.prepare import cpu_kernels

CPU = torch.device("cpu")


def new_pages() -> int:
    """Uses 64 MB in large tensors, frees them, and returns how many new pages the system had to give."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.zeros(2**21) for _ in range(8)]
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_of_one_step_is_there_for_the_next() -> None:
    """Without it every round takes the pages of all 64 MB anew."""
    cpu_kernels.install(CPU)
    assert min(new_pages() for _ in range(6)) < 2**26 / resource.getpagesize() / 10


def turn(x: Tensor, angles: Tensor) -> Tensor:
    return x * computed_once(angles.cos())


def test_eager_nothing_is_copied() -> None:
    angles = torch.rand(3)
    assert computed_once(angles) is angles


@needs_cpu_compiler
def test_compiled_a_table_is_computed_once_and_gradients_pass_by() -> None:
    """The cosine is not computed again in the loop over all elements of x."""
    from torch._inductor.utils import run_and_get_code

    angles = torch.rand(8)
    x = torch.rand(64, 8, requires_grad=True)
    found, (code, *_) = run_and_get_code(torch.compile(turn, fullgraph=True), x, angles)
    torch.testing.assert_close(found, x * angles.cos())
    kernels = [part for part in code.split('extern "C"') if "cos()" in part]
    assert len(kernels) == 1 and "64L" not in kernels[0] and "512L" not in kernels[0]
    found.sum().backward()
    torch.testing.assert_close(x.grad, angles.cos().expand_as(x))
