"""Whatever ends a run on several devices, none of its processes stays, and the user reads once why."""

import json
import os
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest
from filelock import FileLock

from trainer.run.ranks import end_tree
from trainer.run.run_dir import RunDir

from .runs import DREAMBOOTH, processes, sentence, start_worker, wait_until

SETTINGS = DREAMBOOTH.replace(train="lora", steps=2000, batch_size=2, devices=2)
SECONDS = 60.0
"""From the end of one process to that of the last: three or four, but for a busy computer and a slow disk."""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")


@pytest.fixture
def launch():
    """Start a run on two processes; none of them outlives the test."""
    started = []

    def start(run_dir: RunDir) -> subprocess.Popen:
        started.append((start_worker(run_dir, devices=2), run_dir))
        return started[-1][0]

    yield start
    for worker, run_dir in started:
        end_tree(worker.pid)
        for process in processes(run_dir):
            process.kill()
        worker.wait()


def process_of_rank(run_dir: RunDir, number: int) -> psutil.Process:
    (found,) = (process for process in processes(run_dir) if process.environ().get("RANK") == str(number))
    return found


def events_of(worker: subprocess.Popen) -> Iterator[dict]:
    return map(json.loads, worker.stdout)


def reaches(events: Iterator[dict], phase: str) -> None:
    """Read events until the phase has begun; for training, until a step is done."""
    next(event for event in events if event.get("phase") == phase and (phase != "training" or event.get("loss")))


def close_stdin(worker: subprocess.Popen) -> None:
    worker.stdin.close()


@pytest.mark.parametrize(
    ("phase", "end"),
    [
        pytest.param("loading", lambda worker: end_tree(worker.pid), id="cancelled while loading", marks=pytest.mark.nightly),
        pytest.param("encoding_instance", close_stdin, id="host gone while encoding", marks=pytest.mark.nightly),
        pytest.param("training", close_stdin, id="host gone while training"),
        pytest.param("training", subprocess.Popen.kill, id="launcher killed"),
        pytest.param("training", subprocess.Popen.terminate, id="asked to stop by SIGTERM"),
    ],
)
def test_no_process_of_a_run_that_ends_is_left(make_run, launch, phase, end):
    run_dir = make_run(SETTINGS)
    worker = launch(run_dir)
    events = events_of(worker)
    reaches(events, phase)
    assert len(processes(run_dir)) == 3
    end(worker)
    began = time.monotonic()
    wait_until(lambda: not processes(run_dir), SECONDS)
    print(f"\n{time.monotonic() - began:.1f} s until the last process had ended")
    last = list(events)
    assert [event for event in last if event["event"] == "error"] == []
    if end in (close_stdin, subprocess.Popen.terminate):
        assert last[-1]["event"] == "stopped"
        assert run_dir.state.is_file() == (phase == "training")
        assert "[rank " not in run_dir.log.read_text()  # nobody failed on the way


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_process_that_is_killed_ends_the_run_with_one_sentence(make_run, launch, number):
    run_dir = make_run(SETTINGS)
    worker = launch(run_dir)
    events = events_of(worker)
    reaches(events, "training")
    process_of_rank(run_dir, number).kill()
    wait_until(lambda: not processes(run_dir), SECONDS)
    ends = [event for event in events if event["event"] in ("error", "stopped", "done")]
    assert [event["event"] for event in ends] == ["error"]
    said = sentence(ends[0])
    assert said.startswith("The training process ended unexpectedly (one of its processes was killed or crashed, most often for")
    assert "make the run need less memory with: " in said
    assert worker.wait() == 1


@pytest.mark.skipif(not hasattr(psutil, "RLIMIT_AS"), reason="limits the memory of a process: Linux only")
def test_an_error_of_another_process_is_told_once_and_logged_with_its_rank(make_run, launch):
    """The first process waits for a lock, and the second for the first, until the latter has no memory for the base model."""
    run_dir = make_run(SETTINGS)
    with FileLock(run_dir.lock):
        worker = launch(run_dir)
        events = events_of(worker)
        reaches(events, "waiting")
        starved = process_of_rank(run_dir, 1)
        wait_until(lambda: starved.cpu_percent(interval=0.5) < 5, 60)  # it has loaded its libraries
        limit = starved.memory_info().vms + 200_000_000
        starved.rlimit(psutil.RLIMIT_AS, (limit, limit))
    ends = [event for event in events if event["event"] in ("error", "stopped", "done")]
    assert [event["event"] for event in ends] == ["error"], run_dir.log.read_text()
    assert sentence(ends[0]).startswith("The memory ran out: with SD v1.5 this run needs about")
    assert "make the run need less with: " in sentence(ends[0])
    log = run_dir.log.read_text()
    assert "[rank 1] Traceback" in log
    assert "[rank 0] Traceback" not in log
    wait_until(lambda: not processes(run_dir), SECONDS)
