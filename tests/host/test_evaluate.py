"""EvaluateSubject in a real server, with random encoders of CLIP ViT-L's size."""

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from demo import photos
from demo.run import node
from tools import encoders
from tools.server import Failed
from tools.setup import comfyui_path
from trainer.run.evaluations import read_evaluations
from trainer.run.run_dir import RunDir

from .graphs import picture_graph, same, shown, up_to_training
from .test_workflows import small

PROMPT = "a photo of a plush toy"
SIDE = encoders.SIDE
"""At the encoder's own size, pictures are not resized before it sees them."""
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])


@pytest.fixture(scope="module")
def models(base_directory):
    folder = base_directory / "models"
    encoders.build_image_encoder(folder / "clip_vision" / "random.safetensors")
    encoders.build_text_encoder(folder / "text_encoders" / "random-clip-l.safetensors")
    return folder


@pytest.fixture(scope="module")
def pair(base_directory) -> list[Image.Image]:
    """Two photos of a folder of their own."""
    folder = base_directory / "input" / "pair"
    folder.mkdir()
    drawn = [photos.draw_photo(*photos.SCENES[scene], shift=0).resize((SIDE, SIDE)) for scene in ("on a meadow", "in the snow")]
    for number, photo in enumerate(drawn):
        photo.save(folder / f"{number}.png")
    return drawn


def evaluation(**inputs) -> dict:
    """A graph that evaluates the photos themselves, node "numbers", unless `inputs` say otherwise."""
    given = {"clip_vision": ["encoder", 0], "dataset": ["photos", 0], "pictures": ["photos", 1]}
    return {
        "encoder": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "random.safetensors"}},
        "photos": {"class_type": "DatasetLoader", "inputs": {"folder": "pair", "resolution": SIDE, "crop": "center"}},
        "inverted": {"class_type": "ImageInvert", "inputs": {"image": ["photos", 1]}},
        "numbers": {"class_type": "EvaluateSubject", "inputs": given | inputs},
    }


