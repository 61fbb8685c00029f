"""Train the same base on the same photos with the same settings, once with this pack's worker and once with diffusers'
`train_dreambooth.py` or `textual_inversion.py`; print steps per second, peak memory, and how they compare.

    python -m bench.compare --reference train_dreambooth.py [--steps 40] [--resolution 128] [--batch-size 4] [--prior]
    python -m bench.compare --method textual_inversion --reference textual_inversion.py

The reference script is not part of this repository; bench/README.md says where it comes from. Each side is a process of
its own, one after the other, `--rounds` times in turn.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.setup import comfyui_path
from trainer.run.names import METHODS
from trainer.run.run_dir import RunDir

from . import inputs

ROOT = Path(__file__).resolve().parent.parent
TIMED = Path(__file__).resolve().with_name("timed.py")
OURS, REFERENCE, PRECOMPUTED = "this pack", "reference", "reference, text precomputed"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One side in one round."""

    side: str
    steps_per_s: float
    """Between step `warmup` and the last step."""
    median_step_s: float
    """Seconds of the median step of that window."""
    median_step_cpu_s: float
    """Seconds of the processor, of all cores together, in such a step: what a busy machine disturbs least."""
    peak_rss_training_mb: int
    """From the start of the process, loading included, to the end of the last step."""
    peak_rss_mb: int
    """The same, with saving and exporting."""
    peak_cuda_allocated_mb: int | None
    total_s: float
    """The whole process."""
    device: str
    cpu_capability: str
    """The vector instructions that torch uses: AVX2, AVX512, ..."""
    threads: int
    torch: str


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare this pack's training with diffusers' example scripts.")
    parser.add_argument("--method", choices=METHODS, default="dreambooth")
    parser.add_argument("--reference", type=Path, required=True, help="path of diffusers' script for the method")
    parser.add_argument("--checkpoint", type=Path, help="SD v1.5 checkpoint; without it, the stand-in is built")
    parser.add_argument("--photos", type=Path, help="folder of photos; without it, the demo's are drawn")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5, help="first steps that do not count")
    parser.add_argument("--resolution", type=int, default=128, help="pixels")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--precision", choices=("bf16", "fp16", "fp32"), default="bf16")
    parser.add_argument("--prior", action="store_true", help="prior preservation, with as many class images as photos")
    parser.add_argument("--precomputed", action="store_true", help="also the reference with --pre_compute_text_embeddings")
    parser.add_argument("--rounds", type=int, default=1, help="each side so many times, in turn; medians are reported")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="", help="cpu or cuda:0; without it, the GPU where there is one")
    parser.add_argument("--work", type=Path, help="folder for temporary files (about 5 GB for the stand-in)")
    parser.add_argument("--report", type=Path, default=Path("bench-report.json"))
    args = parser.parse_args(arguments)
    if not 1 <= args.warmup < args.steps:
        parser.error("--warmup must be at least 1 and less than --steps")
    if args.method == "textual_inversion" and (args.prior or args.precomputed):
        parser.error("--prior and --precomputed are for dreambooth")
    return args


def our_command(args: argparse.Namespace, prepared: inputs.Inputs, folder: Path, device: str) -> list[str]:
    return worker(inputs.write_run(inputs.settings_of(args), prepared, args.resolution, folder), device)


def worker(run_dir: RunDir, device: str) -> list[str]:
    """Return how timed.py starts the worker."""
    return [str(ROOT / "trainer" / "__main__.py"), str(run_dir.path), "--device", device]


def reference_command(args: argparse.Namespace, prepared: inputs.Inputs, folder: Path, precomputed: bool) -> list[str]:
    options = {
        "pretrained_model_name_or_path": prepared.pipeline,
        "output_dir": folder / "trained",
        "resolution": args.resolution,
        "train_batch_size": args.batch_size,
        "max_train_steps": args.steps,
        "learning_rate": inputs.LEARNING_RATE[args.method],
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "mixed_precision": "no" if args.precision == "fp32" else args.precision,
        "checkpointing_steps": args.steps + 1,
        "seed": args.seed,
    }
    flags = ["--center_crop"]
    if args.method == "textual_inversion":
        options |= {
            "train_data_dir": prepared.photos,
            "placeholder_token": inputs.TOKEN,
            "initializer_token": inputs.INITIALIZER,
            "save_steps": args.steps + 1,
        }
    else:
        options |= {"instance_data_dir": prepared.photos, "instance_prompt": inputs.INSTANCE_PROMPT}
    if prepared.class_photos:
        flags.append("--with_prior_preservation")
        options |= {
            "class_data_dir": prepared.class_photos,
            "class_prompt": inputs.CLASS_PROMPT,
            "num_class_images": len(list(prepared.class_photos.iterdir())),
            "prior_loss_weight": 1.0,
        }
    if precomputed:
        flags.append("--pre_compute_text_embeddings")
    return [str(args.reference.resolve()), *flags, *(f"--{name}={value}" for name, value in options.items())]


