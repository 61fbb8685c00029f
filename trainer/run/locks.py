"""Who may write: one process at a time. Plain data, no torch."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .messages import UserError

POLL_SECONDS = 0.5
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)
"""How a share or a drive without locks answers."""


@contextmanager
def held(path: Path, on_wait: Callable[[], None], check: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file for the block. The system lets go of it when the process ends, however it ends.

    While another process has it: `on_wait` is called once, then `check`, which may raise, twice a second. Raises UserError where
    the file system has no locks.
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
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            raise UserError(
                "{folder} lies where files cannot be locked ({reason}), so two processes might write to one run. Start ComfyUI "
                "with an --output-directory on a disk of this computer.",
                folder=str(path.parent),
                reason=getattr(error, "strerror", None) or str(error) or type(error).__name__,
            ) from None
    try:
        yield
    finally:
        lock.release()
