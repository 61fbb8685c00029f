"""Measure what a card makes of the pack: seconds a step, share of the card's speed, memory, and the time around the steps.

    python -m bench.card [--report bench/cards/NAME.json]

A base of SD v1.5's size with random weights is written once; each preset and some fixed settings then train a few steps on it in
the worker as ComfyUI would start it, one after the other. `--tiny` tries the same with the smallest stand-in, as on a CPU.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from demo import photos
from tools import standin
from tools.setup import comfyui_path
from trainer.run.files import read_json
from trainer.run.presets import NAMED, candidates
from trainer.run.resources import GB, estimate
from trainer.run.settings import Settings

from .compare import median_gap, run_timed, worker
from .inputs import CLASS_WORD, TOKEN, Inputs, draw_class_photos, write_run

WARMUP = 5
"""First steps that do not count."""
CASES: dict[str, dict] = {
    **{f"preset: {name}": {"preset": name} for name in NAMED},
    "U-Net, batch 8, 8-bit": {"train": "unet", "batch_size": 8, "optimizer": "adamw_8bit", "gradient_checkpointing": "off"},
    "U-Net and token, batch 1, 8-bit, checkpointing": {
        "train": "unet_and_token",
        "batch_size": 1,
        "optimizer": "adamw_8bit",
        "gradient_checkpointing": "on",
    },
    "LoRA, batch 8": {"train": "lora", "batch_size": 8, "gradient_checkpointing": "off"},
    "defaults, batch 1": {"train": "unet_and_token", "batch_size": 1},
}
"""What the widgets of Train with DreamBooth say."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One case."""

    case: str
    samples: int
    """Photos and class images of a step."""
    step_s: float
    """Seconds of the median step after WARMUP."""
    first_step_s: float
    """Seconds from the end of encoding to the end of the first step."""
    pictures_per_s: float
    tflop_per_s: float
    share: float
    """Of the speed of a bare matrix product."""
    allocated_gb: float
    reserved_gb: float
    """The most that torch had, in use and in all; on a CPU both are the process' resident memory."""
    counted_gb: float
    """What the check before training says."""
    phases_s: dict[str, float]
    """Seconds of each phase of the run."""
    total_s: float
    """The worker's whole process."""
    around_s: float
    """Of these, what was no training step."""


def matmul_speed(device: str, dtype: torch.dtype) -> float:
    """Return the floating point operations a second of a square matrix product: the best of ten."""
    side = 8192 if device != "cpu" else 1024
    factor = torch.ones((side, side), dtype=dtype, device=device)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        float((factor @ factor)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - began)
    return 2 * side**3 / min(seconds)


def has_class_images(case: dict) -> bool:
    return bool(NAMED.get(case.get("preset", ""), {}).get("class_images"))


def settings_of(case: dict, steps: int) -> Settings:
    """Return the settings that a node with these widgets would train with; class images come from a folder."""
    widgets = {name: value for name, value in case.items() if name != "preset"} | {"steps": steps, "precision": "bf16"}
    preset = case.get("preset", "own settings")
    (values,) = candidates("dreambooth", preset, widgets, 1, class_dataset=has_class_images(case), device_kind="")
    return Settings.of(method="dreambooth", token=TOKEN, class_word=CLASS_WORD, **values)


