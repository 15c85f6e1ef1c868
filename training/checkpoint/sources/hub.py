"""Finds weights by their name on the Hugging Face hub: hf://OWNER/NAME[/FILE][@REVISION].

The package huggingface_hub fetches them into its cache, and finds them there without a network.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from utils.errors import CheckpointError, SettingError

HUB = "hf://"

WEIGHT_FILES = ("*.json", "*.safetensors")
"""What is fetched of a repository unless a file is named: a repository may hold a hundred of the published files."""

_NAME = re.compile(r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(/(?P<file>[^@]+))?(@(?P<revision>.+))?")


def locate_weights(name: str | Path) -> Path:
    """Returns where weights are on this machine; those on the hub are fetched first.

    Args:
        name: a path, or hf://OWNER/NAME, with /FILE (or a folder) and @REVISION behind it where they are needed.

    Raises:
        SettingError: if that is not a name on the hub, or the package is missing.
        CheckpointError: if the hub does not have it, or cannot be reached and nothing is in the cache.
    """
    return _fetch(str(name)) if str(name).startswith(HUB) else Path(name)


@functools.cache
def _fetch(name: str) -> Path:
    match = _NAME.fullmatch(name.rstrip("/"))
    if match is None:
        raise SettingError(
            f"load_checkpoint={name} is not a name on the hub: write hf://OWNER/NAME, with /FILE and @REVISION behind "
            "it where they are needed"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise SettingError(
            f'load_checkpoint={name} needs the package huggingface_hub: pip install -e ".[hub]"'
        ) from None
    where: dict[str, Any] = {"repo_id": f"{match['owner']}/{match['name']}", "revision": match["revision"]}
    problems = []
    for offline in (False, True):
        try:
            return _fetch_once(huggingface_hub, match["file"], {**where, "local_files_only": offline})
        except CheckpointError:
            raise
        except Exception as error:  # the hub, its client and the connection raise errors of their own kinds
            problems.append(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
    raise CheckpointError(
        f"load_checkpoint={name} was not fetched ({problems[0]}), and is not in the cache: check the name, or log in "
        "by hf auth login or HF_TOKEN"
    )


def _fetch_once(hub: Any, file: str | None, where: dict[str, Any]) -> Path:
    """Returns the path of the file, or of the folder where it is one, or of the whole repository."""
    if file is None:
        folder = Path(hub.snapshot_download(allow_patterns=list(WEIGHT_FILES), **where))
        if not any(folder.rglob("*.safetensors")):
            raise CheckpointError(
                f"{HUB}{where['repo_id']} has no .safetensors: name its file of weights, as in "
                f"{HUB}{where['repo_id']}/FILE"
            )
        return folder
    try:
        return Path(hub.hf_hub_download(filename=file, **where))
    except Exception as error:  # there is no such file; it may be a folder
        folder = Path(hub.snapshot_download(allow_patterns=[f"{file}/*"], **where), file)
        if not folder.is_dir():
            raise error
        return folder
