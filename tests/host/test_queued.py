"""What is wrong with a graph is told when it is queued, in this pack's words, before anything of it runs."""

import contextlib
import json
import urllib.error

import pytest
import torch
from safetensors.torch import save_file
from selenium.common.exceptions import TimeoutException

from demo.run import node
from tools.browser import queue
from tools.server import Failed

from .graphs import up_to_training
from .pages import NEEDS_BROWSER, fill_in, wait, words

PHOTOS, MODEL = "photos from Load Photos of a Subject", "a MODEL, as Load Checkpoint gives it"
PICTURES = "pictures, as an IMAGE is"
SOCKETS = {
    "CaptionWithToken": {"dataset": PHOTOS},
    "DreamBoothTrain": {"model": MODEL, "clip": "a CLIP, as", "vae": "a VAE, as", "dataset": PHOTOS},
    "TextualInversionTrain": {"model": MODEL, "clip": "a CLIP, as", "vae": "a VAE, as", "dataset": PHOTOS},
    "EvaluateSubject": {"clip_vision": "a CLIP_VISION, as", "dataset": PHOTOS, "pictures": PICTURES},
}
"""What each socket that must have something is to be wired to."""
CASES = [(kind, name, what) for kind, sockets in SOCKETS.items() for name, what in sockets.items()]


def answer(server, graph: dict, **extra) -> dict:
    """ComfyUI's answer to a graph that it does not queue."""
    with pytest.raises(urllib.error.HTTPError) as error:
        server.post("/prompt", {"prompt": graph, **extra})
    return json.loads(error.value.read())


def own_words(answer: dict, node_id: str) -> list[str]:
    errors = answer["node_errors"][node_id]["errors"]
    return [error["details"].partition(" - ")[2] for error in errors if error["type"] == "custom_validation_failed"]


def alone(kind: str, without: str) -> dict:
    """A graph of one of the nodes, whose other sockets lead to nodes of the right types."""
    sources = {
        "checkpoint": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}},
        "photos": {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}},
        "vision": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": "none"}},
        "tokens": {"class_type": "CaptionWithToken", "inputs": {"dataset": ["photos", 0], "token": "mysks"}},
    }
    sources["tokens"]["inputs"] |= {"class_word": "toy", "template": "a {token} {class}"}
    links = {"model": ["checkpoint", 0], "clip": ["checkpoint", 1], "vae": ["checkpoint", 2], "pictures": ["photos", 1]}
    links["clip_vision"] = ["vision", 0]
    links["dataset"] = ["photos" if kind == "CaptionWithToken" else "tokens", 0]
    inputs = {name: links[name] for name in SOCKETS[kind] if name != without}
    inputs |= {
        "CaptionWithToken": {"token": "mysks", "class_word": "toy", "template": "a {token} {class}"},
        "DreamBoothTrain": {"preset": "auto", "name": "queued"},
        "TextualInversionTrain": {"preset": "auto", "token": "queued"},
        "EvaluateSubject": {"prompt": ""},
    }[kind]
    return sources | {
        "asked": {"class_type": kind, "inputs": inputs},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["asked", 1]}},
    }


@pytest.mark.parametrize(("kind", "name", "what"), CASES, ids=[f"{kind}-{name}" for kind, name, _ in CASES])
def test_a_socket_that_gets_nothing_is_told_with_what_it_needs(server, kind, name, what):
    (told,) = own_words(answer(server, alone(kind, without=name)), "asked")
    assert told.startswith(f"Nothing comes to {name}. Wire to it: {what}")


def page_graph(mode: object, inside: bool) -> dict:
    """What the page sends along: a switched-off node before the asked one, both of them in a subgraph, or in the workflow.

    In the workflow two nodes lie between them that pass on what comes, and that the page alone has.
    """
    nodes = [
        {"id": 7, "type": "DatasetLoader", "title": "My photos", "mode": mode, "inputs": []},
        {"id": 8, "type": "CaptionWithToken", "mode": 0, "inputs": [{"name": "dataset", "link": 3}]},
    ]
    if not inside:
        nodes += [{"id": 9 + n, "type": "Reroute", "mode": 0, "inputs": [{"name": "", "link": 4 + n}]} for n in range(2)]
        return {"nodes": nodes, "links": [[link, source, 0, 8, 0, "*"] for link, source in ((3, 9), (4, 10), (5, 7))]}
    subgraph = {"id": "aaaa", "nodes": nodes, "links": [{"id": 3, "origin_id": 7, "origin_slot": 0}]}
    return {"nodes": [{"id": 5, "type": "aaaa", "mode": 0}], "links": [], "definitions": {"subgraphs": [subgraph]}}


def captioning(node_id: str) -> dict:
    graph = alone("CaptionWithToken", without="dataset")
    graph[node_id] = graph.pop("asked")
    graph["shown"]["inputs"]["source"] = [node_id, 1]
    return graph


