"""models/kernels/ and training/prepare/: every way of attending against float64."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.kernels import attention
from training.prepare import cpp_extension, cpu_kernels

needs_kernel = pytest.mark.skipif(cpu_kernels.load() is None, reason="no AVX512-bf16, or no g++")


@pytest.fixture(params=["none", "dot products", "tiles"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Attends by PyTorch alone, by our kernel without the tile unit, and with it."""
    kernel = None if request.param == "none" else cpu_kernels.load(request.param == "tiles")
    if request.param != "none" and (kernel is None or kernel.tiles != (request.param == "tiles")):
        pytest.skip("this machine cannot")
    before = attention.installed_kernel()
    attention.install_kernel(kernel)
    yield request.param
    attention.install_kernel(before)


def inputs(B: int, S: int, N: int, K: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """q, k, v as the projection leaves them, and the gradient of the output."""
    generator = torch.Generator().manual_seed(S)
    q, k, v = (2 * torch.randn(B, S, 3, N, K, generator=generator)).to(dtype).unbind(2)
    return [q, k, v, torch.randn(B, S, N, K, generator=generator).to(dtype)]


def exact(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    """The output and the gradients of q, k, v in float64."""
    q, k, v = (x.detach().double().transpose(1, 2).requires_grad_() for x in (q, k, v))
    out = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
    found = torch.autograd.grad(out, (q, k, v), grad.double().transpose(1, 2))
    return [x.detach().transpose(1, 2) for x in (out, *found)]


def attended(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attention.sdpa(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad)]


@pytest.mark.parametrize(("B", "S", "N", "K"), [(2, 7, 3, 32), (3, 38, 4, 32), (1, 300, 2, 64), (1, 916, 1, 32)])
def test_output_and_gradients_are_attention(way: str, B: int, S: int, N: int, K: int) -> None:
    operands = inputs(B, S, N, K)
    allowed = 12e-3 if way == "none" else 8e-3  # bfloat16 keeps 8 bits; plain products round the scores too
    for mine, theirs in zip(attended(*operands), exact(*operands), strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < allowed


@pytest.mark.parametrize("S", [7, 300])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_odd_heads_and_float32_attend_as_pytorch_does(way: str, S: int, dtype: torch.dtype, tolerance: float) -> None:
    operands = inputs(2, S, 3, 8, dtype)
    for mine, theirs in zip(attended(*operands), exact(*operands), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def test_far_scores_overflow_nothing(way: str) -> None:
    q, k, v, grad = inputs(1, 70, 2, 32)
    for sign in (1, -1):  # all scores of a row far above zero, far below
        found = attended(q.abs() * 20, sign * k.abs() * 20, v, grad)
        assert all(bool(x.isfinite().all()) for x in found)


@needs_kernel
def test_the_kernel_is_the_same_to_the_bit_on_any_number_of_threads() -> None:
    kernel = cpu_kernels.load()
    assert kernel is not None
    q, k, v, grad = inputs(2, 100, 3, 32)
    threads, found = torch.get_num_threads(), []
    for number in (1, 2, 5, 5):
        torch.set_num_threads(number)
        out, lse = kernel.forward(q, k, v)
        found.append([out, lse, *kernel.backward(grad, q, k, v, out, lse)])
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_layouts_do_not_matter(way: str) -> None:
    q, k, v, grad = inputs(2, 70, 2, 32)
    wanted = attended(*(x.contiguous() for x in (q, k, v, grad)))
    by_heads = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, grad)]
    by_width = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v, grad)]
    for operands in ([q, k, v, grad], by_heads, by_width):
        for mine, theirs in zip(attended(*operands), wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0 if way == "tiles" else 2e-2)


@needs_kernel
def test_the_operator_is_one_that_compiles(way: str) -> None:
    """Schema, shapes without data, and gradients under the compiler, as PyTorch checks them."""
    if way != "none":
        q, k, v, _ = inputs(2, 40, 2, 32)
        torch.library.opcheck(attention._attend, tuple(x.detach().requires_grad_() for x in (q, k, v)))


def test_without_a_compiler_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert cpp_extension.load(cpu_kernels.SOURCES / "attention_avx512.cpp") is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_a_source_is_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "sum.cpp"
    source.write_text('extern "C" int sum(int a, int b) { return a + b; }\n')
    library = cpp_extension.load(source)
    assert library is not None and library.sum(2, 3) == 5
    (made,) = cpp_extension.cache_folder().iterdir()
    written = made.stat().st_mtime_ns
    again = cpp_extension.load(source)
    assert again is not None and again.sum(4, 5) == 9 and made.stat().st_mtime_ns == written
    source.write_text("no C++\n")
    assert cpp_extension.load(source) is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: apt install g++")
def test_a_library_that_was_cut_off_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "f.cpp"
    source.write_text('extern "C" int f() { return 7; }')
    assert cpp_extension.load(source) is not None
    (made,) = (tmp_path / "cache" / "trm-arc").iterdir()
    made.unlink()  # the loaded one stays in memory under its name
    made.write_bytes(b"")
    library = cpp_extension.load(source)
    assert library is not None and library.f() == 7
    assert made.stat().st_size > 0


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cpp_extension.cache_folder() is None
