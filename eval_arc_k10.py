"""Fine-tunes a checkpoint on the demonstrations of the test tasks, predicts, votes, scores, writes submissions.
Trains and scores Sudoku and mazes too: evaluators=[exact].

    torchrun --standalone --nnodes=1 --nproc-per-node 4 --rdzv_backend=c10d --rdzv_endpoint=localhost:0 \\
        eval_arc_k10.py arch=trm data_paths="[data/arc-agi-2]" arch.L_layers=2 arch.H_cycles=4 arch.L_cycles=4 \\
        arch.halt_max_steps=10 +load_checkpoint=./checkpoint/step_220708 eval_interval=2000 epochs=2000 \\
        global_batch_size=128 ema=True +checkpoint_path=./checkpoint-eval lr_warmup_steps=200 lr=0.0001

`epochs=0` evaluates the checkpoint as it is.  Plain `python eval_arc_k10.py ...` runs the same lines on one device.
Settings: config/cfg_eval.yaml.
"""

from __future__ import annotations

from dataset.batches import BatchSampler
from dataset.storage import open_split, open_test_tasks
from evaluators import arc, exact
from evaluators.predict import predict
from evaluators.scores import is_done
from training import entry, session
from training.config import EvalConfig
from training.loop import Plan, train
from utils import distributed


def main(config: EvalConfig) -> None:
    run = session.open_run(config)
    (path,) = config.data_paths
    if "arc" in config.evaluators:
        open_test_tasks(path)  # a data set without ARC tasks is refused now, not after the training
    train_split, test_split = open_split(path, "train"), open_split(path, "test")
    if config.finetune_on == "test_tasks":
        train_split = train_split.restricted_to(test_split.puzzle_identifiers)
    sampler = BatchSampler(
        [train_split], config.global_batch_size, config.epochs_per_interval, config.seed, run.rank, run.world_size
    )
    plan = Plan.of(sampler, config.num_intervals)
    run.say(f"{plan.total_steps} steps of fine-tuning, {test_split.num_examples} test examples to predict")

    state = session.build_state(run, sampler.data)
    run.say(session.start(run, state))
    run.say(plan.outlook(state.step))

    def evaluate() -> None:
        folder = run.directory / f"evaluation_step_{state.step}"
        conditions = config.conditions | {"step": state.step, **run.identity}
        if not config.evaluators or distributed.from_main(lambda: is_done(folder, conditions)):
            return
        predictions = predict(state, test_split, config.eval_batch_size or config.global_batch_size, config.eval_ema)
        if predictions is not None:
            if "arc" in config.evaluators:
                metrics = arc.evaluate(predictions, path, folder, conditions, config.attempts)
                run.say(arc.table(metrics, folder))
            else:
                metrics = exact.evaluate(predictions, test_split, folder, conditions)
                run.say(exact.table(metrics, folder))
            run.metrics.write(state.step, metrics)

    if state.step > 0 or plan.total_steps == 0:  # an evaluation that was cut off; a checkpoint as it is
        evaluate()
    for step in train(state, sampler, plan, run.metrics, run.directory, run.record):
        run.say(f"checkpoint {run.directory / f'step_{step}'}")
        evaluate()


if __name__ == "__main__":
    entry.run("cfg_eval", EvalConfig, main)
