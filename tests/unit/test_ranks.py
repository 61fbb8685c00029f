"""Processes that train together: which they are, how they end, and what is said when one ends without a word."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trainer.run import ranks
from trainer.run.run_dir import RunDir
from trainer.run.stop_request import StoppedError, StopRequest
from trainer.run.unexpected_end import unexpected_end

from .test_resources import STUDY, run_of


@pytest.mark.parametrize(
    ("code", "devices", "said"),
    [
        (1, 1, "(exit code 1). Queue the graph again"),
        (-9, 1, "(it was killed, most often for want of memory)"),
        (-9, 2, "(it was killed, most often for want of memory)"),
        (-11, 1, "(it crashed with code -11)"),
        (0xC0000005, 1, "(it crashed with code 3221225477)"),
        (1, 2, "(one of its processes was killed or crashed, most often for want of memory). Queue the graph again"),
    ],
)
def test_an_end_without_a_word_is_told_with_what_helps(code, devices, said):
    text = str(unexpected_end(code, run_of(STUDY.replace(devices=devices)), RunDir(Path("run"))))
    assert text.startswith(f"The training process ended unexpectedly {said}")
    assert ("make the run need less memory with: " in text) == ("exit code" not in said)


@pytest.fixture
def silent():
    """A pipe that says nothing; its other end stays open."""
    return os.fdopen(os.pipe()[0])


def test_one_that_follows_leaves_only_when_all_do(silent):
    leader, follower = StopRequest(silent), StopRequest(silent, follows=True)
    leader.request()
    follower.request()
    assert follower  # which they agree on after each step
    follower.check()
    with pytest.raises(StoppedError):
        leader.check()


@pytest.fixture
def family():
    """A process with a child that has a session of its own, as torch's launcher has."""
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], start_new_session=True)"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE) as process:
        parent = psutil.Process(process.pid)
        deadline = time.monotonic() + 30
        while not parent.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield parent, *parent.children()
        process.kill()


def test_a_process_is_ended_with_its_children_in_other_sessions(family):
    assert len(family) == 2
    assert all(map(ranks.is_alive, family))
    ranks.end_tree(family[0].pid)
    assert not any(map(ranks.is_alive, family))
    ranks.end_tree(family[0].pid)  # nothing is left to end


def test_only_processes_of_the_same_command_are_siblings(family, monkeypatch):
    """Otherwise one that fails would end what is not its own."""
    monkeypatch.setattr(ranks.os, "getppid", lambda: family[0].pid)
    assert ranks.siblings() == []
