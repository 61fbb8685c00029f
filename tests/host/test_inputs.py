"""Whatever ComfyUI can send to an input of a node is taken, or refused with a sentence: tests/host/input_checks.py asks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.setup import comfyui_path

CHECKS = Path(__file__).with_name("input_checks.py")


@pytest.fixture(scope="module")
def asked() -> dict:
    done = subprocess.run([sys.executable, CHECKS, comfyui_path()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def answers(asked) -> list:
    return asked["answers"]


def test_every_input_takes_a_value_or_says_what_it_wants(answers):
    assert len(answers) > 2000
    assert {node for (_, node, _, _), _ in answers} == {
        "DatasetLoader",
        "CaptionWithToken",
        "DreamBoothTrain",
        "TextualInversionTrain",
        "LoadFinetuned",
        "EvaluateSubject",
    }
    assert [
        (call, answer)
        for call, answer in answers
        if answer and (answer[0] not in ("ValueError", "UserError") or " " not in answer[1])
    ] == []


def test_what_is_of_another_type_is_named_with_what_is_wanted(answers):
    odd = {"{'a': 1}", "set", "bytes", "object"}
    told = {
        tuple(call): answer for call, answer in answers if call[0] == "execute" and call[3] in odd and call[1] != "LoadFinetuned"
    }
    assert len(told) > 200
    for (_, _, name, _), answer in told.items():
        assert answer[1].startswith(f"{name} is "), (name, answer)
        assert "; it must be " in answer[1], (name, answer)


def test_what_comes_with_the_graph_changes_nothing(answers):
    for _, node in {(None, call[1]) for call, _ in answers}:
        told = [answer for call, answer in answers if call[1:3] == [node, "extra_pnginfo"]]
        assert len(told) == 9
        assert all(answer == told[0] for answer in told), node


def test_a_link_that_brings_nothing_is_not_as_if_it_were_not_there(asked):
    told = {said.partition(" ")[0]: answer[1] for said, answer in asked["nothing"].items()}
    assert len(asked["nothing"]) == 3 * 2 + 4 + 1
    assert all(told[said.partition(" ")[0]] == answer[1] for said, answer in asked["nothing"].items())
    assert told["images"].startswith("No picture comes through images. ")
    assert told["masks"].startswith("0 masks come through masks, and there are 2 photos. ")
    assert told["captions"].startswith("0 captions come through captions, and there are 2 photos. ")
    assert told["path"].startswith("No file comes through path. ")
    assert told["unwired"].startswith("There is no finished run 'gone'")
