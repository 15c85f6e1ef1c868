"""Writes the weights of a checkpoint for others:

    python -m training.export CHECKPOINT FILE            the published code's file, averaged weights where there are any
    python -m training.export CHECKPOINT FILE --raw      the raw weights
    python -m training.export CHECKPOINT FOLDER --format folder                    the network alone, with a model card
    python -m training.export CHECKPOINT FOLDER --format folder --push USER/NAME   and onto the Hugging Face hub

CHECKPOINT is a step_N folder, a run's folder, or any file that `load_checkpoint=` reads.  A file does not say what
network it is of, so FOLDER needs `--arch arch=trm arch.H_cycles=3 ..` and `--data DATA_SET` for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.export import hub
from training.export.folder import ExportDetails, write_folder
from training.export.published_format import write_published
from utils.cli import command
from utils.errors import SettingError


@command
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("target", type=Path, metavar="FILE or FOLDER")
    parser.add_argument("--raw", action="store_true", help="raw weights, not the averaged ones")
    parser.add_argument("--format", choices=("published", "folder"), default="published")
    only = parser.add_argument_group("with --format folder")
    only.add_argument("--name", help="title of the model card; FOLDER's name by default")
    only.add_argument("--licence", help="of the weights, as the hub calls it, such as mit; not stated by default")
    only.add_argument("--scores", type=Path, nargs="+", default=[], help="scores.json of further evaluations")
    only.add_argument("--arch", nargs="+", default=[], help="arch=NAME arch.KEY=VALUE .., for a file without a record")
    only.add_argument("--data", type=Path, help="a data set of the same canvas, for a file without a record")
    only.add_argument("--push", metavar="USER/NAME", help="put the folder onto the Hugging Face hub")
    only.add_argument("--private", action="store_true", help="with --push: only for those you name there")
    print(_run(parser.parse_args()))


def _run(given: argparse.Namespace) -> str:
    if given.format == "published":
        for_folders = ("name", "licence", "scores", "arch", "data", "push", "private")
        if used := [name for name in for_folders if getattr(given, name)]:
            raise SettingError(f"--{used[0]} is for --format folder: add that")
        state = write_published(given.checkpoint, given.target, averaged=not given.raw)
        size = sum(value.numel() * value.element_size() for value in state.values())
        return f"{given.target}: {len(state)} tensors, {size / 1e6:,.1f} MB"
    if given.push:
        hub.hub_client(given.push)  # refuses a wrong name before anything is written
    details = ExportDetails(given.name, given.licence, given.arch, given.data, given.scores)
    # The folder may be there already, from an upload that failed.
    write_folder(given.checkpoint, given.target, not given.raw, details, again=bool(given.push))
    size = sum(path.stat().st_size for path in given.target.iterdir())
    names = ", ".join(sorted(path.name for path in given.target.iterdir()))
    summary = f"{given.target}: {names}; {size / 1e6:,.1f} MB"
    return summary + (f"\n{hub.push_folder(given.target, given.push, given.private)}" if given.push else "")


if __name__ == "__main__":
    main()
