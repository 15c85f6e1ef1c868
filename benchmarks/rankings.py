"""Compares the ways to count votes on files of saved predictions, without the model:

    python -m benchmarks.rankings DATA_SET PREDICTIONS..

Every ranking, the answers after one or several ACT steps (those that `vote_steps` saved), each file's votes alone and
those of all together (several checkpoints).  A table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from evaluators.tools import compare, format_comparison
from utils.cli import command
from utils.run_directory import git_commit


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rankings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the data set that was predicted, its solutions known")
    parser.add_argument("predictions", type=Path, nargs="+", help="predictions.npz of evaluations on it")
    given = parser.parse_args()
    rows = compare(given.data, given.predictions)
    print(format_comparison(rows))
    sizes = {str(path): path.stat().st_size for path in given.predictions}
    print(json.dumps({"git": git_commit(), "data": str(given.data), "bytes": sizes, "results": rows}))


if __name__ == "__main__":
    main()
