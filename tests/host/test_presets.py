"""A preset is what is trained, whatever client names it: in the smallest graph that there is, over HTTP."""

import json
import urllib.request
import uuid
from pathlib import Path

import pytest
import websocket

from demo.run import node
from tools.server import HOST, Failed, Refused
from trainer.run.presets import presets
from trainer.run.run_dir import RunDir

API = Path(__file__).parents[2] / "workflows" / "api"


def minimal(preset: str, name: str, **widgets) -> dict:
    links = {"model": ["base", 0], "clip": ["base", 1], "vae": ["base", 2], "dataset": ["captions", 0]}
    return {
        "base": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}},
        "photos": {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}},
        "captions": {
            "class_type": "CaptionWithToken",
            "inputs": {
                "dataset": ["photos", 0],
                "token": "mysks",
                "class_word": "plush toy",
                "template": "a photo of {token} {class}",
            },
        },
        "train": {"class_type": "DreamBoothTrain", "inputs": links | {"preset": preset, "name": name} | widgets},
    }


def run_dir(base_directory: Path, name: str) -> RunDir:
    (path,) = (base_directory / "output" / "finetune").glob(f"{name}-*")
    return RunDir(path)


ALONE = {  # on a CPU, with four photos
    "auto": {"train": "lora", "steps": 400, "lora_rank": 16, "learning_rate": 1e-4, "batch_size": 1, "optimizer": "adamw"},
    "study, 24 GB": {"train": "unet_and_token", "steps": 1600, "batch_size": 8, "optimizer": "adamw_8bit", "precision": "bf16"},
    "paper, 24 GB": {"train": "unet", "steps": 1000, "class_images": 200, "learning_rate": 5e-6, "optimizer": "adamw"},
    "12 GB card": {"train": "unet_and_token", "steps": 400, "class_images": 100, "text_learning_rate": 1e-4},
    "8 GB card (LoRA)": {"train": "lora", "steps": 400, "class_images": 100, "lr_scheduler": "cosine"},
    "own settings": {"train": "unet_and_token", "steps": 400, "batch_size": 1, "learning_rate": 2e-6},
}


@pytest.mark.parametrize("preset", presets("dreambooth"))
def test_a_preset_alone_is_what_is_trained(server, workers, base_directory, preset):
    name = f"alone-{presets('dreambooth').index(preset)}"
    texts = []

    def interrupt(_: str, text: str) -> None:
        texts.append(text)
        if text.startswith(preset):  # run.json is there; the rest is the same for every run
            server.post("/interrupt", {})

    with pytest.raises(Failed, match="interrupted"):
        server.run(minimal(preset, name), on_text=interrupt)
    run = run_dir(base_directory, name).load_run()
    assert run.settings.flat().items() >= ALONE[preset].items()
    assert run.preset == preset
    assert f"{ALONE[preset]['steps']} steps for 4 photos; about " in texts[-1] or f"{run.choice}" in " ".join(texts)
    assert not run_dir(base_directory, name).finished
    assert workers() == []


@pytest.mark.parametrize(
    "preset", [*(pytest.param(p, marks=pytest.mark.nightly) for p in ("auto", "12 GB card")), "8 GB card (LoRA)"]
)
def test_what_is_given_beside_a_preset_is_trained_and_named(server, base_directory, preset):
    """Trained to the end; the same graph again finds the run."""
    name = f"beside-{presets('dreambooth').index(preset)}"
    given = {"train": "lora", "steps": 2, "lora_rank": 4, "class_images": 0, "batch_size": 2}
    graph = minimal(preset, name, **given)
    (text,) = server.run(graph).outputs["train"]["text"]
    run = run_dir(base_directory, name).load_run()
    assert run.settings.flat().items() >= (given | {"lora_alpha": 4.0}).items()
    *_, told, file = text.splitlines()
    own = "class_images 0, lora_rank 4, steps 2, batch_size 2"
    assert told.startswith(f"{preset}, with {own if 'LoRA' in preset else f'train lora, {own}'}: LoRA rank 4, ")
    assert told == str(run.choice)
    assert (base_directory / "output" / "loras" / file).is_file()
    graph["train"]["inputs"]["keep_state"] = True  # so that the node runs again; it decides no result
    texts = []
    server.run(graph, on_text=lambda _, text: texts.append(text))
    assert texts == []


def refusal(server, graph: dict) -> str:
    with pytest.raises(Refused) as refused:
        server.run(graph)
    return str(refused.value)


