"""Latents that outlive a run: a picture that some run has encoded is not encoded again with the same VAE."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

KEPT_DAYS = 30
"""Days without use after which a file is removed."""
POSTERIOR = "posterior"


class LatentStore:
    """The posteriors of pictures, a file each, named after what the picture shows, in a folder of the VAE and the kind of device.

    A file that cannot be read is computed again, and one that cannot be written is done without.
    """

    def __init__(self, root: Path, vae: AutoencoderKL):
        self._folder = root / "latents" / f"{_fingerprint(vae)}-{vae.device.type}"
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            _remove_unused(self._folder)

    def posterior(self, picture: Image.Image, encode: Callable[[], Tensor]) -> Tensor:
        """Return mean and standard deviation (2, 4, h, w) fp32 of a picture, on the CPU: from a file, or else from `encode`."""
        shown = hashlib.sha256(repr((picture.mode, picture.size)).encode() + picture.tobytes())
        path = self._folder / f"{shown.hexdigest()[:32]}.safetensors"
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            found = load_file(path)[POSTERIOR]
            os.utime(path)
            return found
        made = encode().cpu()
        _write(path, made)
        return made


def _fingerprint(vae: AutoencoderKL) -> str:
    """Return a hash of what the VAE encodes with."""
    digest = hashlib.sha256()
    for name, tensor in vae.state_dict().items():
        if not name.startswith(("decoder.", "post_quant_conv.")):
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _write(path: Path, posterior: Tensor) -> None:
    """Write the file under a name of this process first: several that train together encode the same photos."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError, SafetensorError):
        try:
            save_file({POSTERIOR: posterior.cpu().contiguous()}, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for file in folder.parent.glob("*/*"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < oldest:
                file.unlink()
