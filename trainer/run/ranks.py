"""The processes that train a run together, one a device, and how none of them outlives the others. Plain data, no torch.

torch's launcher starts them, each in a session of its own, and gives them their numbers in the environment. When one of them ends
with an error, it sends SIGTERM to the others. That does not suffice: the launcher itself may be killed, a process may have left
while the others wait for it in native code, and SIGTERM says neither why it came nor who is to tell the user. So

- the process of rank 0 decides when to stop, and the others end once it has ended, or the launcher;
- no other process ends before it, unless it fails: one that is missing has failed;
- the first that fails tells why, and ends the others before they can take its end for an error of their own.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock

POLL_SECONDS = 0.2
LEAVING_SECONDS = 5.0
"""How long a process may take to end after its connections have ended."""
NOTICE_SECONDS = 2.0
"""How long the launcher may take to notice that a process has failed."""
END_SECONDS = 10.0
"""How long to wait for the end of processes that were killed: what they hold on a device is free only then."""
_held: list[FileLock] = []
"""Held until this process has ended, so that no other thread of it speaks after the first."""


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return how many processes train together, on all computers."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_alive(process: psutil.Process) -> bool:
    """Return whether the process runs; one that has ended and that nobody has waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def siblings() -> list[psutil.Process]:
    """Return the other processes of this computer that train the run together with this one, as far as they are alive."""
    me, found = psutil.Process(), []
    for process in _children(os.getppid()):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if process.pid != me.pid and process.cmdline() == me.cmdline() and is_alive(process):
                found.append(process)
    return found


def one_is_missing(seconds: float = 0.0) -> bool:
    """Return whether one of the processes of this computer has ended, or does so within so many seconds."""
    others, deadline = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, time.monotonic() + seconds
    while len(siblings()) >= others:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def hold_sigterm() -> None:
    """Keep SIGTERM back for `watch`, in this thread and in those that are started from now on."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def watch(on_failure: Callable[[], None], on_stop: Callable[[], None]) -> None:
    """End this process soon after the launcher or rank 0, whatever it waits for; no finished state is lost by that.

    From now on SIGTERM calls `on_failure` when another process is missing, and otherwise `on_stop`, in a thread: the main thread
    may be waiting in native code for the one that is missing.
    """
    threading.Thread(target=_end_with, args=(os.getppid(), _first()), daemon=True, name="watch").start()
    if sys.platform != "win32":
        threading.Thread(target=_wait_for_sigterm, args=(on_failure, on_stop), daemon=True, name="sigterm").start()


def let_them_tell() -> None:
    """Wait to be ended, if an error of this process may come of another's end: that one has failed, or rank 0 was done."""
    if one_is_missing(LEAVING_SECONDS):
        time.sleep(10 * NOTICE_SECONDS)


def wait_for_first() -> None:
    """Return once rank 0 has ended, where that is another process of this computer."""
    first = _first()
    while first and is_alive(first):
        time.sleep(POLL_SECONDS)


def tell_first(lock: Path, tell: Callable[[], None]) -> None:
    """Call `tell` in the first process that fails, then end the others; in these it is never called."""
    with contextlib.suppress(OSError):  # a full disk, say: rather two sentences than none
        _held.append(FileLock(lock))
        _held[-1].acquire()
    tell()
    if others := siblings():
        time.sleep(POLL_SECONDS)  # they may be writing down an error of the same moment
        _kill(others)


def end_tree(pid: int) -> None:
    """Kill a process and all that it has started, and wait for their end."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        with contextlib.suppress(psutil.Error):  # Windows refuses it for one that is ending
            root.suspend()  # so that it starts no others meanwhile
        started = []
        with contextlib.suppress(psutil.Error):
            started = root.children(recursive=True)
        _kill([root, *started])


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + END_SECONDS
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 4)


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children()
    return []


def _first() -> psutil.Process | None:
    """Return the process of rank 0, where that is another process of this computer."""
    for process in siblings():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RANK") == "0":
                return process
    return None


def _end_with(launcher_pid: int, first: psutil.Process | None) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # none that this process may see, in a container of its own
        launcher = psutil.Process(launcher_pid)
        while is_alive(launcher) and (first is None or is_alive(first)):
            time.sleep(POLL_SECONDS)
        if is_alive(launcher):
            time.sleep(NOTICE_SECONDS)  # if rank 0 has failed, SIGTERM comes meanwhile
        os._exit(0)


def _wait_for_sigterm(on_failure: Callable[[], None], on_stop: Callable[[], None]) -> None:
    assert sys.platform != "win32"
    signal.sigwait({signal.SIGTERM})
    if one_is_missing():
        on_failure()
    on_stop()
