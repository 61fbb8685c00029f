"""What was trained is found again, whatever it is called and wherever it lies; what is gone is trained anew."""

import json
import os
import zlib
from pathlib import Path

import pytest
from PIL import Image

from demo.run import node
from tools.server import Failed, Refused

from .graphs import same, train_node, up_to_training

OTHER_CACHES = ("--cache-lru=10", "--cache-none", "--cache-classic")


@pytest.fixture(scope="module", params=["as it comes", *(pytest.param(way, marks=pytest.mark.nightly) for way in OTHER_CACHES)])
def cached_server(request, server, start_server):
    """Servers that keep results in each way that ComfyUI has."""
    if request.param not in OTHER_CACHES:
        yield server
        return
    with start_server(request.param) as running:
        yield running


def loading_graph(run: str) -> dict:
    return {
        "load": {"class_type": "LoadFinetuned", "inputs": {"run": run}},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["load", 3]}},
    }


@pytest.fixture
def inversion() -> dict:
    """A quick Textual Inversion: the first test that asks for it trains it, and the others find it."""
    photos = {"class_type": "DatasetLoader", "inputs": {"folder": "plush", "resolution": 64, "crop": "center"}}
    base = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}
    return {"loader": base, "photos": photos, "train": train_node(token="own", steps=1)}


def test_a_deleted_result_is_trained_again_and_loaded_anew(cached_server, inversion, base_directory):
    result = cached_server.run(inversion)
    (run,) = result.outputs["train"]["run"]
    file = base_directory / "models" / "embeddings" / result.outputs["train"]["text"][0].splitlines()[-1]
    trained = file.read_bytes()
    load = loading_graph(run)
    assert cached_server.run(load).outputs["shown"]["text"]

    file.unlink()
    with pytest.raises(Refused, match="its exported file is gone"):
        cached_server.run(load)
    again = cached_server.run(inversion)
    assert file.read_bytes() == trained
    assert "train" in again.seconds
    assert "load" in cached_server.run(load).seconds  # what was loaded before is of a file that is gone

    (base_directory / "output" / "finetune" / run / "result.json").unlink()
    with pytest.raises(Refused, match="There is no finished run"):
        cached_server.run(load)
    assert "train" in cached_server.run(inversion).seconds
    assert (base_directory / "output" / "finetune" / run / "result.json").is_file()


def test_what_is_still_there_is_taken_from_the_cache(server, inversion):
    (run,) = server.run(inversion).outputs["train"]["run"]
    assert "train" not in server.run(inversion).seconds
    load = loading_graph(run)
    server.run(load)
    assert "load" not in server.run(load).seconds


@pytest.fixture
def folders(base_directory) -> set[str]:
    """The names of the runs' folders before a test."""
    return {path.name for path in (base_directory / "output" / "finetune").glob("*")}


def last_line(result, graph: dict) -> str:
    return result.outputs[node(graph, "DreamBoothTrain")]["text"][0].splitlines()[-1]


def test_renaming_moving_and_drawing_train_nothing_anew(server, quick_graph, base_directory, folders):
    graph = up_to_training(quick_graph)
    inputs = graph[node(graph, "DreamBoothTrain")]["inputs"]
    inputs |= {"train": "lora", "steps": 1, "name": "first", "sample_prompts": "a toy", "sample_every": 1}
    file = last_line(server.run(graph), graph)
    first = Path(file).stem
    root = base_directory / "output" / "finetune"
    moved = base_directory / "models" / "loras" / "kept" / "another name.safetensors"
    moved.parent.mkdir(parents=True, exist_ok=True)
    (base_directory / "output" / "loras" / file).rename(moved)
    written = moved.stat().st_mtime_ns

    def found(**changes) -> str:
        inputs.update(changes)
        result = server.run(graph)
        (told,) = result.outputs[node(graph, "DreamBoothTrain")]["text"]
        assert told.splitlines()[-1] == "another name.safetensors"
        return told

    assert f"This run is there already, as {first}" in found(name="second")
    assert "is not trained again for another sample_every" in found(sample_every=7)
    assert "were drawn with the weights of the result; nothing was trained" in found(sample_prompts="a cat")
    for without_effect in ({"prior_loss_weight": 0.5}, {"validate_every": 1}):
        found(**without_effect)
    key = first.rpartition("-")[2]
    (root / first).rename(root / f"a third name-{key}")
    assert f"This run is there already, as a third name-{key}" in found()
    assert moved.stat().st_mtime_ns == written
    assert {path.name for path in root.glob("*")} - folders == {f"a third name-{key}"}
    assert server.run(loading_graph(first)).outputs["shown"]["text"] == ["mysks plush toy"]  # by the name that a saved graph has
    assert f"a third name-{key}" in server.options("LoadFinetuned", "run")
    moved.unlink()


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """What is in a run's folder, but for locks, the log, and what is drawn of all together."""
    drawn = ("loss.png", "grid.jpg", "log.txt")
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in drawn and path.suffix != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if path.name != "lock"}


