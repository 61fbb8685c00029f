"""Prove that a change to the code changes no training result: the same losses and the same exported bytes.

    python tests/same_results.py record OUT.json [--pack FOLDER] [--base FILE]
    python tests/same_results.py compare OUT.json [--pack FOLDER] [--base FILE]

Trains with the pack in FOLDER (this repository unless given) all that the shipped workflows train, on the stand-in and the
drawn photos, and some variations of their settings that they leave out. `record` writes what came of it, `compare` says
whether the same came of it again and exits with 1 if not. Nothing is imported from the pack: a real ComfyUI loads it.

Both must run on the same computer with the same packages: other processors and libraries round differently. Takes some
minutes on two cores, and 15 GB of disk. The stand-in is built into FILE (beside OUT.json unless given) when it is not there.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo import photos  # noqa: E402 - started by path
from tools.server import Failed, Refused, Server, free_port  # noqa: E402

THREADS = "1"
"""Sums depend on how many threads share them; one does not slow down when others use the computer too."""
DREAMBOOTH, INVERSION, LOADER = "DreamBoothTrain", "TextualInversionTrain", "LoadFinetuned"
SMALL = {
    "CheckpointLoaderSimple": {"ckpt_name": "standin.safetensors"},
    "DatasetLoader": {"resolution": 64},
    "EmptyLatentImage": {"width": 64, "height": 64},
    "RebatchLatents": {"batch_size": 1},
    "KSampler": {"steps": 4},
}
"""What the shipped workflows get in place of their own values, by class of node."""
AT_MOST = {"steps": 4, "batch_size": 2, "class_images": 2, "lr_warmup_steps": 2}
"""How much of their own values the training nodes, and EmptyLatentImage, keep."""

VARIATIONS = {
    "unet": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {"train": "unet", "learning_rate": 1e-4},
            "DatasetLoader": {"crop": "top", "view_jitter": 0.1, "color_jitter": 0.1, "light_jitter": 0.1, "variants": 2},
        },
    ),
    "text_encoder": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {
                "train": "unet_and_text_encoder",
                "learning_rate": 1e-4,
                "text_learning_rate": 1e-5,
                "weight_decay": 0.1,
                "class_images": 2,
                "prior_loss_weight": 0.5,
            }
        },
    ),
    "text_encoder_checkpointed_adafactor": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {
                "train": "unet_and_text_encoder",
                "learning_rate": 1e-4,
                "optimizer": "adafactor",
                "gradient_checkpointing": "on",
            }
        },
    ),
    "lora_convolution": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {
                "train": "lora",
                "lora_layers": "all",
                "lora_rank": 4,
                "lora_alpha": 2,
                "learning_rate": 1e-3,
                "lr_scheduler": "linear",
                "max_grad_norm": 0,
                "batch_size": 2,
            }
        },
    ),
    "lora_prodigy": (
        "Train a subject (DreamBooth or LoRA)",
        {DREAMBOOTH: {"train": "lora", "steps": 6, "optimizer": "prodigy", "learning_rate": 1, "seed": 5}},
    ),
    "token_accumulation": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {
                "steps": 6,
                "batch_size": 2,
                "learning_rate": 1e-4,
                "text_learning_rate": 1e-2,
                "gradient_accumulation_steps": 2,
                "min_snr_gamma": 5,
                "noise_offset": 0.05,
                "caption_dropout": 0.3,
                "ema_decay": 0.9,
                "lr_scheduler": "cosine",
                "lr_warmup_steps": 2,
            }
        },
    ),
    "held_out_buckets": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {
                "steps": 6,
                "learning_rate": 1e-4,
                "hold_out": 1,
                "validate_every": 2,
                "early_stopping": "export_best",
            },
            "DatasetLoader": {"folder": "shapes", "resolution": 128, "crop": "bucket", "flip": True},
        },
    ),
    "stopped_early": (
        "Train a subject (DreamBooth or LoRA)",
        {
            DREAMBOOTH: {
                "train": "lora",
                "steps": 12,
                "learning_rate": 0.02,
                "hold_out": 1,
                "validate_every": 1,
                "early_stopping": "stop_and_export_best",
                "ema_decay": 0.5,
                "class_images": 2,
                "sample_prompts": "a photo of {word} plush toy",
                "sample_every": 12,
            },
            "DatasetLoader": {"folder": "shapes", "crop": "pad"},
        },
    ),
    "state_kept": (
        "Train a subject (DreamBooth or LoRA)",
        {DREAMBOOTH: {"train": "lora", "steps": 2, "learning_rate": 1e-3, "ema_decay": 0.9, "keep_state": True}},
    ),
    "made_longer": (  # goes on from the state of the one above
        "Train a subject (DreamBooth or LoRA)",
        {DREAMBOOTH: {"train": "lora", "steps": 5, "learning_rate": 1e-3, "ema_decay": 0.9}},
    ),
    "object_templates": (
        "Train an embedding (Textual Inversion)",
        {
            INVERSION: {
                "steps": 6,
                "learning_rate": 0.1,
                "template_set": "object",
                "vectors": 2,
                "norm_limit": 1,
                "save_every": 2,
                "gradient_checkpointing": "on",
            }
        },
    ),
    "inversion_held_out": (
        "Train an embedding (Textual Inversion)",
        {
            INVERSION: {
                "dataset": ["2", 0],  # without CaptionWithToken
                "initializer": "brown toy",
                "steps": 6,
                "batch_size": 2,
                "learning_rate": 0.1,
                "lr_scheduler": "cosine",
                "lr_warmup_steps": 2,
                "hold_out": 1,
                "validate_every": 2,
                "early_stopping": "export_best",
                "optimizer": "adamw_8bit",
                "gradient_accumulation_steps": 2,
                "min_snr_gamma": 5,
                "noise_offset": 0.05,
                "ema_decay": 0.9,
                "sample_prompts": "a photo of {word}",
                "sample_every": 6,
            }
        },
    ),
    "inversion_from_embedding": (
        "Train an embedding (Textual Inversion)",
        {
            INVERSION: {
                "initializer": "embedding:mysks_Train_an_embedding_Textual_Inversion",  # what the shipped workflow has left
                "template_set": "style",
                "optimizer": "prodigy",
                "learning_rate": 1,
            }
        },
    ),
    "pivotal_lora": (  # the word comes with the CLIP
        "Train an embedding and then the model (pivotal tuning)",
        {DREAMBOOTH: {"train": "lora", "learning_rate": 1e-3, "clip": ["5", 0], "embedding": ""}},
    ),
    "pivotal_text_encoder": (
        "Train an embedding and then the model (pivotal tuning)",
        {DREAMBOOTH: {"train": "unet_and_text_encoder", "learning_rate": 1e-4, "text_learning_rate": 1e-3}},
    ),
    "pivotal_unet": (
        "Train an embedding and then the model (pivotal tuning)",
        {DREAMBOOTH: {"train": "unet", "learning_rate": 1e-4}},
    ),
}
"""Name: the shipped workflow that it varies, and what it changes there, by class of node."""
ALONE = "Train a subject (DreamBooth or LoRA)"
"""The workflow whose trainings, with all variations, have a server of their own: half of them."""


@dataclass(frozen=True)
class Training:
    """Name a training node of a shipped workflow, and the settings that it gets beyond the scaling down."""

    workflow: str
    class_type: str
    variation: str = ""
    """Empty: as shipped."""
    changes: dict[str, dict] = field(default_factory=dict)
    """Class of node -> widgets."""

    @property
    def short(self) -> str:
        """Return the workflow's name as a part of a token or a file name."""
        return re.sub(r"\W+", "_", self.workflow).strip("_")

    @property
    def word(self) -> str:
        """Return the token, which is the name of an inversion's run too."""
        return f"mysks_{self.variation if self.variation and self.class_type == INVERSION else self.short}"

    @property
    def name(self) -> str:
        """Return what the run's folder begins with, before a hyphen."""
        return self.word if self.class_type == INVERSION else self.variation or self.short


