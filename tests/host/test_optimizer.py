"""8-bit AdamW where bitsandbytes is broken, as after an update of torch or of the driver."""

import pytest

from demo.run import node
from tools.server import Failed
from trainer.run.run_dir import RunDir

from .graphs import up_to_training

BROKEN = 'raise RuntimeError("libbitsandbytes_cuda130.so is missing")\n'


@pytest.fixture
def broken_server(start_server, tmp_path, monkeypatch):
    """A server, and so workers, that find a bitsandbytes that cannot be loaded."""
    package = tmp_path / "bitsandbytes"
    package.mkdir()
    (package / "__init__.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with start_server() as running:
        yield running


def test_8bit_that_cannot_run_is_decided_before_the_memory_is_checked(server, broken_server, quick_graph, base_directory):
    graph = up_to_training(quick_graph)
    train = graph[node(graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "eight", "train": "lora", "optimizer": "adamw_8bit", "steps": 200, "batch_size": 1}

    def interrupt(_: str, text: str) -> None:
        if "loss" in text:
            server.post("/interrupt", {})

    with pytest.raises(Failed, match="interrupted"):
        server.run(graph, on_text=interrupt)
    (begun,) = (base_directory / "output" / "finetune").glob("eight-*")
    state = RunDir(begun).state.read_bytes()
    with pytest.raises(Failed, match=r"has begun with 8-bit AdamW, .* \(RuntimeError: libbitsandbytes_cuda130\.so is missing\)"):
        broken_server.run(graph)
    assert RunDir(begun).state.read_bytes() == state

    train["steps"] = 1  # another run, of which nothing is there
    texts = []
    result = broken_server.run(graph, on_text=lambda _, text: texts.append(text))
    told = "8-bit AdamW cannot run here (RuntimeError: libbitsandbytes_cuda130.so is missing): AdamW is used instead."
    shown = result.outputs[node(graph, "DreamBoothTrain")]["text"][0]
    assert told in shown
    (other,) = (path for path in (base_directory / "output" / "finetune").glob("eight-*") if path != begun)
    assert RunDir(other).load_run().settings.optimizer.optimizer == "adamw"
    assert RunDir(other).finished