def test_more_prompts_of_a_finished_run_are_drawn(request, cached_server, workers, quick_graph, base_directory):
    """Without a step of training; what ends it on the way costs nothing."""
    graph = up_to_training(quick_graph)
    train = node(graph, "DreamBoothTrain")
    inputs = graph[train]["inputs"]
    inputs |= {"train": "lora_and_token", "steps": 1, "name": "more", "seed": zlib.crc32(request.node.name.encode())}
    inputs["sample_prompts"] = "a toy"
    file = last_line(cached_server.run(graph), graph)
    folder = base_directory / "output" / "finetune" / Path(file).stem
    before, weights = contents(folder), base_directory / "output" / "loras" / file
    written = weights.stat().st_mtime_ns

    def interrupt(_: str, text: str) -> None:
        if text.startswith("Drawing sample pictures"):
            cached_server.post("/interrupt", {})

    inputs["sample_prompts"] = "a toy\na cat"
    with pytest.raises(Failed, match="interrupted"):
        cached_server.run(graph, on_text=interrupt)
    assert workers() == []
    assert contents(folder) == before
    cached_server.run(loading_graph(folder.name))
    inputs["sample_prompts"] = f"a toy\n{'toy ' * 80}mysks"
    shown = cached_server.run(graph).outputs[train]
    assert "could not be drawn, and the run is as it was: In the caption" in shown["text"][0]
    assert contents(folder) == before

    phases = []
    inputs["sample_prompts"] = "a toy\na cat"
    shown = cached_server.run(graph, on_text=lambda _, text: phases.append(text)).outputs[train]
    assert "were drawn with the weights of the result; nothing was trained" in shown["text"][0]
    assert not any(text.startswith(("Training", "Encoding", "Exporting")) for text in phases)
    new = folder / "samples" / "step-000001-1.png"
    after, run_json = contents(folder), folder / "run.json"
    assert {name for name in after if after[name] != before.get(name)} == {new, run_json}
    assert json.loads(after[run_json][1])["settings"]["samples"]["sample_prompts"] == ["a toy", "a cat"]
    with Image.open(new) as one, Image.open(folder / "samples" / "step-000001-0.png") as other:
        assert not same(one, other)
    with Image.open(folder / "samples" / "grid.jpg") as grid:
        assert grid.height > 2 * 256
    assert [picture["filename"] for picture in shown["images"]] == ["grid.jpg", "loss.png"]
    for known in ("a cat", "a cat\na toy", ""):  # all of them are there
        inputs["sample_prompts"] = known
        assert "sample prompts" not in cached_server.run(graph).outputs[train]["text"][0]
    assert contents(folder) == after
    assert weights.stat().st_mtime_ns == written


def test_a_damaged_folder_hides_and_stops_nothing(server, inversion, base_directory):
    folders = {}
    for file, key in (("run.json", "0123456789ab"), ("result.json", "ba9876543210")):
        folder = folders[file] = base_directory / "output" / "finetune" / f"damaged-{key}"
        folder.mkdir()
        (folder / "state.safetensors").touch()
        for damage in ("[" * 100_000, "{}", '{"kind": [], "file": 5}', '{"kind": "lora", "file": "a", "exported": [1]}'):
            (folder / file).write_text(damage)
            assert folder.name not in server.options("LoadFinetuned", "run")
        os.truncate(folder / file, 2**40)
    inversion["train"]["inputs"]["token"] = "undisturbed"  # not found, but trained
    (run,) = server.run(inversion).outputs["train"]["run"]
    assert run in server.options("LoadFinetuned", "run")
    for file, folder in folders.items():
        assert f"The run in {folder} is passed over" in server.log.read_text(encoding="utf-8")
        (folder / file).unlink()


TWO_STEPS = {"train": "lora", "steps": 2, "batch_size": 1}
"""One run of two tests."""


def test_a_list_of_prompts_is_one_run(server, quick_graph, base_directory):
    """ComfyUI runs a node once for each item of a list, and joins what they show."""
    folder = base_directory / "input" / "texts"
    folder.mkdir()
    for name, text in (("a", "a toy on grass"), ("b", "")):
        Image.new("RGB", (64, 64), "teal").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text)
    graph = up_to_training(quick_graph)
    train = node(graph, "DreamBoothTrain")
    graph["texts"] = {"class_type": "LoadImageTextDataSetFromFolder", "inputs": {"folder": "texts"}}
    graph[train]["inputs"] |= {**TWO_STEPS, "name": "listed", "sample_prompts": ["texts", 1]}
    shown = server.run(graph).outputs[train]
    one, other = shown["run"]
    assert one == other
    assert len(shown["text"]) == len(shown["told"]) == 2


def test_a_copy_of_another_step_is_not_the_result(server, quick_graph, base_directory):
    """What was exported on the way says that it is of the same run."""
    graph = up_to_training(quick_graph)
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {**TWO_STEPS, "name": "stepped"}
    file = base_directory / "output" / "loras" / last_line(server.run(graph), graph)
    raw = file.read_bytes()
    assert raw.count(b'"subject_trainer.steps":"2"') == 1
    file.with_name("on the way.safetensors").write_bytes(
        raw.replace(b'"subject_trainer.steps":"2"', b'"subject_trainer.steps":"1"')
    )
    file.unlink()
    assert file.stem not in server.options("LoadFinetuned", "run")
    file.with_name("at the end.safetensors").write_bytes(raw)
    assert file.stem in server.options("LoadFinetuned", "run")