LOADED = (
    Training("Train a subject (DreamBooth or LoRA)", DREAMBOOTH),
    Training("Train a LoRA (character, object, style)", DREAMBOOTH),
    Training("Train an embedding (Textual Inversion)", INVERSION),
    Training("Train an embedding and then the model (pivotal tuning)", DREAMBOOTH),
)
"""Whose results the workflow "Make pictures of a trained subject" loads: one of each kind."""


@dataclass(frozen=True)
class Job:
    """Hold what is to be done on a server."""

    label: str
    workflow: str
    """Where its training comes from: jobs of one workflow build on each other."""
    work: Callable[[Server, dict, str], dict]
    """`train` or `load`."""
    graph: dict
    name: str
    """What the run's folder begins with."""


def trainings(workflows: dict[str, dict]) -> Iterator[Training]:
    """Yield those of the shipped workflows, inversions before what may train on from them, then the variations."""
    for workflow, graph in workflows.items():
        for class_type in (INVERSION, DREAMBOOTH):
            for _ in nodes_of(graph, class_type):
                yield Training(workflow, class_type)
    for variation, (workflow, changes) in VARIATIONS.items():
        (class_type,) = changes.keys() & {DREAMBOOTH, INVERSION}
        yield Training(workflow, class_type, variation, changes)


