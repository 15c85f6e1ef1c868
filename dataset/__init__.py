"""From ARC tasks to batches: tasks, augmentation, encoding, storage, sampling.  Knows nothing of networks.

Importing it sees to it that numba has a place for the kernels that it compiles: without one, as where the code cannot
be written and the user has no home, it refuses to be imported.  `announcing_compilation` says when it compiles.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NUMBA_CACHE = "NUMBA_CACHE_DIR"


def place_numba_cache() -> None:
    """Sets numba's cache to a temporary folder if it can write neither beside the code nor in the user's cache.

    What is cached is executed, so the folder must be this user's own; if another user has taken its name, it is a new
    one for this process.
    """
    if os.environ.get(NUMBA_CACHE) or all(map(_is_writable, _compiled_folders())) or _is_writable(_user_cache()):
        return
    folder = Path(tempfile.gettempdir(), f"trm-arc-numba-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise FileExistsError(folder)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="trm-arc-numba-"))
    os.environ[NUMBA_CACHE] = str(folder)
    if "numba" in sys.modules:  # it has read the variable
        sys.modules["numba"].config.CACHE_DIR = str(folder)


def _compiled_folders() -> list[Path]:
    """Returns where numba keeps what it compiles of this project by default."""
    here = Path(__file__).resolve().parent
    return [folder / "__pycache__" for folder in (here, here / "storage", here.parent / "evaluators" / "inference")]


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "numba")


def _is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which need not exist."""
    existing = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


@contextmanager
def announcing_compilation(say: Callable[[str], object]) -> Iterator[None]:
    """Says, within the block, when numba begins to compile, and at the end of the block how long it took.

    It compiles the first time that code runs on a machine; from then on it reads its cache, and nothing is said.
    """
    from numba.core import event

    class Announcer(event.TimingListener):  # type: ignore[misc]  # numba has no types
        def on_start(self, started: object) -> None:
            if not self.done and self._depth == 0:
                say("compiling code that handles data for this processor: seconds, the first time")
            super().on_start(started)

    announcer = Announcer()
    with event.install_listener("numba:compile", announcer):
        yield
    if announcer.done:
        say(f"compiling took {announcer.duration:.1f} s")


place_numba_cache()
