"""The shipped workflows that train in two ways, as they are but for the base, the photos and the size of the job."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from demo.run import node
from demo.server import Failed
from trainer.rundir import RunDir

from .conftest import picture_graph
from .test_dreambooth import same, shown

API = Path(__file__).parents[2] / "workflows" / "api"


def small(name: str) -> dict:
    """The workflow on the stand-in and the drawn photos: 64 pixels, few steps, rates at which the stand-in learns."""
    graph = json.loads((API / f"{name}.json").read_text(encoding="utf-8"))
    graph[node(graph, "CheckpointLoaderSimple")]["inputs"]["ckpt_name"] = "standin.safetensors"
    graph[node(graph, "DatasetLoader")]["inputs"] |= {"folder": "plush", "resolution": 64}
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": 64, "height": 64}
    graph[node(graph, "TextualInversionTrain")]["inputs"] |= {"steps": 3, "learning_rate": 0.3}
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"steps": 2, "learning_rate": 1e-3, "name": name}
    for n in graph.values():
        if n["class_type"] == "KSampler":
            n["inputs"] |= {"steps": 4, "cfg": 1.0}
    return graph


@pytest.fixture(scope="module")
def pivotal(server):
    graph = small("inversion_then_dreambooth")
    graph[node(graph, "DreamBoothTrain")]["inputs"]["name"] = "my plush"  # a blank ends an embedding's name in a prompt
    return graph, server.run(graph)


def exported(graph: dict, result, class_type: str) -> str:
    return result.outputs[node(graph, class_type)]["text"][0].splitlines()[-1]


def test_inversion_then_dreambooth_gives_both(server, pivotal, base_directory):
    graph, result = pivotal
    run_id = exported(graph, result, "DreamBoothTrain").removesuffix(".safetensors")
    embeddings = base_directory / "models" / "embeddings"
    first = load_file(embeddings / exported(graph, result, "TextualInversionTrain"))["emb_params"]
    word = run_id.replace(" ", "-")
    then = load_file(embeddings / f"{word}.safetensors")["emb_params"]
    assert first.shape == then.shape == (2, 768)
    assert 0 < np.abs(then - first).max() < 0.01  # it went on from there: two steps of 1e-3

    picture = shown(server, result, node(graph, "SaveImage"))
    prompt = graph[node(graph, "PrimitiveStringMultiline")]["inputs"]["value"]

    def sampled(loader: dict, text: str | list):
        again = picture_graph(loader, text)
        again["sample"]["inputs"] |= {"seed": 1, "steps": 4, "cfg": 1.0}
        return shown(server, server.run(again), "save")

    # LoadFinetuned gives the model and the word; ComfyUI's own loader and `embedding:` do too.
    loaded = {"class_type": "LoadFinetuned", "inputs": {"run": run_id}}
    assert same(sampled(loaded, prompt), picture)
    built_in = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"{run_id}.safetensors"}}
    assert same(sampled(built_in, prompt.replace("mysks", f"embedding:{word}")), picture)
    assert not same(sampled(built_in, prompt), picture)
    assert same(sampled(loaded, ["loader", 3]), sampled(loaded, "mysks plush toy"))


def test_the_clip_of_an_inversion_is_enough_to_train_on_from_it(server, pivotal, base_directory):
    """Wired to DreamBoothTrain, it brings its word along."""
    graph, result = pivotal
    by_clip = json.loads(json.dumps(graph))
    train = by_clip[node(by_clip, "DreamBoothTrain")]["inputs"]
    train |= {"embedding": "", "clip": [node(by_clip, "TextualInversionTrain"), 0]}
    run_id = exported(graph, result, "DreamBoothTrain")
    assert exported(by_clip, server.run(by_clip), "DreamBoothTrain") == run_id  # the same run, found again


def test_only_embeddings_of_comfyuis_folders_are_read(server, pivotal, base_directory):
    secret = base_directory / "models" / "secret.safetensors"
    save_file({"emb_params": np.zeros((1, 768), dtype=np.float32)}, secret)
    graph = json.loads(json.dumps(pivotal[0]))
    for name in ("../secret", str(secret), "nothing"):
        graph[node(graph, "DreamBoothTrain")]["inputs"]["embedding"] = name
        with pytest.raises(Failed, match=f"no embedding '{name}' that can be read"):
            server.run(graph)


@pytest.mark.parametrize("tensors", [{}, {"a": np.zeros(())}, {"a": np.zeros((2, 2, 768))}, {"a": np.zeros((1, 1024))}])
def test_files_that_are_no_embedding_are_named(server, pivotal, base_directory, tensors):
    save_file(tensors, base_directory / "models" / "embeddings" / "strange.safetensors")
    graph = json.loads(json.dumps(pivotal[0]))
    graph[node(graph, "DreamBoothTrain")]["inputs"]["embedding"] = "strange"
    with pytest.raises(Failed, match="embedding 'strange'"):
        server.run(graph)


def test_methods_are_compared_in_a_labelled_grid(server, base_directory):
    graph = small("compare_methods")
    graph[node(graph, "DreamBoothTrain")]["inputs"]["steps"] = 6
    result = server.run(graph)
    grid = np.asarray(shown(server, result, node(graph, "SaveImage")), dtype=float)
    assert grid.shape == (64 + 8 + 64, 64 + 8 + 64 + 8 + 64, 3)
    cells = [[grid[72 * row : 72 * row + 64, 72 * column : 72 * column + 64] for column in range(3)] for row in range(2)]
    for row in cells:
        for one, two in ((0, 1), (1, 2), (0, 2)):  # three methods, three pictures: below the labels too
            assert np.abs(row[one][24:] - row[two][24:]).max() > 2
    assert np.abs(cells[0][0] - cells[1][0]).max() > 2  # two seeds
    run = next((base_directory / "output" / "finetune").glob("compare_methods-*"))
    assert RunDir(run).load_run().embedding == ""
