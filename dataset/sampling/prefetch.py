"""Runs an iterator in a thread, ahead of its reader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetch(source: Iterator[T], depth: int = 4) -> Generator[T, None, None]:
    """Yields the items of `source`; a thread makes up to `depth` items ahead.

    The thread starts when the first item is asked for.  An exception in it is raised where its item would have come.
    Closing the generator, or dropping it, waits for the thread to end.
    """
    assert depth >= 1, depth
    made: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
    free = threading.Semaphore(depth)
    stop = threading.Event()

    def fill() -> None:
        try:
            while True:
                free.acquire()
                if stop.is_set():
                    return
                made.put((next(source), None))
        except BaseException as error:
            made.put((None, error))

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free.release()
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        free.release()
        thread.join()
