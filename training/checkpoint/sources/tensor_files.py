"""Reads files that have tensors by name and say nothing else of themselves, as other programs write them.

    step_N, *.pt, *.pth, *.bin, ..      saved by torch.save: tensors by name, or that one level down
    *.safetensors
    a part -00001-of-00003, its index   one state dict in several files, of either kind
    a folder                            with one of these

No object is ever unpickled.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from utils.errors import CheckpointError

INNER = ("state_dict", "model_state_dict", "model_state", "model")
"""Names under which training programs keep the weights in a dictionary with other things."""

INDEX = ".index.json"
PART = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file, of all parts of a state dict, or of a folder with one of these.

    Raises:
        CheckpointError: if there are none, parts are missing, or there is anything but tensors.
    """
    files = _parts_of(_in_folder(path) if path.is_dir() else path)
    if missing := [file for file in files if not file.is_file()]:
        raise CheckpointError(f"{missing[0]} is missing, one of {len(files)} files of {path}: fetch it too")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= _read_file(file)
    return state


def holds_tensors(folder: Path) -> bool:
    """Whether `read_tensors` finds a file in a folder."""
    return bool(_candidates(folder))


def _candidates(folder: Path) -> list[Path]:
    """Returns the state dicts of a folder; one in several parts counts once."""
    names = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    indexes = [path for path in names if path.name.endswith(INDEX)]
    for kind in ((".safetensors",), TORCH_SUFFIXES):
        listed = [path for path in indexes if path.name.removesuffix(INDEX).endswith(kind)]
        parts = [
            path for path in names if path.suffix in kind and (part := PART.fullmatch(path.name)) and _is_first(part)
        ]
        whole = [path for path in names if path.suffix in kind and not PART.fullmatch(path.name)]
        if found := listed or parts + whole:
            return found
    return [path for path in names if re.fullmatch(r"step_\d+", path.name)]


def _is_first(part: re.Match[str]) -> bool:
    return part[0].startswith(f"{part['stem']}-00001-")


def _in_folder(folder: Path) -> Path:
    found = _candidates(folder)
    if len(found) != 1:
        listed = ", ".join(path.name for path in found[:5]) or "none"
        raise CheckpointError(f"{folder} has {len(found)} files of weights ({listed}): name one of them")
    return found[0]


def _parts_of(path: Path) -> list[Path]:
    """Returns the files that a state dict consists of."""
    if path.name.endswith(INDEX):
        try:
            names = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(
                f"{path} is not an index of weights (no weight_map): name a file of weights"
            ) from None
        if wrong := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise CheckpointError(f"{path} names {wrong[0]!r}, which is not a file beside it: name a file of weights")
        return [path.with_name(name) for name in sorted(names)]
    if (part := PART.fullmatch(path.name)) is not None:
        count = int(part["count"])
        return [path.with_name(f"{part['stem']}-{i:05}-of-{count:05}{part['suffix']}") for i in range(1, count + 1)]
    return [path]


def _read_file(path: Path) -> dict[str, Tensor]:
    is_safe = path.suffix == ".safetensors"
    load: Callable[[], object] = (lambda: load_file(path)) if is_safe else (lambda: _load_torch(path))
    try:
        state = load()
    except Exception as error:  # readers raise errors of many kinds at bytes that are not a checkpoint
        raise CheckpointError(
            f"{path} is not a file of plain tensors and was not loaded ({type(error).__name__}): name a "
            "checkpoint folder, a .safetensors file or a state dict saved by torch.save"
        ) from None
    for inner in (state, *(state[key] for key in INNER if key in state)) if isinstance(state, dict) else ():
        if isinstance(inner, dict) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            return {str(key): value for key, value in inner.items()}
    has = f"a dictionary of {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else type(state).__name__
    raise CheckpointError(
        f"{path} contains {has}, not a dictionary of tensors, also not under {', '.join(INNER)}: save its "
        "state dict alone"
    )


def _load_torch(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
