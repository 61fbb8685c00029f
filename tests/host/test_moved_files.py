"""The files of a run are found wherever the user has moved them, and missed where they are gone."""

import shutil
from pathlib import Path

import pytest

from demo.run import node
from tools.server import Failed

from .graphs import up_to_training


@pytest.fixture
def stepped(server, quick_graph, base_directory, tmp_path):
    """A LoRA with files of steps 2 and 4, which all come to LoadFinetuned: node "shown" says their trigger texts.

    It is trained once: each test moves its files, and finds them where they were.
    """
    graph = up_to_training(quick_graph)
    train = node(graph, "DreamBoothTrain")
    graph[train]["inputs"] |= {"name": "moved", "train": "lora", "seed": 44, "steps": 5, "save_every": 2, "batch_size": 1}
    graph["load"] = {"class_type": "LoadFinetuned", "inputs": {"run": "none", "path": [train, 6]}}
    graph["shown"] = {"class_type": "PreviewAny", "inputs": {"source": ["load", 3]}}
    graph["paths"] = {"class_type": "PreviewAny", "inputs": {"source": [train, 6]}}
    files = paths_of(server.run(graph))
    for file in files:
        shutil.copy2(file, tmp_path)
    yield graph
    shutil.rmtree(base_directory / "models" / "loras" / "mine", ignore_errors=True)
    for file in files:
        shutil.copy2(tmp_path / file.name, file)


def paths_of(result) -> list[Path]:
    return [Path(text) for text in result.outputs["paths"]["text"]]


def by_name(server, run: str, path: str) -> None:
    load = {"class_type": "LoadFinetuned", "inputs": {"run": run, "path": path}}
    server.run({"load": load, "shown": {"class_type": "PreviewAny", "inputs": {"source": ["load", 3]}}})


def test_a_moved_export_is_found_by_every_name(server, stepped, base_directory):
    two, four, last = paths_of(server.run(stepped))
    assert (two.stem, four.stem) == (f"{last.stem}-step-000002", f"{last.stem}-step-000004")
    mine = base_directory / "models" / "loras" / "mine"
    mine.mkdir(parents=True)
    for file in (last, four):
        file.rename(mine / file.name)
    assert paths_of(server.run(stepped)) == [two, mine / four.name, mine / last.name]
    for path in (mine / last.name, f"mine/{last.name}", last.name, last, four.name, f"mine/{four.name}"):
        by_name(server, last.stem, str(path))
    renamed = mine / "my dog.safetensors"
    (mine / last.name).rename(renamed)
    (mine / four.name).rename(mine / "half.safetensors")
    assert paths_of(server.run(stepped)) == [two, mine / "half.safetensors", renamed]
    for path in (renamed, "mine/my dog.safetensors", renamed.name, last.name, four.name):
        by_name(server, last.stem, str(path))
    for path in ("mine/gone.safetensors", "../../" + "x" * 300, "\0"):
        with pytest.raises(Failed, match="No run has exported"):
            by_name(server, last.stem, path)


def test_each_step_has_one_file_where_the_result_is_of_a_kept_step(server, stepped):
    *kept, result = paths_of(server.run(stepped))
    shutil.copy(kept.pop(), result)  # as where early_stopping or the user chose that step
    assert paths_of(server.run(stepped)) == [*kept, result]


def test_a_deleted_file_of_a_step_is_missed(server, stepped):
    before = paths_of(server.run(stepped))
    before[0].unlink()
    result = server.run(stepped)
    assert paths_of(result) == before[1:]
    assert node(stepped, "DreamBoothTrain") in result.seconds
    assert node(stepped, "DreamBoothTrain") not in server.run(stepped).seconds  # and then it is as it is


def test_a_damaged_copy_of_a_run_s_folder_stands_in_nobody_s_way(server, stepped, base_directory):
    """A copy comes first by its name, whether nothing of it can be read, or its result and not what was asked."""
    step, *_, last = paths_of(server.run(stepped))
    runs = base_directory / "output" / "finetune"
    folder = runs / last.stem
    key = folder.name.rpartition("-")[2]
    (runs / f"backup-{key}").mkdir()
    half = runs / f"a copy-{key}"
    shutil.copytree(folder, half)
    (half / "run.json").write_text("{")
    by_name(server, last.stem, step.name)
    by_name(server, last.stem, str(last))
    folder.rename(runs / f"renamed-{key}")
    by_name(server, last.stem, step.name)
    loader = {"class_type": "LoadFinetuned", "inputs": {"run": last.stem}}
    server.run({"load": loader, "shown": {"class_type": "PreviewAny", "inputs": {"source": ["load", 3]}}})
    for damaged in (half, runs / f"backup-{key}"):
        shutil.rmtree(damaged)
    (runs / f"renamed-{key}").rename(folder)


def test_a_file_that_a_link_names_is_loaded_anew_once_it_is_another(server, stepped):
    *_, last = paths_of(server.run(stepped))
    graph = {
        "name": {"class_type": "PrimitiveString", "inputs": {"value": last.name}},
        "load": {"class_type": "LoadFinetuned", "inputs": {"run": "none", "path": ["name", 0]}},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["load", 3]}},
    }
    assert "load" in server.run(graph).seconds
    assert "load" not in server.run(graph).seconds
    last.touch()
    assert "load" in server.run(graph).seconds
    assert "load" not in server.run(graph).seconds
