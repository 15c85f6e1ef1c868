"""Writes a checkpoint's weights for others:

    python -m training.export CHECKPOINT FILE            the published code's file, averaged weights where there are any
    python -m training.export CHECKPOINT FILE --raw      the raw weights
    python -m training.export CHECKPOINT FOLDER --format folder                    the network alone, with a model card
    python -m training.export CHECKPOINT FOLDER --format folder --push USER/NAME   and onto the Hugging Face hub

CHECKPOINT is a step_N folder of ours, a run's folder, or any file that `load_checkpoint=` takes.  Such a file does not
say what network it is of, so that FOLDER needs `--arch arch=trm arch.H_cycles=3 ..` and `--data DATA_SET` for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.export import hub
from training.export.folder import write_folder
from training.export.published_format import write_published
from utils.cli import command


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
    options = {key: getattr(given, key) for key in ("name", "licence", "scores", "arch", "data", "push", "private")}
    if given.format == "published":
        if used := [key for key, value in options.items() if value]:
            raise ValueError(f"--{used[0]} is for --format folder: add that")
        state = write_published(given.checkpoint, given.target, averaged=not given.raw)
        size = sum(value.numel() * value.element_size() for value in state.values())
        return f"{given.target}: {len(state)} tensors, {size / 1e6:,.1f} MB"
    push, private = options.pop("push"), options.pop("private")
    if push:
        hub.check(push)
    # What an upload that failed has left need not be written again.
    write_folder(given.checkpoint, given.target, not given.raw, **options, again=bool(push))
    size = sum(path.stat().st_size for path in given.target.iterdir())
    said = f"{given.target}: {', '.join(sorted(path.name for path in given.target.iterdir()))}; {size / 1e6:,.1f} MB"
    return said + (f"\n{hub.push(given.target, push, private)}" if push else "")


if __name__ == "__main__":
    main()
