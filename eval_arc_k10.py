"""Fine-tunes a checkpoint on the demonstrations of the test tasks, predicts, votes, scores, writes submissions.
Trains and scores Sudoku and mazes too: evaluators=[exact].

    torchrun --standalone --nnodes=1 --nproc-per-node 4 --rdzv_backend=c10d --rdzv_endpoint=localhost:0 \\
        eval_arc_k10.py arch=trm data_paths="[data/arc-agi-2]" arch.L_layers=2 arch.H_cycles=4 arch.L_cycles=4 \\
        arch.halt_max_steps=10 +load_checkpoint=./checkpoint/step_220708 eval_interval=2000 epochs=2000 \\
        global_batch_size=128 ema=True +checkpoint_path=./checkpoint-eval lr_warmup_steps=200 lr=0.0001

`epochs=0` evaluates the checkpoint as it is.  `time_budget=MINUTES` fine-tunes for as long as prediction and writing
allow, and always ends in time.  Plain `python eval_arc_k10.py ...` runs the same lines on one device.
Settings: docs/settings.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.config import EvalConfig
from training.launch.cli import run_script
from utils.cli import exit_with, raising_on_sigterm
from utils.progress import print0

if TYPE_CHECKING:
    from evaluators.evaluation import Evaluation
    from training.data import StepPlan, TrainingData
    from training.launch.run import Run
    from training.state import TrainState
    from utils.timers import Deadline


def main(config: EvalConfig) -> None:
    # Imported here, since PyTorch takes seconds to load: --help and a misspelt setting are answered without it.
    from evaluators.evaluation import Evaluation
    from training.data import StepPlan
    from training.launch.dry_run import describe_dry_run
    from training.launch.run import open_data, open_run, start_run
    from training.prepare.compiler import should_compile
    from training.prepare.prepare import prepare
    from training.state import TrainState
    from utils.timers import Deadline

    deadline = Deadline.from_settings(config.time_budget, config.deadline)
    run = open_run(config)
    evaluation = Evaluation(config, run.directory, run.identity)
    if deadline is not None and not config.dry_run:
        evaluation.submit_inputs()  # before anything that takes long, or fails
    data = open_data(run, [evaluation.training_split()])
    plan = StepPlan.from_settings(config, data)
    print0(f"{plan.total_steps} steps of fine-tuning, {evaluation.num_examples} test examples to predict")

    state = TrainState(config, data.shape, run.device, run.directory)
    prepare(state, should_compile(config, run.device))
    if config.dry_run:
        print0(describe_dry_run(run, state, plan, evaluation.num_examples))
        return
    print0(start_run(run, state))
    print0(plan.summary(state.step))
    for sentence in evaluation.describe_seen_tasks():
        print0(sentence)
    evaluation.submit_inputs()

    if deadline is None:
        evaluate_every_interval(run, evaluation, state, data, plan)
    else:
        evaluate_in_time(run, evaluation, state, data, plan, deadline)


def evaluate_every_interval(
    run: Run, evaluation: Evaluation, state: TrainState, data: TrainingData, plan: StepPlan
) -> None:
    """Fine-tunes to the end of the plan, and evaluates after each interval; first what a resumed run begins with."""
    from training.loop import train

    if plan.ends_interval(state.step):
        evaluate(run, evaluation, state)
    for step in train(state, data, plan, run.metrics, run.directory, run.record):
        print0(f"checkpoint {run.directory / f'step_{step}'}")
        evaluate(run, evaluation, state)


def evaluate_in_time(
    run: Run, evaluation: Evaluation, state: TrainState, data: TrainingData, plan: StepPlan, deadline: Deadline
) -> None:
    """Fine-tunes for as long as there is time, then evaluates once."""
    from training.loop import train

    split = evaluation.split_time(state, deadline)
    print0(split.summary(deadline))
    if split.training is not None:
        for step in train(state, data, plan, run.metrics, run.directory, run.record, split.training):
            print0(f"checkpoint {run.directory / f'step_{step}'}")
    evaluate(run, evaluation, state, until=split.prediction)


def evaluate(run: Run, evaluation: Evaluation, state: TrainState, until: float | None = None) -> None:
    """Evaluates the state; rank 0 logs the scores, prints them and shows them on a page."""
    from evaluators.scores import evaluation_folder

    with raising_on_sigterm("stopped by SIGTERM while it predicted: the same command predicts anew"):
        result = evaluation.run(state, until)
    if result is not None:
        run.metrics.write(state.step, result.metrics)  # first: an evaluation is not repeated to log its scores
        print0(result.summary(evaluation_folder(run.directory, state.step)))
        if (page := result.write_page(run.directory)) is not None:
            print0(f"open {page} in a browser: every task with its attempts")


if __name__ == "__main__":
    exit_with(run_script("cfg_eval", EvalConfig, main))
