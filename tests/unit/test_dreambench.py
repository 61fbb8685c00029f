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


OPTIONS = {
    "method": "dreambooth",
    "checkpoint": "sd15.safetensors",
    "dino": "dino.safetensors",
    "clip": "clip.safetensors",
    "text": "text.safetensors",
    "set": ["train=lora", "steps=800"],
    "folder": "dreambench",
    "token": "mysks",
    "images": 4,
    "size": 512,
    "sampling_steps": 50,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_report_has_the_numbers_of_one_choice_of_options(name, tmp_path):
    report, asked = tmp_path / "report.jsonl", {**OPTIONS, "port": 1, "prompts": 25}
    head = dreambench.resumed(report, argparse.Namespace(**asked))
    report.write_text("".join(json.dumps(line) + "\n" for line in [*head, {"subject": "cat2", "prompt": "x"}]))
    again = argparse.Namespace(**asked | {"port": 2, "prompts": 2, "set": OPTIONS["set"][::-1]})
    assert dreambench.resumed(report, again) == [*head, {"subject": "cat2", "prompt": "x"}]
    other = ["train=unet"] if name == "set" else f"another {OPTIONS[name]}"
    with pytest.raises(SystemExit, match=rf"another run: {name} is [^;]*\."):
        dreambench.resumed(report, argparse.Namespace(**asked | {name: other}))
    report.write_text('{"subject": "cat2", "prompt": "x"}\n')  # of a version that kept no options
    with pytest.raises(SystemExit, match="of another run: method is 'dreambooth' and was None"):
        dreambench.resumed(report, again)


@pytest.mark.parametrize("method", ["dreambooth", "textual_inversion"])
def test_pictures_are_drawn_with_what_the_method_trains(method):
    options = argparse.Namespace(**OPTIONS | {"method": method})
    graph = dreambench.graph_of(options, "cat2", "cat", "a {0} {1} in the snow")
    inputs = {name: node["inputs"] for name, node in graph.items()}
    drawn = inputs["sample"]["model"], inputs["prompt"]["clip"], inputs["decode"]["vae"]
    assert inputs["train"]["steps"] == 800
    if method == "dreambooth":
        assert drawn == (["train", 0], ["train", 1], ["train", 2])
        assert inputs["prompt"]["text"] == "a mysks cat in the snow"
    else:
        assert drawn == (["base", 0], ["train", 0], ["base", 2])
        assert inputs["prompt"]["text"] == f"a {inputs['train']['token']} cat in the snow" != "a mysks cat in the snow"
    assert inputs["named"]["token"] == inputs["train"].get("token", "mysks")
    assert inputs["by_clip"]["prompt"] == "a cat in the snow"


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
