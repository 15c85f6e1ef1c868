"""Makes a plain network fast: everything that is applied to it from outside."""

from __future__ import annotations

from typing import Any

import torch

from training.prepare import cpu_kernels
from training.prepare.compiler import name_compiler_cache
from training.state import TrainState
from utils import collectives


def prepare(state: TrainState, compiles: bool) -> TrainState:
    """Prepares a train state for its device and its ranks, in place; returns it.

    To be called once, after the state is built and before the first step.  The order matters, since each part works
    on what the one before has left:

    1. The attention kernel for CPUs is installed: the compiler has to find it when it traces the network.
    2. Training step and prediction step are compiled, each canvas and each depth into a graph of its own.  Compiling
       in place keeps the names of the parameters; `torch.compile(module)` would put a prefix before them.
    3. Data parallelism wraps the compiled training step: gradients are averaged over ranks in the backward pass.

    Nothing else touches the network.  A state that is not prepared computes the same, slowly, in one process.

    Side effects: the kernel, and PyTorch's limit of graphs per function, are set for the whole process.

    Args:
        compiles: whether to compile (`training.prepare.compiler.should_compile`).
    """
    cpu_kernels.install(state.device)
    if compiles:
        name_compiler_cache()
        depths = {tuple(cycles) for _, *cycles in state.config.depth_curriculum or ()}
        allow_graphs(4 * (len(state.shape.canvases) or 1) * (len(depths) or 1))
        state.act_step.compile(dynamic=False)
        state.predict_step.compile(dynamic=False)
        # On a CPU the update takes a few milliseconds of a step, and compiling it ten seconds.
        if state.optimizer is not None and state.device.type == "cuda":
            state.optimizer.compile()
    state.module = collectives.data_parallel(state.act_step, state.device)
    return state


def allow_graphs(number: int) -> None:
    """Raises PyTorch's limit of graphs per function, for the whole process, unless it is higher."""
    config: Any = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # its name before 2.7
    setattr(config, limit, max(getattr(config, limit), number))
