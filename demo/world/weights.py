"""Keep the taught U-Net small: 4 bits a weight, 19 MB in the repository where fp32 takes 147.

A weight is a whole number from -8 to 7 times the scale of its group: 64 weights of one row share an fp16 scale. Two numbers lie
in one byte, the first in its lower half. Norms and biases, which have one dimension, are kept in fp16 as they are.
"""

import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE, FACTS = (Path(__file__).with_name(name) for name in ("weights.safetensors", "weights.json"))
"""The weights under their names in an SD v1.5 checkpoint, without prefix; and their checksum, with how they were made."""
GROUP = 64
SCALE = ".scale"


def quantized(value: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight of two or more dimensions as bytes (rows, groups * 32) and fp16 scales (rows, groups).

    A scale that clips the largest weights of a group often errs less in all, so several are tried.
    """
    rows = value.detach().float().flatten(1)
    groups = F.pad(rows, (0, -rows.shape[1] % GROUP)).view(len(rows), -1, GROUP)
    largest = groups.abs().amax(2, keepdim=True).clamp_min(1e-6)
    scales = torch.stack([(largest * share / 7).half().float() for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)])
    errors = torch.stack([(groups - (groups / s).round().clamp(-8, 7) * s).square().sum(2, keepdim=True) for s in scales])
    scale = scales.gather(0, errors.argmin(0, keepdim=True))[0]
    numbers = ((groups / scale).round().clamp(-8, 7) + 8).to(torch.uint8).flatten(1)
    return numbers[:, ::2] | numbers[:, 1::2] << 4, scale.squeeze(2).half()


def dequantized(packed: Tensor, scales: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the fp32 weight of a shape from its bytes and scales."""
    numbers = torch.stack((packed & 15, packed >> 4), 2).view(*scales.shape, GROUP)
    rows = ((numbers.float() - 8) * scales.float().unsqueeze(2)).flatten(1)
    return rows[:, : math.prod(shape[1:])].reshape(shape).contiguous()


def save(weights: dict[str, Tensor], file: Path, facts: Path, report: dict) -> None:
    """Write weights small, and beside them their checksum and a report of how they were made."""
    packed = {}
    for name, value in weights.items():
        if value.ndim < 2:
            packed[name] = value.detach().half()
        else:
            packed[name], packed[name + SCALE] = quantized(value)
    save_file({name: value.contiguous() for name, value in packed.items()}, file)
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    facts.write_text(json.dumps({"sha256": checksum, **report}, indent=1) + "\n", encoding="utf-8")


def load(shapes: dict[str, tuple[int, ...]], file: Path = FILE, facts: Path = FACTS) -> dict[str, Tensor]:
    """Return the taught U-Net's fp32 weights, of these names and shapes. Raises ValueError where the file is another."""
    checksum = json.loads(facts.read_text(encoding="utf-8"))["sha256"]
    if hashlib.sha256(file.read_bytes()).hexdigest() != checksum:
        raise ValueError(f"{file} is damaged, or is not the file that {facts.name} tells of.")
    packed = load_file(file)
    if shapes.keys() != {name for name in packed if not name.endswith(SCALE)}:
        raise ValueError(f"{file} holds the weights of another U-Net.")
    return {
        name: dequantized(packed[name], packed[name + SCALE], shape) if len(shape) > 1 else packed[name].float()
        for name, shape in shapes.items()
    }
