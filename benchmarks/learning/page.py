"""Puts the results of all comparisons into docs/learning.md, as tables and one figure:

python -m benchmarks.learning.page
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning.boards import boards_from_json, format_boards
from benchmarks.learning.results import (
    KS,
    SmallestDifference,
    from_json,
    read_file,
    smallest_difference,
    summarise,
)
from benchmarks.learning.task_sets import is_reported
from utils.errors import InputError
from utils.files import replace_between, write_atomically

HERE = Path(__file__).resolve().parents[2]
RESULTS = HERE / "benchmarks" / "results" / "learning"
PAGE = HERE / "docs" / "learning.md"
FIGURE = "figures/measured/learning.png"
BEGIN, END = "<!-- results: python -m benchmarks.learning.page -->", "<!-- end of the results -->"


def format_table(report: dict[str, Any]) -> str:
    """Returns the results of one comparison as Markdown."""
    if report["form"] == "boards":
        return format_boards(report)
    lines = []
    tuned = "tuning" in report

    def chosen(task: str) -> bool:
        return is_reported(task, report["form"], tuned)

    for budget, runs in report["outcomes"].items():
        outcomes = from_json(runs)
        found = summarise(outcomes, chosen)
        first = next(iter(outcomes.values()))
        on = f"{len(first[0].ranks_of(chosen))} test inputs"
        if tuned:
            on += ", those of the half that chose nothing" if report["form"] == "held_out" else ", which chose nothing"
        lines += [
            f"**{report['name']}, {budget}.** Task set `{report['task_set']}`, `{report['form']}`, "
            f"{report['augmentations']} augmentations, {on}, {len(first)} seed(s), {report['cpu']}. "
            + _say(smallest_difference(outcomes, 2, chosen)),
            "",
            "| | steps | training exact | loss | held-out loss | "
            + " | ".join(f"pass@{k}" for k in KS)
            + " | mean reciprocal rank | pass@2 gained (95 %) | CPU s |",
            "|---|---|---|---|---|" + "---|" * (len(KS) + 3),
        ]
        for arm, values in found.items():
            gained = values.get("difference", {}).get("pass@2")
            cells = [
                _spread(values["training exactness"]),
                _number(values["training loss"]),
                _number(values.get("held-out loss")),
                *(_spread(values[f"pass@{k}"]) for k in KS),
                _number(values["mean reciprocal rank"]),
                "{:+.1%} ({:+.1%} to {:+.1%})".format(*gained) if gained else "",
                f"{values['CPU seconds']['mean']:.0f}" if "CPU seconds" in values else "-",
            ]
            lines.append(f"| {arm} | {values['steps']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _say(smallest: SmallestDifference) -> str:
    seeds = "one seed does not say how far seeds spread"
    if smallest.of_seeds is not None:
        seeds = f"seeds alone make {smallest.of_seeds:.1%}, Student's t, {smallest.freedom} degrees of freedom"
    return (
        f"Two arms differ by more than chance from {smallest.value:.1%} of pass@2 on ({seeds}; the choice of "
        f"{smallest.outputs} outputs makes {smallest.of_outputs:.1%})."
    )


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['mean']:.1%} ({values['low']:.1%} to {values['high']:.1%})"


def _number(values: Mapping[str, float] | None) -> str:
    return "-" if values is None else f"{values['mean']:.3f} ({values['low']:.3f} to {values['high']:.3f})"


def bars_of(report: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Returns mean, lowest and highest of what is drawn of each arm: pass@2, or the boards solved at the end."""
    runs = next(iter(report["outcomes"].values()))
    if report["form"] == "boards":
        values = {arm: [run.curve[-1][1] for run in found] for arm, found in boards_from_json(runs).items()}
        return {arm: (sum(each) / len(each), min(each), max(each)) for arm, each in values.items()}
    tuned = "tuning" in report
    found = summarise(from_json(runs), lambda task: is_reported(task, report["form"], tuned))
    return {arm: (each["pass@2"]["mean"], each["pass@2"]["low"], each["pass@2"]["high"]) for arm, each in found.items()}


def draw(reports: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns a PNG with a panel for each comparison at equal steps: the mean of each arm, and its range over seeds.

    Raises:
        InputError: if matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the figure needs matplotlib: pip install -e '.[pictures]'") from error
    bars = [bars_of(report) for report in reports]
    heights = [0.5 + 0.25 * len(each) for each in bars]
    figure = Figure(figsize=(6.4, sum(heights) + 0.3), layout="constrained")
    panels = figure.subplots(len(bars), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, each, report in zip(panels, bars, reports, strict=True):
        rows = range(len(each))
        means = [mean for mean, _, _ in each.values()]
        ranges = [[mean - low for mean, low, _ in each.values()], [high - mean for mean, _, high in each.values()]]
        panel.errorbar(means, rows, xerr=ranges, fmt="o", color="#0b62a8", markersize=4, capsize=2)
        panel.set_yticks(rows, list(each), fontsize=8)
        panel.set_ylim(len(each) - 0.5, -0.5)
        what = "test boards solved" if report["form"] == "boards" else "pass@2"
        panel.set_title(f"{report['name']}: {what}", fontsize=9, loc="left")
        panel.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        panel.tick_params(axis="x", labelsize=8)
        panel.grid(axis="x", color="#e3e8ee")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=80)
    return out.getvalue()


def write_page(results: Path = RESULTS, page: Path = PAGE) -> int:
    """Replaces the results on the page, and its figure; returns how many comparisons there are."""
    reports = [read_file(path) for path in sorted(results.glob("*.json"))]
    figure = []
    if reports:
        picture = draw(reports)
        (page.parent / FIGURE).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page.parent / FIGURE, lambda file: file.write(picture))
        figure = [f"![The mean of each arm at equal steps, and its range over seeds]({FIGURE})", ""]
    replace_between(page, BEGIN, END, [*figure, *(format_table(report) for report in reports)])
    return len(reports)


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.learning.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    print(f"{PAGE}: {write_page()} comparisons")


if __name__ == "__main__":
    main()
