"""The statistics of a data set as one picture, drawn by matplotlib (the extra `pictures`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dataset.statistics.measure import Source, Statistics

ARC_COLOURS = (
    *("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25"),
)
INK, FAINT, FILL, ACCENT = "#1f2933", "#9aa5b1", "#3e7cb1", "#e07a5f"
MOST_SOURCES = 8


def draw(s: Statistics, path: Path) -> None:
    """Writes the picture; the ending of `path` decides the format.

    Raises:
        ValueError: if matplotlib is not installed, or cannot write that format.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('a picture needs matplotlib, which is missing: pip install -e ".[pictures]"') from None
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:] not in known:
        raise ValueError(f"--out {path} ends in no known format: use .png, .svg or .pdf")
    style: dict[Any, Any] = {
        **{"font.size": 9.5, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left"},
        **{"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT, "text.color": INK},
        **{"xtick.color": INK, "ytick.color": INK, "axes.labelcolor": INK, "axes.axisbelow": True},
        **{"axes.titlepad": 10, "grid.color": "#e4e7eb"},
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(14, 8.6))
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12, wspace=0.06, hspace=0.08)
        tasks = sum(source.tasks for source in s.sources)
        figure.suptitle(
            f"{Path(s.name).name}: {tasks:,} tasks, {int(s.puzzles.sum()):,} puzzles, "
            f"{s.test_tasks:,} test tasks with {s.test_inputs:,} inputs\n{_overlaps(s)}",
            x=0.012,
            ha="left",
            fontsize=13,
            fontweight="bold",
        )
        axes = figure.subplots(2, 4)
        for axis, counts, title in zip(axes[0], s.sizes, ("Input sizes", "Output sizes"), strict=False):
            _heat(axis, counts, title, s.side)
        _colours(axes[0][2], s.colours)
        _whole_numbers(axes[0][3], s.colours_per_task, "Colours per task", "colours, background included")
        _shares(axes[1][0], s.sources)
        _whole_numbers(axes[1][1], np.bincount(np.minimum(s.pairs, 20)), "Pairs per task", "pairs to train on", 20)
        _used(axes[1][2], s)
        _found(axes[1][3], s)
        try:
            figure.savefig(path, dpi=130)
        except OSError as error:
            raise ValueError(f"{path} cannot be written ({error.strerror}): choose another --out") from None


def _overlaps(s: Statistics) -> str:
    again = sum(map(len, s.repeated)) - len(s.repeated)
    return (
        f"{len(s.trained_on) or 'no'} test tasks are also trained on, "
        f"{again or 'no'} training tasks repeat another, whatever names and augmentations"
    )


def _heat(axis: Any, counts: np.ndarray, title: str, side: int) -> None:
    """How many grids have so many rows and columns; the shade grows with the logarithm."""
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


def _colours(axis: Any, colours: np.ndarray) -> None:
    share = colours / max(1, colours.sum())
    bars = axis.barh(range(10), share, color=ARC_COLOURS, edgecolor=INK, linewidth=0.6)
    axis.bar_label(bars, labels=[f"{value:.1%}" for value in share], padding=3)
    axis.set(title="Cells by colour", yticks=range(10), ylabel="colour", xticks=[])
    axis.set_xlim(0, 1.25 * share.max())
    axis.spines["bottom"].set_visible(False)
    axis.invert_yaxis()


def _whole_numbers(axis: Any, counts: np.ndarray, title: str, label: str, most: int | None = None) -> None:
    """A bar for each number; the last one stands for all from `most` on."""
    present = np.flatnonzero(counts)
    first, last = int(present[0]), int(present[-1])
    axis.bar(range(first, last + 1), counts[first : last + 1], color=FILL, width=0.85)
    axis.set(title=title, xlabel=label, ylabel="tasks")
    every = 1 + (last - first) // 10
    ticks = list(range(first, last + 1, every))
    axis.set_xticks(ticks, labels=[f"{t}+" if t == most else str(t) for t in ticks])
    axis.grid(axis="y")


def _shares(axis: Any, sources: list[Source]) -> None:
    """Each subset's share of the tasks, of an epoch's visits and of its examples."""
    rows = sources if len(sources) <= MOST_SOURCES else sources[: MOST_SOURCES - 1]
    if len(rows) < len(sources):
        rest = sources[len(rows) :]
        rows = [*rows, _together(rest)]
    quantities = (
        ("tasks", FAINT, [float(source.tasks) for source in rows]),
        ("visits of an epoch", FILL, [source.visits for source in rows]),
        ("examples of an epoch", ACCENT, [source.examples for source in rows]),
    )
    places = np.arange(len(rows))
    for i, (name, colour, values) in enumerate(quantities):
        share = np.array(values) / sum(values)
        bars = axis.barh(places + (i - 1) * 0.27, share, height=0.25, color=colour, label=name)
        axis.bar_label(bars, labels=[f"{value:.0%}" if value >= 0.01 else "<1%" for value in share], padding=2, size=8)
    labels = [s.name if len(s.name) <= 16 else s.name[:15] + "…" for s in rows]
    labels = [f"{name}\n×{s.weight:g}" if s.weight != 1 else name for name, s in zip(labels, rows, strict=True)]
    axis.set_yticks(places, labels=labels)
    axis.set(title="Subsets", xlim=(0, 1.15), xticks=[], ylim=(len(rows) - 0.4, -0.6))
    axis.spines["bottom"].set_visible(False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.42, -0.01), frameon=False, fontsize=8.5, ncols=1)


def _together(sources: list[Source]) -> Source:
    tasks = sum(source.tasks for source in sources)
    # Its weight and pairs are such that visits and examples come out as the sums of those it stands for.
    weight = sum(source.visits for source in sources) / tasks
    pairs = sum(source.examples for source in sources) / weight
    return Source(f"{len(sources)} others", tasks, weight, pairs=[round(pairs)])


def _used(axis: Any, s: Statistics) -> None:
    axis.hist(s.used, bins=np.linspace(0, s.side**2, 31), color=FILL, rwidth=0.92)
    for value, name, colour in ((s.used.mean(), "mean", ACCENT), (float(np.median(s.used)), "median", INK)):
        axis.axvline(value, color=colour, linewidth=1.5, label=f"{name} {value:.0f}")
    axis.set(
        title="Canvas used", xlabel=f"tokens that are not PAD, of {s.side**2}", ylabel="pairs", xlim=(0, s.side**2)
    )
    axis.legend(frameon=False)
    axis.grid(axis="y")


def _found(axis: Any, s: Statistics) -> None:
    """How many puzzles were found of each task: the tasks from the poorest on."""
    ordered = np.sort(s.puzzles)
    axis.fill_between(np.arange(len(ordered)) + 1, ordered, color=FILL, step="mid", linewidth=0)
    fewer = 0 if s.asked is None else int((ordered < s.asked + 1).sum())
    axis.set(title="Puzzles found", xlabel="tasks, fewest puzzles first", ylabel="puzzles of the task")
    axis.set_xlim(1, max(2, len(ordered)))
    axis.set_ylim(0, 1.18 * ordered[-1])
    if s.asked is not None:
        said = f"{fewer:,} tasks have fewer" if fewer else "all tasks have them"
        axis.axhline(s.asked + 1, color=ACCENT, linewidth=1.2)
        axis.annotate(f"{s.asked + 1:,} asked for:\n{said}", (0.02, 0.89), xycoords="axes fraction", color=ACCENT)
    axis.grid(axis="y")
