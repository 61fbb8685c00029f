"""Train a subject in a real ComfyUI and compare before with after: what `make demo` runs.

Without anything else it draws six photos of a piglet that the stand-in does not know, trains on them, and lays out what the
stand-in draws of it before and after: in places and styles that no photo had, of its class and of another thing. As that world is
drawn, a judge can say what the pictures show (demo/world/judge.py).

CHECKPOINT=FILE uses a real SD v1.5 instead of the stand-in, PHOTOS=FOLDER and CLASS="what it is" your own photos instead of
the drawn ones; then one prompt is compared, from three seeds. TRAIN=lora or TRAIN=inversion trains a LoRA or an embedding instead
of the model and the token, PORT=NUMBER uses another port. Leaves pictures, the loss curve and report.json in demo/output/.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tools import standin
from tools.server import Failed, Refused, Server, ServerError, port_in_use, wants_cpu
from tools.setup import ROOT
from trainer.run.run_dir import RunDir

from .world import mission, subject

WORK, OUTPUT = ROOT / "demo" / "work", ROOT / "demo" / "output"
SEEDS = (1, 2, 3)
FREE_GB = 6
# The random stand-in, which tests train: it learns at a far higher rate than SD v1.5, and at a size that a CPU can bear.
STANDIN_TRAINING = {
    "preset": "own settings",
    "steps": 500,
    "batch_size": 4,
    "learning_rate": 8e-4,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 50,
    "train": "unet",  # CLIP has its full size
}
STANDIN_SIZE = 128
STANDIN_CFG, TAUGHT_CFG = 1.0, 3.0


@dataclass(frozen=True)
class Method:
    """How the subject is trained, by which of the shipped workflows."""

    workflow: str
    trainer: str
    """Class of the node that trains."""
    before: tuple[str, str]
    after: tuple[str, str]
    """What the titles of the sampler and of the node that saves its picture end with, for the base and for the result."""
    settings: dict
    """What is set in the node that trains, on any base."""
    taught_settings: dict
    """What is set beside that on the taught stand-in. It is smaller than SD v1.5 and learns at a higher rate; its embeddings are
    50 times as large as CLIP's, and so is the token's rate."""


BEFORE_AND_AFTER = (("(before)", "before training"), ("(after)", "after training"))
METHODS = {
    "dreambooth": Method(
        "Train a subject (DreamBooth or LoRA)",
        "DreamBoothTrain",
        *BEFORE_AND_AFTER,
        settings={"train": "unet_and_token"},
        taught_settings={
            "preset": "own settings",
            "steps": 360,
            "batch_size": 4,
            "learning_rate": 5e-5,
            "class_images": 8,
        },
    ),
    "lora": Method(
        "Train a subject (DreamBooth or LoRA)",
        "DreamBoothTrain",
        *BEFORE_AND_AFTER,
        settings={"train": "lora"},
        taught_settings={"preset": "own settings", "steps": 240, "batch_size": 4, "learning_rate": 1e-3},
    ),
    "inversion": Method(
        "Train an embedding (Textual Inversion)",
        "TextualInversionTrain",
        ("(base)", "without the token"),
        ("(inversion)", "with the token"),
        settings={},
        taught_settings={"preset": "own settings", "steps": 150, "batch_size": 4, "learning_rate": 0.1, "vectors": 4},
    ),
}


@dataclass(frozen=True)
class Options:
    """What the environment asks for."""

    port: int
    method: Method
    checkpoint: Path | None
    photos: Path | None
    class_word: str

    @property
    def own(self) -> bool:
        """Whether the model or the photos are the user's own, so that nobody can say what is right."""
        return bool(self.checkpoint or self.photos)


@dataclass(frozen=True)
class Report:
    """What report.json will say."""

    values: dict = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, do: Callable):
        """Do something and note how long it took."""
        began = time.monotonic()
        result = do()
        self.seconds[name] = round(time.monotonic() - began, 1)
        return result


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


