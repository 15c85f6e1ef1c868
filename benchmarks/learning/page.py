"""Puts the results of all comparisons into docs/learning.md, as tables and one figure:

python -m benchmarks.learning.page
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.learning.results import KS, from_json, read_file, smallest_difference, summarise
from benchmarks.learning.task_sets import half_of

HERE = Path(__file__).resolve().parents[2]
RESULTS = HERE / "benchmarks" / "results" / "learning"
PAGE = HERE / "docs" / "learning.md"
BEGIN, END = "<!-- results: python -m benchmarks.learning.page -->", "<!-- end of the results -->"


def format_table(report: dict[str, Any]) -> str:
    """Returns the results of one comparison as Markdown."""
    lines = []
    for budget, runs in report["outcomes"].items():
        outcomes = from_json(runs)
        tuned = "tuning" in report
        found = summarise(outcomes, (lambda task: half_of(task) == 1) if tuned else (lambda _: True))
        seeds = len(next(iter(outcomes.values())))
        inputs = sum(map(len, next(iter(outcomes.values()))[0].ranks.values()))
        smallest = smallest_difference(outcomes, 2)
        on = f"{inputs} test inputs" + (", scored on the half that chose nothing" if tuned else "")
        lines += [
            f"**{report['name']}, {budget}.** Task set `{report['task_set']}`, `{report['form']}`, "
            f"{report['augmentations']} augmentations, {on}, {seeds} seed(s), {report['cpu']}. "
            + (f"Two means differ by more than the seeds do from {smallest:.1%} of pass@2 on." if smallest else ""),
            "",
            "| | steps | training exact | " + " | ".join(f"pass@{k}" for k in KS) + " | pass@2 gained (95 %) | s |",
            "|---|---|---|" + "---|" * (len(KS) + 2),
        ]
        for arm, values in found.items():
            cells = [_spread(values["training exactness"]), *(_spread(values[f"pass@{k}"]) for k in KS)]
            gained = values.get("difference", {}).get("pass@2")
            cells.append("{:+.1%} ({:+.1%} to {:+.1%})".format(*gained) if gained else "")
            lines.append(f"| {arm} | {values['steps']} | {' | '.join(cells)} | {values['seconds']['mean']:.0f} |")
        lines.append("")
    return "\n".join(lines)


def _spread(values: dict[str, float]) -> str:
    return f"{values['mean']:.1%} ({values['low']:.1%} to {values['high']:.1%})"


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.learning.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    tables = [format_table(read_file(path)) for path in sorted(RESULTS.glob("*.json"))]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before.rstrip(), "", BEGIN, "", *tables, END, after.lstrip()]), encoding="utf-8")
    print(f"{PAGE}: {len(tables)} comparisons")


if __name__ == "__main__":
    main()
