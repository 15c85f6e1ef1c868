"""Pretrains a tiny recursive model; no evaluation, a checkpoint at the end of every interval.

    torchrun --standalone --nnodes=1 --nproc-per-node 8 --rdzv_backend=c10d --rdzv_endpoint=localhost:0 \\
        pretrain_no_eval.py arch=trm data_paths="[data/arc-agi-2]" arch.L_layers=2 arch.H_cycles=3 arch.L_cycles=4 \\
        ema=True evaluators=[] lr=0.0003 +checkpoint_path=./checkpoint global_batch_size=3072 \\
        eval_interval=1000 epochs=10000

Plain `python pretrain_no_eval.py ...` runs the same lines on one device.  Settings: docs/settings.md.
"""

from __future__ import annotations

from training.config import PretrainConfig
from training.launch.cli import run_script
from utils.cli import exit_with
from utils.progress import print0


def main(config: PretrainConfig) -> None:
    # Imported here, since PyTorch takes seconds to load: --help and a misspelt setting are answered without it.
    from dataset.storage import open_split
    from training.data import StepPlan
    from training.launch.dry_run import describe_dry_run
    from training.launch.run import open_data, open_run, start_run
    from training.loop import train
    from training.prepare.compiler import should_compile
    from training.prepare.prepare import prepare
    from training.state import TrainState

    run = open_run(config)
    data = open_data(run, [open_split(path, "train") for path in config.data_paths])
    plan = StepPlan.from_settings(config, data)
    print0(f"{plan.total_steps} steps of {config.global_batch_size} examples in {config.num_intervals} interval(s)")

    # All that a checkpoint stores, with fresh weights.
    state = TrainState(config, data.shape, run.device, run.directory)
    prepare(state, should_compile(config, run.device))  # kernel, compilation, data parallelism
    if config.dry_run:
        print0(describe_dry_run(run, state, plan))
        return
    print0(start_run(run, state))  # resumes, or loads other weights
    print0(plan.summary(state.step))

    # `train` saves a checkpoint at the end of each interval, then yields.
    for step in train(state, data, plan, run.metrics, run.directory, run.record):
        print0(f"checkpoint {run.directory / f'step_{step}'}")
    print0(f"next: eval_arc_k10.py load_checkpoint={run.directory}, with the same arch settings")


if __name__ == "__main__":
    exit_with(run_script("cfg_pretrain", PretrainConfig, main))
