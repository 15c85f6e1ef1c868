"""Prints what a data set consists of: `python -m dataset.statistics DATA_SET`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dataset.statistics.measure import Statistics, gather
from utils.cli import command


def spread(values: np.ndarray) -> str:
    """Least, median and most of some numbers, in words."""
    least, median, most = np.percentile(values, (0, 50, 100), method="nearest").astype(int)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}, median {median:,}"


def shown(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (", .." if len(items) > most else "")


def text(s: Statistics) -> str:
    """The statistics as lines for a terminal."""
    tasks = sum(source.tasks for source in s.sources)
    visits, examples = (sum(getattr(source, name) for source in s.sources) for name in ("visits", "examples"))
    lines = [
        f"{s.name}: {tasks:,} tasks, {int(s.puzzles.sum()):,} puzzles, canvas {s.side} x {s.side}",
        f"test set: {s.test_tasks:,} tasks, {s.test_inputs:,} inputs"
        + (f", {s.unknown:,} outputs not known" if s.unknown else ""),
        "",
        f"{'subset':<24}{'tasks':>8}{'pairs':>9}{'puzzles':>11}{'weight':>8}{'visits':>9}{'examples':>10}  of an epoch",
    ]
    lines += [
        f"{source.name[:23]:<24}{source.tasks:>8,}{sum(source.pairs):>9,}{sum(source.puzzles):>11,}{source.weight:>8g}"
        f"{source.visits / visits:>9.1%}{source.examples / examples:>10.1%}"
        for source in s.sources
    ]
    heights, widths = s.sizes.sum((0, 2)), s.sizes.sum((0, 1))
    numbers = np.arange(31)
    cells = s.colours / s.colours.sum()
    lines += [
        "",
        f"pairs per task       {spread(s.pairs)} to train on",
        f"rows, columns        {spread(np.repeat(numbers, heights))}; {spread(np.repeat(numbers, widths))}",
        f"output like input    {s.same_size:.1%} of pairs have one size",
        f"canvas used          {s.used.mean():.0f} of {s.side**2} tokens on average, median {np.median(s.used):.0f}",
        "cells by colour      " + ", ".join(f"{c}: {share:.1%}" for c, share in enumerate(cells)),
        f"colours per task     {spread(np.repeat(np.arange(len(s.colours_per_task)), s.colours_per_task))}",
        f"puzzles per task     {spread(s.puzzles)}" + _short(s),
        "",
    ]
    if s.repeated:
        groups = shown([" = ".join(ids) for ids in s.repeated])
        again = sum(map(len, s.repeated)) - len(s.repeated)
        lines.append(f"{again} training tasks repeat another's inputs under some augmentation: {groups}")
    else:
        lines.append("no training task repeats another one's inputs under any augmentation")
    if s.trained_on:
        same = shown([f"{test} = {train}" for test, train in s.trained_on])
        lines.append(
            f"warning: {len(s.trained_on)} of {s.test_tasks} test tasks are trained on under another name: {same}"
        )
    else:
        lines.append(f"none of the {s.test_tasks} test tasks is trained on under another name or augmentation")
    return "\n".join(lines)


def _short(s: Statistics) -> str:
    """Of how many tasks fewer augmentations were found than looked for."""
    if s.asked is None:
        return ""
    fewer = int((s.puzzles < s.asked + 1).sum())
    return f"; {fewer:,} tasks have fewer than the {s.asked + 1:,} asked for" if fewer else ": as many as asked for"


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dataset.statistics", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_set", help="the folder of a data set")
    parser.add_argument("--out", type=Path, metavar="FILE", help="draw a picture too: .png, .svg or .pdf")
    given = parser.parse_args()
    statistics = gather(given.data_set)
    print(text(statistics))
    if given.out is not None:
        from dataset.statistics.plot import draw

        draw(statistics, given.out)
        print(f"\n{given.out}")


if __name__ == "__main__":
    main()
