"""Cancelling acts at once in every phase, keeps the work, and leaves nothing running."""

import re
import shutil
import time

import pytest

from demo.run import node
from tools.server import Failed

from .graphs import exported, up_to_training

PHASES = ("Starting", "Loading", "Making class images", "Encoding", "Training: step", "Exporting")
SOME = ("Training: step",)
"""With a state."""
SECONDS = 10.0
"""A step here takes a fraction of one, and the saved state of 0.5 GB that follows it a few, by the disk."""


@pytest.mark.parametrize("phases", [SOME, pytest.param(PHASES, marks=pytest.mark.nightly)], ids=["some", "every"])
def test_cancelled_in_a_phase_it_stops_at_once_and_ends_with_the_same_bytes(server, workers, quick_graph, base_directory, phases):
    graph = up_to_training(quick_graph)
    train = graph[node(graph, "DreamBoothTrain")]["inputs"]
    graph[node(graph, "CaptionWithToken")]["inputs"]["class_word"] = "soft toy"  # no other test makes its pictures
    train |= {"name": "never-cancelled", "steps": 30, "batch_size": 1, "class_images": 1, "train": "unet_and_token"}
    whole = exported(graph, server.run(graph), base_directory)
    (finished,) = (base_directory / "output" / "finetune").glob("never-cancelled-*")
    shutil.rmtree(finished)  # by another name, too, it would be loaded
    for picture in (base_directory / "output" / "finetune" / "class-images").glob("*/*.png"):
        picture.unlink()  # to be made again
    shutil.rmtree(base_directory / "output" / "finetune" / "latents")  # to be encoded again
    train["name"] = "cancelled"
    times = {}
    for phase in phases:
        asked = []

        def interrupt(_: str, text: str, phase=phase, asked=asked) -> None:
            if f"\n{phase}" in f"\n{text}" and not asked:  # notes may stand above
                asked.append(time.monotonic())
                assert workers()
                server.post("/interrupt", {})

        with pytest.raises(Failed, match="interrupted"):
            server.run(graph, on_text=interrupt)
        times[phase] = round(time.monotonic() - asked[0], 2)
        assert workers() == []
        (run,) = (base_directory / "output" / "finetune").glob("cancelled-*")
        assert not (run / "result.json").exists()
        assert (run / "state.safetensors").is_file() == (phase in ("Training: step", "Exporting"))
    print(f"\nseconds from the interrupt to the node's end: {times}")
    assert max(times.values()) <= SECONDS
    result = server.run(graph)
    assert "\n30 steps" in result.outputs[node(graph, "DreamBoothTrain")]["text"][0]
    assert "resuming after step" in (run / "log.txt").read_text()
    ended = exported(graph, result, base_directory)
    assert ended.keys() == whole.keys()
    assert all((ended[name] == whole[name]).all() for name in whole)


def test_what_there_is_is_exported_on_cancel_if_wanted(server, quick_graph, base_directory):
    train = quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "wanted", "seed": 41, "steps": 500, "batch_size": 1, "export_on_cancel": True}  # no other test's run
    texts = []

    def interrupt(_: str, text: str) -> None:
        texts.append(text)
        if "loss" in text and "Stopping: saving the state" not in texts:
            server.post("/interrupt", {})

    with pytest.raises(Failed, match="interrupted"):
        server.run(up_to_training(quick_graph), on_text=interrupt)
    (file,) = (base_directory / "output" / "checkpoints").glob("wanted-*")
    stopped = r"Stopped: the state after step \d+ of 500 is saved\. Queue the graph again to go on\."
    assert re.fullmatch(rf"{stopped}\nExported: {re.escape(file.name)}", texts[-1])
    info = server.get("/object_info/CheckpointLoaderSimple")["CheckpointLoaderSimple"]
    assert file.name in info["input"]["required"]["ckpt_name"][0]


@pytest.mark.nightly
def test_cancelled_on_several_devices_it_leaves_no_process(server, workers, quick_graph, base_directory):
    """The launcher starts a process for each device, in a session of its own: while they load, they are killed."""
    train = quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"]
    train |= {"name": "together", "train": "lora", "steps": 30, "batch_size": 2, "devices": 2}
    for phase in ("Loading", "Training: step"):
        seen = []

        def interrupt(_: str, text: str, phase=phase, seen=seen) -> None:
            if text.startswith(phase) and not seen:
                seen.extend(workers())
                server.post("/interrupt", {})

        with pytest.raises(Failed, match="interrupted"):
            server.run(quick_graph, on_text=interrupt)
        assert len(seen) == 3  # the launcher and two processes
        assert workers() == []
        (run,) = (base_directory / "output" / "finetune").glob("together-*")
        assert (run / "state.safetensors").is_file() == (phase == "Training: step")
    result = server.run(quick_graph)
    assert result.outputs[node(quick_graph, "DreamBoothTrain")]["text"][0].startswith("30 steps")
    assert "resuming after step" in (run / "log.txt").read_text()
    assert workers() == []
