"""Thirty different graphs on one server, each trained anew, some cancelled and some failing: it does not grow.

python -m pytest tests/host/test_soak.py -m nightly -s --timeout 7200
"""

import json
from collections import Counter

import psutil
import pytest

from demo.run import STANDIN_CFG, adapt, node, shrink
from tools.server import Failed, Refused, Result

from .graphs import shown
from .pages import read

GRAPHS = 30
ENDS = ("trained", "cancelled", "trained", "refused", "trained", "killed", "trained", "failed", "trained", "repeated")
"""How each graph ends, in turn: three times each."""
DREAMBOOTH, INVERSION = "Train a subject (DreamBooth or LoRA)", "Train an embedding (Textual Inversion)"
KINDS = (
    (DREAMBOOTH, {"train": "unet"}),
    (DREAMBOOTH, {"train": "lora", "lora_rank": 2}),
    (INVERSION, {}),
    (DREAMBOOTH, {"train": "lora", "class_images": 1}),
    (DREAMBOOTH, {"train": "unet_and_token"}),
    (DREAMBOOTH, {"train": "lora_and_text_encoder", "sample_prompts": "a photo of mysks", "sample_every": 1}),
    (DREAMBOOTH, {"train": "unet_and_text_encoder", "hold_out": 1, "validate_every": 1}),
)
"""What they train, in turn: of seven kinds, so that each comes to different ends."""
PICTURES = {DREAMBOOTH: ("before training", "after training"), INVERSION: ("without the token", "with the token")}
pytestmark = pytest.mark.nightly


def different(number: int) -> tuple[dict, tuple[str, ...], dict]:
    """A graph like no other in the tests, the titles of the nodes that save its pictures, and its training node's inputs."""
    name, changes = KINDS[number % len(KINDS)]
    graph = read(f"api/{name}")
    adapt(graph, "standin.safetensors", "plush", "", random_standin=False)
    shrink(graph, STANDIN_CFG)
    graph[node(graph, "DatasetLoader")]["inputs"]["resolution"] = 64
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": 64, "height": 64}
    for sampler in (made for made in graph.values() if made["class_type"] == "KSampler"):
        sampler["inputs"]["steps"] = 1
    train = graph[node(graph, "TextualInversionTrain" if name == INVERSION else "DreamBoothTrain")]["inputs"]
    train |= {"seed": 20_000 + number, "steps": 2, "batch_size": 1, "preset": "own settings", **changes}
    if name == DREAMBOOTH:
        train["name"] = f"soak-{number}"
    return graph, PICTURES[name], train


def ended_in_training(server, graph: dict, train: dict, end, match: str) -> None:
    """Queue a long run, and end it at its first step."""
    train["steps"] = 500
    asked = []

    def on_text(_: str, text: str) -> None:
        if text.startswith("Training: step") and not asked:
            asked.append(text)
            end()

    with pytest.raises(Failed, match=match):
        server.run(graph, on_text=on_text)
    assert asked


def check_pictures(server, graph: dict, result: Result, titles: tuple[str, ...]) -> None:
    for title in titles:
        assert shown(server, result, node(graph, "SaveImage", title)).size == (64, 64)


def test_thirty_graphs_leave_the_server_as_it_was(server, workers, base_directory):
    runs, process, rows = base_directory / "output" / "finetune", psutil.Process(server.pid), []

    def finished() -> set:
        return set(runs.glob("*/result.json"))

    def measured(end: str) -> tuple:
        assert workers() == []
        files = process.num_fds() if psutil.POSIX else process.num_handles()
        row = end, process.memory_info().rss // 2**20, len(process.children(recursive=True)), process.num_threads(), files
        print(json.dumps(row), flush=True)
        return row

    print("\nend, MB, child processes, threads, open files")
    rows.append(measured("started"))
    for number in range(GRAPHS):
        end = ENDS[number % len(ENDS)]
        graph, titles, train = different(number - 1 if end == "repeated" else number)
        before, folders = finished(), set(runs.glob("soak-*"))
        if end == "cancelled":
            ended_in_training(server, graph, train, lambda: server.post("/interrupt", {}), "interrupted")
        elif end == "killed":
            ended_in_training(server, graph, train, lambda: workers()[0].kill(), "ended unexpectedly")
        elif end == "refused":
            train["learning_rate"] = 7.0
            with pytest.raises(Refused):
                server.run(graph)
        elif end == "failed":
            (server.base / "models" / "embeddings" / "nowhere.safetensors").touch()
            train["initializer" if "initializer" in train else "embedding"] = "embedding:nowhere"
            with pytest.raises(Failed, match="nowhere"):
                server.run(graph)
        else:
            check_pictures(server, graph, server.run(graph), titles)
        assert len(finished() - before) == (end == "trained")
        if end in ("refused", "failed"):
            assert set(runs.glob("soak-*")) == folders
        rows.append(measured(end))
    print(dict(Counter(row[0] for row in rows)))
    # By the tenth graph each kind was trained or begun. How many models ComfyUI holds at a time differs from graph to graph: a
    # leak would raise the least of the memory, between two models that come and go.
    first, last = rows[1:11], rows[-10:]
    for column, of, room in ((1, min, 100), (1, max, 600), (2, max, 0), (3, max, 2), (4, max, 3)):
        # A pool starts a thread when it first needs one more; of files, our own connections may not be closed yet.
        assert of(row[column] for row in last) <= of(row[column] for row in first) + room, (column, of)
