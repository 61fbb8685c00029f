"""Whether 8-bit AdamW can run. Plain until asked: bitsandbytes and torch are loaded then."""

import os
import subprocess
import sys
from pathlib import Path

from ..optional_libraries import show_library
from .interpreter import python_command
from .memory_errors import out_of_memory

REPAIR = "pip install --force-reinstall bitsandbytes"
PROBE = "import sys; sys.path.insert(0, sys.argv[1]); from trainer.run.eight_bit import main; main(sys.argv[2])"
PROBE_SECONDS = 300


def why_no_8bit(device: str) -> str:
    """Return why bitsandbytes cannot take a step on the device ("cpu", "cuda:0"), in the words of its error; "" when it can.

    Want of memory is no such reason: another optimizer would need more.
    """
    show_library("bitsandbytes")
    try:
        import torch
        from bitsandbytes.optim import AdamW8bit

        probe = torch.nn.Parameter(torch.zeros(4096, device=device))
        probe.grad = torch.ones_like(probe)
        AdamW8bit([probe]).step()
    except Exception as error:  # whatever a library for other hardware raises
        if out_of_memory(error):
            return ""
        return f"{type(error).__name__}: {error}".splitlines()[0][:500]
    return ""


def main(device: str) -> None:
    """End this process, with the reason as its last line and as a failure where there is one."""
    sys.exit(why_no_8bit(device) or 0)


_answers: dict[str, str] = {}
"""What was found in a process of its own, by device."""


def is_known_to_fail(device: str) -> bool:
    """Return whether it was asked before and cannot run on the device."""
    return bool(_answers.get(device))


def why_no_8bit_there(device: str) -> str:
    """Ask the same in a process of its own, once: what crashes in native code must not take ComfyUI with it."""
    if device not in _answers:
        _answers[device] = _ask(device)
    return _answers[device]


def _ask(device: str) -> str:
    root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            [*python_command(), "-c", PROBE, root, device],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_SECONDS,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__}: {error}"[:500]
    last = done.stderr.strip().rpartition("\n")[2]
    return (last or f"exit_code={done.returncode}")[:500] if done.returncode else ""
