"""Whatever lies in the folder of a run, what is read of it ends at once, is of bounded size, and is JSON for a browser."""

import json
import os
import sys
import threading

import pytest

from tests.pack import load
from trainer.dataset.photos import Dataset, Photo
from trainer.run.files import read_json, write_json
from trainer.run.metrics_file import read_metrics
from trainer.run.result_file import result_file
from trainer.run.run_dir import Run, RunDir, finished_runs
from trainer.run.settings import Settings

run_card = load("nodes.page.run_card")
MB = 1_000_000
no_pipes = pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes, and links need a right of their own")


@pytest.fixture
def run_dir(tmp_path) -> RunDir:
    """A finished run with a loss."""
    run = Run(
        name="toy",
        settings=Settings.of(
            method="dreambooth", token="mysks", steps=10, batch_size=1, learning_rate=1e-6, seed=0, precision="fp32"
        ),
        dataset=Dataset(
            photos=(Photo(path="/a.png", sha256="ab", width=64, height=64, caption="a toy"),), resolution=64, token="mysks"
        ),
        base_fingerprint="cd",
        export_path="/out/toy.safetensors",
        tokenizer_path="/tokenizer",
    )
    run_dir = RunDir(tmp_path / "toy-0123456789ab")
    run_dir.path.mkdir()
    write_json(run_dir.run_json, run.to_json())
    write_json(run_dir.result_json, {"exported": {"step": 7}})
    run_dir.metrics.write_text('{"step": 1, "learning_rate": 1, "loss": 0.5}\n')
    return run_dir


def in_time(work) -> object:
    """What the work returns or raises, if it ends soon."""
    found = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:  # of any kind: it is looked at
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert found, "it does not end"
    return found[0]


STEPS = ["NaN", "1e999", "-Infinity", json.dumps("x" * 100_000), "{}", "[1]", "true", "-1", "1e3", "9" * 99]


@pytest.mark.parametrize("step", STEPS)
def test_the_step_of_a_result_is_a_step_or_nothing(run_dir, step):
    run_dir.result_json.write_text(f'{{"exported": {{"step": {step}}}}}')
    try:
        assert run_dir.exported_step() is None
    except ValueError:
        assert step in ("NaN", "1e999", "-Infinity")  # such a file is no JSON
        return
    assert run_card.card(run_dir)["facts"]["exported_step"] is None


def test_the_step_of_a_sound_result_is_shown(run_dir):
    assert run_card.card(run_dir)["facts"]["exported_step"] == run_dir.exported_step() == 7


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_no_file_gives_a_number_that_json_does_not_know(tmp_path, number):
    path = tmp_path / "a.json"
    path.write_text(f'{{"a": [1.5, {{"b": {number}}}]}}')
    with pytest.raises(ValueError, match="holds what this pack has not written"):
        read_json(path)


@no_pipes
@pytest.mark.parametrize("name", ["run.json", "result.json", "state.safetensors", "metrics.jsonl", "evaluations.jsonl", "finish"])
def test_no_pipe_is_waited_for(run_dir, name):
    path = run_dir.path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    in_time(lambda: run_card.card(run_dir))
    assert in_time(run_dir.saved_step) is None
    assert in_time(run_dir.finish_at) is None
    assert in_time(run_dir.can_go_on) is False
    assert in_time(lambda: finished_runs(run_dir.path.parent)) == ([] if name == "result.json" else [run_dir])


@no_pipes
def test_a_pipe_is_no_exported_file(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    assert in_time(lambda: result_file(tmp_path / "a.safetensors")) is None


@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.jsonl", "evaluations.jsonl"])
def test_no_huge_file_is_read(run_dir, name):
    (run_dir.path / name).touch()
    os.truncate(run_dir.path / name, 2**40)
    assert "which this pack has not written" in str(in_time(lambda: run_card.card(run_dir)))


def test_a_result_of_megabytes_is_not_parsed(run_dir):
    run_dir.result_json.write_text("[" + ",".join(["[]"] * MB) + "]")
    with pytest.raises(ValueError, match="which this pack has not written"):
        run_dir.result()


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((90 * MB).to_bytes(8, "little") + b"{" + b" " * (90 * MB - 2) + b"}")
    assert result_file(path) is None
    assert RunDir(tmp_path).saved_step() is None


def test_the_answer_about_a_run_is_of_bounded_size(run_dir):
    data = json.loads(run_dir.run_json.read_text())
    data["settings"]["samples"]["sample_prompts"] = ["x" * MB] * 16
    data["settings"]["class_word"] = data["base_checkpoint"] = "y" * MB
    write_json(run_dir.run_json, data)
    names = {f"n{i}": 1 for i in range(5000)}
    lines = [json.dumps({"step": step, "held_out": 0.5, **names}) for step in range(20)]
    lines += [json.dumps({"step": step, "learning_rate": 1, "loss": 1e308}) for step in range(800)]  # whose sum is infinite
    lines += [json.dumps({"step": 800, "learning_rate": 1, "loss": 0.25, **names})]
    run_dir.metrics.write_text("\n".join(lines) + "\n")
    card = run_card.card(run_dir)
    assert len(json.dumps(card, allow_nan=False)) < 200_000
    assert card["measured"] == {"step": list(range(20)), "held_out": [0.5] * 20}
    assert card["loss"]["mean"] == [0.25]


def test_numbers_that_are_none_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(f'{{"step": 1, "loss": {bad}}}' for bad in ("NaN", "1e999", "1" * 4000, "1e200")))
    assert read_metrics(path) == []


@no_pipes
def test_a_folder_of_runs_that_is_a_link_to_itself_has_none(tmp_path):
    root = tmp_path / "finetune"
    root.symlink_to(root)
    assert finished_runs(root) == []
