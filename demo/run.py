"""Train a subject in a real ComfyUI and compare before with after: what `make demo` runs.

CHECKPOINT=FILE uses a real SD v1.5 instead of the stand-in, PHOTOS=FOLDER and CLASS="what it is" your own photos instead of
the drawn ones, PORT another port. Leaves pictures, the loss curve and report.json in demo/output/.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from trainer.run.run_dir import RunDir

from . import photos, standin
from .server import Failed, Refused, Server, ServerError, port_in_use, wants_cpu
from .setup import ROOT

WORK, OUTPUT = ROOT / "demo" / "work", ROOT / "demo" / "output"
WORKFLOW = ROOT / "workflows" / "api" / "train_and_compare.json"
SEEDS = (1, 2, 3)
FREE_GB = 6
# The stand-in is random and small: it learns at a far higher rate than SD v1.5, and at a size that a CPU can bear.
STANDIN_TRAINING = {
    "steps": 500,
    "batch_size": 4,
    "learning_rate": 8e-4,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 50,
    "train": "unet",  # CLIP has its full size
}
STANDIN_SIZE = 128
STANDIN_CFG = 1.0


def similarity(picture: Image.Image, folder: Path) -> float:
    """Pearson correlation with the closest photo of the folder, both as 32x32 RGB."""

    def pixels(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX), dtype=np.float64).ravel()

    files = (p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp"))
    return max(float(np.corrcoef(pixels(picture), pixels(Image.open(p)))[0, 1]) for p in files)


def node(graph: dict, class_type: str, title: str = "") -> str:
    """Id of the node of a class, or of the one whose title ends so."""
    (found,) = (i for i, n in graph.items() if n["class_type"] == class_type and n["_meta"]["title"].endswith(title))
    return found


def adapt(graph: dict, checkpoint: str, folder: str, class_word: str, standin: bool) -> None:
    """Fill the shipped workflow in: which base, which photos, and the stand-in's own training settings."""
    graph[node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = checkpoint
    graph[node(graph, "DatasetLoader")]["inputs"]["folder"] = folder
    if class_word:
        graph[node(graph, "CaptionWithToken")]["inputs"]["class_word"] = class_word
        graph[node(graph, "PrimitiveStringMultiline")]["inputs"]["value"] = f"a photo of mysks {class_word}"
    if standin:
        graph[node(graph, "DreamBoothTrain")]["inputs"] |= STANDIN_TRAINING
        graph[node(graph, "DatasetLoader")]["inputs"]["resolution"] = STANDIN_SIZE
        graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": STANDIN_SIZE, "height": STANDIN_SIZE}
        for label in ("(before)", "(after)"):
            graph[node(graph, "KSampler", label)]["inputs"]["cfg"] = STANDIN_CFG


def plot_loss(losses: list[float], path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=0.6, alpha=0.4, label="each step")
    axes.plot(range(window, len(losses) + 1), smooth, label=f"mean of {window} steps")
    axes.set(xlabel="step", ylabel="loss", title="DreamBooth training loss", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


def fail(sentence: str) -> None:
    sys.exit(f"demo: {sentence}")


def main() -> None:
    port = int(os.environ["PORT"]) if os.environ.get("PORT", "").isdigit() else 0
    if not 0 < port < 65536:
        fail("PORT is not the number of a port. Use for example: make demo PORT=8188")
    checkpoint = Path(os.environ["CHECKPOINT"]).resolve() if os.environ.get("CHECKPOINT") else None
    folder = Path(os.environ["PHOTOS"]).resolve() if os.environ.get("PHOTOS") else None
    if checkpoint and not checkpoint.is_file():
        fail(f"CHECKPOINT: there is no file {checkpoint}.")
    if folder and not folder.is_dir():
        fail(f"PHOTOS: there is no folder {folder}.")
    if port_in_use(port):
        fail(f"port {port} is in use. Stop the program that uses it, or choose another: make demo PORT={port - 11}")
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < FREE_GB:
        fail(f"{free:.1f} GB are free on this disk, {FREE_GB} are needed. Free some space.")

    seconds = {}
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    folders = {}
    if checkpoint:
        folders["checkpoints"] = checkpoint.parent
    else:
        checkpoint_file = WORK / "models" / "checkpoints" / "standin-sd15.safetensors"
        if not checkpoint_file.is_file():
            print("Building the stand-in for SD v1.5", flush=True)
            began = time.monotonic()
            standin.build(checkpoint_file)
            seconds["building the stand-in"] = time.monotonic() - began
    if folder:
        folders["datasets"] = folder.parent
        folder_name, photo_folder = f"datasets/{folder.name}", folder
    else:
        folder_name, photo_folder = "plush", WORK / "input" / "plush"
        photos.draw(photo_folder)

    graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    class_word = os.environ.get("CLASS") or ("subject" if folder else "")
    adapt(graph, (checkpoint or checkpoint_file).name, folder_name, class_word, standin=checkpoint is None)
    before, after = node(graph, "SaveImage", "before training"), node(graph, "SaveImage", "after training")
    report = {"pictures": {}, "similarity": {"before": {}, "after": {}}}

    last = ["", 0.0]  # progress text shown last, and when

    def show(_: str, text: str) -> None:
        phase = text.split(":")[0]
        if phase != last[0] or time.monotonic() - last[1] > 5:
            print(f"  {text}", flush=True)
            last[:] = phase, time.monotonic()

    print(f"Starting ComfyUI on port {port}", flush=True)
    began = time.monotonic()
    with Server(WORK, port=port, cpu=wants_cpu(), folders=folders) as server:
        seconds["starting ComfyUI"] = time.monotonic() - began
        for seed in SEEDS:
            for label in ("(before)", "(after)"):
                graph[node(graph, "KSampler", label)]["inputs"]["seed"] = seed
            print(f"Queueing {WORKFLOW.relative_to(ROOT)} with seed {seed}", flush=True)
            began = time.monotonic()
            result = server.run(graph, on_text=show)
            seconds[f"graph, seed {seed}"] = time.monotonic() - began
            for label, node_id in (("before", before), ("after", after)):
                picture = server.image(result.outputs[node_id]["images"][0])
                path = OUTPUT / f"{label}-{seed}.png"
                picture.save(path)
                report["pictures"][path.stem] = str(path.relative_to(ROOT))
                report["similarity"][label][str(seed)] = round(similarity(picture, photo_folder), 3)

    trained = result.outputs[node(graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    run_dir = RunDir(WORK / "output" / "finetune" / Path(trained).stem)
    plot_loss(run_dir.losses(), OUTPUT / "loss.png")
    for phase, spent in json.loads(run_dir.result_json.read_text(encoding="utf-8"))["seconds"].items():
        seconds[f"worker: {phase}"] = spent
    for label, values in report["similarity"].items():
        values["mean"] = round(sum(values.values()) / len(SEEDS), 3)
        print(f"Similarity {label} training: {values['mean']:.2f} (mean of seeds {', '.join(map(str, SEEDS))})")
    report["loss_curve"] = str((OUTPUT / "loss.png").relative_to(ROOT))
    report["checkpoint"] = str((WORK / "output" / "checkpoints" / trained).relative_to(ROOT))
    report["run"] = str(run_dir.path.relative_to(ROOT))
    report["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    (OUTPUT / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Pictures, loss curve and report.json are in {OUTPUT.relative_to(ROOT)}/")


if __name__ == "__main__":
    try:
        main()
    except (ServerError, Refused, Failed) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped. The same command goes on from the last saved state.")