def measure(name: str, prepared: Inputs, args: argparse.Namespace, work: Path, speed: float) -> Measured:
    """Train one case in the worker. Raises SystemExit with the end of its log when it fails."""
    has_class, settings = has_class_images(CASES[name]), settings_of(CASES[name], args.steps)
    case_inputs = prepared if has_class else Inputs(prepared.checkpoint, None, prepared.photos, None, prepared.tokenizer)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        run_dir = write_run(settings, case_inputs, args.resolution, Path(folder))
        run, unet_weights = run_dir.load_run(), count_unet(prepared.checkpoint)
        began = time.monotonic()  # the record begins once torch is loaded
        record = run_timed(name, worker(run_dir, args.device), args.steps, WARMUP, Path(folder), args.device)
        total_s, phases = time.monotonic() - began, read_json(run_dir.result_json)["seconds"]
    times = record["step_times_s"]
    step_s = median_gap(times[WARMUP - 1 :])
    resources = estimate(run, unet_weights)
    samples = settings.training.batch_size * (2 if has_class else 1)
    flop = resources.flop / args.steps / step_s
    held, resident = record["peak_cuda_reserved_mb"], record["peak_rss_training_mb"]
    return Measured(
        case=name,
        samples=samples,
        step_s=step_s,
        first_step_s=round(phases["training"] - (times[-1] - times[0]), 2),
        pictures_per_s=round(samples / step_s, 2),
        tflop_per_s=round(flop / 1e12, 3),
        share=round(flop / speed, 4),
        allocated_gb=round((record["peak_cuda_allocated_mb"] or resident) * 2**20 / GB, 2),
        reserved_gb=round((held or resident) * 2**20 / GB, 2),
        counted_gb=round(resources.memory / GB, 2),
        phases_s=phases,
        total_s=round(total_s, 1),
        around_s=round(total_s - step_s * args.steps, 1),
    )


def count_unet(checkpoint: Path) -> int:
    """Return how many weights the U-Net in a checkpoint file has."""
    with safe_open(checkpoint, "pt") as file:
        names = [name for name in file.keys() if name.startswith("model.diffusion_model.")]  # noqa: SIM118 - not a dict
        return sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in names)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a card makes of the pack's presets.")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--resolution", type=int, default=512, help="pixels")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="without it, all of them")
    parser.add_argument("--tiny", action="store_true", help="the smallest stand-in in place of SD v1.5's size")
    parser.add_argument("--work", type=Path, help="folder for temporary files (about 25 GB)")
    parser.add_argument("--report", type=Path, help="without it, a file in bench/cards named after the device")
    args = parser.parse_args(arguments)
    if args.steps <= WARMUP + 1:
        parser.error(f"--steps must be more than {WARMUP + 1}")
    return args


def main() -> None:
    args = parse_arguments()
    name = torch.cuda.get_device_name() if args.device != "cpu" else f"{platform.machine()} CPU"
    report = args.report or Path(__file__).with_name("cards") / f"{name.replace(' ', '-')}.json"
    speed, measured = matmul_speed(args.device, torch.bfloat16), []
    print(f"{name}, {speed / 1e12:.1f} TFLOP/s in a bf16 matrix product")
    with tempfile.TemporaryDirectory(dir=args.work, prefix="bench-") as folder:
        work = Path(folder)
        base = work / "base.safetensors"
        standin.build(base, size=standin.SMALL if args.tiny else standin.SD15, taught=False)
        photos.draw(work / "photos")
        count = len(list((work / "photos").iterdir()))
        class_photos = draw_class_photos(work / "class", count)
        prepared = Inputs(base, None, work / "photos", class_photos, comfyui_path() / "comfy" / "sd1_tokenizer")
        print(
            f"{'':48}{'s/step':>8}{'pict./s':>9}{'TFLOP/s':>9}{'share':>8}{'GB':>7}{'reserved':>10}{'counted':>9}{'around s':>10}"
        )
        for case in args.cases:
            row = measure(case, prepared, args, work, speed)
            measured.append(row)
            print(
                f"{case:48}{row.step_s:8.3f}{row.pictures_per_s:9.1f}{row.tflop_per_s:9.1f}{row.share:8.1%}{row.allocated_gb:7.1f}"
                f"{row.reserved_gb:10.1f}{row.counted_gb:9.1f}{row.around_s:10.1f}",
                flush=True,
            )
    machine = {"device": name, "torch": torch.__version__, "system": platform.platform(), "cpus": os.cpu_count()}
    report.parent.mkdir(parents=True, exist_ok=True)
    found = {
        **machine,
        "matmul_tflop_per_s": round(speed / 1e12, 1),
        "steps": args.steps,
        "resolution": args.resolution,
        "base": "smallest stand-in" if args.tiny else "SD v1.5's size, random",
        "cases": [asdict(row) for row in measured],
    }
    report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"report: {report}")


if __name__ == "__main__":
    main()
