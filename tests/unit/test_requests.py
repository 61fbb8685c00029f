"""What a run is asked for while it trains, line by line on the worker's stdin."""

import os
import time

import pytest

from trainer.run.events import BEGIN, FINISH, GO_ON, SAMPLE
from trainer.run.stop_request import StoppedError, StopRequest


def asked(*lines: str) -> StopRequest:
    """Return a stop request that was sent these lines and then the end of the pipe."""
    ours, theirs = os.pipe()
    stop = StopRequest(os.fdopen(ours))
    with os.fdopen(theirs, "w") as pipe:
        pipe.writelines(f"{line}\n" for line in lines)
    deadline = time.monotonic() + 10
    while not stop and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stop  # the end of the pipe asks to stop
    return stop


@pytest.mark.parametrize(
    ("lines", "finishing"),
    [((), None), ((FINISH,), True), ((FINISH, GO_ON), False), ((FINISH, GO_ON, FINISH), True), ((SAMPLE,), None)],
)
def test_the_newest_wish_for_the_result_counts(lines, finishing):
    assert asked(*lines).finishing is finishing


def test_it_begins_when_the_host_says_so_and_not_when_the_host_has_gone():
    asked(BEGIN).wait_for_begin()
    with pytest.raises(StoppedError):
        asked().wait_for_begin()


def test_samples_are_drawn_once_for_each_wish():
    stop = asked(FINISH, SAMPLE, SAMPLE)
    assert [stop.take_sample_wish(), stop.take_sample_wish()] == [True, False]
    stop.take(SAMPLE)
    assert stop.take_sample_wish()


def test_any_other_line_asks_to_stop_and_what_follows_is_not_read():
    stop = asked("stop", FINISH)
    assert stop
    assert stop.finishing is None
