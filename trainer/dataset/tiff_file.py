"""The pages of a TIFF: which is the photo, and which a thumbnail of it. Plain data, no torch."""

import struct
from dataclasses import dataclass, replace

MOST_PAGES = 100
"""So many pages are looked at."""
_KIND, _OLD_KIND, _BELOW = 254, 255, 330
"""The tags NewSubfileType, SubfileType and SubIFDs."""
_NO_PHOTO, _OLD_REDUCED = 0b101, 2
"""Of NewSubfileType, the bits of a reduced picture and of a mask; of SubfileType, the value of a reduced one."""
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True)
class _Page:
    start: int
    """Where its directory is written."""
    link: int
    """Where it is written which page follows."""
    following: int
    """Where that one's directory is; 0 for none."""
    is_photo: bool
    below: tuple[int, ...]
    """Directories of other sizes of the same picture."""
    in_chain: bool = True


def full_size_first(raw: bytes) -> bytes:
    """Return a TIFF that begins with its first page of full size; other pages stay in it if they are photos, too."""
    order, word, _ = _layout(raw)
    pages = _pages(raw)
    photos = [page for page in pages if page.is_photo]
    if not photos:
        return raw
    first, others = photos[0], [page for page in photos[1:] if page.in_chain]
    if first is pages[0] and (others or not first.following):
        return raw
    changed = bytearray(raw)
    struct.pack_into(order + word, changed, struct.calcsize(word), first.start)
    if not others:
        struct.pack_into(order + word, changed, first.link, 0)
    return bytes(changed)


def _layout(raw: bytes) -> tuple[str, str, str]:
    """Return the order of bytes, how places are written, and how many entries there are: BigTIFF has eight bytes for both."""
    order = "<" if raw[:2] == b"II" else ">"
    return (order, "Q", "Q") if b"+" in raw[2:4] else (order, "I", "H")


def _pages(raw: bytes) -> list[_Page]:
    """Return the pages by their order, each before its other sizes, as far as they can be read."""
    order, word, _ = _layout(raw)
    found: dict[int, _Page] = {}
    try:
        (start,) = struct.unpack_from(order + word, raw, struct.calcsize(word))
        while start and start not in found and len(found) < MOST_PAGES:
            page = found[start] = _page(raw, start)
            for below in page.below:
                found.setdefault(below, replace(_page(raw, below), in_chain=False))
            start = page.following
    except struct.error:  # it points out of itself
        pass
    return [*found.values()]


def _page(raw: bytes, start: int) -> _Page:
    order, word, number = _layout(raw)
    (count,) = struct.unpack_from(order + number, raw, start)
    size, entries = 4 + 2 * struct.calcsize(word), start + struct.calcsize(number)
    values: dict[int, tuple[int, ...]] = {}
    for place in range(entries, entries + count * size, size):
        tag, kind = struct.unpack_from(order + "HH", raw, place)
        if tag in (_KIND, _OLD_KIND, _BELOW):
            values[tag] = _values(raw, place, kind)
    link = entries + count * size
    (following,) = struct.unpack_from(order + word, raw, link)
    is_photo = not values.get(_KIND, (0,))[0] & _NO_PHOTO and values.get(_OLD_KIND, (0,))[0] != _OLD_REDUCED
    return _Page(start, link, following, is_photo, values.get(_BELOW, ()))


def _values(raw: bytes, place: int, kind: int) -> tuple[int, ...]:
    """Return the integers of an entry: in it, where they have room there."""
    order, word, _ = _layout(raw)
    (count,) = struct.unpack_from(order + word, raw, place + 4)
    at = place + 4 + struct.calcsize(word)
    written = f"{order}{min(max(count, 1), MOST_PAGES)}{_INTEGERS.get(kind, 'I')}"
    if struct.calcsize(written) > struct.calcsize(word):
        (at,) = struct.unpack_from(order + word, raw, at)
    return struct.unpack_from(written, raw, at)
