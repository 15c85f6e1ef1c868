"""Draws the statistics of a data set as one picture, with matplotlib (the extra `pictures`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dataset.encoding import ARC_COLOURS
from dataset.statistics.measure import Statistics, SubsetStatistics
from utils.errors import SettingError
from utils.progress import count_of

INK, FAINT, FILL, ACCENT = "#1f2933", "#9aa5b1", "#3e7cb1", "#e07a5f"
MOST_SUBSETS = 8
MOST_PAIRS = 20


def draw_statistics(s: Statistics, path: Path) -> None:
    """Writes the picture; the ending of `path` decides the format.

    Raises:
        SettingError: if matplotlib is not installed, or cannot write that format.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise SettingError('a picture needs matplotlib, which is missing: pip install -e ".[pictures]"') from None
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:] not in known:
        raise SettingError(f"--out {path} does not end in a known format: use .png, .svg or .pdf")
    style: dict[Any, Any] = {
        "font.size": 9.5,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.axisbelow": True,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": "#e4e7eb",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(14, 8.6))
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12, wspace=0.06, hspace=0.08)
        figure.suptitle(
            f"{Path(s.name).name}: {s.num_tasks:,} tasks, {int(s.puzzles.sum()):,} puzzles, "
            f"{s.test_tasks:,} test tasks with {s.test_inputs:,} inputs\n{_describe_duplicates(s)}",
            x=0.012,
            ha="left",
            fontsize=13,
            fontweight="bold",
        )
        axes = figure.subplots(2, 4)
        _draw_sizes(axes[0][0], s.sizes[0], "Input sizes", s.side)
        _draw_sizes(axes[0][1], s.sizes[1], "Output sizes", s.side)
        _draw_colours(axes[0][2], s.colours)
        _draw_histogram(axes[0][3], s.colours_per_task, "Colours per task", "colours, background included")
        _draw_subsets(axes[1][0], s.subsets)
        pairs = np.bincount(np.minimum(s.pairs, MOST_PAIRS))
        _draw_histogram(axes[1][1], pairs, "Pairs per task", "pairs to train on", MOST_PAIRS)
        _draw_used_tokens(axes[1][2], s)
        _draw_puzzles(axes[1][3], s)
        try:
            figure.savefig(path, dpi=130)
        except OSError as error:
            raise SettingError(f"{path} cannot be written ({error.strerror}): choose another --out") from None


def _describe_duplicates(s: Statistics) -> str:
    tested = count_of(len(s.contaminated), "test task is", "test tasks are")
    trained = count_of(s.num_repeating, "training task repeats", "training tasks repeat")
    return f"{tested} also trained on, {trained} another one, under any name and augmentation"


def _draw_sizes(axis: Any, counts: np.ndarray, title: str, side: int) -> None:
    """Draws how many grids have each number of rows and columns; the shade grows with the logarithm."""
    shown = np.ma.log10(counts[1 : side + 1, 1 : side + 1])  # masked where there is none
    image = axis.imshow(shown, cmap="Blues", extent=(0.5, side + 0.5, side + 0.5, 0.5), vmin=-0.6)
    axis.set(title=title, xlabel="columns", ylabel="rows")
    ticks = [1, *range(5, side + 1, 5)] if side > 10 else range(1, side + 1)
    axis.set_xticks(list(ticks))
    axis.set_yticks(list(ticks))
    most = int(np.floor(np.log10(max(1, counts.max()))))
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02)
    bar.set_ticks(range(most + 1), labels=[f"{10**power:,}" for power in range(most + 1)])
    bar.outline.set_visible(False)
    bar.set_label("grids")


def _draw_colours(axis: Any, colours: np.ndarray) -> None:
    fractions = colours / max(1, colours.sum())
    bars = axis.barh(range(10), fractions, color=ARC_COLOURS, edgecolor=INK, linewidth=0.6)
    axis.bar_label(bars, labels=[f"{value:.1%}" for value in fractions], padding=3)
    axis.set(title="Cells by colour", yticks=range(10), ylabel="colour", xticks=[])
    axis.set_xlim(0, 1.25 * fractions.max())
    axis.spines["bottom"].set_visible(False)
    axis.invert_yaxis()


