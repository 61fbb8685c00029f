"""What the page asks the server for: right answers, and no way out of the roots."""

import json
import os
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from demo.run import node
from tools.server import HOST, Failed, Refused
from tools.setup import ROOT
from trainer.run.devices import allocator_settings
from trainer.run.files import write_json
from trainer.run.interpreter import python_command

from .graphs import up_to_training, without_before

OTHER = "Another job trains this run: only who queued it can ask that."
OUTSIDE = ["..", "../models", "/etc", "plush/..", "..%2f..", "C:\\", "\0"]


def refusal(call, *args) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as error:
        call(*args)
    body = error.value.read()
    return error.value.code, json.loads(body)["error"] if body.startswith(b"{") else ""


def path(route: str, **query) -> str:
    return f"/subject_trainer/{route}?{urllib.parse.urlencode(query)}"


def live_runs(server) -> list[dict]:
    """The runs of the job that ComfyUI executes now."""
    ((_, prompt, *_),) = server.get("/queue")["queue_running"]
    assert server.get("/subject_trainer/live") == server.get(path("live", prompt="another")) == {"runs": []}
    return server.get(f"/subject_trainer/live?prompt=another&prompt={prompt}")["runs"]


def ask(server, live: dict, request: str, prompt: str = "") -> dict:
    """Ask something of a run that trains, as the job that it trains for or as another."""
    return server.post(f"/subject_trainer/runs/{live['run']}/{request}?prompt={prompt or live['prompt']}", {})


SHOWN = {
    "name": "shown",
    "train": "lora",
    "steps": 4,
    "batch_size": 1,
    "learning_rate": 0.05,  # at a lower one a note comes before the progress
    "sample_prompts": "a <b>mysks</b>",
    "hold_out": 1,
    "validate_every": 2,
}
"""A run of which several tests read."""


def test_a_run_shows_itself_while_it_trains_and_afterwards(server, quick_graph, workers, base_directory):
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"] |= SHOWN
    seen, commands, allocators = [], [], []

    def look(node_id: str, text: str) -> None:
        if text.startswith("Training: step"):
            seen.append((node_id, live_runs(server)))
            card = f"/subject_trainer/runs/{seen[-1][1][0]['run']}"
            assert server.get(card)["live"] is server.get(f"{card}?prompt=another")["live"] is None
            assert server.get(f"{card}?prompt={seen[-1][1][0]['prompt']}")["live"]["text"].startswith("Training")
            started = [process for process in workers() if process.ppid() == server.pid]  # no shell between
            commands.append([process.cmdline() for process in started])
            allocators.append([process.environ()["PYTORCH_CUDA_ALLOC_CONF"] for process in started])

    result = server.run(up_to_training(quick_graph), on_text=look)
    node_id, (live,) = seen[-1]
    (run,) = result.outputs[node(quick_graph, "DreamBoothTrain")]["run"]
    assert (live["run"], live["node"], live["can_finish"], live["has_prompts"]) == (run, node_id, True, True)
    told = [str(base_directory / "output" / "finetune" / run), "--device", "cpu", "--attached"]
    assert commands[-1] == [[*python_command(), str(ROOT / "trainer" / "__main__.py"), *told]]
    given = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
    assert allocators[-1] == [allocator_settings(sys.platform, torch.version.cuda is not None, given)]
    assert live["memory"] > 10**8
    assert live["text"].startswith("Training")
    assert "4 steps for 3 photos; about " in live["notes"]  # what is trained stays in sight
    assert server.get("/subject_trainer/live") == {"runs": []}

    card = server.get(f"/subject_trainer/runs/{run}")
    assert card["loss"]["step"] == [1, 2, 3, 4]
    assert card["measured"]["step"] == [0, 2, 4]
    assert set(card["measured"]) == {"step", "held_out", "trained"}
    assert card["prompts"] == ["a <b>mysks</b>"]
    assert card["facts"]["finished"]
    assert card["facts"]["trigger"] == "mysks plush toy"
    for sample in card["samples"]:
        shown = server.image({"filename": sample["file"], "subfolder": f"finetune/{run}/samples", "type": "output"})
        assert shown.size == (64, 64)
    assert [sample["step"] for sample in card["samples"]] == [0, 1, 2, 3, 4]


