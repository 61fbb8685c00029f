"""What a job that was queued without a client id says, no page and no other client hears."""

import contextlib
import json
import struct
import threading
import time

import pytest
import websocket

from demo.run import node
from tools.server import HOST, TEXT_EVENT

from .graphs import up_to_training

PICTURES = (1, 4)
"""ComfyUI's kinds of binary events that hold a preview."""


@pytest.fixture
def heard(server):
    """What two strangers hear: one called None, which is a page, and one that is an API client."""
    events, sockets = [], []

    def listen(socket: websocket.WebSocket) -> None:
        with contextlib.suppress(OSError, websocket.WebSocketException):
            while told := socket.recv():  # nothing: it is closed
                events.append(struct.unpack(">I", told[:4])[0] if isinstance(told, bytes) else json.loads(told))

    for name in ("None", "stranger"):
        sockets.append(websocket.create_connection(f"ws://{HOST}:{server.port}/ws?clientId={name}", timeout=600))
        threading.Thread(target=listen, args=sockets[-1:], daemon=True).start()
    server.post("/subject_trainer/language?client=None", {})
    yield events
    for socket in sockets:
        socket.close()


def test_a_job_without_a_client_is_told_to_nobody(server, quick_graph, heard):
    graph = up_to_training(quick_graph)
    change = {"name": "unheard", "train": "lora", "seed": 4712, "sample_prompts": "a toy", "sample_every": 1}
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= change
    prompt = server.post("/prompt", {"prompt": graph})["prompt_id"]
    deadline = time.monotonic() + 600
    while not (done := server.get(f"/history/{prompt}")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert done[prompt]["status"]["status_str"] == "success"
    assert heard  # ComfyUI's own
    assert [told for told in heard if told in (TEXT_EVENT, *PICTURES) or "subject_trainer" in str(told)] == []
    events = [told for told in heard if isinstance(told, dict)]
    assert [told for told in events if told["type"] == "progress"] == []
    # ComfyUI itself tells which node runs, and that is all: as one unit of work.
    states = [state for told in events if told["type"] == "progress_state" for state in told["data"]["nodes"].values()]
    assert {state["max"] for state in states} <= {1}
