"""The commands of docs/headless.md, as they stand there but for address, checkpoint, folder and the size of the job."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.run import node
from tools.server import Failed

from .graphs import up_to_training

ROOT = Path(__file__).parents[2]
GRAPH = "custom_nodes/comfyui-subject-trainer/workflows/api/Train a subject (DreamBooth or LoRA).json"
HEADLESS = (ROOT / "docs" / "headless.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, server, quick_graph):
    """Where the commands are run: a small graph under the name of the shipped one."""
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"] |= {"train": "lora", "batch_size": 1, "learning_rate": 0.05}
    path = tmp_path / GRAPH
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(quick_graph), encoding="utf-8")
    return tmp_path


def adapted(text: str, server) -> str:
    for ours, theirs in (
        ("127.0.0.1:8188", f"127.0.0.1:{server.port}"),
        ("v1-5-pruned-emaonly.safetensors", "standin.safetensors"),
        ("my-photos", "plush"),
        ("time.sleep(5)", "time.sleep(0.2)"),
    ):
        text = text.replace(ours, theirs)
    return text


def run_client(server, folder, *change: str) -> subprocess.CompletedProcess:
    """Run the client, with what a pattern finds in it replaced by a text."""
    (client,) = re.findall(r"```python\n(.*?)```", HEADLESS, re.DOTALL)
    if change:
        client, count = re.subn(*change, client, flags=re.DOTALL)
        assert count == 1
    return subprocess.run([sys.executable, "-c", adapted(client, server)], cwd=folder, capture_output=True, text=True)


def test_the_python_client_trains_and_names_the_pictures(server, folder):
    done = run_client(server, folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.startswith("Train 2 steps, mean loss") for line in lines)
    assert any(re.match(r"Picture after training .*\.png", line) for line in lines)


@pytest.mark.parametrize(
    ("node_type", "wrong", "told"),
    [
        ("DreamBoothTrain", {"embedding": "empty"}, "There is no embedding 'empty' that can be read."),
        (
            "DreamBoothTrain",
            {"early_stopping": "export_best"},
            "early_stopping 'export_best' goes by the loss on held-out photos",
        ),
        ("LoadFinetuned", {"run": "gone"}, "There is no finished run 'gone'"),
    ],
    ids=["when it runs", "a part when it is queued", "all when it is queued"],
)
def test_the_python_client_fails_with_the_reason(server, folder, node_type, wrong, told):
    (server.base / "models" / "embeddings" / "empty.safetensors").touch()
    path = folder / GRAPH
    graph = json.loads(path.read_text(encoding="utf-8"))
    if node_type == "LoadFinetuned":
        latent = node(graph, "EmptyLatentImage")
        graph = {
            latent: graph[latent],
            "loader": {"class_type": "LoadFinetuned", "inputs": wrong},
            "decoded": {"class_type": "VAEDecode", "inputs": {"samples": [latent, 0], "vae": ["loader", 2]}},
            "shown": {"class_type": "PreviewImage", "inputs": {"images": ["decoded", 0]}},
        }
        for key in graph:
            graph[key]["_meta"] = {"title": key}
    else:
        graph[node(graph, node_type)]["inputs"] |= wrong
    path.write_text(json.dumps(graph), encoding="utf-8")
    change = (r"YOURS = \{.*?\n\}", "YOURS = {}") if node_type == "LoadFinetuned" else ()  # it has other nodes
    done = run_client(server, folder, *change)
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("right", "typo", "told"),
    [
        ('"class_word"', '"clas_word"', "no node 'Give the subject its name' with the inputs ['clas_word']"),
        ('"Train"', '"Trian"', "no node 'Trian' with the inputs ['name']"),
    ],
)
def test_the_python_client_refuses_what_the_graph_has_not(server, folder, right, typo, told):
    done = run_client(server, folder, right, typo)
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a command for a POSIX shell")
def test_the_curl_lines_queue_and_cancel(server, folder):
    queue, cancel = re.findall(r"(?:^    |`)(curl (?:\\\n|[^\n`])*)", HEADLESS, re.MULTILINE)
    answer = subprocess.run(["bash", "-c", adapted(queue, server)], cwd=folder, capture_output=True, check=True).stdout
    assert json.loads(answer)["prompt_id"]
    subprocess.run(["bash", "-c", adapted(cancel, server)], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_the_worker_ends_by_itself_what_a_graph_began(server, tmp_path, quick_graph, base_directory):
    graph = up_to_training(quick_graph)
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"name": "by-itself", "train": "lora", "steps": 30, "batch_size": 1}

    def cancel(_: str, text: str) -> None:
        if text.startswith("Training"):
            server.post("/interrupt", {})

    with pytest.raises(Failed, match="interrupted"):
        server.run(graph, on_text=cancel)
    (run,) = (base_directory / "output" / "finetune").glob("by-itself-*")
    (tmp_path / "custom_nodes").mkdir()
    (tmp_path / "custom_nodes" / "comfyui-subject-trainer").symlink_to(ROOT)
    (tmp_path / "output").symlink_to(base_directory / "output")
    (line,) = re.findall(r"^    python (custom_nodes/\S*/trainer/__main__.py .*)$", HEADLESS, re.MULTILINE)
    script, *arguments = line.replace("<name>-<key>", run.name).replace("cuda:0", "cpu").split()
    done = subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"event": "done"}
    shown = []
    server.run(graph, on_text=lambda _, text: shown.append(text))
    assert not any(text.startswith("Training") for text in shown)  # it loads the result
