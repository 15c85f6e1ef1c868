"""Puts what `python -m benchmarks.sections.puzzles` has measured into docs/performance.md, as tables and a figure:

python -m benchmarks.sections.puzzles.page RESULT.json
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.sections.puzzles.tables import ARMS
from training.launch.words import size_in_words
from utils.cli import command
from utils.errors import InputError
from utils.files import replace_between, write_atomically

HERE = Path(__file__).resolve().parents[3]
PAGE = HERE / "docs" / "performance.md"
FIGURE = "figures/measured/puzzles.png"
BEGIN, END = "<!-- results: python -m benchmarks.sections.puzzles.page -->", "<!-- end of the results -->"
PARTS = ("open", "plan", "first_batch")

Results = Mapping[str, Mapping[str, Any]]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def format_data_sets(results: Results) -> list[str]:
    """Returns building and opening as a table; sizes without a data set are left out."""
    head = ["puzzles", "tasks", "built: CPU", "memory", "disk", "first batch, one canvas: CPU", "memory"]
    head += ["fitted canvases: CPU", "memory", "composed and fresh: CPU", "memory"]
    lines = [_row(head), "|" + "---|" * len(head)]
    for puzzles, of in results.items():
        if "build" not in of:
            continue
        made = of["build"]
        cells = [f"{int(puzzles):,}", f"{of['tasks']:,}", f"{made['cpu_seconds']:.1f} s"]
        cells += [size_in_words(made["memory"]), size_in_words(made["disk"])]
        for opened in of["open"].values():
            cells += [f"{_seconds_to_first_batch(opened):.1f} s", size_in_words(opened["memory"])]
        lines.append(_row(cells))
    return lines


def _seconds_to_first_batch(opened: Mapping[str, float]) -> float:
    return sum(opened[f"{part}_cpu_seconds"] for part in PARTS)


def format_tables(results: Results) -> list[str]:
    """Returns the tables of rows as a table; [] if none was measured."""
    head = ["puzzles", "table", "its rows", "a step: CPU", "update of rows: CPU", "checkpoint: CPU", "by the clock"]
    head += ["new bytes", "memory", "file on the disk"]
    lines = []
    for puzzles, of in results.items():
        for arm, found in of.get("tables", {}).items():
            cells = [f"{int(puzzles):,}", arm, size_in_words(found["rows"])]
            if "needed" in found:
                said = f"does not fit: needs {size_in_words(found['needed'])} of {size_in_words(found['available'])}"
                cells += [said, *[""] * 6]
            else:
                cells += [
                    f"{1e3 * found['step_cpu_seconds']:.0f} ms",
                    f"{1e3 * found['update_cpu_seconds']:.2f} ms",
                    f"{found['checkpoint_2_cpu_seconds']:.2f} s",
                    f"{found['checkpoint_2_seconds']:.2f} s",
                    size_in_words(found["checkpoint_2_bytes"]),
                    size_in_words(found["memory"]),
                    size_in_words(found["disk"]) if found["disk"] else "",
                ]
            lines.append(_row(cells))
    return [_row(head), "|" + "---|" * len(head), *lines] if lines else []


def series_of(results: Results) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Returns the points (puzzles, value) of each line of each panel; panels without any are left out."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}

    def add(panel: str, line: str, puzzles: str, value: float) -> None:
        panels.setdefault(panel, {}).setdefault(line, []).append((int(puzzles), value))

    for puzzles, of in results.items():
        if "build" in of:
            add("data set: CPU time, s", "build", puzzles, of["build"]["cpu_seconds"])
            add("data set: memory, GB", "build", puzzles, of["build"]["memory"] / 1e9)
        for way, opened in of.get("open", {}).items():
            add("data set: CPU time, s", f"first batch, {way}", puzzles, _seconds_to_first_batch(opened))
            add("data set: memory, GB", f"first batch, {way}", puzzles, opened["memory"] / 1e9)
        for arm, found in of.get("tables", {}).items():
            if "needed" not in found:
                add("table: CPU time of a step, s", arm, puzzles, found["step_cpu_seconds"])
                add("table: checkpoint, s", arm, puzzles, found["checkpoint_2_seconds"])
                add("table: memory, GB", arm, puzzles, found["memory"] / 1e9)
    return panels


def draw(results: Results) -> bytes:
    """Returns a PNG with a panel for each thing that was measured, over the number of puzzles.

    Raises:
        InputError: if matplotlib is not there.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the figure needs matplotlib: pip install -e '.[pictures]'") from error
    panels = series_of(results)
    figure = Figure(figsize=(4.4 * len(panels), 3.4), layout="constrained")
    markers = dict(zip(ARMS, "o^sDxv", strict=True))
    for axes, (name, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for line, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker=markers.get(line, "o"), label=line, linewidth=1, markersize=4)
        axes.set(xscale="log", xlabel="puzzles", title=name)
        axes.set_yscale("linear" if "step" in name else "log")
        if "step" in name:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=70)
    return out.getvalue()


def read_results(path: Path) -> tuple[dict[str, Any], Results]:
    """Returns what is said of a measurement, and its results by their number of puzzles.

    Raises:
        InputError: if the file is none of `benchmarks.sections.puzzles`.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        results = about.pop("results")
        {int(puzzles): of.get("build") for puzzles, of in results.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} is not a result of python -m benchmarks.sections.puzzles ({error}): measure again"
        ) from None
    return about, results


def write_page(path: Path, page: Path = PAGE) -> None:
    """Replaces the results on the page, and its figure."""
    about, results = read_results(path)
    picture = draw(results)
    (page.parent / FIGURE).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page.parent / FIGURE, lambda file: file.write(picture))
    where = f"{about['cpu']}, {about['cores']} cores, PyTorch {about['torch']}, {about['date'][:10]}; `{path.name}`"
    busy = about.get("busy_cores")
    if busy is not None:
        where += f"; other programs used {busy:g} cores at the end"
    content = [f"Measured on {where}.", "", *format_data_sets(results), ""]
    if tables := format_tables(results):
        content += [*tables, ""]
    content += [f"![Time and memory over the number of puzzles]({FIGURE})", ""]
    replace_between(page, BEGIN, END, content)


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sections.puzzles.page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="a file that python -m benchmarks.sections.puzzles has written")
    write_page(parser.parse_args().results)
    print(f"{PAGE}: written")


if __name__ == "__main__":
    main()
