"""Reading and writing JSON and other files, whole or not at all. Plain data, no torch."""

import errno
import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from .messages import UserError, message

DISK_FULL = message("The disk is full. Free some space and queue the graph again")
MAX_JSON_BYTES = 50_000_000
"""What a hundred thousand photos take in a run.json; read in full, a larger file would take gigabytes of memory."""
MAX_HEADER_BYTES = 10_000_000
"""More than the names of all tensors of a state take, by far."""


@contextmanager
def bounded_file(path: Path, most: int) -> Iterator[BinaryIO]:
    """Open a file of at most `most` bytes for reading. Raises OSError, or UserError for a larger one and for what is no file."""
    if not stat.S_ISREG(path.stat().st_mode):  # to open a device can do something
        raise UserError("{file} is not a file.", file=path.name)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe would be waited for without end
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UserError("{file} is not a file.", file=path.name)
        if status.st_size > most:
            raise UserError(
                "{file} has {size:.1f} MB, which this pack has not written.", file=path.name, size=status.st_size / 1e6
            )
        yield file


def read_bytes(path: Path, most: int) -> bytes:
    """Return what a file of at most `most` bytes holds. Raises as `bounded_file`."""
    with bounded_file(path, most) as file:
        return file.read(min(most, os.fstat(file.fileno()).st_size))  # a buffer of what is asked for is made at once


def read_json(path: Path, most: int = MAX_JSON_BYTES) -> Any:
    """Return what a UTF-8 JSON file holds. Raises OSError, or ValueError for anything else, and for what is no finite number."""

    def finite(text: str) -> float:
        return _finite(path.name, text)

    try:
        return json.loads(read_bytes(path, most).decode(), parse_constant=finite, parse_float=finite)
    except RecursionError:
        raise UserError("{file} cannot be read: its parts lie too deep in each other.", file=path.name) from None


def tensor_metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file says of itself. Raises OSError, or ValueError for what is no such file."""
    with bounded_file(path, os.stat(path).st_size) as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise UserError("{file} holds what this pack has not written.", file=path.name)
    try:
        with safe_open(path, "np") as opened:
            return opened.metadata() or {}
    except SafetensorError:
        raise UserError("{file} holds what this pack has not written.", file=path.name) from None


def _finite(file: str, text: str) -> float:
    """Return the number. Raises UserError for one that JSON does not know: a browser could not read it."""
    number = float(text)
    if not math.isfinite(number):
        raise UserError("{file} holds what this pack has not written.", file=file)
    return number


def write_json(path: Path, data: Any) -> None:
    """Write data as indented UTF-8 JSON, whole or not at all."""
    with partial_file(path) as partial:
        partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Give the block a temporary name to write to, which becomes `path` when all is written and on the disk.

    Neither a crash nor a power loss leaves half a file there; when the block fails, nothing stays. A link that somebody has put
    under the temporary name is removed, and not written through. Raises OSError(ENOSPC) with the name of the file when the
    disk is full: a write does not name it, and safetensors' own error has no errno.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(exist_ok=False)
        mode = partial.stat().st_mode
        yield partial
        if partial.stat().st_mode != mode:  # safetensors makes its files private
            with suppress(OSError):  # exFAT and some shares know no modes
                partial.chmod(mode)
        with partial.open("rb+") as file:
            _sync(file.fileno())
        _replace(partial, path)
    except Exception as error:
        no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if no_space or re.search(r"\(os error (28|112)\)", str(error)):  # safetensors' own error, on Linux and on Windows
            raise OSError(errno.ENOSPC, str(DISK_FULL), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _sync(file: int) -> None:
    """Have the file on the disk, where the file system can promise that."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise


def _replace(partial: Path, path: Path) -> None:
    """Rename the partial file to `path`, and have the new name on the disk before anything that follows."""
    for left in reversed(range(20)):
        try:
            os.replace(partial, path)
            break
        except PermissionError:  # Windows refuses while someone reads the old one, as the page does
            if os.name != "nt" or not left:
                raise
            time.sleep(0.1)
    if os.name == "posix":
        with suppress(OSError):  # some network drives and exFAT cannot
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