@pytest.mark.parametrize(("mode", "state"), [(2, "muted"), (4, "bypassed")])
@pytest.mark.parametrize("node_id", ["8", "5:8"])
def test_the_node_that_is_switched_off_is_named(server, mode, state, node_id):
    extra = {"extra_pnginfo": {"workflow": page_graph(mode, inside=":" in node_id)}}
    (told,) = own_words(answer(server, captioning(node_id), extra_data=extra), node_id)
    assert told == f"Nothing comes to dataset: My photos is {state}. Switch it on again, or wire to dataset: {PHOTOS}."


@pytest.mark.parametrize("workflow", [None, "text", [], {}, {"nodes": 5}, {"nodes": [{}], "links": 1}, page_graph([], False)])
def test_whatever_is_sent_as_the_workflow_the_socket_is_told(server, workflow):
    extra = {"extra_pnginfo": {"workflow": workflow}}
    (told,) = own_words(answer(server, captioning("8"), extra_data=extra), "8")
    assert told.startswith("Nothing comes to dataset. Wire to it:")


def too_large(graph: dict) -> dict:
    graph[node(graph, "DatasetLoader")]["inputs"]["resolution"] = 2048
    train = graph[node(graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "large", "train": "unet", "batch_size": 64, "precision": "fp32", "seed": 77}
    return up_to_training(graph)


def test_what_cannot_fit_is_told_when_it_is_queued_as_it_is_when_it_runs(server, quick_graph):
    graph = too_large(quick_graph)
    (told,) = own_words(answer(server, graph), node(graph, "DreamBoothTrain"))
    assert told.startswith("This run needs about ")
    assert "a smaller batch_size" in told
    # From here on the size of the base is known only when the graph runs.
    graph["between"] = {"class_type": "FreeU", "inputs": {"model": [node(graph, "CheckpointLoaderSimple"), 0]}}
    graph["between"]["inputs"] |= {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}
    graph[node({i: n for i, n in graph.items() if i != "between"}, "DreamBoothTrain")]["inputs"]["model"] = ["between", 0]
    with pytest.raises(Failed) as error:
        server.run(graph)
    assert str(error.value) == told


def test_nothing_is_said_of_memory_where_a_setting_comes_by_a_link(server, quick_graph):
    graph = too_large(quick_graph)
    train = graph[node(graph, "DreamBoothTrain")]["inputs"]
    graph["batch"] = {"class_type": "PrimitiveInt", "inputs": {"value": 64}}
    train["batch_size"] = ["batch", 0]
    with pytest.raises(Failed, match="This run needs about"):
        server.run(graph)


@NEEDS_BROWSER
def test_the_node_says_why_it_was_not_queued(either):
    page = either
    fill_in(page, name="switched", steps=1)

    def refuse(title: str, mode: int) -> None:
        page.execute_script(
            "for (const n of window.app.graph.nodes) n.mode = n.title === arguments[0] ? arguments[1] : 0", title, mode
        )
        queue(page)

    def tells(node_type: str, beginning: str) -> None:
        with contextlib.suppress(TimeoutException):
            wait(page, lambda: words(page, node_type, "report").startswith(beginning), 30)
        assert words(page, node_type, "report")[: len(beginning)] == beginning

    refuse("Your photos", 4)
    tells("CaptionWithToken", "Nothing comes to dataset: Your photos is bypassed. Switch it on again, or wire to dataset:")
    refuse("Give the subject its name", 2)
    tells("DreamBoothTrain", "Nothing comes to dataset: Give the subject its name is muted.")
    assert words(page, "CaptionWithToken", "report") == ""
    refuse("Give the subject its name", 4)  # then its photos go past it
    tells("DreamBoothTrain", "The dataset has no token.")
    fill_in(page, name="/")
    refuse("", 0)
    tells("DreamBoothTrain", "The name '/' cannot be")


def refused(server, graph: dict, node_id: str) -> str:
    (told,) = own_words(answer(server, graph), node_id)
    return told


INVERSION = {"token": "mysks", "initializer": ""}
CONTRADICTIONS = {
    "warm-up": ("DreamBoothTrain", {"lr_warmup_steps": 401}, {}, "lr_warmup_steps is 401; it must be between 0 and 400"),
    "warm-up of fewer": ("DreamBoothTrain", {"lr_warmup_steps": 401, "hold_out": 1}, {}, "lr_warmup_steps is 401"),
    "no class": ("DreamBoothTrain", {"class_images": 2}, {"class_word": " "}, "Class images need a class"),
    "no class of a preset": ("DreamBoothTrain", {"preset": "paper, 24 GB"}, {"class_word": ""}, "Class images need a class"),
    "no class of a teacher": ("DreamBoothTrain", {"prior": "teacher"}, {"class_word": ""}, "Class images need a class"),
    "class with token": ("DreamBoothTrain", {"class_dataset": ["tokens", 0]}, {}, "The class images carry the subject's token"),
    "class of another size": ("DreamBoothTrain", {"class_dataset": ["class", 0]}, {}, "The class images are prepared at 128"),
    "no embedding": ("DreamBoothTrain", {"embedding": "gone"}, {}, "There is no embedding 'gone'"),
    "another token": ("TextualInversionTrain", {"token": "other"}, {}, "The captions have the token 'mysks', this node trains"),
    "no start": (
        "TextualInversionTrain",
        INVERSION,
        {"class_word": ""},
        "The initializer is empty, and the dataset has no class",
    ),
    "no start, no captions": ("TextualInversionTrain", INVERSION | {"dataset": ["photos", 0]}, {}, "The initializer is empty"),
    "no start there": (
        "TextualInversionTrain",
        INVERSION | {"initializer": "embedding:gone"},
        {},
        "There is no embedding 'gone'",
    ),
}


@pytest.mark.parametrize("link", [False, True])
def test_masks_that_count_nothing_are_told_beside_a_teacher_outside_of_them(server, link):
    graph = alone("DreamBoothTrain", without="")
    graph["asked"]["inputs"] |= {"prior": "teacher_outside_masks", "name": "/" if link else "masks"}
    graph["one"] = {"class_type": "PrimitiveFloat", "inputs": {"value": 1.0}}
    graph["photos"]["inputs"]["mask_weight"] = ["one", 0] if link else 1.0
    told = refused(server, graph, "asked")
    assert told.startswith("The name '/'" if link else "prior is teacher_outside_masks, and no photo has a mask that counts.")


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_what_contradicts_the_photos_and_captions_is_told_before_anything_runs(server, case):
    kind, inputs, captions, told = CONTRADICTIONS[case]
    graph = alone(kind, without="")
    graph["class"] = {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 128, "crop": "center"}}
    graph["tokens"]["inputs"] |= captions
    graph["asked"]["inputs"] |= inputs
    assert refused(server, graph, "asked").startswith(told)