@pytest.mark.parametrize(
    ("widgets", "told"),
    [
        ({"lora_rank": 32}, "lora_rank is 32, but no LoRA is trained: train is unet_and_token. Set train to lora"),
        ({"optimizer": "prodigy", "learning_rate": 1e-4}, "Prodigy finds the learning rates itself"),
        ({"lr_warmup_steps": 1601}, "lr_warmup_steps is 1601; it must be between 0 and 1600"),
        ({"early_stopping": "export_best"}, "set hold_out to 1 or more"),
        ({"batch_size": 3, "devices": 2}, "2 devices cannot share it evenly"),
        ({"precision": "fp16"}, "fp16 training needs a GPU. Choose precision auto or fp32."),  # on this server's CPU
        ({"class_dataset": ["photos", 0], "class_images": 5}, "Class images come from class_dataset"),
        ({"train": "lora", "text_learning_rate": 1e-4}, "no token and no text encoder is trained: train is lora. Set train to"),
    ],
)
def test_a_contradiction_is_refused_before_anything_runs(server, base_directory, widgets, told):
    said = refusal(server, minimal("study, 24 GB", "refused", **widgets))
    assert said.count(told) == 1  # one sentence, not one for each widget
    assert list((base_directory / "output" / "finetune").glob("refused-*")) == []


@pytest.mark.parametrize(
    ("widgets", "told"),
    [
        ({"preset": "4 GB card"}, "'4 GB card' not in"),
        ({"steps": -1}, "smaller than min of 0"),
        ({"batch_size": 65}, "bigger than max of 64"),
        ({"class_images": -2}, "smaller than min of -1"),
        ({"optimizer": "sgd"}, "'sgd' not in"),
        ({"gradient_checkpointing": True}, "True not in"),
        ({"steps": "many"}, "Failed to convert"),
    ],
)
def test_wrong_values_are_still_refused_by_comfyui(server, widgets, told):
    graph = minimal("auto", "refused")
    graph["train"]["inputs"] |= widgets
    with pytest.raises(Refused) as refused:
        server.run(graph)
    errors = [f"{error['message']}: {error['details']}" for error in refused.value.errors["train"]["errors"]]
    assert any(told in error for error in errors), errors


def test_a_contradiction_is_told_in_the_language_of_the_page(server):
    client = uuid.uuid4().hex
    channel = websocket.create_connection(f"ws://{HOST}:{server.port}/ws?clientId={client}", timeout=60)
    try:
        url = f"http://{HOST}:{server.port}/subject_trainer/language?client={client}"
        headers = {"Accept-Language": "uk", "Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, b"{}", headers), timeout=60).close()
        graph = minimal("12 GB card", "refused", lora_rank=32)
        with pytest.raises(OSError, match="400") as refused:
            server.post("/prompt", {"prompt": graph, "client_id": client})
        answer = json.loads(refused.value.read())
        (error,) = answer["node_errors"]["train"]["errors"]
        assert "lora_rank = 32, але LoRA не навчається" in error["details"]
    finally:
        channel.close()


@pytest.mark.parametrize("workflow", ["Train a subject (DreamBooth or LoRA)", "Train an embedding (Textual Inversion)"])
def test_the_untouched_template_trains(server, base_directory, workflow):
    """But for the base, the photos, their size and the number of steps, which are the test's."""
    graph = json.loads((API / f"{workflow}.json").read_text(encoding="utf-8"))
    kind = "DreamBoothTrain" if workflow == "Train a subject (DreamBooth or LoRA)" else "TextualInversionTrain"
    graph[node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = "standin.safetensors"
    graph[node(graph, "DatasetLoader")]["inputs"] |= {"folder": "plush", "resolution": 64}
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": 64, "height": 64}
    graph[node(graph, kind)]["inputs"]["steps"] = 2
    for part in graph.values():
        if part["class_type"] == "KSampler":
            part["inputs"]["steps"] = 2
    assert graph[node(graph, kind)]["inputs"]["preset"] == "auto"
    result = server.run(graph)
    assert "auto, with steps 2: " in result.outputs[node(graph, kind)]["text"][0]
    assert len([shown for shown in result.outputs.values() if "images" in shown]) >= 2


@pytest.mark.parametrize("path", sorted(API.glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_workflow_has_own_numbers_only_where_it_is_about_them(server, path):
    own = {
        ("Train a subject as the study did (24 GB)", "DreamBoothTrain"): {"preset": "study, 24 GB"},
        ("Train a LoRA (character, object, style)", "DreamBoothTrain"): {"train": "lora"},
        ("Train a LoRA and use its best step (evaluation)", "DreamBoothTrain"): {
            "train": "lora",
            "save_every": 200,
            "hold_out": 1,
        },
        ("Train an embedding and then the model (pivotal tuning)", "TextualInversionTrain"): {"vectors": 2, "steps": 1000},
    }
    for part in json.loads(path.read_text(encoding="utf-8")).values():
        kind = part["class_type"]
        if kind not in ("DreamBoothTrain", "TextualInversionTrain"):
            continue
        inputs = server.get(f"/object_info/{kind}")[kind]["input"]
        defaults = {n: spec[1].get("default") for k in ("required", "optional") for n, spec in inputs[k].items()}
        changed = {
            name: value
            for name, value in part["inputs"].items()
            if name not in ("name", "token") and not isinstance(value, list) and value != defaults[name]
        }
        assert changed == own.get((path.stem, kind), {})
