"""The worker's Python is started as ComfyUI's was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.run.devices import allocator_settings
from trainer.run.interpreter import worker_command

ROOT = Path(__file__).parent.parent.parent
STATE = "import json, sys; state = [[*sys.flags], sys.warnoptions, sorted(sys._xoptions.items())]; "
CHILD = f"{STATE}print(json.dumps(state))"
PARENT = (
    f"import subprocess; {STATE}sys.path.insert(0, {str(ROOT)!r}); from trainer.run.interpreter import python_command; "
    f"child = subprocess.run([*python_command(), '-c', {CHILD!r}], capture_output=True, text=True, check=True); "
    "print(json.dumps([state, json.loads(child.stdout)]))"
)
OPTIONS = ["", "-s", "-E", "-I", "-B", "-O", "-W ignore", "-X utf8", "-X dev", "-s -E -B -X utf8=0"]


@pytest.mark.parametrize("options", OPTIONS)
def test_another_python_has_the_options_of_this_one(options):
    done = subprocess.run([sys.executable, *options.split(), "-c", PARENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parent, child = json.loads(done.stdout)
    assert parent == child


def test_each_process_of_several_devices_has_them_too():
    code = (
        f"import json, sys; from pathlib import Path; sys.path.insert(0, {str(ROOT)!r}); "
        "from trainer.run.interpreter import worker_command as command; print(json.dumps(command(Path('run'), 'cuda:1', 2)))"
    )
    command = json.loads(subprocess.run([sys.executable, "-s", "-c", code], capture_output=True, text=True, check=True).stdout)
    worker = command[command.index(sys.executable, 1) :]
    script = str(ROOT / "trainer" / "__main__.py")
    assert "-s" in command[: command.index("-m")]
    assert "-s" in worker[: worker.index(script)]
    assert worker[worker.index(script) :] == [script, "run", "--device", "cuda", "--attached"]
    assert worker_command(Path("run"), "cuda:1", 1)[-4:] == ["run", "--device", "cuda:1", "--attached"]


@pytest.mark.parametrize(
    ("platform", "is_nvidia", "given", "expected"),
    [
        ("linux", True, "", "expandable_segments:True"),
        ("linux", True, "backend:cudaMallocAsync", "expandable_segments:True"),
        ("linux", True, "max_split_size_mb:128,backend:cudaMallocAsync", "max_split_size_mb:128,expandable_segments:True"),
        ("linux", True, "expandable_segments:False,backend:cudaMallocAsync", "expandable_segments:False"),
        ("linux", False, "backend:cudaMallocAsync", ""),
        ("win32", True, "backend:cudaMallocAsync", ""),
        ("win32", True, "garbage_collection_threshold:0.8, backend: native", "garbage_collection_threshold:0.8"),
        ("darwin", False, "", ""),
    ],
)
def test_the_worker_has_an_allocator_of_its_own(platform, is_nvidia, given, expected):
    assert allocator_settings(platform, is_nvidia, given) == expected
