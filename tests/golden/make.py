"""Golden vectors of our own: one ACT training step of every variant, and the first steps of a small run.

Run this only when the numbers are meant to change, and say why in the commit:

    python -m tests.golden.make

It writes, beside itself:

* `start.safetensors`: weights (in float16, to be small), latents and examples that every case starts from;
* `NAME.safetensors`: what one training step of the case NAME computes in float32;
* `published_run.json`: the loss and the exact accuracy of each step of a small run of the published recipe.

Dimensions: B slots, C canvas cells, P prefix tokens, S = P + C, D hidden, V vocabulary, E width of a puzzle row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dataset.tasks import Task
from models.act import ACTStep, Carry, Slots, refill
from models.arch import ArchConfig
from models.network import Network
from tests.conftest import run_script, write_kaggle
from utils.metrics_log import read_metrics

FOLDER = Path(__file__).parent
B, P, D, E, V = 4, 2, 16, 24, 12
SIDE = 4
LATENTS = 7
IGNORE = 0
STORED_ENTRIES = 256
"""A gradient is stored as about so many of its entries, and its norm."""

SETTINGS: dict[str, Any] = {
    **{"hidden_size": D, "num_heads": 2, "expansion": 1.0, "puzzle_emb_ndim": E, "puzzle_emb_len": P},
    **{"H_cycles": 2, "L_cycles": 2, "H_layers": 1, "L_layers": 1, "halt_max_steps": 4, "forward_dtype": "float32"},
}

CASES: dict[str, dict[str, Any]] = {
    "trm": {"L_layers": 2},
    "trm_singlez": {},
    "trm_hier6": {"L_cycles": 3},
    "hrm": {},
    "transformers_baseline": {},
    "trm_mlp_t": {"mlp_t": True},
    "trm_rope2d": {"pos_encodings": "rope2d"},
    "trm_learned": {"pos_encodings": "learned", "loss_type": "softmax_cross_entropy", "no_ACT_continue": False},
    "urm": {"L_layers": 2, "mlp_conv": "raster2"},
    "urm_raster3": {"mlp_conv": "raster3", "pos_encodings": "rope2d"},
    "trm_canvas3x3": {"mlp_conv": "canvas3x3"},
}
"""What each case sets beyond `SETTINGS`.  A name begins with its variant."""

LATER = ("urm", "urm_raster3", "trm_canvas3x3")
"""The cases whose own weights are drawn last, so that those of the others stay as they were."""

PART_OF_CANVAS = ("trm_rope2d", "trm_learned", "urm_raster3", "trm_canvas3x3")
"""The cases that compute the left three columns of the canvas alone."""


def arch_of(case: str) -> ArchConfig:
    settings = SETTINGS | CASES[case]
    variants = ("trm_singlez", "trm_hier6", "hrm", "transformers_baseline")
    return ArchConfig(name=case if case in variants else case.split("_")[0], **settings)


def draw_start() -> dict[str, Tensor]:
    """Draws weights, latents and examples.  The heads are not at their usual start, so that the cases test them."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def draw(case: str) -> None:
        """Adds those weights of the case that no earlier case has."""
        network = Network(arch_of(case), V, SIDE * SIDE, generator)
        for name, value in network.state_dict().items():
            weights.setdefault(stored_name(case, name), value)

    for case in CASES:
        if case not in LATER:
            draw(case)
    weights["q_head.weight"] = torch.randn(2, D, generator=generator)
    weights["q_head.bias"] = torch.randn(2, generator=generator)
    start: dict[str, Tensor] = {}
    for i in range(LATENTS):
        start[f"latents/{i}"] = torch.randn(B, P + SIDE * SIDE, D, generator=generator)
    start["rows"] = torch.randn(B, E, generator=generator)
    for name in ("carried", "next"):
        tokens = torch.randint(1, V, (2, B, SIDE * SIDE), generator=generator).to(torch.uint8)
        start[f"{name}/inputs"], start[f"{name}/labels"] = tokens[0].clone(), tokens[1].clone()
        start[f"{name}/labels"][:, ::5] = IGNORE
        start[f"{name}/labels"][-1] = IGNORE  # padding, as in the last batch of an evaluation
    start["steps"] = torch.tensor([1, 0, 3, 0], dtype=torch.int32)
    start["halted"] = torch.tensor([False, True, False, True])
    for case in LATER:
        draw(case)
    return start | {f"weights/{name}": value.half() for name, value in weights.items()}


def stored_name(case: str, name: str) -> str:
    """Returns the name of a weight in `start.safetensors`.  Those of a convolution say of which kind it is."""
    return name.replace("dwconv", f"dwconv_{arch_of(case).mlp_conv}")


def load_start() -> dict[str, Tensor]:
    return load_file(FOLDER / "start.safetensors")


def crop(case: str, cells: Tensor) -> Tensor:
    """Returns the cells [B, C, ...] that the case computes, of those of the whole canvas."""
    if case not in PART_OF_CANVAS:
        return cells
    return cells.unflatten(1, (SIDE, SIDE))[:, :, : SIDE - 1].flatten(1, 2)


