"""Writes the model card of an exported network: README.md with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from training.checkpoint import MODEL, ROWS, NetworkConfig, Provenance, Stage

PAPER = "arxiv:2510.04871"
SCORE = re.compile(r"ARC/pass@(\d+)(_inputs)?|exact/(exact_accuracy|accuracy)")


def model_card(name: str, config: NetworkConfig, provenance: Provenance, parameters: int, licence: str | None) -> str:
    """Returns the text of the model card.

    Args:
        name: the title.
        parameters: how many parameters the network has.
        licence: an identifier that the hub knows, such as mit; None: not stated.
    """
    parts = [
        _front_matter(name, config, provenance, licence),
        f"# {name}",
        _opening(config, parameters),
        _use(config),
        "## Trained on",
        *(_stage(number, stage) for number, stage in enumerate(provenance.stages, start=1)),
        *([] if provenance.stages else ["The checkpoint has no record of its data."]),
        _seen(provenance),
        "## Scores",
        *(_score(score) for score in provenance.scores),
        *([] if provenance.scores else ["None were recorded with these weights."]),
        "## Files",
        _files(config, provenance),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(name: str, config: NetworkConfig, provenance: Provenance, licence: str | None) -> str:
    front: dict[str, Any] = {} if licence is None else {"license": licence}
    front["tags"] = ["tiny-recursive-model", "trm", PAPER, *(["arc-agi"] if _is_arc(config) else [])]
    results = [
        {
            "task": {"type": "other", "name": "puzzles"},
            "dataset": {"name": _data_name(score), "type": _slug(_data_name(score))},
            "metrics": [
                {"type": title, "name": title, "value": round(value, 5)} for title, value in _values(score["metrics"])
            ],
        }
        for score in provenance.scores
    ]
    if results:
        front["model-index"] = [{"name": name, "results": results}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"


def _is_arc(config: NetworkConfig) -> bool:
    return config.tokens.colour_0_id is not None


def _opening(config: NetworkConfig, parameters: int) -> str:
    arch = config.arch
    side = config.canvas.side
    canvas = f"{side} x {side}" if side else f"{config.canvas.seq_len} cells"
    lines = [
        f"A tiny recursive model (TRM, [arXiv 2510.04871](https://arxiv.org/abs/2510.04871)) of {parameters:,} "
        f"parameters that looks at a canvas of {canvas}.",
        "",
        "| setting | value |",
        "|---|---|",
        f"| recursion | {arch.name}, H_cycles {arch.H_cycles}, L_cycles {arch.L_cycles} |",
        f"| steps per example | at most {arch.halt_max_steps} |",
        f"| width, layers, heads | {arch.hidden_size}, {arch.L_layers or arch.H_layers}, {arch.num_heads} |",
        f"| positions | {'an MLP over the sequence' if arch.mlp_t else arch.pos_encodings} |",
        *([] if arch.mlp_conv == "none" else [f"| convolution in the SwiGLU | {arch.mlp_conv} |"]),
        f"| {'task row' if arch.is_composed else 'puzzle row'} | {arch.puzzle_emb_ndim} wide, as "
        f"{config.canvas.prefix_len} prefix tokens |",
        f"| tokens | {_tokens(config)} |",
    ]
    return "\n".join(lines)


def _tokens(config: NetworkConfig) -> str:
    tokens = config.tokens
    if not _is_arc(config):
        return f"{tokens.vocab_size}, empty {tokens.pad_id}"
    return (
        f"empty {tokens.pad_id}, end of grid {tokens.end_of_grid_id}, colour c is c + {tokens.colour_0_id}; grids at "
        "the top left, a row of end of grid below and a column right of them"
    )


def _use(config: NetworkConfig) -> str:
    if not _is_arc(config):
        return "It loads as `load_checkpoint=FOLDER` in the training system that wrote it."
    return """## Use

In the training system that wrote it, with this folder as FOLDER. A new puzzle has no row yet, so the system first
learns one from the demonstrations:

