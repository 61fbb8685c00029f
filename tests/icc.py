"""Colour profiles for the tests: RGB spaces by their primaries, under D65 and with the tone curve of sRGB, and shades of grey."""

import struct

import numpy as np

SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))


def numbers(values) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


D50 = np.array([0.9642, 1.0, 0.8249])
CURVE = b"para" + struct.pack(">4xHxx", 3) + numbers((2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))


def xyz(point: tuple[float, float]) -> np.ndarray:
    return np.array([point[0] / point[1], 1, (1 - point[0] - point[1]) / point[1]])


def rgb_profile(primaries: tuple, more: bytes = b"") -> bytes:
    """An ICC profile, version 4; `more` becomes a private tag, as calibration programs add their tables."""
    d65 = xyz((0.3127, 0.3290))
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])  # Bradford
    adapt = np.linalg.inv(cones) @ np.diag((cones @ D50) / (cones @ d65)) @ cones
    columns = np.stack([xyz(point) for point in primaries], axis=1)
    colours = (adapt @ (columns * np.linalg.solve(columns, d65))).T
    tags = {b"wtpt": b"XYZ \0\0\0\0" + numbers(D50)}
    tags |= {name: b"XYZ \0\0\0\0" + numbers(of) for name, of in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colours, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), CURVE)
    if more:
        tags[b"CALB"] = b"data" + struct.pack(">4xI", 1) + more
    return profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of shades of grey, version 4."""
    return profile(b"GRAY", {b"wtpt": b"XYZ \0\0\0\0" + numbers(D50), b"kTRC": b"para" + bytes(8) + numbers([gamma])})


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile of the tags and a name."""
    text = b"mluc" + struct.pack(">4xII4sII", 1, 12, b"enUS", 8, 28) + "name".encode("utf-16-be")
    tags = {b"desc": text, b"cprt": text, **tags}
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    date = struct.pack(">6H", 2020, 1, 1, 0, 0, 0)
    sizes = start + len(body), 0x04300000
    return struct.pack(">I4xI12s12s4s28x12s48x", *sizes, b"mntr" + space + b"XYZ ", date, b"acsp", numbers(D50)) + table + body