def test_a_lora_of_another_rank_is_told_before_anything_runs(server, base_directory):
    path = base_directory / "models" / "loras" / "of-four.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)}, path)
    path.with_name("broken.safetensors").write_bytes(b"no LoRA")
    graph = alone("DreamBoothTrain", without="")
    graph["asked"]["inputs"] |= {"start_lora": "of-four.safetensors", "lora_rank": 16}
    told = refused(server, graph, "asked")
    assert told.startswith("lora_rank is 16, but the LoRA to go on from has 4. Set lora_rank to 4, or to 0")
    graph["asked"]["inputs"] |= {"start_lora": "broken.safetensors", "lora_rank": 16, "name": "/"}
    assert refused(server, graph, "asked").startswith("The name '/' cannot be")


@pytest.mark.parametrize(
    ("node_id", "inputs", "told"),
    [
        ("photos", {"resolution": 520, "crop": "bucket"}, "Buckets need a resolution that is a multiple of 64, not 520."),
        ("photos", {"resolution": 500}, "The resolution 500 is not a multiple of 8."),
        ("tokens", {"template": "a photo of {class}"}, "The caption template 'a photo of {class}' has no {token}."),
    ],
)
def test_a_node_before_the_training_is_told_of_before_anything_runs(server, node_id, inputs, told):
    graph = alone("DreamBoothTrain", without="")
    graph[node_id]["inputs"] |= inputs
    assert refused(server, graph, node_id).startswith(told)


@pytest.mark.parametrize("value", ["abc", "", 10**400, "\ud800"])
@pytest.mark.parametrize("name", ["lora_rank", "steps", "hold_out", "class_images", "batch_size"])
def test_what_is_no_number_is_told_by_comfyui(server, name, value):
    graph = alone("DreamBoothTrain", without="")
    graph["asked"]["inputs"] |= {"train": "lora", name: value}
    errors = answer(server, graph)["node_errors"]["asked"]["errors"]
    assert [error["type"] for error in errors if "exception" in error["type"]] == []
    assert name in {error["extra_info"].get("input_name") for error in errors}


def test_what_a_client_leaves_out_is_not_asked_for(server):
    graph = alone("EvaluateSubject", without="pictures")
    del graph["asked"]["inputs"]["prompt"]
    assert refused(server, graph, "asked").startswith("Nothing comes to pictures.")
    picture = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 4713}}
    loader = {"class_type": "DatasetLoader", "inputs": {"images": ["picture", 0], "resolution": 64, "crop": "center"}}
    shown = {"class_type": "PreviewImage", "inputs": {"images": ["photos", 1]}}
    assert len(server.run({"picture": picture, "photos": loader, "shown": shown}).outputs["shown"]["images"]) == 1
    del loader["inputs"]["images"]
    errors = answer(server, {"photos": loader, "shown": shown})["node_errors"]["photos"]["errors"]
    assert [error["details"] for error in errors] == ["folder"]