```python
from evaluators.solver import Solver

solver = Solver.load("FOLDER")
attempts = solver.predict({"train": [{"input": [[1, 0]], "output": [[0, 1]]}], "test": [{"input": [[2, 0]]}]})
for attempt in attempts[0][:2]:  # of the first test input, best first
    print(attempt.votes, attempt.grid, sep="\\n")
```

`python solve.py PUZZLE.json --weights FOLDER --out ANSWER.png` does the same for a file, and
`eval_arc_k10.py load_checkpoint=FOLDER` for a data set."""


def _stage(number: int, stage: Stage) -> str:
    steps = f", {stage.step:,} steps" if stage.step is not None else ""
    lines = [f"**{number}. {stage.run}**{steps}", ""]
    for data in stage.data:
        counts = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in data.counts.items())
        sources = ", ".join(data.sources) or "its sources are not recorded"
        settings = _listed(data.settings)
        lines.append(f"* data `{data.name}`: {sources}{f' ({settings})' if settings else ''}")
        lines += [f"  * {counts}"] if counts else []
    if stage.recipe:
        lines.append(f"* recipe: {_listed(stage.recipe)}")
    return "\n".join(lines)


def _seen(provenance: Provenance) -> str:
    seen = list(provenance.task_keys.values())
    if not seen:
        return ""
    return (
        f"Tasks trained on with their test outputs: {seen.count('whole'):,}; with their demonstrations alone: "
        f"{seen.count('demonstrations'):,}. `provenance.json` has a key of each that no renaming or augmentation "
        "changes, and the training system warns if one of them is scored."
    )


def _listed(settings: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return ", ".join(f"{key} {shown(value)}" for key, value in settings.items() if value is not None)


def _values(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Titles and values of those metrics that are scores: over the test inputs of ARC (as on Kaggle), or over tasks."""
    scores = []
    for key, value in metrics.items():
        match = SCORE.fullmatch(key)
        if match and isinstance(value, int | float) and math.isfinite(value):
            over = "test inputs" if match[2] else "tasks"
            title = f"pass@{match[1]} over {over}" if match[1] else match[3].replace("_", " ")
            scores.append((title, float(value)))
    return scores


def _score(score: Mapping[str, Any]) -> str:
    """The scores of an evaluation as a table, and under it what they depend on."""
    metrics = score["metrics"]
    inputs = metrics.get("ARC/test_inputs") or metrics.get("exact/examples")
    tasks = f" of {metrics['ARC/tasks']:,} tasks" if "ARC/tasks" in metrics else ""
    lines = [f"`{_data_name(score)}`, {inputs:,} test {'inputs' if tasks else 'examples'}{tasks}:", ""]
    lines += ["| score | value | 95 % interval |", "|---|---|---|"]
    for key, value in metrics.items():
        if titled := _values({key: value}):
            low_high = metrics.get(f"{key}_95")
            between = f"{100 * low_high[0]:.1f} to {100 * low_high[1]:.1f} %" if low_high else ""
            lines.append(f"| {titled[0][0]} | {value:.1%} | {between} |")
    if metrics.get("ARC/copy_input") is not None:
        lines.append(f"| the input as its own answer | {metrics['ARC/copy_input']:.1%} | |")
    lines += ["", f"Conditions: {_listed(score['conditions'])}."]
    return "\n".join(lines)


def _data_name(score: Mapping[str, Any]) -> str:
    return str(score["conditions"].get("data_path", "unknown data")).rstrip("/").rpartition("/")[2]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"


def _files(config: NetworkConfig, provenance: Provenance) -> str:
    known = provenance.weights != "unknown"
    weights = f"the {provenance.weights} weights" if known else "the weights (averaged or raw: not recorded)"
    lines = [
        f"* `{MODEL}`: {weights}, float32",
        "* `config.json`: architecture, tokens, canvas",
        "* `provenance.json`: data, recipes, scores, keys of the tasks seen, checksums",
    ]
    if config.arch.puzzle_emb_ndim:
        lines.insert(1, f"* `{ROWS}`: mean and spread of the trained puzzle rows, where rows of new puzzles start")
    if provenance.git:
        changed = ", with changes" if provenance.git.get("dirty") else ""
        lines.append(f"\nWritten by commit {provenance.git.get('commit')}{changed}.")
    return "\n".join(lines)