def measure(side: str, command: list[str], args: argparse.Namespace, folder: Path, device: str) -> Measured:
    """Run one side. Raises SystemExit with the end of its log when it fails."""
    data = run_timed(side, command, args.steps, args.warmup, folder, device)
    window = data["step_times_s"][args.warmup - 1 :]
    return Measured(
        side=side,
        steps_per_s=round((len(window) - 1) / (window[-1] - window[0]), 4),
        median_step_s=median_gap(window),
        median_step_cpu_s=median_gap(data["cpu_times_s"][args.warmup - 1 :]),
        **{name: data[name] for name in Measured.__dataclass_fields__ if name in data},
    )


def run_timed(name: str, command: list[str], steps: int, warmup: int, folder: Path, device: str) -> dict:
    """Run a script under timed.py and return what that noted. Raises SystemExit with the end of its log when it fails."""
    record, log = folder / "record.json", folder / "log.txt"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    timing = ["--record", str(record), "--steps", str(steps), "--warmup", str(warmup)]
    with log.open("wb") as file:
        result = subprocess.run(
            [sys.executable, str(TIMED), *timing, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
        )
    data = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {"step_times_s": []}
    done = len(data["step_times_s"])
    if result.returncode or done != steps:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        sys.exit(f"{name}: exit code {result.returncode} after {done} of {steps} steps.\n{tail}")
    return data


def median_gap(times: list[float]) -> float:
    """Return the median of the seconds between two steps."""
    return round(statistics.median(b - a for a, b in itertools.pairwise(times)), 4)


def medians(measured: list[Measured], side: str) -> dict[str, float]:
    """The median over the rounds of every number of one side."""
    rows = [asdict(row) for row in measured if row.side == side]
    numbers = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    return {name: statistics.median(row[name] for row in rows) for name in numbers}


def compare(ours: dict[str, float], reference: dict[str, float]) -> dict[str, float]:
    """Speed: ours / reference, more is better. Memory: ours / reference, less is better."""
    memory = "peak_cuda_allocated_mb" if "peak_cuda_allocated_mb" in ours else "peak_rss_training_mb"
    return {
        "speed": round(ours["steps_per_s"] / reference["steps_per_s"], 3),
        "speed_by_median_step": round(reference["median_step_s"] / ours["median_step_s"], 3),
        "speed_by_cpu_time": round(reference["median_step_cpu_s"] / ours["median_step_cpu_s"], 3),
        "memory": round(ours[memory] / reference[memory], 3),
        "memory_with_export": round(ours["peak_rss_mb"] / reference["peak_rss_mb"], 3),
    }


def caution(args: argparse.Namespace, row: Measured, device: str) -> str:
    """What a reader must know of these figures; empty when nothing."""
    if device == "cpu" and args.precision == "bf16" and row.cpu_capability == "AVX2":
        return "This CPU has no bf16 instructions and torch emulates them: these figures say little of other machines. See fp32."
    return ""


def print_table(result: dict[str, dict[str, float]], ratios: dict[str, dict[str, float]]) -> None:
    print(f"\n{'':30}{'steps/s':>10}{'s/step (median)':>18}{'CPU s/step':>12}{'peak MB':>10}{'with export':>13}{'GPU MB':>9}")
    for side, row in result.items():
        gpu = f"{row['peak_cuda_allocated_mb']:.0f}" if "peak_cuda_allocated_mb" in row else "-"
        print(
            f"{side:30}{row['steps_per_s']:10.3f}{row['median_step_s']:18.3f}{row['median_step_cpu_s']:12.3f}"
            f"{row['peak_rss_training_mb']:10.0f}{row['peak_rss_mb']:13.0f}{gpu:>9}"
        )
    for side, ratio in ratios.items():
        print(f"{OURS} / {side}: {ratio['speed']:.2f} x the speed, {ratio['memory']:.2f} x the memory")


def main() -> None:
    args = parse_arguments()
    import torch

    device = args.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    sides = [OURS, REFERENCE, *([PRECOMPUTED] if args.precomputed else [])]
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(dir=args.work, prefix="bench-") as work:
        prepared = inputs.prepare(args, Path(work), comfyui_path() / "comfy" / "sd1_tokenizer")
        for number in range(args.rounds):
            for side in sides:
                with tempfile.TemporaryDirectory(dir=work) as folder:
                    if side == OURS:
                        command = our_command(args, prepared, Path(folder), device)
                    else:
                        command = reference_command(args, prepared, Path(folder), side == PRECOMPUTED)
                    row = measure(side, command, args, Path(folder), device)
                measured.append(row)
                print(f"round {number + 1}, {side}: {row.steps_per_s} steps/s, {row.peak_rss_training_mb} MB", flush=True)
    result = {side: medians(measured, side) for side in sides}
    ratios = {side: compare(result[OURS], result[side]) for side in sides[1:]}
    warning = caution(args, measured[0], device)
    report = {
        "caution": warning,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "base": args.checkpoint.name if args.checkpoint else "stand-in",
        "machine": {
            "device": measured[0].device,
            "cpu_capability": measured[0].cpu_capability,
            "cpus": os.cpu_count(),
            "system": platform.platform(),
        },
        "torch": measured[0].torch,
        "medians": result,
        "ratios": ratios,
        "rounds": [asdict(row) for row in measured],
    }
    args.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print_table(result, ratios)
    if warning:
        print(f"caution: {warning}")
    print(f"report: {args.report}")


if __name__ == "__main__":
    main()
