"""Cancelling keeps the work and leaves nothing running."""

import threading
from pathlib import Path

import pytest

from demo.run import node
from demo.server import Failed


def workers() -> list[str]:
    """Command lines of worker processes on this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return [line for line in lines if "trainer/__main__.py" in line]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_cancelled_run_stops_at_once_keeps_its_state_and_goes_on(server, quick_graph, base_directory):
    train = node(quick_graph, "DreamBoothTrain")
    quick_graph[train]["inputs"] |= {"name": "cancelled", "steps": 40}
    interrupted = threading.Event()

    def interrupt(_: str, text: str) -> None:
        if text.startswith("Training: step") and not interrupted.is_set():
            interrupted.set()
            assert workers()
            server.post("/interrupt", {})

    with pytest.raises(Failed, match="interrupted"):
        server.run(quick_graph, on_text=interrupt)
    (run,) = (base_directory / "output" / "finetune").glob("cancelled-*")
    assert not workers()
    assert (run / "checkpoint.safetensors").is_file()
    assert not (run / "result.json").exists()
    result = server.run(quick_graph)
    assert result.outputs[train]["text"][0].startswith("40 steps")
    assert "resuming after step" in (run / "log.txt").read_text()