def nodes_of(graph: dict, class_type: str) -> list[str]:
    """Return the ids of the nodes of a class."""
    return [i for i, node in graph.items() if node["class_type"] == class_type]


def prepared(graph: dict, training: Training) -> dict:
    """Return the training node and what it needs, scaled down and changed as the training says."""
    graph = json.loads(json.dumps(graph))
    for node in graph.values():
        class_type, inputs = node["class_type"], node["inputs"]
        inputs |= SMALL.get(class_type, {})
        if class_type in (DREAMBOOTH, INVERSION, "EmptyLatentImage"):
            inputs |= {name: min(inputs[name], limit) for name, limit in AT_MOST.items() if name in inputs}
        if class_type in (DREAMBOOTH, INVERSION):
            first = inputs["sample_prompts"].strip().split("\n")[0]
            inputs |= {"precision": "fp32", "sample_prompts": first, "sample_every": inputs["steps"]}
        if class_type == DREAMBOOTH:
            inputs["name"] = training.name
        if "token" in inputs:
            inputs["token"] = training.word
        if inputs.get("folder") == "my-photos":
            inputs["folder"] = "plush"
        changes = training.changes.get(class_type, {})
        inputs |= {k: v.format(word=training.word) if isinstance(v, str) else v for k, v in changes.items()}
    (node_id,) = nodes_of(graph, training.class_type)
    return upstream(graph, node_id)


def upstream(graph: dict, node_id: str) -> dict:
    """Return the node and all that it needs, so that nothing else of the graph runs."""
    kept, waiting = {}, [node_id]
    while waiting:
        node_id = waiting.pop()
        kept[node_id] = graph[node_id]
        waiting += [value[0] for value in graph[node_id]["inputs"].values() if isinstance(value, list)]
    return kept


def train(server: Server, graph: dict, name: str) -> dict:
    """Return what the training of the graph left: measured numbers, and hashes of the exported tensors and the pictures."""
    before = exported_files(server.base)
    server.run(graph)
    run_dir = run_folder(server.base, name)
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    exported = exported_files(server.base) - before
    if not (metrics and exported):
        raise Failed(f"{run_dir.name} has left no metrics, or no exported file")
    result = {
        "steps": sum("loss" in entry for entry in metrics),
        "losses": digest(*(json.dumps(entry, sort_keys=True).encode() for entry in metrics)),
        "tensors": digest(*sorted(tensors_hash(path).encode() for path in exported)),
        "metrics": metrics,
    }
    pictures: list[Image.Image] = [Image.open(path) for path in sorted(run_dir.glob("samples/*.png"))]
    return result | ({"pictures": pictures_hash(pictures)} if pictures else {})


