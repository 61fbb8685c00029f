"""The protocol of the DreamBooth paper (Ruiz et al. 2022, section 4.1) through a running ComfyUI with this pack.

    python -m bench.dreambench --port 8188 --checkpoint v1-5-pruned-emaonly.safetensors --dino dinov2_large.safetensors
        --clip clip_vision_l.safetensors --text clip_l.safetensors --report dreambench.jsonl [--set train=lora --set steps=800]

Each subject is trained, each of its 25 prompts is drawn four times, and EvaluateSubject compares the pictures with its photos
(DINO, CLIP-I) and with the prompt (CLIP-T). The report's first line has the options, each other one a prompt of a subject; those
that are there are not done again, and a finished run is not trained again. bench/README.md says where the photos come from.
"""

import argparse
import ast
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.server import Server
from trainer.run.files import partial_file

LIVE = ("cat", "dog")
"""Classes that have the paper's prompts for live subjects."""
DECIDE = ("method", "checkpoint", "dino", "clip", "text", "set", "folder", "token", "images", "size", "sampling_steps")
"""Options that decide the numbers: one report has those of one choice of them."""
COLUMNS = {"DINO": "dino", "CLIP-I": "clip_i", "CLIP-T": "clip_t"}


@dataclass(frozen=True)
class Protocol:
    """What prompts_and_classes.txt holds."""

    classes: dict[str, str]
    """What each subject is."""
    objects: list[str]
    """Prompts with {0} for the token and {1} for the class."""
    live: list[str]

    def prompts(self, subject: str) -> list[str]:
        """Return the prompts of a subject."""
        return self.live if self.classes[subject] in LIVE else self.objects


def read_protocol(path: Path) -> Protocol:
    """Read prompts_and_classes.txt of the paper's dataset."""
    text = path.read_text(encoding="utf-8")
    table = text.partition("subject_name,class")[2].partition("Prompts")[0]
    classes = dict(line.split(",") for line in table.splitlines() if "," in line)
    lists = [re.findall(r"^('.*?')\.format", found, re.MULTILINE) for found in re.findall(r"\[(.*?)\n\]", text, re.DOTALL)]
    objects, live = ([ast.literal_eval(prompt) for prompt in prompts] for prompts in lists)
    return Protocol(classes, objects, live)


def graph_of(options: argparse.Namespace, subject: str, of_class: str, prompt: str) -> dict:
    """Return a graph that trains the subject, draws one prompt and evaluates the pictures; ComfyUI keeps what does not change."""
    if options.method == "textual_inversion":  # its file is called like the token
        token = f"{options.token}-{subject}"
        node, named, model, clip, vae = "TextualInversionTrain", {"token": token}, ["base", 0], ["train", 0], ["base", 2]
    else:
        token = options.token
        node, named, model, clip, vae = "DreamBoothTrain", {"name": subject}, ["train", 0], ["train", 1], ["train", 2]
    nodes = {
        "base": ("CheckpointLoaderSimple", {"ckpt_name": options.checkpoint}),
        "photos": ("DatasetLoader", {"folder": f"{options.folder}/{subject}", "resolution": options.size, "crop": "center"}),
        "named": ("CaptionWithToken", {"dataset": ["photos", 0], "token": token, "class_word": of_class}),
        "train": (node, {**named, "dataset": ["named", 0], "preset": "auto", **settings(options.set)}),
        "prompt": ("CLIPTextEncode", {"clip": clip, "text": prompt.format(token, of_class)}),
        "empty": ("CLIPTextEncode", {"clip": clip, "text": ""}),
        "latent": ("EmptyLatentImage", {"width": options.size, "height": options.size, "batch_size": options.images}),
        "sample": ("KSampler", {"model": model, "positive": ["prompt", 0], "negative": ["empty", 0]}),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": vae}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": f"dreambench/{subject}"}),
        "dino": ("CLIPVisionLoader", {"clip_name": options.dino}),
        "clip": ("CLIPVisionLoader", {"clip_name": options.clip}),
        "text": ("CLIPLoader", {"clip_name": options.text, "type": "stable_diffusion"}),
    }
    nodes["named"][1]["template"] = "a {token} {class}"  # the paper's instance prompt: "a [V] dog"
    nodes["train"][1].update({socket: ["base", number] for number, socket in enumerate(("model", "clip", "vae"))})
    sampler = {"seed": 0, "steps": options.sampling_steps, "cfg": 7.5, "sampler_name": "ddim", "scheduler": "normal"}
    nodes["sample"][1].update({"latent_image": ["latent", 0], "denoise": 1.0, **sampler})
    compared = {"dataset": ["photos", 0], "pictures": ["decode", 0]}
    nodes["by_dino"] = ("EvaluateSubject", {"clip_vision": ["dino", 0], **compared})
    without_token = " ".join(prompt.format("", of_class).split())
    more = {"clip": ["text", 0], "prompt": without_token}
    nodes["by_clip"] = ("EvaluateSubject", {"clip_vision": ["clip", 0], **compared, **more})
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def settings(given: list[str]) -> dict:
    """Return name=value pairs as a node's inputs; a value is JSON, or a text."""
    found = {}
    for pair in given:
        name, _, value = pair.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def likeness(table: str, row: str) -> float:
    """Return the likeness in a row of EvaluateSubject's table."""
    return float(re.search(rf"^\| {row} \| ([\d.-]+) ", table, re.MULTILINE)[1])


