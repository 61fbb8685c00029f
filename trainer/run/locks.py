"""Who may write: one process at a time. Plain data, no torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

POLL_SECONDS = 0.5


@contextmanager
def held(path: Path, on_wait: Callable[[], None], check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file for the block. The system lets go of it when the process ends, however it ends.

    While another process has it: `on_wait` is called once, then `check`, which may raise, twice a second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, waiting = FileLock(path), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=POLL_SECONDS if waiting else 0)
        except Timeout:
            if not waiting:
                on_wait()
            waiting = True
            check()
    try:
        yield
    finally:
        lock.release()
