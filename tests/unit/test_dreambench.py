"""The DreamBooth paper's protocol: what is read of its dataset, what is left to do, and the table at the end."""

import argparse
import json

import pytest

from bench import dreambench

PROTOCOL = """Classes

subject_name,class
cat2,cat
bear,stuffed animal

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the snow'.format(unique_token, class_token),
'a red {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} wearing a red hat'.format(unique_token, class_token),
'a {0} {1} in the snow'.format(unique_token, class_token)
]
"""
BY_DINO = "|  | likeness | copying |\n| --- | --- | --- |\n| dataset | 0.774 | 0.9 |\n| pictures | 0.668 | 0.7 |"
BY_CLIP = "| dataset | 0.885 | 0.9 |\n| pictures | 0.803 | 0.8 |\n\nprompt_fidelity: 0.305"


@pytest.fixture
def protocol(tmp_path):
    (tmp_path / "prompts.txt").write_text(PROTOCOL)
    return dreambench.read_protocol(tmp_path / "prompts.txt")


def test_each_subject_has_the_prompts_of_its_kind(protocol):
    assert protocol.classes == {"cat2": "cat", "bear": "stuffed animal"}
    assert protocol.prompts("cat2") == ["a {0} {1} wearing a red hat", "a {0} {1} in the snow"]
    assert protocol.prompts("bear") == ["a {0} {1} in the snow", "a red {0} {1}"]


def test_what_is_in_the_report_is_not_done_again(protocol):
    done = [{"subject": "cat2", "prompt": "a {0} {1} wearing a red hat"}, {"subject": "bear", "prompt": "a red {0} {1}"}]
    left = [*dreambench.to_do(protocol, argparse.Namespace(subjects=None, prompts=25), done)]
    assert left == [("cat2", "a {0} {1} in the snow"), ("bear", "a {0} {1} in the snow")]
    assert [*dreambench.to_do(protocol, argparse.Namespace(subjects=["bear"], prompts=1), [])] == left[1:]


def test_the_table_has_means_of_the_means_of_subjects(tmp_path):
    found = dreambench.measured({"by_dino": {"text": [BY_DINO]}, "by_clip": {"text": [BY_CLIP]}})
    assert found == {"dino": 0.668, "clip_i": 0.803, "clip_t": 0.305, "real_dino": 0.774, "real_clip_i": 0.885}
    lines = [{"subject": "cat2", **found}, {"subject": "cat2", **found, "dino": 0.768}, {"subject": "bear", **found, "dino": 0.1}]
    (tmp_path / "report.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = dreambench.table(dreambench.read_report(tmp_path / "report.jsonl"))
    assert "2 subjects, 3 prompts" in table
    assert "| Real images | 0.774 | 0.885 | - |" in table
    assert "| This run | 0.409 | 0.803 | 0.305 |" in table  # ((0.668 + 0.768) / 2 + 0.1) / 2


def test_settings_are_numbers_or_words():
    assert dreambench.settings(["train=lora", "steps=800", "learning_rate=1e-4"]) == {
        "train": "lora",
        "steps": 800,
        "learning_rate": 1e-4,
    }