def start_of(case: str) -> tuple[Network, Carry, Slots, Tensor]:
    """Returns the network of a case, the carry before the step, the next examples and the puzzle rows."""
    start = load_start()
    network = Network(arch_of(case), V, SIDE * SIDE)
    network.load_state_dict(
        {name: start[f"weights/{stored_name(case, name)}"].float() for name in network.state_dict()}
    )
    latents = [start[f"latents/{i}"] for i in range(len(network.recursion.latents))]
    latents = [torch.cat((z[:, :P], crop(case, z[:, P:])), dim=1) for z in latents]
    identifiers = torch.arange(B, dtype=torch.int32)
    carried, following = (
        Slots(crop(case, start[f"{name}/inputs"]), crop(case, start[f"{name}/labels"]), identifiers)
        for name in ("carried", "next")
    )
    return network, Carry(tuple(latents), start["steps"], start["halted"], carried), following, start["rows"]


def sample(name: str, gradient: Tensor) -> dict[str, Tensor]:
    """Returns some entries of a gradient, evenly spaced, and its norm."""
    spacing = gradient.numel() // STORED_ENTRIES | 1  # odd, so that every row and column has a turn
    return {f"{name}/entries": gradient.flatten()[::spacing].clone(), f"{name}/norm": gradient.norm()}


def compute(case: str) -> dict[str, Tensor]:
    """Returns what one ACT training step of a case computes: outputs, carry, loss, metrics and gradients."""
    network, carry, following, rows = start_of(case)
    carry = refill(carry, following, network.initial_latents())
    rows.requires_grad_()
    where = (network.positions_of(SIDE, SIDE - 1), SIDE - 1) if case in PART_OF_CANVAS else ()
    after, loss, metrics, out = ACTStep(network, IGNORE).train()(carry, rows, None, *where)
    loss.backward()
    assert rows.grad is not None
    found = {"logits": out.logits, "q_halt": out.q_halt, "q_continue": out.q_continue, "loss": loss, "metrics": metrics}
    found |= {f"latents/{i}": z for i, z in enumerate(after.latents)}
    found |= {"steps": after.steps, "halted": after.halted, "grad/rows": rows.grad}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            found |= sample(f"grad/{name}", parameter.grad)
    return {name: value.detach().contiguous() for name, value in found.items()}


EPOCHS = 15
"""So many give 20 steps."""

PUBLISHED = (
    *(
        "arch=trm",
        "arch.hidden_size=32",
        "arch.num_heads=2",
        "arch.H_cycles=1",
        "arch.L_cycles=2",
        "arch.puzzle_emb_len=2",
    ),
    *("arch.halt_max_steps=2", "arch.forward_dtype=float32", f"epochs={EPOCHS}", f"eval_interval={EPOCHS}"),
    *("global_batch_size=16", "lr=1e-2", "lr_warmup_steps=5", "puzzle_emb_lr=1e-2", "ema=true", "ema_rate=0.995"),
    *("log_every=1", "device=cpu", "compile=false"),
)
"""The published recipe with a small network and batch, and rates that show within a few steps."""


def tasks() -> list[Task]:
    """Returns eight tasks that a network partly solves within a few steps, made without any random number.

    Six answer with black cells, two repeat the input.
    """

    def pair(task: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        grid = np.full((1 + (task + i) % 2, 1 + (task // 2 + i) % 2), (3 * task + i) % 10, dtype=np.uint8)
        return grid, grid if task % 4 == 3 else np.zeros_like(grid)

    return [Task(f"task{t}", "made", tuple(pair(t, i) for i in range(3)), (pair(t, 3),)) for t in range(8)]


def trace() -> list[dict[str, float]]:
    """Builds a data set of `tasks`, trains as `PUBLISHED` says and returns loss and exact accuracy of each step."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = write_kaggle(folder, "training", tasks())
        made = run_script(
            *("build_dataset.py", "--input-file-prefix", prefix, "--output-dir", str(folder / "set")),
            *("--subsets", "training", "--test-set-name", "training", "--num-aug", "2", "--max-grid-size", "3"),
        )
        assert made.returncode == 0, made.stderr
        done = run_script(
            *("pretrain_no_eval.py", *PUBLISHED, f"data_paths=[{folder / 'set'}]", f"checkpoint_path={folder / 'run'}")
        )
        assert done.returncode == 0, done.stderr
        lines = read_metrics(folder / "run" / "metrics.jsonl")
    lines = [line for line in lines if "lm_loss" in line]
    return [{key: line[key] for key in ("step", "lm_loss", "q_halt_loss", "exact_accuracy")} for line in lines]


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tests.golden.make", description=__doc__
    ).parse_args()  # --help writes nothing
    save_file(draw_start(), FOLDER / "start.safetensors")
    for case in CASES:
        save_file(compute(case), FOLDER / f"{case}.safetensors")
    for path in FOLDER.glob("*.safetensors"):
        path.chmod(0o644)
    # Text, so that a change of the numbers shows in a diff.
    (FOLDER / "published_run.json").write_text(
        "\n".join(["[", ",\n".join(json.dumps(line) for line in trace()), "]"]) + "\n"
    )


if __name__ == "__main__":
    main()
