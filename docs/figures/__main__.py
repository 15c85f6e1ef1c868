"""Draws docs/figures/architecture.svg from the code.

python -m docs.figures               draws it again
python -m docs.figures --check       compares; the exit status is 1 if it is out of date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from docs.figures.structure.architecture import draw
from docs.figures.structure.imports import ROOT, read_layers

FIGURE = ROOT / "docs" / "figures" / "architecture.svg"
COMMAND = "python -m docs.figures"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if the drawing is out of date")
    given = parser.parse_args()
    wanted, shown = draw(read_layers(ROOT)), Path(FIGURE).relative_to(ROOT)
    if not given.check:
        FIGURE.write_text(wanted, encoding="utf-8")
        print(shown)
    elif not FIGURE.exists() or FIGURE.read_text(encoding="utf-8") != wanted:
        sys.exit(f"error: {shown} is out of date: run {COMMAND}")
    else:
        print(f"{shown} is up to date")


if __name__ == "__main__":
    main()
