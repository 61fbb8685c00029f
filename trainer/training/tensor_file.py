"""Writing a safetensors file one tensor after the other, so that saving takes no more memory than the largest tensor.

safetensors' own `save_file` first copies everything that lies on a device to the CPU: 10 GB for the state of a full fine-tuning.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..run.files import partial_file

# By the order in which the format's own library writes them: the widest first, so that every tensor is aligned.
TYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's name of each type of torch's that it has."""
_ORDER = {dtype: place for place, dtype in enumerate(TYPES)}


@dataclass(frozen=True)
class LateTensor:
    """A tensor that is made when it is written, and not kept."""

    shape: torch.Size
    dtype: torch.dtype
    make: Callable[[], Tensor]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor | LateTensor],
    metadata: Mapping[str, str],
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Write a safetensors file, whole or not at all, with the bytes that `save_file` would write.

    The tensors may be of any shape, on any device, and share memory. `dtypes`: as which types those that it names are written;
    the others keep their own. Raises KeyError for a type that the format lacks, OSError, with the file's name when the disk is
    full.
    """
    written_as = {name: (dtypes or {}).get(name, tensor.dtype) for name, tensor in tensors.items()}
    names = sorted(tensors, key=lambda name: (_ORDER[written_as[name]], name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + math.prod(tensors[name].shape) * written_as[name].itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": TYPES[written_as[name]], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data shall begin at a multiple of 8 bytes
    with partial_file(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(tensors[name], written_as[name]))


def _bytes(tensor: Tensor | LateTensor, dtype: torch.dtype) -> memoryview:
    """Return the bytes of the tensor as the type, row after row; numpy has no bf16, so they go through as numbers of a byte."""
    tensor = tensor.make() if isinstance(tensor, LateTensor) else tensor
    on_cpu = tensor.detach().to(dtype).to("cpu").contiguous()  # cast first: less to copy from the device, as a rule
    return on_cpu.reshape(-1).view(torch.uint8).numpy().data
