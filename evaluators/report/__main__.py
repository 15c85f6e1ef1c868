"""Writes the report page of a run or a data set: `python -m evaluators.report RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path

from evaluators.report.page import REPORT, of_data, of_run
from utils.cli import command
from utils.errors import SettingError
from utils.files import write_atomically


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m evaluators.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, nargs="?", help="the folder of a run of eval_arc_k10.py")
    parser.add_argument("--data", type=Path, help="its data set, where it has moved; alone: show this data set")
    parser.add_argument("--out", type=Path, help="the page; RUN/report.html or DATA_SET.html by default")
    given = parser.parse_args()
    if given.run is None and given.data is None:
        raise SettingError("name a run's folder, or a data set by --data")
    text = of_data(given.data) if given.run is None else of_run(given.run, given.data)
    out = given.out or (Path(f"{given.data}.html") if given.run is None else given.run / REPORT)
    write_atomically(out, text)
    print(f"{out}: {len(text.encode()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
