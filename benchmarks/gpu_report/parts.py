"""The parts of the report on a GPU (`benchmarks.gpu_report`), each of which can be measured by itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import torch

from benchmarks import canvases
from benchmarks.sections import ceilings, operations, prediction, products, steps
from benchmarks.sections.prediction import Scale
from benchmarks.sections.steps import Size

Results = Iterator[dict[str, Any]]
"""What a part yields, as soon as it knows it."""


class Sizes(NamedTuple):
    """At what sizes the parts measure.

    steps: the first one is also profiled.  finetuning: the step of fine-tuning.  training: a step whose batch is
    trained on one canvas and on fitted ones.  prediction: an evaluation.  compiled: whether to compile.
    training_data, test_data: data sets; None builds ARC-AGI-2.
    """

    steps: tuple[Size, ...]
    finetuning: Size
    training: Size
    prediction: Scale
    compiled: bool = True
    training_data: Path | None = None
    test_data: Path | None = None


SMALL = Sizes(
    steps=(Size("small", 32, 2, 1, 1, 2, 36, 4), Size("small, recomputing", 32, 2, 1, 1, 2, 36, 4, True)),
    finetuning=Size("small fine-tuning", 32, 2, 1, 1, 2, 36, 4),
    training=Size("small", 64, 1, 1, 1, 2, 900, 4),
    prediction=Scale(32, 1, 1, 2, 32, 1, 2),
    compiled=False,
)

TRAINED_TOGETHER = (768, 384, 192, 96, 48)
FINE_TUNED_TOGETHER = (steps.NVARC_FINETUNE.B, 64, 32, 16)
RESERVE = 0.85
"""The fraction of a GPU's memory that the model of the cost may fill."""


def published(device: torch.device) -> Sizes:
    """Returns the published sizes for which the GPU has room; on canvases the largest batch."""
    room = RESERVE * torch.cuda.get_device_properties(device).total_memory

    def largest(candidates: Sequence[Size]) -> Size:
        return next((size for size in candidates if steps.predicted_bytes(size) < room), candidates[-1])

    training = [Size(f"published B{B}", 512, 8, 3, 4, 16, 900, B) for B in TRAINED_TOGETHER]
    tuning = [steps.NVARC_FINETUNE._replace(name=f"fine-tuning as NVARC B{B}", B=B) for B in FINE_TUNED_TOGETHER]
    fitting = tuple(size for size in steps.PUBLISHED if steps.predicted_bytes(size) < room)
    return Sizes(fitting or (training[-1],), largest(tuning), largest(training), prediction.PUBLISHED)


def run_tests(sizes: Sizes, device: torch.device) -> Results:
    """Runs the tests that need a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder, "outcome.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/project/test_gpu.py"]
        done = subprocess.run([*command, f"--junitxml={outcome}"], check=False, stdout=sys.stderr)
        if not outcome.is_file():  # what pytest printed is kept as the output of this part
            raise RuntimeError(f"pytest ended with status {done.returncode} and wrote no outcome")
        found = read_outcome(outcome)
        yield found
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} of {found['passed'] + found['failed']} tests failed")
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}: this part's output has what it printed")
    if device.type == "cuda" and not found["passed"]:
        raise RuntimeError(f"no test passed, {found['skipped']} were skipped")


def read_outcome(path: Path) -> dict[str, Any]:
    """Returns how many tests passed, failed and were skipped, and what those that failed said."""
    found: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0}
    failures = {}
    for case in ElementTree.parse(path).iter("testcase"):
        problem = next((part for part in case if part.tag in ("failure", "error")), None)
        if problem is not None:
            found["failed"] += 1
            failures[f"failed: {case.get('name')}"] = (problem.get("message") or "")[:500]
        else:
            found["skipped" if case.find("skipped") is not None else "passed"] += 1
    return found | failures


def measure_ceilings(sizes: Sizes, device: torch.device) -> Results:
    yield ceilings.measure(device)


def measure_products(sizes: Sizes, device: torch.device) -> Results:
    yield products.measure(device, sizes.steps[:1], {"bfloat16": torch.bfloat16})


def measure_steps(sizes: Sizes, device: torch.device) -> Results:
    """Measures steps beside the reference: seconds, share of the matrix product, memory beside the model's."""
    ceiling = ceilings.matmul_flops(device)
    for size in sizes.steps:
        torch._dynamo.reset()
        yield {f"{size.name}: memory by the model, GB": steps.predicted_bytes(size) / 1e9}
        yield steps.measure_size(size, device, sizes.compiled, ceiling)


def measure_finetuning(sizes: Sizes, device: torch.device) -> Results:
    """Measures a step at the settings of NVARC's fine-tuning."""
    yield steps.measure_size(sizes.finetuning, device, sizes.compiled, ceilings.matmul_flops(device))


def measure_canvases(sizes: Sizes, device: torch.device) -> Results:
    """Measures training on one 30 x 30 canvas and on fitted ones."""
    size = sizes.training
    with tempfile.TemporaryDirectory() as folder:
        data = sizes.training_data or canvases.build(Path(folder, "set"))
        cycles = (size.H, size.L)
        yield {"examples per step": size.B}
        yield canvases.measure(data, size.D, size.B, sizes.compiled, device, cycles)


def measure_prediction(sizes: Sizes, device: torch.device) -> Results:
    yield prediction.measure(device, sizes.prediction, sizes.compiled, sizes.test_data)


def measure_operations(sizes: Sizes, device: torch.device) -> Results:
    yield operations.measure(device, sizes.steps[:1], sizes.compiled)


class Part(NamedTuple):
    """What a part measures, and after how many seconds it is ended."""

    measure: Callable[[Sizes, torch.device], Results]
    limit: float


PARTS = {
    "tests": Part(run_tests, 200),
    "ceilings": Part(measure_ceilings, 40),
    "products": Part(measure_products, 50),
    "steps": Part(measure_steps, 380),
    "fine-tuning": Part(measure_finetuning, 90),
    "canvases": Part(measure_canvases, 410),
    "prediction": Part(measure_prediction, 200),
    "operations": Part(measure_operations, 90),
}
