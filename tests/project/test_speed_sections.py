"""benchmarks/sections: where the time goes, which products occur, the start, prediction beside its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import timing
from benchmarks.sections import operations, prediction, products, start, steps
from benchmarks.sections.operations import REST, UPDATE, Operation
from benchmarks.sections.prediction import Answering, Scale
from benchmarks.sections.products import Product
from benchmarks.sections.steps import Size

CPU = torch.device("cpu")
TINY = Size("tiny", 32, 2, 2, 1, 2, 36, 4)


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MOST", 1)
    monkeypatch.setattr(operations, "STEPS", 2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "matrix products"),
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NTT", "matrix products"),
        ("trm::attend_backward", "attention"),
        ("graph_0_cpp_fused__unsafe_view_mul_silu_silu_backward_split_view_3", "SwiGLU's gating"),
        ("triton_poi_fused_mul_silu_split_10", "SwiGLU's gating"),
        ("graph_0_cpp_fused__to_copy_add_cat_mul_neg_slice_stack_unsqueeze_5", "rotation"),
        ("graph_0_cpp_fused__to_copy__unsafe_view_add_mean_mul_pow_rsqrt_9", "norms and additions"),
        ("graph_0_cpp_fused__to_copy_add_div_expand_mul_pow_sum_view_4", "norms and additions"),
        ("graph_0_cpp_fused__to_copy_add_clone_constant_pad_nd_mul_slice_view_7", "embedding"),
        ("graph_0_cpp_fused__to_copy__unsafe_view_add_argmax_binary_cross_entropy_with_logits", "loss"),
        ("aten::_foreach_mul_", UPDATE),
        ("aten::copy_", REST),
    ],
)
def test_operations_are_told_by_their_names(name: str, kind: str) -> None:
    assert operations.kind_of(Operation(name, 1.0)) == kind
    assert operations.kind_of(Operation(name, 1.0, updates=True)) == UPDATE


def test_kinds_add_up_to_the_step() -> None:
    found = operations.measure(CPU, [TINY], compiled=False)
    parts = {key: value for key, value in found.items() if key.endswith(", ms") and "step" not in key}
    assert len(parts) == len(operations.KINDS) + 1
    assert sum(parts.values()) == pytest.approx(found["tiny: step, ms"])
    for kind in ("matrix products", "attention", UPDATE):
        assert found[f"tiny: {kind}, ms"] > 0, kind
    assert found[f"tiny: {REST}, ms"] > 0, "no kind counts twice"
    *_, last = operations.table(found).splitlines()
    assert last.startswith("| step | ") and last.endswith("| 100 % |")


def test_sizes_are_in_float32_where_there_is_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "computes_bfloat16", lambda _: False)
    first = steps.sizes(CPU)[0]
    assert (first.name, first.dtype) == ("demo, float32", "float32")
    monkeypatch.setattr(steps, "computes_bfloat16", lambda _: True)
    assert steps.sizes(CPU) == steps.SMALL
    for dtype in ("float32", "bfloat16"):
        size = TINY._replace(dtype=dtype)  # type: ignore[arg-type]
        assert steps.state_of(size, CPU, compiled=False).network.arch.dtype == getattr(torch, dtype)
        assert {z.dtype for z in steps.ReferenceStep(size, CPU, compiled=False).z} == {getattr(torch, dtype)}


def test_the_products_of_a_step_are_those_of_the_model() -> None:
    """Without those within attention, and the one-hot rows that the compiled step alone multiplies."""
    found = products.products_of(steps.ours(TINY, CPU, compiled=False))
    S, D = TINY.prefix + TINY.cells, TINY.D
    linear = sum(product.flop * count for product, count in found.items())
    runs = steps.cost_model.block_runs(steps.arch_of(TINY))
    attention = TINY.B * 4 * S * S * D * (runs.forward + 2 * runs.with_gradient)
    assert linear + attention == pytest.approx(steps.flop_per_step(TINY), rel=0.02)
    assert {product.is_backward for product in found} == {False, True}


@pytest.mark.parametrize("turned", [(False, True), (True, False)])
def test_a_product_is_measured_as_it_lies(turned: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Product(3, 5, 7, *turned, is_backward=False)
    seen = []
    monkeypatch.setattr(timing, "best", lambda call, *_, **__: seen.append(products.products_of(call)) or 1.0)
    assert products.seconds_of(wanted, torch.bfloat16, CPU) == 1.0
    assert seen == [{wanted: 1}]


def test_the_report_of_imports_is_read() -> None:
    report = """
