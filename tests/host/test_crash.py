"""What ends a run from outside: nothing is left running, and the same graph queued again goes on to the same result."""

import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest
from filelock import FileLock

from demo.run import node
from tools.server import Failed, ServerError
from trainer.run.run_dir import RunDir

from .graphs import exported, up_to_training

SECONDS = 120


@pytest.mark.nightly
@pytest.mark.parametrize("kills", [1, 5])
def test_a_killed_server_costs_nothing(start_server, server, workers, quick_graph, base_directory, kills):
    train = quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "never-killed", "steps": 24, "batch_size": 1, "checkpoint_every": 3}
    whole = exported(quick_graph, server.run(quick_graph), base_directory)

    def forget() -> None:
        (finished,) = (base_directory / "output" / "finetune").glob(f"{train['name']}-*")
        shutil.rmtree(finished)  # by another name, too, it would be loaded

    def check(result) -> None:
        ended = exported(quick_graph, result, base_directory)
        assert ended.keys() == whole.keys()
        assert all((ended[name] == whole[name]).all() for name in whole)

    forget()
    train["name"] = "killed"
    rng, phases = random.Random(1), []
    while len(phases) < kills:
        wanted = rng.randrange(1, 16)  # after so many words of progress
        with start_server() as mortal:
            heard = []

            def listen(_, text: str, heard=heard, mortal=mortal, wanted=wanted) -> None:
                heard.append(text)
                if len(heard) == wanted:
                    os.kill(mortal.pid, signal.SIGKILL)

            try:
                check(mortal.run(quick_graph, on_text=listen))
                forget()  # it was done before
            except ServerError:
                phases.append(heard[-1].splitlines()[-1])
        psutil.wait_procs(workers(), timeout=SECONDS)
        assert workers() == []
    print(f"\nkilled at: {phases}")
    with start_server() as last:
        check(last.run(quick_graph))


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_no_process_of_several_devices_outlives_its_server(start_server, workers, quick_graph):
    train = quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "orphaned", "train": "lora", "steps": 500, "batch_size": 2, "devices": 2}
    with start_server() as mortal:

        def die(_, text: str) -> None:
            if text.startswith("Training: step"):
                os.kill(mortal.pid, signal.SIGKILL)

        with pytest.raises(ServerError):
            mortal.run(quick_graph, on_text=die)
    deadline = time.monotonic() + SECONDS
    while workers() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert workers() == []


@pytest.mark.nightly
def test_two_servers_on_one_folder_train_a_run_once(start_server, server, workers, quick_graph, base_directory):
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"] |= {"name": "shared", "steps": 60, "batch_size": 1}
    training, heard = threading.Event(), []

    def on_text(_: str, text: str) -> None:
        assert len(workers()) <= 1
        if text.startswith("Training: step"):
            training.set()

    with start_server() as other, ThreadPoolExecutor() as pool:
        first = pool.submit(server.run, quick_graph, on_text)
        assert training.wait(SECONDS)
        results = [other.run(quick_graph, lambda _, text: heard.append(text)), first.result()]
    assert "Another ComfyUI trains this run: waiting" in heard
    assert not any(text.startswith("Training") for text in heard)
    one, two = (exported(quick_graph, result, base_directory) for result in results)
    assert all((one[name] == two[name]).all() for name in one)
    (run,) = (base_directory / "output" / "finetune").glob("shared-*")
    assert len(RunDir(run).losses()) == 60


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_AS"), reason="limits the memory of a process: Linux only")
def test_a_run_without_memory_ends_with_a_sentence_and_the_server_goes_on(server, workers, quick_graph, base_directory):
    """It waits for a lock meanwhile, so that the base model, 0.7 GB, is the first for which there is no memory."""
    graph = up_to_training(quick_graph)
    train = node(graph, "DreamBoothTrain")
    graph[train]["inputs"] |= {"name": "starved", "seed": 73, "batch_size": 1}  # no other test's run
    with ExitStack() as locked:

        def starve(_, text: str) -> None:
            if "GB of memory, " in text:
                (run,) = (base_directory / "output" / "finetune").glob("starved-*")
                locked.enter_context(FileLock(RunDir(run).lock))
            if text.startswith("Waiting for another process"):
                (worker,) = workers()
                limit = worker.memory_info().vms + 200_000_000
                worker.rlimit(psutil.RLIMIT_AS, (limit, limit))
                locked.close()

        with pytest.raises(
            Failed, match=r"The memory ran out: with SD v1\.5 this run needs about \d+\.\d GB .* less with: optimizer adamw_8bit"
        ):
            server.run(graph, on_text=starve)
    assert workers() == []
    assert "2 steps, mean loss" in server.run(graph).outputs[train]["text"][0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "it was killed, most often for want of memory"),
        pytest.param(signal.SIGSEGV, "it crashed with code -11", marks=pytest.mark.nightly),
    ],
)
def test_a_process_that_dies_in_training_is_told_and_the_run_goes_on(
    server, workers, quick_graph, base_directory, number, reason
):
    graph = up_to_training(quick_graph)
    train = node(graph, "DreamBoothTrain")
    graph[train]["inputs"] |= {"name": f"dies-{number}", "seed": number, "steps": 10, "batch_size": 1, "checkpoint_every": 3}
    seen = []

    def die(_, text: str) -> None:
        step = int(text.split()[2]) if text.startswith("Training: step") else 0
        if step > 3 and not seen:
            seen.append(step)
            workers()[0].send_signal(number)

    with pytest.raises(
        Failed,
        match=rf"ended unexpectedly \({reason}\)\. Queue .* less memory with: optimizer adamw_8bit, "
        r"low_memory on \(on a graphics card\), train 'lora'",
    ):
        server.run(graph, on_text=die)
    result = server.run(graph)
    assert result.outputs[train]["text"][0].startswith("10 steps")
    (run,) = (base_directory / "output" / "finetune").glob(f"dies-{number}-*")
    log = RunDir(run).log.read_text()
    assert ("Fatal Python error: Segmentation fault" in log) == (number == signal.SIGSEGV)
    (resumed,) = re.findall(r"resuming after step (\d+)", log)
    assert int(resumed) >= seen[0] - 3  # the last saved state
