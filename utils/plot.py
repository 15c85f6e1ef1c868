"""Selects the metrics of a run's log that are curves, and draws those of one or several runs as a picture.

    python -m utils.plot RUN.. [--out curves.png] [--metrics lm_loss exact_accuracy] [--smooth 20]

RUN is the folder of a run (or its metrics.jsonl).  Each metric is a panel, each run a colour.  With `--smooth` a curve
is drawn faintly, and above it its running mean over so many lines of the log.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.cli import command
from utils.errors import InputError, SettingError
from utils.files import write_atomically
from utils.metrics_log import read_metrics

COLOURS = ("#0b62a8", "#d1495b", "#2a9d5c", "#b8860b", "#7a4fb5", "#159a9c", "#8c564b", "#555555")
"""The first four differ for colour-blind readers too; more runs than colours differ in their dashes."""

DASHES = ("-", "--", ":", "-.")
INK, FAINT, GRID = "#1c2430", "#5b6675", "#e3e8ee"
PANEL = (4.6, 2.7)
"""Width and height in inches."""

POINTS_IN_PICTURE = 1500

CURVES = {
    "lm_loss": "loss per token",
    "accuracy": "tokens right",
    "exact_accuracy": "examples right whole",
    "q_halt_accuracy": "halting agrees with being right",
    "steps": "ACT steps per example",
    "ARC/pass@1_inputs": "pass@1, of test inputs",
    "ARC/pass@2_inputs": "pass@2, of test inputs",
    "ARC/pass@10_inputs": "pass@10, of test inputs",
    "exact/exact_accuracy": "test examples right whole",
    "lr": "learning rate",
    "examples_per_second": "example-steps per second",
}
"""The title of each metric that is drawn, in the order of the panels."""

MOST_POINTS = 400
"""Points of a curve on a report's page."""

Points = list[list[float]]
"""[step, value] in the order of the log."""


def select_curves(
    metrics: Sequence[Mapping[str, Any]], names: Iterable[str] = tuple(CURVES), most: int = MOST_POINTS
) -> dict[str, Points]:
    """Returns the points of each metric in `names`, at most about `most` of each.

    A metric with fewer than two points is not a curve, and is left out.

    Args:
        metrics: the lines of a `metrics.jsonl`.
    """
    selected: dict[str, Points] = {}
    for name in names:
        points = [
            [line["step"], float(f"{line[name]:.5g}")] for line in metrics if isinstance(line.get(name), int | float)
        ]
        if len(points) > 1:
            selected[name] = thin_out(points, most)
    return selected


def thin_out(points: Points, most: int) -> Points:
    """Returns every n-th point, and the last."""
    every = max(1, -(-len(points) // most))
    kept = points[::every]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def draw_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, names: Sequence[str] = (), smooth: int = 1
) -> int:
    """Writes the picture, complete or not at all, and returns its number of panels.

    Args:
        runs: the lines of each run's log, by the name that is shown.
        names: the metrics; none: those of `CURVES` that any run has.
        smooth: the lines of the log that the running mean covers.

    Raises:
        InputError: if there is nothing to draw, or Matplotlib is not installed.
    """
    points_of = {run: select_curves(lines, names or CURVES, POINTS_IN_PICTURE) for run, lines in runs.items()}
    shown = [name for name in names or CURVES if any(name in points for points in points_of.values())]
    if not shown:
        raise InputError(
            f"{' and '.join(runs)} have no curve" + (f" of {', '.join(names)}" if names else "") + ": a curve needs "
            "two lines of metrics.jsonl; train for longer or lower log_every"
        )
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError('curves need the package matplotlib: pip install -e ".[pictures]"') from None

    columns = min(len(shown), 2 if len(shown) in (2, 4) else 3)
    rows = math.ceil(len(shown) / columns)
    legend = 0.32 * math.ceil(len(runs) / columns) + 0.15
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + legend), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(shown) :]:
        axis.remove()
    for axis, name in zip(axes, shown, strict=False):
        _panel(axis, name, {run: points.get(name, []) for run, points in points_of.items()}, smooth)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=10)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    write_atomically(path, lambda stream: stream.write(drawn.getbuffer()))
    return len(shown)


def _panel(axis: Any, name: str, by_run: Mapping[str, Points], smooth: int) -> None:
    """Draws one metric of every run."""
    from matplotlib.ticker import EngFormatter, PercentFormatter

    is_score = name.startswith(("ARC/", "exact/"))
    is_fraction = is_score or "accuracy" in name
    smooth = 1 if is_score or name == "lr" else smooth  # these are exact
    highest = 0.0
    for i, (run, points) in enumerate(by_run.items()):
        steps, values = np.array(points, dtype=float).reshape(-1, 2).T
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        smoothed = running_mean(values, smooth)
        if smooth > 1:
            axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        marker = "o" if 0 < len(points) <= 12 else None
        axis.plot(steps, smoothed, dash, color=colour, linewidth=1.6, label=run, marker=marker, markersize=3.5)
        highest = max([highest, *smoothed])
    axis.set_title(CURVES.get(name, name), loc="left", fontsize=11, color=INK)
    axis.set_xlabel("step", fontsize=9, color=FAINT)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if is_fraction:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif name == "examples_per_second":
        axis.yaxis.set_major_formatter(EngFormatter(sep=""))
    if name != "lr":
        axis.set_ylim(0, 1.05 * highest or 1)
    else:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        axis.set_ylim(bottom=0)
    axis.tick_params(colors=FAINT, labelsize=9, length=0)
    axis.grid(color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.margins(x=0.01)
    for side in axis.spines.values():
        side.set_visible(False)


def running_mean(values: np.ndarray, over: int) -> np.ndarray:
    """Returns the mean of each value and up to `over` - 1 values before it, float64 [N]."""
    sums = np.concatenate(([0.0], np.cumsum(values)))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(0, end - over)
    return (sums[end] - sums[start]) / (end - start)


def shortest_labels(paths: Sequence[Path]) -> list[str]:
    """Returns the shortest ends of the runs' paths that differ."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(part[-count:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    raise InputError(f"{paths[0]} is named twice: name each run once")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the log of a run.

    Raises:
        InputError: if there is none.
    """
    log = path if path.is_file() else path / "metrics.jsonl"
    if not log.is_file():
        raise InputError(f"{path} has no metrics.jsonl: name the folder of a run")
    return read_metrics(log)


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m utils.plot", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--out", type=Path, default=Path("curves.png"), help="the picture (curves.png)")
    parser.add_argument("--metrics", nargs="+", default=[], help="names as in metrics.jsonl, in this order")
    parser.add_argument("--smooth", type=int, default=1, help="lines of the log that the running mean covers")
    given = parser.parse_args()
    if given.smooth < 1:
        raise SettingError(f"--smooth {given.smooth}: a running mean covers at least 1 line")
    folders = [path.parent if path.is_file() else path for path in given.runs]
    logs = dict(zip(shortest_labels(folders), map(read_log, given.runs), strict=True))
    panels = draw_curves(logs, given.out, given.metrics, given.smooth)
    print(f"{given.out}: {panels} curves of {len(logs)} run(s)")


if __name__ == "__main__":
    main()
