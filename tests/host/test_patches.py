"""What other nodes have put on MODEL and CLIP: one rule for whatever is trained."""

import json

import pytest

from demo.run import node

from .graphs import picture_graph, same, shown, train_node

RATE_ZERO = {"steps": 1, "lr_warmup_steps": 1}
"""The rate rises from 0, and there it ends."""


def behind_patches(graph: dict) -> dict:
    """The graph with RescaleCFG and a clip skip behind its base: what used MODEL and CLIP of the base uses theirs."""
    base = node(graph, "CheckpointLoaderSimple")
    instead = {(base, 0): ["rescale", 0], (base, 1): ["skip", 0]}
    for inputs in (n["inputs"] for n in graph.values()):
        for name, value in inputs.items():
            if isinstance(value, list) and tuple(value) in instead:
                inputs[name] = instead[tuple(value)]
    graph["rescale"] = {"class_type": "RescaleCFG", "inputs": {"model": [base, 0], "multiplier": 1.0}}
    graph["skip"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": [base, 1], "stop_at_clip_layer": -2}}
    return graph


def before_training(graph: dict) -> dict:
    shared = (
        "CheckpointLoaderSimple",
        "DatasetLoader",
        "CaptionWithToken",
        "PrimitiveStringMultiline",
        "StringReplace",
        "EmptyLatentImage",
    )
    return {
        i: n
        for i, n in graph.items()
        if n["class_type"] in shared or n.get("_meta", {}).get("title", "").endswith(("(before)", "before training"))
    }


@pytest.mark.parametrize(
    "train",
    [
        pytest.param("unet", marks=pytest.mark.nightly),
        "unet_and_token",
        pytest.param("unet_and_text_encoder", marks=pytest.mark.nightly),
        pytest.param("lora", marks=pytest.mark.nightly),
    ],
)
def test_before_and_after_are_sampled_alike(server, quick_graph, base_directory, train):
    """With a learning rate of 0 the trained model is the base: the pictures are the same, or they compare two set-ups."""
    plain = before_training(quick_graph)
    before, after = (node(quick_graph, "SaveImage", title) for title in ("before training", "after training"))
    unpatched = shown(server, server.run(plain), before)
    graph = behind_patches(quick_graph)
    training = node(graph, "DreamBoothTrain")
    graph[training]["inputs"] |= {**RATE_ZERO, "batch_size": 1, "name": f"patched-{train}", "train": train}
    result = server.run(graph)
    assert same(shown(server, result, before), shown(server, result, after))
    assert not same(shown(server, result, before), unpatched)
    assert "Trained with CLIP Set Last Layer at -2." in result.outputs[training]["text"][0]
    (run,) = (base_directory / "output" / "finetune").glob(f"patched-{train}-*")
    assert json.loads((run / "run.json").read_text())["settings"]["training"]["text_layer"] == -2

    # Any day later: the same clip skip, without a node for it. Sampling patches are not of the run.
    loader = {"class_type": "LoadFinetuned", "inputs": {"run": run.name}}
    loaded = picture_graph(loader, "a photo of mysks plush toy", steps=4)
    base = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    skipping = picture_graph(base, "a photo of mysks plush toy", clip=["skip", 0], steps=4)
    skipping["skip"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["loader", 1], "stop_at_clip_layer": -2}}
    pictures = [shown(server, server.run(graph), "save") for graph in (loaded, skipping)]
    assert same(*pictures)


def test_a_textual_inversion_keeps_the_clip_skip(server, base_directory):
    """Its CLIP gives what the base's gives after the same CLIP Set Last Layer, for a prompt without the token."""
    base = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    graph = picture_graph(base, "a toy", clip=["train", 0], steps=4)
    graph["photos"] = {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}}
    graph["skip"] = {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["loader", 1], "stop_at_clip_layer": -2}}
    graph["train"] = train_node(clip=["skip", 0], token="skipped", steps=2)
    trained = shown(server, server.run(graph), "save")
    (run,) = (base_directory / "output" / "finetune").glob("skipped-*")
    assert json.loads((run / "run.json").read_text())["settings"]["training"]["text_layer"] == -2
    pictures = {}
    for name, clip in (("last", ["loader", 1]), ("skipping", ["skip", 0])):
        graph["positive"]["inputs"]["clip"] = graph["negative"]["inputs"]["clip"] = clip
        wanted = {i: n for i, n in graph.items() if i not in ("train", "photos") and (i != "skip" or name == "skipping")}
        pictures[name] = shown(server, server.run(wanted), "save")
    assert same(trained, pictures["skipping"])
    assert not same(trained, pictures["last"])
