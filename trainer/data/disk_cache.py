"""What is computed once and read at every step lies on the disk, so that memory does not grow with the number of photos."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class DiskCache:
    """Tensors of one shape, one after the other, in a file without a name: it goes with the process, however that ends."""

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open for as long as it is read
        self._count, self._shape = 0, torch.Size()

    def append(self, tensor: Tensor) -> None:
        """Write the tensor as fp32. Raises OSError when the disk is full: written, not mapped, which would end the process."""
        self._file.write(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        self._count, self._shape = self._count + 1, tensor.shape

    def stack(self) -> Tensor:
        """Return all of them, (N, *shape) fp32 on the CPU, read from the disk as they are used. Not to be written to."""
        self._file.flush()
        mapped = np.memmap(self._file, np.float32, "r", shape=(self._count, *self._shape))  # writable, it would count as memory
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is not writable
            return torch.from_numpy(mapped)
