"""EvaluateSubject in a real server, with random encoders of CLIP ViT-L's size."""

import json

import numpy as np
import pytest
import torch
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
from trainer.run.run_dir import RunDir

from .graphs import up_to_training

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


def by_transformers(models, pictures: list[Image.Image]) -> torch.Tensor:
    """The vectors of pictures and of the prompt, (N + 1, 768), by another implementation of the same encoders."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, projection_dim=768, num_hidden_layers=24, num_attention_heads=16, patch_size=14
    )
    found = []
    with torch.no_grad():
        weights = {k: v.float() for k, v in load_file(models / "clip_vision" / "random.safetensors").items()}
        model = CLIPVisionModelWithProjection(vision).eval()
        assert not model.load_state_dict(weights, strict=False).unexpected_keys
        for picture in pictures:
            pixels = (np.asarray(picture, dtype=float) / 255 - MEAN) / STD
            found.append(model(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).image_embeds)
        text = CLIPTextConfig(hidden_size=768, intermediate_size=3072, projection_dim=768, num_hidden_layers=12)
        text.num_attention_heads = 12
        weights = {k: v.float() for k, v in load_file(models / "text_encoders" / "random-clip-l.safetensors").items()}
        model = CLIPTextModelWithProjection(text).eval()
        assert not model.load_state_dict(weights, strict=False).unexpected_keys
        tokenizer = CLIPTokenizer.from_pretrained(str(comfyui_path() / "comfy" / "sd1_tokenizer"))
        ids = tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
        found.append(model(ids).text_embeds)
    return torch.nn.functional.normalize(torch.cat(found).double(), dim=1)


def test_the_numbers_are_those_of_another_implementation_and_copies_are_flagged(server, models, pair):
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

    a, b, a2, b2, prompt = by_transformers(models, [*pair, *map(ImageOps.invert, pair)])
    assert likeness == pytest.approx(float(2 + 2 * a @ b) / 4, abs=1e-4)
    assert variety == pytest.approx(float(1 - a @ b), abs=1e-4)
    assert drift == pytest.approx(float(1 - (a @ a2 + b @ b2) / 2), abs=1e-4)
    assert fidelity == pytest.approx(float(a @ prompt + b @ prompt) / 2, abs=1e-4)
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
    assert entries[0].keys() == {"step", "likeness", "copying", "copied", "variety"}
    assert "Of 2 measured steps, 2 has the highest likeness of those that copy least" in said


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"class_before": ["photos", 1]}, "There are 2 class pictures before and 0 after"),
        ({"path": "../models/secret.safetensors"}, "No run has exported 'secret.safetensors'"),
    ],
    ids=["class", "path"],
)
def test_what_cannot_be_measured_is_told_before_anything_is(server, models, pair, inputs, said):
    with pytest.raises(Failed, match=said):
        server.run(evaluation(**inputs))


def test_a_clip_without_a_projection_is_refused(server, models, pair):
    graph = evaluation(clip=["base", 1], prompt=PROMPT)
    graph["base"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    with pytest.raises(Failed, match="The CLIP cannot be compared with the CLIP_VISION"):
        server.run(graph)
