"""The commands of the README, as they stand there but for address, checkpoint, folder and the size of the job."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.run import node

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path, server, quick_graph):
    """Where the commands are run: a small graph under the name of the shipped one."""
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]["name"] = "readme"
    path = tmp_path / "workflows" / "api" / "train_and_compare.json"
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


def test_the_python_client_trains_and_names_the_pictures(server, folder):
    (client,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    command = [sys.executable, "-c", adapted(client, server)]
    lines = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any(line.startswith("Train 2 steps, mean loss") for line in lines)
    assert any(re.match(r"Picture after training .*\.png", line) for line in lines)


@pytest.mark.skipif(sys.platform == "win32", reason="a command for a POSIX shell")
def test_the_curl_lines_queue_and_cancel(server, folder):
    queue, cancel = re.findall(r"(?:^    |`)(curl [^\n`]*)", README, re.MULTILINE)
    answer = subprocess.run(["bash", "-c", adapted(queue, server)], cwd=folder, capture_output=True, check=True).stdout
    assert json.loads(answer)["prompt_id"]
    subprocess.run(["bash", "-c", adapted(cancel, server)], check=True)