def _draw_histogram(axis: Any, counts: np.ndarray, title: str, label: str, most: int | None = None) -> None:
    """Draws how many tasks have each number; the bar of `most` counts all larger numbers too."""
    present = np.flatnonzero(counts)
    first, last = int(present[0]), int(present[-1])
    axis.bar(range(first, last + 1), counts[first : last + 1], color=FILL, width=0.85)
    axis.set(title=title, xlabel=label, ylabel="tasks")
    every = 1 + (last - first) // 10
    ticks = list(range(first, last + 1, every))
    axis.set_xticks(ticks, labels=[f"{t}+" if t == most else str(t) for t in ticks])
    axis.grid(axis="y")


def _draw_subsets(axis: Any, subsets: list[SubsetStatistics]) -> None:
    """Draws each subset's fraction of the tasks, of an epoch's visits and of its examples."""
    rows = subsets
    if len(subsets) > MOST_SUBSETS:
        rows = [*subsets[: MOST_SUBSETS - 1], _merge_subsets(subsets[MOST_SUBSETS - 1 :])]
    quantities = (
        ("tasks", FAINT, [float(subset.tasks) for subset in rows]),
        ("visits of an epoch", FILL, [subset.visits for subset in rows]),
        ("examples of an epoch", ACCENT, [subset.examples for subset in rows]),
    )
    positions = np.arange(len(rows))
    for i, (name, colour, values) in enumerate(quantities):
        fractions = np.array(values) / sum(values)
        bars = axis.barh(positions + (i - 1) * 0.27, fractions, height=0.25, color=colour, label=name)
        labels = [f"{value:.0%}" if value >= 0.01 else "<1%" for value in fractions]
        axis.bar_label(bars, labels=labels, padding=2, size=8)
    labels = [s.name if len(s.name) <= 16 else s.name[:15] + "…" for s in rows]
    labels = [f"{name}\n×{s.weight:g}" if s.weight != 1 else name for name, s in zip(labels, rows, strict=True)]
    axis.set_yticks(positions, labels=labels)
    axis.set(title="Subsets", xlim=(0, 1.15), xticks=[], ylim=(len(rows) - 0.4, -0.6))
    axis.spines["bottom"].set_visible(False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.42, -0.01), frameon=False, fontsize=8.5, ncols=1)


def _merge_subsets(subsets: list[SubsetStatistics]) -> SubsetStatistics:
    tasks = sum(subset.tasks for subset in subsets)
    # Weight and pairs are chosen so that its visits and examples are the sums of those of the subsets.
    weight = sum(subset.visits for subset in subsets) / tasks
    pairs = sum(subset.examples for subset in subsets) / weight
    return SubsetStatistics(f"{len(subsets)} others", tasks, weight, pairs=[round(pairs)])


def _draw_used_tokens(axis: Any, s: Statistics) -> None:
    axis.hist(s.used_tokens, bins=np.linspace(0, s.side**2, 31), color=FILL, rwidth=0.92)
    mean, median = float(s.used_tokens.mean()), float(np.median(s.used_tokens))
    for value, name, colour in ((mean, "mean", ACCENT), (median, "median", INK)):
        axis.axvline(value, color=colour, linewidth=1.5, label=f"{name} {value:.0f}")
    axis.set(
        title="Canvas used", xlabel=f"tokens that are not PAD, of {s.side**2}", ylabel="pairs", xlim=(0, s.side**2)
    )
    axis.legend(frameon=False)
    axis.grid(axis="y")


def _draw_puzzles(axis: Any, s: Statistics) -> None:
    """Draws how many puzzles each task has, the tasks with the fewest first."""
    ordered = np.sort(s.puzzles)
    axis.fill_between(np.arange(len(ordered)) + 1, ordered, color=FILL, step="mid", linewidth=0)
    axis.set(title="Puzzles found", xlabel="tasks, fewest puzzles first", ylabel="puzzles of the task")
    axis.set_xlim(1, max(2, len(ordered)))
    axis.set_ylim(0, 1.18 * ordered[-1])
    if s.num_aug is not None and s.num_short is not None:
        short = f"{count_of(s.num_short, 'task has', 'tasks have')} fewer" if s.num_short else "all tasks have them"
        axis.axhline(s.num_aug + 1, color=ACCENT, linewidth=1.2)
        axis.annotate(f"{s.num_aug + 1:,} asked for:\n{short}", (0.02, 0.89), xycoords="axes fraction", color=ACCENT)
    axis.grid(axis="y")
