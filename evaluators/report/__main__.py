"""Writes the report page of a run, of two runs side by side, or of a data set.

python -m evaluators.report RUN                            the latest evaluation of a run -> RUN/report.html
python -m evaluators.report RUN RUN2                       two runs task by task -> RUN/compared_with_RUN2.html
python -m evaluators.report --data DATA_SET [--out FILE]   a built data set: its tasks as the model sees them
"""

from __future__ import annotations

import argparse
from pathlib import Path

from evaluators.report.comparison import describe_comparison
from evaluators.report.data_set import describe_data_set
from evaluators.report.page import REPORT, render_page
from evaluators.report.saved_run import read_saved_run
from utils.cli import command
from utils.errors import SettingError
from utils.files import write_atomically


def write_report(run: Path | None, data: Path | None, out: Path | None, other: Path | None = None) -> str:
    """Writes the page of a run, of two runs, or of a data set if no run is named.  Returns what was written, in words.

    Args:
        other: the run that `run` is compared with.
    """
    if run is not None and other is not None:
        page, default = (
            render_page(*describe_comparison(run, other, data)),
            run / f"compared_with_{other.resolve().name}.html",
        )
    elif run is not None:
        page, default = render_page(*read_saved_run(run, data)), run / REPORT
    elif data is not None:
        page, default = render_page(*describe_data_set(data)), Path(f"{data}.html")
    else:
        raise SettingError("name a run's folder, or a data set by --data")
    write_atomically(out or default, page)
    return f"{out or default}: {len(page.encode()) / 1e6:.2f} MB"


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evaluators.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a run of eval_arc_k10.py")
    parser.add_argument("other", metavar="run2", type=Path, nargs="?", help="another run, to compare the two")
    parser.add_argument("--data", type=Path, help="the runs' data set, if it has moved; alone: show this data set")
    parser.add_argument("--out", type=Path, help="the page; where the lines above say by default")
    given = parser.parse_args()
    print(write_report(given.run, given.data, given.out, given.other))


if __name__ == "__main__":
    main()
