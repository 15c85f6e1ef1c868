"""Prints what a data set contains: `python -m dataset.statistics DATA_SET`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dataset.statistics.measure import Statistics, measure_data_set
from utils.cli import command
from utils.progress import count_of


def describe_spread(values: np.ndarray) -> str:
    """Returns the least, the median and the most of some numbers, in words."""
    least, median, most = np.percentile(values, (0, 50, 100), method="nearest").astype(int)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}, median {median:,}"


def list_some(items: list[str], most: int = 4) -> str:
    return ", ".join(items[:most]) + (", .." if len(items) > most else "")


def format_statistics(s: Statistics) -> str:
    """Returns the statistics as lines for a terminal."""
    return "\n".join([*_format_subsets(s), "", *_format_contents(s), "", _format_repeated(s), _format_contaminated(s)])


def _format_subsets(s: Statistics) -> list[str]:
    visits = sum(subset.visits for subset in s.subsets)
    examples = sum(subset.examples for subset in s.subsets)
    lines = [
        f"{s.name}: {s.num_tasks:,} tasks, {int(s.puzzles.sum()):,} puzzles, canvas {s.side} x {s.side}",
        f"test set: {s.test_tasks:,} tasks, {s.test_inputs:,} inputs"
        + (f", {s.unknown_outputs:,} outputs not known" if s.unknown_outputs else ""),
        "",
        f"{'subset':<24}{'tasks':>8}{'pairs':>9}{'puzzles':>11}{'weight':>8}{'visits':>9}{'examples':>10}  of an epoch",
    ]
    return lines + [
        f"{subset.name[:23]:<24}{subset.tasks:>8,}{sum(subset.pairs):>9,}{sum(subset.puzzles):>11,}"
        f"{subset.weight:>8g}{subset.visits / visits:>9.1%}{subset.examples / examples:>10.1%}"
        for subset in s.subsets
    ]


def _format_contents(s: Statistics) -> list[str]:
    numbers = np.arange(s.sizes.shape[1])
    rows = np.repeat(numbers, s.sizes.sum((0, 2)))
    columns = np.repeat(numbers, s.sizes.sum((0, 1)))
    colours = np.repeat(np.arange(len(s.colours_per_task)), s.colours_per_task)
    fractions = s.colours / s.colours.sum()
    used = s.used_tokens
    return [
        f"pairs per task       {describe_spread(s.pairs)} to train on",
        f"rows, columns        {describe_spread(rows)}; {describe_spread(columns)}",
        f"output like input    {s.same_size:.1%} of pairs have one size",
        f"canvas used          {used.mean():.0f} of {s.side**2} tokens on average, median {np.median(used):.0f}",
        "cells by colour      " + ", ".join(f"{c}: {fraction:.1%}" for c, fraction in enumerate(fractions)),
        f"colours per task     {describe_spread(colours)}",
        f"puzzles per task     {describe_spread(s.puzzles)}" + _format_short(s),
        *(
            [f"generated pairs      {sum(s.generated):,} of {count_of(len(s.generated), 'task', 'tasks')} besides"]
            if s.generated
            else []
        ),
    ]


def _format_short(s: Statistics) -> str:
    """Says how many tasks have fewer puzzles than were asked for."""
    if s.num_aug is None or s.num_short is None:
        return ""
    if not s.num_short:
        return ": as many as asked for"
    return f"; {count_of(s.num_short, 'task has', 'tasks have')} fewer than the {s.num_aug + 1:,} asked for"


def _format_repeated(s: Statistics) -> str:
    if not s.repeated:
        return "no training task repeats the inputs of another one under any augmentation"
    groups = list_some([" = ".join(ids) for ids in s.repeated])
    tasks = count_of(s.num_repeating, "training task repeats", "training tasks repeat")
    return f"{tasks} the inputs of another one under some augmentation: {groups}"


def _format_contaminated(s: Statistics) -> str:
    if not s.contaminated:
        return "no test task is trained on under another name or augmentation"
    same = list_some([f"{test} = {train}" for test, train in s.contaminated])
    verb = "is" if len(s.contaminated) == 1 else "are"
    return f"warning: {len(s.contaminated)} of the {s.test_tasks:,} test tasks {verb} also trained on: {same}"


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dataset.statistics", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data_set", help="the folder of a data set")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also draw a picture: .png, .svg or .pdf")
    given = parser.parse_args()
    statistics = measure_data_set(given.data_set)
    print(format_statistics(statistics))
    if given.out is not None:
        from dataset.statistics.plot import draw_statistics

        draw_statistics(statistics, given.out)
        print(f"\n{given.out}")


if __name__ == "__main__":
    main()