def test_a_run_is_finished_from_the_page_and_trains_on(server, workers, quick_graph, base_directory):
    graph = without_before(quick_graph)
    train = node(graph, "DreamBoothTrain")
    inputs = graph[train]["inputs"]
    inputs |= {"name": "enough", "steps": 40, "batch_size": 1, "train": "lora", "sample_prompts": "", "sample_every": 500}
    asked = []

    def finish(_: str, text: str) -> None:
        if text.startswith("Training") and not asked:
            (live,) = live_runs(server)
            for other in ("another", "&prompt="):
                for request in ("finish", "undo", "sample"):
                    assert refusal(ask, server, live, request, other) == (409, OTHER)
            reason = "This run has no sample prompts. Cancel it, write some into sample_prompts, and queue the graph again."
            assert refusal(ask, server, live, "sample") == (409, reason)
            asked.append(ask(server, live, "finish"))

    result = server.run(graph, on_text=finish)
    shows = result.outputs[train]
    lines = shows["text"][0].splitlines()
    steps = int(lines[0].split()[0])
    assert 0 < steps < 40
    assert f"Finished by you after {steps} of 40 steps" in lines
    assert (base_directory / "output" / "loras" / lines[-1]).is_file()
    assert "images" in result.outputs[node(graph, "SaveImage", "after training")]  # the graph went on
    assert workers() == []
    (run,) = shows["run"]
    assert refusal(server.post, f"/subject_trainer/runs/{run}/finish", {}) == (409, "This run does not train now.")
    (chart,) = shows["images"]
    assert (chart["filename"], chart["type"]) == ("loss.png", "output")
    assert server.image(chart).size == (640, 360)
    assert server.get(f"/subject_trainer/runs/{run}")["can_go_on"]

    assert server.post(f"/subject_trainer/runs/{run}/reopen", {}) == {}
    assert run in server.options("LoadFinetuned", "run")  # whoever asked: the result stays until the run is queued
    in_the_way = base_directory / "output" / "finetune" / run / "failure.lock"
    in_the_way.mkdir()
    graph = up_to_training(graph)
    with pytest.raises(Failed, match="is in the way"):
        server.run(graph)
    in_the_way.rmdir()
    assert run in server.options("LoadFinetuned", "run")  # nor does it go with what is refused
    # The wish still holds, and nothing of it comes from ComfyUI's cache.
    assert server.run(graph).outputs[train]["text"][0].startswith("40 steps, ")
    assert refusal(server.post, f"/subject_trainer/runs/{run}/reopen", {})[0] == 400


@pytest.fixture
def caption(base_directory):
    """The caption file of a photo, which has its text again afterwards."""
    file = base_directory / "input" / "plush" / "plush-1.txt"
    was = file.read_text(encoding="utf-8")
    yield file
    file.write_text(was, encoding="utf-8")


@pytest.mark.parametrize("name", ["photo.png", "a photo.png", "фото.png"])
def test_a_thumbnail_is_sent_once_while_its_photo_stays(server, base_directory, name):
    photo = base_directory / "input" / "thumbnails" / name
    photo.parent.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "teal").save(photo)
    url = f"http://{HOST}:{server.port}{path('photo', folder='thumbnails', name=name, resolution=64, crop='center')}"

    def status(tag: str) -> tuple[int, str]:
        with (
            pytest.raises(urllib.error.HTTPError) as error,
            urllib.request.urlopen(  # 304 is an error there
                urllib.request.Request(url, headers={"If-None-Match": tag}), timeout=60
            ) as answer,
        ):
            raise urllib.error.HTTPError(url, answer.status, "", answer.headers, None)
        return error.value.code, error.value.headers["ETag"]

    code, tag = status('"another"')
    assert code == 200
    assert status(tag) == (304, tag)
    os.utime(photo)
    assert status(tag)[0] == 200


def test_a_caption_is_written_while_thumbnails_wait(server, caption, base_directory):
    folder = base_directory / "input" / "large"
    folder.mkdir()
    Image.effect_noise((1500, 1500), 80).convert("RGB").save(folder / "a.png")
    sides = range(64, 64 + 8 * 8, 8)
    with ThreadPoolExecutor(len(sides)) as pool:
        pictures = [pool.submit(server.open, path("photo", folder="large", name="a.png", resolution=side)) for side in sides]
        next(as_completed(pictures))
        write_caption(server, caption, "written meanwhile")
        assert not all(picture.done() for picture in pictures)
    shutil.rmtree(folder)


def write_caption(server, caption, text: str) -> dict:
    """Save another text through the route; return what was sent."""
    body = {"folder": "plush", "name": "plush-1.jpg", "text": text, "was": caption.read_text(encoding="utf-8")}
    assert server.post("/subject_trainer/caption", body) == {}
    return body


def captions_shown(server, quick_graph: dict) -> list[tuple[str, str]]:
    """Name and text of each caption that the token's node shows."""
    label = node(quick_graph, "CaptionWithToken")
    graph = {i: n for i, n in quick_graph.items() if n["class_type"] in ("DatasetLoader", "CaptionWithToken")}
    graph["shown"] = {"class_type": "PreviewAny", "inputs": {"source": [label, 1]}}
    shown = server.run(graph).outputs[label]["captions"][0]["captions"]
    return [(caption["name"], caption["text"]) for caption in shown]


