"""Which folders of photos can be chosen below ComfyUI's folders, and what their names mean. Plain data, no torch."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..run.messages import UserError
from .folder_files import count_photos, subfolders

Roots = Sequence[tuple[str, Path]]
"""Folders whose subfolders are offered, each after the prefix of their names: "" for input, "datasets/" for the others."""
DEPTH = 6
"""Levels of subfolders that are offered."""
MOST_FOLDERS = 2000
"""So many folders are looked into: an input folder may hold anything."""


def chosen_folders(roots: Roots) -> dict[str, tuple[Path, int]]:
    """Return the folders that are offered, by name, with their counts of photos.

    First come those with photos, at any of DEPTH levels, so that one of them is the default; then the roots' empty subfolders.
    """
    found: dict[str, tuple[Path, int]] = {}
    for prefix, root in _by_priority(roots):
        for path in _subfolders(root, root, DEPTH):
            count = count_photos(path)
            if path.parent == root or count:
                found.setdefault(prefix + path.relative_to(root).as_posix(), (path, count))
    plain = [root for prefix, root in roots if not prefix]

    def place(name: str) -> tuple[bool, bool]:
        path, count = found[name]
        return not count, not any(map(path.is_relative_to, plain))

    return {name: found[name] for name in sorted(found, key=place)}


def find_folder(roots: Roots, name: str) -> Path:
    """Return the folder that is offered under a name, or one that lies deeper.

    Raises UserError when it leads out of the roots or does not exist.
    """
    paths = [(root, root / name.removeprefix(prefix)) for prefix, root in _by_priority(roots) if name.startswith(prefix)]
    inside = [path for root, path in paths if leads_into(root, path)]
    for path in inside:
        with suppress(OSError):  # a name that is too long
            if path.is_dir():
                return path
    if inside:
        raise UserError(
            "The folder {folder!r} does not exist. Drop your photos on the node, or put them into a subfolder of ComfyUI's input "
            "and press R.",
            folder=name,
        )
    raise UserError(
        "The folder {folder!r} is outside ComfyUI's input and datasets folders. Copy the photos into a subfolder of input.",
        folder=name,
    )


def leads_into(root: Path, path: Path) -> bool:
    """Return whether the path, symbolic links followed, is a true descendant of the root."""
    try:
        path, root = path.resolve(), root.resolve()
    except (OSError, ValueError, RuntimeError):  # a link to itself, a zero byte
        return False
    return path != root and path.is_relative_to(root)


def _by_priority(roots: Roots) -> list[tuple[str, Path]]:
    """Return the roots, those with a prefix first: "datasets/dog" is theirs, and not input's subfolder of a subfolder."""
    return sorted(roots, key=lambda root: not root[0])


def _subfolders(root: Path, folder: Path, depth: int) -> list[Path]:
    """Return the folders below, sorted, as deep as `depth` levels; hidden ones and links that lead out are left out.

    What lies behind a link is found where it really lies: a link to its own folder would have no end.
    """
    found: list[Path] = []
    for path in subfolders(folder):
        if len(found) >= MOST_FOLDERS:
            break
        if leads_into(root, path):
            found += [path, *(_subfolders(root, path, depth - 1) if depth > 1 and not path.is_symlink() else [])]
    return found