import time: self [us] | cumulative | imported package
import time:       100 |        100 |   torch.version
import time:    500000 |    2500000 | torch
import time:      1000 |     300000 |   numba
"""
    assert start.parse_import_times(report) == {"torch": 2.5, "numba": 0.3}


WRITES = """
import os, pathlib, sys, time
run = pathlib.Path(sys.argv[1])
run.mkdir()
(run / "metrics.jsonl").write_text(os.environ["LINE"] + chr(10))
time.sleep(60)
"""


def test_the_first_step_is_the_first_line_of_the_log(tmp_path: Path) -> None:
    took = start.first_step(["-c", WRITES, str(tmp_path / "run")], tmp_path / "run", {"LINE": '{"lm_loss": 1}'})
    assert 0 < took < 30


def test_a_training_that_makes_no_step_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="made no step.*no such setting"):
        start.first_step(["-c", "import sys; sys.exit('no such setting')"], tmp_path, {})


def test_prediction_is_compared_with_its_network(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a call of the network moves on by one second, and nothing else does."""
    now = 0.0
    answer = Answering.forward

    def forward(self: Answering, *arguments: Any) -> tuple[Any, ...]:
        nonlocal now
        now += float(self._computes)
        return answer(self, *arguments)

    monkeypatch.setattr(Answering, "forward", forward)
    monkeypatch.setattr(timing, "clock", lambda: now)
    monkeypatch.setattr(timing, "seconds", lambda *_, **__: 1.0)
    found = prediction.measure(CPU, Scale(32, 1, 1, 3, 2, 1, 3), compiled=False, data=small_data)
    for way in prediction.WAYS:
        assert found[f"{way}: 12 answers without the network, s"] == 0
        for kind in ("share of the network alone, %", "share of the network alone at 12 answers, %"):
            assert 0 < found[f"{way}: {kind}"] <= 100, (way, kind)
    assert found["static: share of the network alone at 12 answers, %"] == 100, "every batch is full"
    assert found["early exit / static, steps"] < 1
    assert 0 < found["early exit / static, seconds"] < 1


def test_the_stand_in_halts_each_example_after_steps_of_its_own() -> None:
    calls = []

    def step(latents: object, inputs: torch.Tensor) -> tuple[object, None, None, None, None]:
        calls.append(inputs)
        return latents, None, None, None, None

    step.network = None  # type: ignore[attr-defined]
    inputs = torch.from_numpy(np.random.default_rng(0).integers(0, 12, (50, 9)).astype(np.uint8))
    for computes, wanted in ((True, 8), (False, 1)):
        calls.clear()
        answering = Answering(step, 4, computes)  # type: ignore[arg-type]
        halted = torch.stack([answering(0, inputs)[3] for _ in range(8)])
        assert len(calls) == wanted and answering.calls == {9: 8}
        first = halted.to(torch.int64).argmax(0)
        assert halted[:4].any(0).all() and set(first.tolist()) == {0, 1, 2, 3}
        again = halted.to(torch.int64).sum(0)
        assert torch.equal(again, torch.div(8, first + 1, rounding_mode="floor")), "a slot starts again after its end"


def test_a_program_that_fails_is_an_error_with_what_it_says() -> None:
    with pytest.raises(RuntimeError, match="boom"):
        start.import_times("sys; sys.exit('boom')")