def test_photos_are_listed_shown_and_their_captions_written(server, caption, quick_graph):
    listed = server.get(path("photos", folder="plush", resolution=64, crop="center"))
    assert [photo["name"] for photo in listed["photos"]] == [f"plush-{number}.jpg" for number in (1, 2, 3, 4)]
    assert server.open(path("photo", folder="plush", name="plush-1.jpg", resolution=64, crop="center"))[:3] == b"\xff\xd8\xff"
    body = write_caption(server, caption, "a <img onerror=x> toy")
    assert caption.read_text(encoding="utf-8") == "a <img onerror=x> toy\n"
    assert refusal(server.post, "/subject_trainer/caption", body)[0] == 409
    assert captions_shown(server, quick_graph)[0][1] == "mysks plush toy, a <img onerror=x> toy"


def test_several_lines_are_several_captions(server, caption, quick_graph):
    write_caption(server, caption, "on grass\nin  snow")
    assert caption.read_text(encoding="utf-8") == "on grass\nin snow\n"
    (photo, *_) = server.get(path("photos", folder="plush", resolution=64, crop="center"))["photos"]
    assert photo["caption"] == "on grass\nin snow"
    assert "2 captions, a line each: one is drawn each time" in photo["notes"]
    assert captions_shown(server, quick_graph)[:2] == [
        ("plush-1.jpg (1/2)", "mysks plush toy, on grass"),
        ("plush-1.jpg (2/2)", "mysks plush toy, in snow"),
    ]


def test_a_transparent_picture_that_is_wired_is_treated_as_a_file(server):
    """White where it is transparent, which is all of it."""
    graph = {
        "image": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0xFF00FF}},
        "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}},
        "joined": {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["image", 0], "alpha": ["mask", 0]}},
        "1": {"class_type": "DatasetLoader", "inputs": {"folder": "(pictures wired to images)", "resolution": 64}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 1]}},
    }
    graph["1"]["inputs"] |= {"crop": "center", "images": ["joined", 0]}
    result = server.run(graph)
    assert "have nothing to learn from: 0000.png." in result.outputs["1"]["text"][0]
    assert server.image(result.outputs["2"]["images"][0]).convert("RGB").getextrema() == ((255, 255),) * 3


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
def test_no_route_follows_a_link_inside_a_folder_that_leads_out(server, base_directory, tmp_path):
    folder = base_directory / "input" / "links"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.linear_gradient("L").save(folder / name)
    Image.linear_gradient("L").save(tmp_path / "secret.png")
    (tmp_path / "secret.txt").write_text("secret words")
    (folder / "c.png").symlink_to(tmp_path / "secret.png")
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "b.txt.partial").symlink_to(tmp_path / "secret.txt")
    answer = server.get(path("photos", folder="links", resolution=64, crop="center"))
    assert "secret" not in json.dumps(answer)
    assert answer["notes"] == ["Links that lead out of the folder were not read: a.txt."]
    assert refusal(server.open, path("photo", folder="links", name="c.png"))[0] == 400
    for name in ("a.png", "b.png"):
        assert server.post("/subject_trainer/caption", {"folder": "links", "name": name, "text": "mine", "was": ""}) == {}
    assert (
        refusal(server.post, "/subject_trainer/caption", {"folder": "links", "name": "c.png", "text": "x", "was": ""})[0] == 400
    )
    assert (tmp_path / "secret.txt").read_text() == "secret words"
    assert [(folder / f"{name}.txt").read_text() for name in "ab"] == ["mine\n", "mine\n"]


@pytest.mark.parametrize("outside", OUTSIDE)
def test_nothing_outside_the_roots_is_read_or_written(server, outside):
    quoted = urllib.parse.quote(outside, safe="")
    assert refusal(server.get, f"/subject_trainer/runs/{quoted}")[0] in (400, 404)
    assert refusal(server.get, path("photos", folder=outside))[0] == 400
    assert refusal(server.open, path("photo", folder=outside, name="passwd"))[0] == 400
    assert refusal(server.open, path("photo", folder="plush", name=f"{outside}/x.png"))[0] == 400
    for folder, name in ((outside, "a.png"), ("plush", f"{outside}/a.png"), ("plush", "metadata.jsonl")):
        body = {"folder": folder, "name": name, "text": "x", "was": ""}
        assert refusal(server.post, "/subject_trainer/caption", body)[0] == 400