def adapt(graph: dict, checkpoint: str, folder: str, class_word: str, random_standin: bool) -> None:
    """Fill a shipped workflow in: which base, which photos, and the settings of the random stand-in."""
    graph[node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = checkpoint
    graph[node(graph, "DatasetLoader")]["inputs"]["folder"] = folder
    if class_word:
        graph[node(graph, "CaptionWithToken")]["inputs"]["class_word"] = class_word
    if random_standin:
        graph[node(graph, "DreamBoothTrain")]["inputs"] |= STANDIN_TRAINING
        shrink(graph, STANDIN_CFG)


def shrink(graph: dict, cfg: float) -> None:
    """Let a workflow train and sample at the stand-in's size, with a guidance that suits it."""
    graph[node(graph, "DatasetLoader")]["inputs"]["resolution"] = STANDIN_SIZE
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": STANDIN_SIZE, "height": STANDIN_SIZE}
    for part in graph.values():
        if part["class_type"] == "KSampler":
            part["inputs"]["cfg"] = cfg


def fail(sentence: str) -> None:
    sys.exit(f"demo: {sentence}")


def read_options() -> Options:
    """Return what the environment asks for, once it can be done."""
    port = int(os.environ["PORT"]) if os.environ.get("PORT", "").isdigit() else 0
    if not 0 < port < 65536:
        fail("PORT is not the number of a port. Use for example: make demo PORT=8188")
    train = os.environ.get("TRAIN") or "dreambooth"
    if train not in METHODS:
        fail(f"TRAIN is {train!r}; it must be one of {', '.join(METHODS)}.")
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
    return Options(port, METHODS[train], checkpoint, folder, os.environ.get("CLASS") or ("subject" if folder else ""))


def prepare(options: Options, report: Report) -> tuple[dict, Path, dict[str, Path]]:
    """Return the graph to queue, the folder of photos, and where else ComfyUI shall look for models and photos."""
    folders = {}
    checkpoint = options.checkpoint or WORK / "models" / "checkpoints" / "standin-taught.safetensors"
    if options.checkpoint:
        folders["checkpoints"] = checkpoint.parent
    elif not checkpoint.is_file():
        print("Building the stand-in for SD v1.5", flush=True)
        report.timed("building the stand-in", lambda: standin.build(checkpoint))
    if options.photos:
        folders["datasets"] = options.photos.parent
        folder_name, photo_folder = f"datasets/{options.photos.name}", options.photos
    else:
        folder_name, photo_folder = "piglet", WORK / "input" / "piglet"
        subject.save_photos(photo_folder)
    method = options.method
    workflow = ROOT / "workflows" / "api" / f"{method.workflow}.json"
    graph = json.loads(workflow.read_text(encoding="utf-8"))
    adapt(graph, checkpoint.name, folder_name, options.class_word, random_standin=False)
    graph[node(graph, method.trainer)]["inputs"] |= method.settings
    if not options.checkpoint:
        graph[node(graph, method.trainer)]["inputs"] |= method.taught_settings
        shrink(graph, TAUGHT_CFG)
    report.values.update(workflow=str(workflow.relative_to(ROOT)), photos=folder_name)
    return graph, photo_folder, folders


def show_progress() -> Callable[[str, str], None]:
    """Return what prints the words of a node: each phase at once, then every five seconds."""
    last = ["", 0.0]  # the phase shown last, and when

    def show(_: str, text: str) -> None:
        phase = text.split(":")[0]
        if phase != last[0] or time.monotonic() - last[1] > 5:
            print(f"  {text}", flush=True)
            last[:] = phase, time.monotonic()

    return show


@dataclass(frozen=True)
class Comparison:
    """A running server and the graph that compares the base with what is trained."""

    server: Server
    graph: dict
    method: Method
    report: Report
    show: Callable[[str, str], None]

    def pictures(self, name: str, seed: int, prompt: str = "") -> tuple[Image.Image, Image.Image]:
        """Queue the graph, with another prompt if one is given; the pictures of the base and of the result."""
        for sampler, _ in (self.method.before, self.method.after):
            self.graph[node(self.graph, "KSampler", sampler)]["inputs"]["seed"] = seed
        if prompt:
            self.graph[node(self.graph, "PrimitiveStringMultiline")]["inputs"]["value"] = prompt
        print(f"Queueing {self.report.values['workflow']}: {name}", flush=True)
        result = self.report.timed(f"graph, {name}", lambda: self.server.run(self.graph, on_text=self.show))
        self.report.values["run"] = result.outputs[node(self.graph, self.method.trainer)]["run"][0]
        before, after = (
            self.server.image(result.outputs[node(self.graph, "SaveImage", saved)]["images"][0])
            for _, saved in (self.method.before, self.method.after)
        )
        return before, after


def compare_seeds(comparison: Comparison, photo_folder: Path) -> None:
    """Sample one prompt from several seeds, and say how much the pictures are like the photos."""
    values: dict[str, dict[str, float]] = {"before": {}, "after": {}}
    for seed in SEEDS:
        pair = dict(zip(values, comparison.pictures(f"seed {seed}", seed), strict=True))
        for label, picture in pair.items():
            picture.save(OUTPUT / f"{label}-{seed}.png")
            values[label][str(seed)] = round(similarity(picture, photo_folder), 3)
    for label, of_seeds in values.items():
        of_seeds["mean"] = round(sum(of_seeds.values()) / len(SEEDS), 3)
        print(f"Similarity {label} training: {of_seeds['mean']:.2f} (mean of seeds {', '.join(map(str, SEEDS))})")
    comparison.report.values["similarity"] = values


def compare_prompts(comparison: Comparison) -> None:
    """Sample what no photo had, the class and another thing; lay it out, and say by the judge what the pictures show."""
    wanted = (*mission.NEW, *mission.KEPT)
    pairs = [comparison.pictures(of.prompt, SEEDS[0], of.prompt) for of in wanted]
    before, after = ([pair[i] for pair in pairs] for i in range(2))
    for number, pair in enumerate(pairs, 1):
        for label, picture in zip(("before", "after"), pair, strict=True):
            picture.save(OUTPUT / f"{label}-{number}.png")
    taken = [photo for photo, _ in subject.photos()]
    mission.sheet(taken, {"base": before, "trained": after}, wanted).save(OUTPUT / "sheet.png", optimize=True)
    report = comparison.report.values | {"shown": {}}
    news = len(mission.NEW)
    for label, pictures in (("before", before), ("after", after)):
        verdicts = mission.judge(pictures)
        report["shown"][label] = {of.prompt: asdict(verdict) for of, verdict in zip(wanted, verdicts, strict=True)}
        new, kept = mission.count(mission.NEW, verdicts[:news]), mission.count(mission.KEPT, verdicts[news:])
        report[f"new, {label}"], report[f"kept, {label}"] = asdict(new), asdict(kept)
        print(
            f"{label} training: the subject in {new.thing} of {new.pictures} pictures of it, the place right in {new.place}, ",
            end="",
        )
        print(f"the style in {new.style}; class and another thing right in {kept.thing} of {kept.pictures}")
    report["kept, change"] = mission.change(before[news:], after[news:])
    comparison.report.values.update(report)


def main() -> None:
    began, options, report = time.monotonic(), read_options(), Report()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    graph, photo_folder, folders = prepare(options, report)
    print(f"Starting ComfyUI on port {options.port}", flush=True)
    started = time.monotonic()
    with Server(WORK, port=options.port, cpu=wants_cpu(), folders=folders) as server:
        report.seconds["starting ComfyUI"] = round(time.monotonic() - started, 1)
        comparison = Comparison(server, graph, options.method, report, show_progress())
        if options.own:
            compare_seeds(comparison, photo_folder)
        else:
            compare_prompts(comparison)
    run_dir = RunDir(WORK / "output" / "finetune" / report.values["run"])
    shutil.copy(run_dir.loss_chart, OUTPUT / "loss.png")
    result = json.loads(run_dir.result_json.read_text(encoding="utf-8"))
    report.seconds.update({f"worker: {phase}": round(spent, 1) for phase, spent in result["seconds"].items()})
    report.seconds["all"] = round(time.monotonic() - began, 1)
    files = {name: str((OUTPUT / name).relative_to(ROOT)) for name in ("sheet.png", "loss.png") if (OUTPUT / name).is_file()}
    told = {**report.values, "files": files, "result": result.get("file", ""), "seconds": report.seconds}
    (OUTPUT / "report.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"Pictures, loss curve and report.json are in {OUTPUT.relative_to(ROOT)}/ ({report.seconds['all']:.0f} s)")


if __name__ == "__main__":
    try:
        main()
    except (ServerError, Refused, Failed) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped. The same command goes on from the last saved state.")