def load(server: Server, graph: dict, name: str) -> dict:
    """Return the hash of the picture that "Make pictures of a trained subject" draws with a finished run."""
    graph = json.loads(json.dumps(graph))
    for node in graph.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
    (loader,), (save,) = nodes_of(graph, LOADER), nodes_of(graph, "SaveImage")
    graph[loader]["inputs"]["run"] = run_folder(server.base, name).name
    return {"pictures": pictures_hash([server.image(shown) for shown in server.run(graph).outputs[save]["images"]])}


def run_folder(base: Path, name: str) -> Path:
    """Return the folder of the one run of that name."""
    (found,) = (base / "output" / "finetune").glob(f"{name}-*")
    return found


def exported_files(base: Path) -> set[Path]:
    """Return the weights that lie where ComfyUI's loaders find them."""
    folders = (base / "output" / "checkpoints", base / "output" / "loras", base / "models" / "embeddings")
    return {path for folder in folders for path in folder.rglob("*.safetensors")}


def tensors_hash(path: Path) -> str:
    """Return a hash of names, types, shapes and bytes of a safetensors file; not of its metadata, nor of the order."""
    raw = memoryview(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(bytes(raw[8:start]))
    header.pop("__metadata__", None)
    hasher = hashlib.sha256()
    for name, tensor in sorted(header.items()):
        begin, end = tensor["data_offsets"]
        hasher.update(f"{name} {tensor['dtype']} {tensor['shape']}\n".encode())
        hasher.update(raw[start + begin : start + end])
    return hasher.hexdigest()


def pictures_hash(pictures: list[Image.Image]) -> str:
    """Return a hash of the pixels."""
    return digest(*(f"{picture.mode} {picture.size}".encode() + picture.tobytes() for picture in pictures))


def digest(*parts: bytes) -> str:
    """Return a sha256 of parts that may be of any length."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def draw_photos(folder: Path) -> None:
    """Draw the square photos with captions, and three shapes of them with metadata.jsonl."""
    photos.draw(folder / "plush")
    (folder / "shapes").mkdir()
    lines = []
    for number, (height, repeats) in enumerate(((512, 1), (300, 2), (512, 1), (300, 1), (512, 1)), 1):
        square = Image.open(folder / "plush" / f"plush-{min(number, 4)}.jpg")
        box = (0, 0, 512, height) if number % 3 else (100, 0, 400, height)
        square.crop(box).save(folder / "shapes" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"shape {number}", "repeats": repeats}))
    (folder / "shapes" / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")


def all_jobs(pack: Path) -> list[Job]:
    """Return a job for each training, then one for each kind of trained weights that can be loaded."""
    files = sorted((pack / "workflows" / "api").glob("*.json"))
    workflows = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    jobs = []
    for training in trainings(workflows):
        graph = workflows[training.workflow]
        (node_id,) = nodes_of(graph, training.class_type)
        label = f"{training.workflow}, {node_id} {training.class_type}, {training.variation or 'as shipped'}"
        jobs.append(Job(label, training.workflow, train, prepared(graph, training), training.name))
    graph = workflows["Make pictures of a trained subject"]
    (node_id,) = nodes_of(graph, LOADER)
    for training in LOADED:
        label = f"Make pictures of a trained subject, {node_id} {LOADER} (no training), what {training.name} has left"
        jobs.append(Job(label, training.workflow, load, graph, training.name))
    return jobs


def do_jobs(jobs: list[Job], folder: Path, pack: Path, base: Path) -> Iterator[tuple[str, dict]]:
    """Yield the label and the result of each job, done one after the other on one server in a new folder."""
    (folder / "models" / "checkpoints").mkdir(parents=True)
    (folder / "models" / "checkpoints" / "standin.safetensors").symlink_to(base)
    draw_photos(folder / "input")
    with Server(folder, port=free_port(), cpu=True, pack=pack) as server:
        for job in jobs:
            began = time.monotonic()
            try:
                result = job.work(server, job.graph, job.name)
            except (Failed, Refused) as error:
                result = {"failed": str(error)}
            yield job.label, result | {"seconds": round(time.monotonic() - began, 1)}


def verdict(recorded: dict | None, result: dict) -> str:
    """Return "same", or in what the two are different."""
    if "failed" in result:
        return f"DIFFERENT: failed: {result['failed']}"
    if recorded is None:
        return "DIFFERENT: not recorded"
    names = [name for name in ("steps", "losses", "tensors", "pictures") if recorded.get(name) != result.get(name)]
    return f"DIFFERENT: {', '.join(names)}" if names else "same"


def line(label: str, result: dict, said: str) -> str:
    """Return what is printed of a training."""
    hashes = [f"{name} {result[name][:16]}" for name in ("losses", "tensors", "pictures") if name in result]
    steps = [f"{result['steps']} steps"] if "steps" in result else []
    return f"{', '.join((label, *steps, *hashes))}: {said} ({result['seconds']:.0f} s)"


def run_all(pack: Path, base: Path, recorded: dict | None) -> tuple[dict, bool]:
    """Train everything and print a line each; the results by label, and whether they are as `recorded`, if that is given."""
    work = Path(tempfile.mkdtemp(prefix="same-results-"))
    print(f"Pack {pack}, files of this run in {work}", flush=True)
    jobs, found, verdicts = all_jobs(pack), {}, []

    def do_share(alone: bool) -> None:
        share = [job for job in jobs if (job.workflow == ALONE) == alone]
        for label, result in do_jobs(share, work / ("alone" if alone else "others"), pack, base):
            found[label] = result
            said = verdict(result if recorded is None else recorded.get(label), result)
            verdicts.append(said)
            print(line(label, result, "recorded" if recorded is None and said == "same" else said), flush=True)

    with ThreadPoolExecutor() as two:
        list(two.map(do_share, (False, True)))
    for label in (recorded or {}).keys() - found.keys():
        verdicts.append("DIFFERENT")
        print(f"{label}: DIFFERENT: not trained any more", flush=True)
    good = set(verdicts) == {"same"}
    if good:
        shutil.rmtree(work)
    return {job.label: found[job.label] for job in jobs}, good


def main() -> int:
    """Record or compare, as the command line says."""
    parser = argparse.ArgumentParser(description="Prove that a change to the code changes no training result.")
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("out", type=Path, metavar="OUT.json")
    parser.add_argument("--pack", type=Path, default=ROOT, help="folder of the pack; this repository unless given")
    parser.add_argument("--base", type=Path, help="the stand-in; built there when missing")
    args = parser.parse_args()
    pack, base = args.pack.resolve(), (args.base or args.out.with_suffix(".base.safetensors")).resolve()
    os.environ |= {"OMP_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS}  # the server's, and its workers'
    recorded = json.loads(args.out.read_text(encoding="utf-8")) if args.command == "compare" else None
    if not base.is_file():
        subprocess.run([sys.executable, "-m", "tools.standin", str(base)], cwd=ROOT, check=True)
    base_hash = tensors_hash(base)
    if recorded and recorded["base"] != base_hash:
        sys.exit(f"{base} is not the stand-in that {args.out} was recorded with.")
    began = time.monotonic()
    found, good = run_all(pack, base, recorded and recorded["trainings"])
    if recorded is None:
        args.out.write_text(json.dumps({"base": base_hash, "trainings": found}, indent=1) + "\n", encoding="utf-8")
    said = "failed" if not good and recorded is None else "recorded" if recorded is None else "same" if good else "DIFFERENT"
    print(f"{len(found)} results: {said}, {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
