"""Thirty graphs on one server, good, repeated, wrong and cancelled ones in turn: it serves all of them and does not grow.

python -m pytest tests/host/test_soak.py -m nightly -s
"""

import json

import psutil
import pytest

from demo.run import node
from tools.server import Failed, Refused

from .graphs import shown

GRAPHS = 30
pytestmark = pytest.mark.nightly


def test_thirty_graphs_leave_the_server_as_it_was(server, workers, quick_graph):
    process, memory, counts = psutil.Process(server.pid), [], {"good": 0, "repeated": 0, "wrong": 0, "cancelled": 0}
    for number in range(GRAPHS):
        kind = ("good", "good", "good", "repeated", "wrong", "cancelled")[number % 6]
        graph = json.loads(json.dumps(quick_graph))
        train = graph[node(graph, "DreamBoothTrain")]["inputs"]
        train |= {"name": "soak", "seed": number - 1 if kind == "repeated" else number}
        if kind == "wrong":
            train["embedding" if number % 2 else "learning_rate"] = "nowhere" if number % 2 else 7.0
            with pytest.raises((Failed, Refused)):
                server.run(graph)
        elif kind == "cancelled":
            train["steps"] = 500
            asked = []

            def cancel(_: str, text: str, asked=asked) -> None:
                if text.startswith("Training: step") and not asked:
                    asked.append(text)
                    server.post("/interrupt", {})

            with pytest.raises(Failed, match="interrupted"):
                server.run(graph, on_text=cancel)
        else:
            result = server.run(graph)
            for label in ("before training", "after training"):
                assert shown(server, result, node(graph, "SaveImage", label)).size == (64, 64)
        counts[kind] += 1
        assert workers() == []
        memory.append(process.memory_info().rss // 2**20)
    print(f"\n{counts}; the server's memory after each, in MB: {memory}")
    # By the end of its third training, here the third graph, ComfyUI holds all the models that it keeps.
    assert memory[-1] <= 1.05 * memory[2]
