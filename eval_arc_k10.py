"""Fine-tunes a checkpoint on the demonstrations of the test tasks, predicts, votes, scores, writes submissions.
Trains and scores Sudoku and mazes too: evaluators=[exact].

    torchrun --standalone --nnodes=1 --nproc-per-node 4 --rdzv_backend=c10d --rdzv_endpoint=localhost:0 \\
        eval_arc_k10.py arch=trm data_paths="[data/arc-agi-2]" arch.L_layers=2 arch.H_cycles=4 arch.L_cycles=4 \\
        arch.halt_max_steps=10 +load_checkpoint=./checkpoint/step_220708 eval_interval=2000 epochs=2000 \\
        global_batch_size=128 ema=True +checkpoint_path=./checkpoint-eval lr_warmup_steps=200 lr=0.0001

`epochs=0` evaluates the checkpoint as it is; `time_budget=MINUTES` fine-tunes for as long as prediction and writing
leave and always ends in time.  Plain `python eval_arc_k10.py ...` runs the same lines on one device.
Settings: docs/settings.md.
"""

from __future__ import annotations

from evaluators.evaluation import Evaluation
from training.config import EvalConfig
from training.launch.cli import run_script
from training.launch.dry_run import describe_dry_run
from training.launch.run import open_data, open_run, start
from training.loop import train
from training.optim.schedule import StepPlan
from training.prepare.prepare import prepare
from training.state import TrainState
from utils.cli import exit_with
from utils.timers import Deadline


def main(config: EvalConfig) -> None:
    budget = Deadline.from_settings(config.time_budget, config.deadline)
    run = open_run(config)
    evaluation = Evaluation(run, config)
    if budget is not None and not config.dry_run:
        evaluation.submit_inputs()  # before anything that takes long, or fails
    data = open_data(run, [evaluation.training_split()])
    plan = StepPlan.from_settings(config, data)
    run.say(f"{plan.total_steps} steps of fine-tuning, {evaluation.split.num_examples} test examples to predict")

    state = TrainState(config, data.shape, run.device)
    prepare(state, config.should_compile(run.device))
    if config.dry_run:
        run.say(describe_dry_run(run, state, plan, evaluation.split.num_examples))
        return
    run.say(start(run, state))
    run.say(plan.summary(state.step))
    evaluation.warn_of_seen_tasks()
    evaluation.submit_inputs()
    shares = evaluation.divide(state, budget)

    # An evaluation that was cut off at the end of an interval; a checkpoint as it is.
    if budget is None and (state.step > 0 or plan.total_steps == 0) and plan.locate(state.step)[1] == 0:
        evaluation.run(state)
    until = shares.training if shares else None
    if shares is None or until is not None:  # else there is no time to
        for step in train(state, data, plan, run.metrics, run.directory, run.record, until):
            run.say(f"checkpoint {run.directory / f'step_{step}'}")
            if budget is None:
                evaluation.run(state)
    if shares is not None:
        evaluation.run(state, until=shares.prediction)


if __name__ == "__main__":
    exit_with(run_script("cfg_eval", EvalConfig, main))