def measured(outputs: dict) -> dict:
    """Return what a line of the report says, by what both evaluations show."""
    dino, clip = (outputs[name]["text"][0] for name in ("by_dino", "by_clip"))
    fidelity = re.search(r"^prompt_fidelity: ([\d.-]+)$", clip, re.MULTILINE)[1]
    found = {"dino": likeness(dino, "pictures"), "clip_i": likeness(clip, "pictures"), "clip_t": float(fidelity)}
    return found | {"real_dino": likeness(dino, "dataset"), "real_clip_i": likeness(clip, "dataset")}


def table(lines: list[dict]) -> str:
    """Return the paper's table 1: means over the subjects of the means over their prompts, with a row of real photos."""
    subjects = sorted({line["subject"] for line in lines})

    def mean(key: str) -> str:
        of_each = [[line[key] for line in lines if line["subject"] == subject and key in line] for subject in subjects]
        return f"{sum(sum(v) / len(v) for v in of_each) / len(of_each):.3f}" if all(of_each) else "-"

    rows = {"Real images": "real_", "This run": ""}
    head = f"| {len(subjects)} subjects, {len(lines)} prompts | " + " | ".join(COLUMNS) + " |\n" + "| --- " * 4 + "|"
    return "\n".join(
        [head, *(f"| {row} | " + " | ".join(mean(p + key) for key in COLUMNS.values()) + " |" for row, p in rows.items())]
    )


def read_report(path: Path) -> list[dict]:
    """Return the lines of a report, none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def resumed(path: Path, options: argparse.Namespace) -> list[dict]:
    """Return the lines of a report, the options that decide its numbers first. Exits where it has those of other ones."""
    asked = {name: getattr(options, name) for name in DECIDE} | {"set": settings(options.set)}
    lines = read_report(path) or [asked]
    if other := [
        f"{name} is {asked[name]!r} and was {lines[0].get(name)!r}" for name in asked if lines[0].get(name) != asked[name]
    ]:
        raise SystemExit(f"{path} is of another run: {'; '.join(other)}. Name another --report.")
    return lines


def to_do(protocol: Protocol, options: argparse.Namespace, done: list[dict]) -> Iterator[tuple[str, str]]:
    """Yield the subjects and prompts that are not in the report, subject after subject."""
    known = {(line["subject"], line["prompt"]) for line in done}
    for subject in options.subjects or protocol.classes:
        for prompt in protocol.prompts(subject)[: options.prompts]:
            if (subject, prompt) not in known:
                yield subject, prompt


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description="DreamBooth's protocol through a running ComfyUI.")
    parser.add_argument("--port", type=int, default=8188, help="of ComfyUI on this computer")
    parser.add_argument("--protocol", type=Path, required=True, help="prompts_and_classes.txt of the paper's dataset")
    parser.add_argument("--folder", default="dreambench", help="of the subjects, below ComfyUI's input")
    parser.add_argument("--report", type=Path, default=Path("dreambench.jsonl"))
    for name, kind in (
        ("checkpoint", "checkpoints"),
        ("dino", "clip_vision"),
        ("clip", "clip_vision"),
        ("text", "text_encoders"),
    ):
        parser.add_argument(f"--{name}", required=True, help=f"a file of models/{kind}")
    parser.add_argument("--method", choices=("dreambooth", "textual_inversion"), default="dreambooth")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the method's training node")
    parser.add_argument("--token", default="mysks")
    parser.add_argument("--subjects", nargs="*", help="these alone")
    parser.add_argument("--prompts", type=int, default=25, help="of each subject")
    parser.add_argument("--images", type=int, default=4, help="of each prompt")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--sampling-steps", type=int, default=50)
    return parser.parse_args()


def main() -> None:
    """Do what is not done yet, and print the table."""
    options = parse()
    protocol, (head, *done) = read_protocol(options.protocol), resumed(options.report, options)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), port=options.port, cpu=False)  # not started: a client of the running one
    for subject, prompt in to_do(protocol, options, done):
        result = server.run(graph_of(options, subject, protocol.classes[subject], prompt))
        line = {"subject": subject, "prompt": prompt, **measured(result.outputs)}
        done.append(line)
        with partial_file(options.report) as report:  # whole, whenever it is stopped
            report.write_text("".join(json.dumps(line) + "\n" for line in (head, *done)), encoding="utf-8")
        print(line, flush=True)
    print(table(done))


if __name__ == "__main__":
    main()