@pytest.fixture(scope="module")
def by_transformers(models):
    """Give the vectors of pictures and of the prompt, (N + 1, 768), by another implementation of the same encoders."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, projection_dim=768, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, projection_dim=768, num_hidden_layers=12)
    text.num_attention_heads = 12
    eyes = filled(CLIPVisionModelWithProjection, vision, models / "clip_vision" / "random.safetensors")
    reader = filled(CLIPTextModelWithProjection, text, models / "text_encoders" / "random-clip-l.safetensors")
    tokenizer = CLIPTokenizer.from_pretrained(str(comfyui_path() / "comfy" / "sd1_tokenizer"))
    ids = tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    known: dict[bytes, torch.Tensor] = {}

    @torch.no_grad()
    def vectors(pictures: list[Image.Image]) -> torch.Tensor:
        for picture in pictures:
            if picture.tobytes() not in known:
                pixels = (np.asarray(picture, dtype=float) / 255 - MEAN) / STD
                known[picture.tobytes()] = eyes(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).image_embeds
        found = [*(known[picture.tobytes()] for picture in pictures), prompt]
        return torch.nn.functional.normalize(torch.cat(found).double(), dim=1)

    with torch.no_grad():
        prompt = reader(ids).text_embeds
    return vectors


def filled(model_class: type, config, file: Path):
    """The model of a class of transformers, with the weights of a file, fp32."""
    with init_empty_weights():
        model = model_class(config).eval()
    weights = {name: tensor.float() for name, tensor in load_file(file).items()}
    assert not model.load_state_dict(weights, strict=False, assign=True).unexpected_keys
    return model


def test_the_numbers_are_those_of_another_implementation_and_copies_are_flagged(server, by_transformers, pair):
    graph = evaluation(
        pictures_before=["inverted", 0],
        class_before=["photos", 1],
        class_after=["inverted", 0],
        clip=["text", 0],
        prompt=PROMPT,
        copy_threshold=0.999,
    )
    clip = {"clip_name": "random-clip-l.safetensors", "type": "stable_diffusion"}
    graph["text"] = {"class_type": "CLIPLoader", "inputs": clip}
    for number in range(6):
        graph[str(number)] = {"class_type": "PreviewAny", "inputs": {"source": ["numbers", number]}}
    graph["chart"] = {"class_type": "PreviewImage", "inputs": {"images": ["numbers", 7]}}
    result = server.run(graph)
    likeness, copying, copied, variety, drift, fidelity = (float(result.outputs[str(n)]["text"][0]) for n in range(6))

    a, b, a2, b2, prompt = by_transformers([*pair, *map(ImageOps.invert, pair)])
    assert likeness == pytest.approx(float(2 + 2 * a @ b) / 4, abs=1e-5)
    assert variety == pytest.approx(float(1 - a @ b), abs=1e-5)
    assert drift == pytest.approx(float(1 - (a @ a2 + b @ b2) / 2), abs=1e-5)
    assert fidelity == pytest.approx(float(a @ prompt + b @ prompt) / 2, abs=1e-5)
    assert (copying, copied) == (pytest.approx(1, abs=1e-5), 1.0)
    base = float(a2 @ a + a2 @ b + b2 @ a + b2 @ b) / 4
    assert likeness > base
    table = result.outputs["numbers"]["text"][0]
    rows = {
        cells[1]: cells[2:-1] for cells in (line.replace(" ", "").split("|") for line in table.splitlines()) if len(cells) > 5
    }
    assert rows["pictures_before"][0] == f"{base:.3f}"
    assert rows["pictures_before"][2] == "0.000"
    assert rows["dataset"][0] == f"{float(a @ b):.3f}"
    assert server.image(result.outputs["chart"]["images"][0]).width == 640


@pytest.mark.nightly
def test_steps_of_a_run_are_kept_in_its_folder_and_compared(server, models, pair, quick_graph, base_directory):
    trainer = node(quick_graph, "DreamBoothTrain")
    quick_graph[trainer]["inputs"] |= {"name": "evaluated", "train": "lora"}
    first = evaluation(path=[trainer, 4], pictures=["inverted", 0])
    result = server.run(up_to_training(quick_graph) | first)
    assert "measured steps" not in result.outputs["numbers"]["text"][0]
    file = base_directory / "output" / "loras" / result.outputs[trainer]["text"][0].splitlines()[-1]
    run_dir = RunDir(base_directory / "output" / "finetune" / file.stem)

    # A file of an earlier step, as it is kept on the way.
    kept = file.with_name(f"{file.stem}-step-000001.safetensors")
    save_file({"a": torch.zeros(1)}, kept, {"subject_trainer.run": file.stem, "subject_trainer.steps": "1"})
    said = server.run(evaluation(path=kept.name)).outputs["numbers"]["text"][0]
    entries = [json.loads(line) for line in run_dir.evaluations.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [2, 1]
    assert entries[1]["copied"] == 1.0
    assert entries[0]["copied"] == 0.0
    numbers = {"likeness", "copying", "copied", "variety", "photos_copied"}
    assert entries[0].keys() == numbers | {"step", "measured_with"}
    assert "Of 2 measured steps, 2 has the highest likeness of those that copy least" in said


def test_masked_photos_are_compared_as_the_subject_alone_and_copies_as_whole_photos(
    server, by_transformers, pair, base_directory
):
    folder = base_directory / "input" / "pair-with-masks"
    folder.mkdir()
    mask = Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (SIDE // 4, SIDE // 4, SIDE, SIDE // 2))
    for number, photo in enumerate(pair):
        photo.save(folder / f"{number}.png")
    mask.save(folder / "0-masklabel.png")  # the other has none
    graph = evaluation()
    graph["photos"]["inputs"] |= {"folder": "pair-with-masks", "mask_weight": 0.1}
    graph["likeness"] = {"class_type": "PreviewAny", "inputs": {"source": ["numbers", 0]}}
    graph["copying"] = {"class_type": "PreviewAny", "inputs": {"source": ["numbers", 1]}}
    result = server.run(graph)
    likeness, copying = (float(result.outputs[name]["text"][0]) for name in ("likeness", "copying"))
    alone = Image.composite(pair[0], Image.new("RGB", pair[0].size, "grey"), mask)
    a, b, subject, _ = by_transformers([*pair, alone])
    assert likeness == pytest.approx(float(a @ subject + b @ subject + a @ b + 1) / 4, abs=1e-5)
    assert abs(likeness - float(2 + 2 * a @ b) / 4) > 1e-3
    assert copying == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def best_step(server, models):
    """The shipped workflow that evaluates the steps of a LoRA, and its result."""
    graph = small("Train a LoRA and use its best step (evaluation)")
    train = graph[node(graph, "DreamBoothTrain")]["inputs"]
    train |= {"steps": 3, "save_every": 1, "learning_rate": 0.02, "lr_warmup_steps": 0, "seed": 22}
    graph[node(graph, "CLIPVisionLoader")]["inputs"]["clip_name"] = "random.safetensors"
    graph[node(graph, "EmptyLatentImage", "a step")]["inputs"]["batch_size"] = 2
    return graph, server.run(graph)


def test_the_shipped_workflow_keeps_steps_and_draws_with_the_one_to_use(server, best_step, base_directory):
    graph, result = best_step
    file = result.outputs[node(graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]
    run_dir = RunDir(base_directory / "output" / "finetune" / Path(file).stem)
    entries = [json.loads(line) for line in run_dir.evaluations.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    assert len({entry["likeness"] for entry in entries}) == 3
    assert len(run_dir.measurements()) > 1  # on the photo that is held out: the chart has them below the likeness
    assert all(entry["copied"] <= entry["photos_copied"] for entry in entries)
    best = max(entries, key=lambda entry: entry["likeness"])["step"]
    said = result.outputs[node(graph, "EvaluateSubject")]["text"][0]
    assert all(f"| step {step} |" in said for step in (1, 2, 3))
    assert f"Of 3 measured steps, {best} has the highest likeness" in said
    assert server.get(f"/subject_trainer/runs/{quote(run_dir.path.name)}")["facts"]["step_to_use"] == best

    kept = [f"{Path(file).stem}-step-000001.safetensors", f"{Path(file).stem}-step-000002.safetensors", file]
    picture = shown(server, result, node(graph, "SaveImage"))
    assert [same(by_comfyui(server, name), picture) for name in kept] == [step == best for step in (1, 2, 3)]


def by_comfyui(server, lora: str) -> Image.Image:
    """The picture of the base with a LoRA that ComfyUI's own nodes load."""
    loader = {"model": ["base", 0], "clip": ["base", 1], "lora_name": lora, "strength_model": 1.0, "strength_clip": 1.0}
    graph = picture_graph({"class_type": "LoraLoader", "inputs": loader}, "a photo of mysks plush toy in the snow")
    graph["base"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    graph["decode"]["inputs"]["vae"] = ["base", 2]
    graph["sample"]["inputs"]["steps"] = 4
    return shown(server, server.run(graph), "save")


def test_files_and_pictures_that_do_not_go_together_are_refused(server, best_step):
    graph = json.loads(json.dumps(best_step[0]))
    graph[node(graph, "EvaluateSubject")]["inputs"]["pictures"] = [node(graph, "DatasetLoader"), 1]  # a batch for each photo
    with pytest.raises(Failed, match="path names 3 files, and pictures has 4 batches"):
        server.run(graph)


@pytest.mark.nightly
def test_class_drift_is_that_of_the_step_to_use_and_other_encoders_are_not_mixed(
    server, best_step, models, by_transformers, base_directory
):
    graph, folder = up_to_training(best_step[0]), base_directory / "input" / "three"
    folder.mkdir()
    three = [photos.draw_photo(*photos.SCENES[scene], shift=0).resize((SIDE, SIDE)) for scene in list(photos.SCENES)[:3]]
    for number, photo in enumerate(three):
        photo.save(folder / f"{number}.png")
    (base_directory / "input" / "first").mkdir()
    three[0].save(base_directory / "input" / "first" / "0.png")
    train = node(graph, "DreamBoothTrain")
    inputs = {"pictures": ["three", 1], "class_before": ["photos", 1], "class_after": ["inverted", 0], "path": [train, 6]}
    inputs["copy_threshold"] = 0.0  # all are copies then, and likeness decides
    graph |= evaluation(**inputs)
    graph["photos"]["inputs"]["folder"] = "first"
    graph["three"] = {"class_type": "DatasetLoader", "inputs": graph["photos"]["inputs"] | {"folder": "three"}}
    graph["inverted"]["inputs"]["image"] = ["three", 1]
    graph["drift"] = {"class_type": "PreviewAny", "inputs": {"source": ["numbers", 4]}}
    result = server.run(graph)
    a, *after, _ = by_transformers([three[0], *map(ImageOps.invert, three)])
    # One photo in place of the class before, a batch of the other three for each step; the first step's picture is the photo.
    assert float(result.outputs["drift"]["text"][0]) == pytest.approx(float(1 - a @ after[0]), abs=1e-5)
    file = result.outputs[train]["text"][0].splitlines()[-1]
    run_dir = RunDir(base_directory / "output" / "finetune" / Path(file).stem)
    drifts = [entry["class_drift"] for entry in read_evaluations(run_dir.evaluations)[-3:]]
    assert drifts == pytest.approx([float(1 - a @ other) for other in after], abs=1e-5)

    weights = load_file(models / "clip_vision" / "random.safetensors")
    weights["vision_model.post_layernorm.bias"] += 0.1
    save_file(weights, models / "clip_vision" / "other.safetensors")
    graph["encoder"]["inputs"]["clip_name"] = "other.safetensors"
    server.run(graph)
    assert len({entry["measured_with"] for entry in read_evaluations(run_dir.evaluations)}) == 3  # the workflow's own photos
    graph["numbers"]["inputs"]["class_after"] = ["photos", 1]
    with pytest.raises(Failed, match="path names 3 files, and class_after has 1 batches"):
        server.run(graph)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"class_before": ["photos", 1]}, "There are 2 class pictures before and 0 after"),
        (
            {"clip": ["base", 1], "prompt": ["prompts", 1]},
            "2 prompts come through prompt, and all pictures are compared with one",
        ),
        ({"path": "../models/secret.safetensors"}, "No run has exported 'secret.safetensors'"),
    ],
    ids=["class", "prompts", "path"],
)
def test_what_cannot_be_measured_is_told_before_anything_is(server, models, pair, inputs, said):
    with pytest.raises(Failed, match=said):
        server.run(evaluation(**inputs) | two_prompts(server))


def two_prompts(server) -> dict:
    """A node "prompts" that gives a list of two texts, the captions of two photos, and a node "base" with a CLIP."""
    folder = server.base / "input" / "two-texts"
    folder.mkdir(exist_ok=True)
    for text in ("a dog", "a cat"):
        Image.new("RGB", (8, 8)).save(folder / f"{text}.png")
        (folder / f"{text}.txt").write_text(text)
    base = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    return {"base": base, "prompts": {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": folder.name}}}


def test_a_clip_without_a_projection_is_refused(server, models, pair):
    graph = evaluation(clip=["base", 1], prompt=PROMPT)
    graph["base"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    with pytest.raises(Failed, match="The CLIP cannot be compared with the CLIP_VISION"):
        server.run(graph)
