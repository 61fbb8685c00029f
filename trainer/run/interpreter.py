"""How another Python is started as this one was, and the worker with it. Plain data, no torch."""

import os
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).parents[1] / "__main__.py"


def python_command() -> list[str]:
    """Return the interpreter with the options that it was started with, such as -s, which leaves the user's own packages out."""
    return [sys.executable, *subprocess._args_from_interpreter_flags()]  # pyright: ignore - multiprocessing does so, too


def worker_command(run_dir: Path, device: str, devices: int) -> list[str]:
    """Return the worker's command line.

    Several devices have a process each, started by the launcher that accelerate uses too; each takes the device of its number,
    of those that ComfyUI sees: what --cuda-device and --default-device set in the environment holds for the worker too.
    """
    command = python_command()
    if devices > 1:
        launcher = [*command, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(devices), "--no-python"]
        launcher += ["--log-dir", os.devnull]  # else each run leaves a folder among the system's temporary files
        command, device = [*launcher, *command], device.split(":")[0]
    return [*command, str(WORKER), str(run_dir), "--device", device, "--attached"]