def test_a_run_from_elsewhere_gives_no_file_but_its_own(server, base_directory, tmp_path):
    """What it names is looked up in ComfyUI's folders and must carry its name."""
    run = base_directory / "output" / "finetune" / "elsewhere-0123456789"
    checkpoints = base_directory / "output" / "checkpoints"
    run.mkdir(parents=True)
    checkpoints.mkdir(parents=True, exist_ok=True)
    graph = {
        "1": {"class_type": "LoadFinetuned", "inputs": {"run": run.name}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 3]}},
    }
    for file, owner in ((tmp_path / "outside", run.name), (checkpoints / "other", "other-0123456789")):
        save_file({"a": torch.zeros(1)}, f"{file}.safetensors", {"subject_trainer.run": owner})
        for named in (f"{file}.safetensors", f"../{file.name}.safetensors", f"{file.name}.safetensors"):
            write_json(run / "result.json", {"kind": "checkpoint", "file": named})
            assert run.name not in server.options("LoadFinetuned", "run")
            with pytest.raises(Refused, match="There is no finished run"):
                server.run(graph)
    save_file({"a": torch.zeros(1)}, checkpoints / "other.safetensors", {"subject_trainer.run": run.name})
    assert run.name in server.options("LoadFinetuned", "run")
    (run / "result.json").unlink()


CHANGING = ["caption", "language?client=x", "runs/toy-0123456789ab/finish"]
"""The routes that change something."""


def sent(server, route: str, **headers: str) -> tuple[int, str]:
    """The status of a POST with these headers, and what it was refused with."""
    url = f"http://127.0.0.1:{server.port}/subject_trainer/{route}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, b"{}", named), timeout=60) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("route", CHANGING)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain; application/json"]
)
@pytest.mark.parametrize("origin", ["null", ""])
def test_a_page_of_another_site_changes_nothing(server, route, kind, origin):
    """What a browser sends without asking first: a form, or text; Origin is null from a sandboxed frame or a file."""
    status, answer = sent(server, route, Content_Type=kind, **({"Origin": origin} if origin else {}))
    assert (status, json.loads(answer)["error"]) == (415, "Send the request as application/json.")


@pytest.mark.parametrize("route", ["caption", "upload"])
@pytest.mark.parametrize("charset", ["foo", "undefined", "rot13", "utf-16"])
def test_a_request_in_letters_that_nobody_knows_is_refused(server, route, charset):
    status, answer = sent(server, route, Content_Type=f"application/json; charset={charset}")
    assert (status, json.loads(answer)["error"].startswith("The request is wrong")) == (400, True)


@pytest.mark.parametrize("route", CHANGING)
def test_requests_from_other_sites_are_refused_and_from_the_own_page_taken(server, route):
    json_type = "application/json; charset=utf-8"
    own = f"http://127.0.0.1:{server.port}"
    for origin in ("https://example.com", "http://127.0.0.1:1", f"http://127.0.0.1.example.com:{server.port}"):
        assert sent(server, route, Content_Type=json_type, Origin=origin)[0] == 403
    assert sent(server, route, Content_Type=json_type, Sec_Fetch_Site="cross-site")[0] == 403
    expected = {"caption": 400, "language?client=x": 200, "runs/toy-0123456789ab/finish": 409}[route]
    assert sent(server, route, Content_Type=json_type, Origin=own)[0] == expected
    assert sent(server, route, Content_Type=json_type)[0] == expected


@pytest.mark.parametrize("body", [{}, {"folder": 1}, [], "x"])
def test_a_wrong_request_is_refused(server, body):
    assert refusal(server.post, "/subject_trainer/caption", body)[0] == 400
    assert refusal(server.get, path("photos", folder="plush", resolution="x"))[0] == 400
    assert refusal(server.get, path("photos", folder="plush", resolution=100_000))[0] == 400


def test_curves_of_a_hundred_thousand_steps_stay_small(server, base_directory, quick_graph):
    """A run directory from elsewhere, with damaged lines too."""
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"] |= SHOWN
    (run,) = server.run(up_to_training(quick_graph)).outputs[node(quick_graph, "DreamBoothTrain")]["run"]
    runs = base_directory / "output" / "finetune"
    shutil.copytree(runs / run, runs / f"elsewhere-{run}")
    metrics = runs / f"elsewhere-{run}" / "metrics.jsonl"
    lines = [f'{{"step": {step}, "loss": {0.2 + 0.1 * (step % 7)}}}\n' for step in range(1, 100_001)]
    lines[5:5] = ["damaged\n", '{"step": "x", "loss": 1}\n', "[" * 5000 + "\n"]
    metrics.write_text("".join(lines))
    answer = server.open(f"/subject_trainer/runs/elsewhere-{run}")
    assert len(answer) < 50_000
    loss = json.loads(answer)["loss"]
    assert len(loss["step"]) == 400
    assert loss["step"][-1] == 100_000
    assert loss["mean"] == pytest.approx([0.5] * 400, abs=0.01)
    with metrics.open("a") as file:
        file.write('{"step": 100001, "loss": 0.5}\n')
    assert server.get(f"/subject_trainer/runs/elsewhere-{run}")["loss"]["step"][-1] == 100_001
