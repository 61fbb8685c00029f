"""Run a training script as it is and write down when its optimizer stepped and how much memory it took.

    python bench/timed.py --record OUT.json --steps N --warmup K SCRIPT [ARGUMENT ...]

Both sides of the comparison run through this one file, so they have the same clock and the same measure of memory. The
script is not changed: torch itself tells us of every optimizer step (a global hook). One name is added to transformers, which
textual_inversion.py of diffusers 0.22 needs and newer versions no longer have.
"""

import argparse
import json
import platform
import runpy
import sys
import time
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import CLIPTextModel

MB = 1024 * 1024


def peak_rss() -> int:
    """The most memory this process has held so far, in bytes: files it has mapped and read included."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would do as well, but on Linux it begins with what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


class Record:
    """What happened, for OUT.json."""

    def __init__(self, steps: int, warmup: int):
        self.steps, self.warmup = steps, warmup
        self.began = time.monotonic()
        self.times: list[float] = []
        """Seconds from the start to the end of each optimizer step."""
        self.cpu_times: list[float] = []
        """Seconds of the processor that the process had taken by then: what other processes disturb little."""
        self.rss_training = 0
        """Bytes: the peak up to the end of the last step, so before anything is saved or exported."""

    def step(self, optimizer, args, kwargs) -> None:
        if optimizer.param_groups[-1]["params"][-1].grad is None:
            return  # the worker steps one buffer after the other: this was not the last
        # A GPU works in its own time: wait for it where the measured window begins and ends, and nowhere else.
        if torch.cuda.is_available() and len(self.times) + 1 in (self.warmup, self.steps):
            torch.cuda.synchronize()
        self.times.append(time.monotonic() - self.began)
        self.cpu_times.append(time.process_time())
        if len(self.times) == self.steps:
            self.rss_training = peak_rss()

    def to_json(self) -> dict:
        cuda = torch.cuda.is_available()
        return {
            "step_times_s": [round(seconds, 4) for seconds in self.times],
            "cpu_times_s": [round(seconds, 4) for seconds in self.cpu_times],
            "total_s": round(time.monotonic() - self.began, 2),
            "peak_rss_training_mb": round(self.rss_training / MB),
            "peak_rss_mb": round(peak_rss() / MB),
            "peak_cuda_allocated_mb": round(torch.cuda.max_memory_allocated() / MB) if cuda else None,
            "peak_cuda_reserved_mb": round(torch.cuda.max_memory_reserved() / MB) if cuda else None,
            "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a training script and record its steps.")
    parser.add_argument("--record", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--steps", type=int, required=True, help="optimizer steps that the script will make")
    parser.add_argument("--warmup", type=int, required=True, help="first steps that do not count")
    parser.add_argument("script", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()

    record = Record(args.steps, args.warmup)
    register_optimizer_step_post_hook(record.step)
    if not hasattr(CLIPTextModel, "text_model"):
        CLIPTextModel.text_model = property(lambda self: self)  # its parts lie directly in it since transformers 5.6
    script = str(args.script.resolve())
    sys.argv = [script, *args.arguments]
    sys.path[0] = str(Path(script).parent)  # as if it had been started by itself
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        args.record.write_text(json.dumps(record.to_json()), encoding="utf-8")


if __name__ == "__main__":
    main()
