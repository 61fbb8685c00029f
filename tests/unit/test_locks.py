"""One process at a time: the others wait, are told, and can give up."""

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.run.locks import held

ROOT = Path(__file__).parent.parent.parent
HOLD = """
import sys
from pathlib import Path
from trainer.run.locks import held
with held(Path(sys.argv[1]), lambda: None, lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline().strip() == b"held"
        yield process
        process.kill()


def test_a_free_lock_is_taken_without_a_word(tmp_path):
    def never() -> None:
        raise AssertionError

    for _ in range(2):
        with held(tmp_path / "lock", never, never):
            pass


def test_it_waits_until_the_other_one_is_gone_however_that_ends(tmp_path, holder):
    told = []
    with held(tmp_path / "lock", lambda: told.append("waiting"), holder.kill):
        assert holder.wait() != 0
    assert told == ["waiting"]


def test_waiting_can_be_given_up(tmp_path, holder):
    class GivenUpError(Exception):
        pass

    def check() -> None:
        raise GivenUpError

    with pytest.raises(GivenUpError), held(tmp_path / "lock", lambda: None, check):
        raise AssertionError
    assert holder.poll() is None
