"""Writes the report page of a run or a data set.

python -m evaluators.report RUN                            the latest evaluation of a run -> RUN/report.html
python -m evaluators.report --data DATA_SET [--out FILE]   a built data set: its tasks as the model sees them
"""

from __future__ import annotations

import argparse
from pathlib import Path

from evaluators.report.data_set import describe_data_set
from evaluators.report.page import REPORT, render_page
from evaluators.report.saved_run import read_saved_run
from utils.cli import command
from utils.errors import SettingError
from utils.files import write_atomically


def write_report(run: Path | None, data: Path | None, out: Path | None) -> str:
    """Writes the page of a run, or of a data set if no run is named.  Returns what was written, in words."""
    if run is not None:
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
    parser.add_argument("--data", type=Path, help="its data set, if it has moved; alone: show this data set")
    parser.add_argument("--out", type=Path, help="the page; RUN/report.html or DATA_SET.html by default")
    given = parser.parse_args()
    print(write_report(given.run, given.data, given.out))


if __name__ == "__main__":
    main()
