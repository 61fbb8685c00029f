"""What a training node's panel lets one do while it trains: look, end it, think better of it, take it up again."""

import re

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from demo.run import node
from tools.browser import choose, queue

from .graphs import up_to_training
from .pages import NEEDS_BROWSER, each, fill_in, panel, press, wait, words

pytestmark = NEEDS_BROWSER

RUN, LOADED, BUTTON = ("DreamBoothTrain", "run_view"), ("LoadFinetuned", "run_view"), ".st-buttons button"
PROMPTS = "a photo of mysks\na toy\nmysks in the snow"
"""Enough of them that the last pictures take a while."""
LISTEN = "window.previews = 0; comfyAPI.api.api.addEventListener('b_preview_with_metadata', () => (window.previews += 1))"


def said(page) -> str:
    return words(page, "DreamBoothTrain", "run_view")


def step(page) -> int:
    found = re.search(r"Training: step (\d+) of", said(page))
    return int(found[1]) if found else 0


def buttons(page) -> dict[str, str]:
    """The buttons of the panel, with what each says under the pointer."""
    return dict(zip(each(page, RUN, BUTTON), each(page, RUN, BUTTON, "title"), strict=True))


def samples(page) -> list[int]:
    """The steps whose pictures the panel shows."""
    titles = each(page, RUN, ".st-strip img", "alt")
    return [int(found[1]) for title in titles if (found := re.match(r"After (\d+) steps?", title))]


@pytest.mark.nightly
def test_samples_now_then_stop_undo_and_go_on(either, request, server, base_directory):
    page, name = either, f"ended-{request.node.callspec.id}"
    own = {"name": name, "seed": 30_000 + len(name)}  # by another name alone, it would be the other renderer's run
    fill_in(page, steps=5000, **own, train="lora", sample_prompts=PROMPTS, sample_every=4000, checkpoint_every=100_000)
    page.execute_script(LISTEN)
    queue(page)
    wait(page, lambda: step(page) > 0)
    assert "$$node-text-preview" not in widgets(page)  # the panel says how far it is, and nothing else does
    (folder,) = (base_directory / "output" / "finetune").glob(f"{name}-*")

    press(page, RUN, BUTTON, "Draw samples now")
    drawn = wait(page, lambda: [s for s in samples(page) if s > 0])
    assert 0 < drawn[0] < 4000
    assert page.execute_script("return window.previews") >= 4  # three of the base, and one of these

    stop = wait(page, lambda: buttons(page).get("Stop and use what there is"))
    assert folder.name in stop
    press(page, RUN, BUTTON, "Stop and use what there is")
    press(page, RUN, BUTTON, "Train on after all")
    at = step(page)
    wait(page, lambda: step(page) > at + 1 and "Stopping" not in said(page))
    assert not (folder / "finish").exists()
    assert not (folder / "result.json").exists()

    press(page, RUN, BUTTON, "Stop and use what there is")
    report = wait(page, lambda: words(page, "DreamBoothTrain", "report"))
    assert "Finished by you after " in report
    ended = int(report.split()[0])
    wait(page, lambda: is_whole(page, panel(page, "DreamBoothTrain", "report")), 30)
    wait(page, lambda: server.get("/queue")["queue_running"] == [])  # then the history has it
    outputs = [output for job in server.get("/history").values() for output in job["outputs"].values()]
    assert [name for name in widgets(page) if name.startswith("$$")] == []  # ComfyUI's previews would show the same once more
    (shown,) = [output["images"] for output in outputs if folder.name in output.get("run", ())]
    assert [(image["filename"], image["type"]) for image in shown] == [("grid.jpg", "output"), ("loss.png", "output")]
    assert [server.image(image).width for image in shown][1] == 640

    press(page, RUN, BUTTON, "Train on")
    wait(page, lambda: step(page) > ended)
    assert words(page, "DreamBoothTrain", "report") == ""
    server.post("/interrupt", {})
    wait(page, lambda: server.get("/queue")["queue_running"] == [])


def widgets(page) -> list[str]:
    script = 'return window.app.graph.nodes.find((n) => n.type === "DreamBoothTrain").widgets.map((w) => w.name)'
    return page.execute_script(script)


def is_whole(page, element) -> bool:
    """Whether a panel of the training node is seen without scrolling, once the node is in sight."""
    return page.execute_script(
        """
        const node = window.app.graph.nodes.find((n) => n.type === "DreamBoothTrain"), { ds } = window.app.canvas
        ds.scale = 1
        ds.offset = [200 - node.pos[0], 100 - node.pos[1]]
        window.app.canvas.setDirty(true, true)
        return arguments[0].clientHeight > 0 && arguments[0].scrollHeight <= arguments[0].clientHeight + 1
        """,
        element,
    )


def test_no_samples_are_offered_where_there_are_no_prompts(page, server):
    fill_in(page, steps=5000, name="silent", seed=30_000, train="lora", sample_prompts="")
    queue(page)
    wait(page, lambda: step(page) > 0)
    assert list(wait(page, lambda: buttons(page))) == ["Stop and use what there is"]
    server.post("/interrupt", {})
    wait(page, lambda: server.get("/queue")["queue_running"] == [])


def test_the_chart_says_what_is_under_the_pointer_at_every_zoom(either, server, quick_graph, base_directory):
    quick_graph[node(quick_graph, "DreamBoothTrain")]["inputs"] |= {"name": "pointed", "seed": 30_001, "train": "lora"}
    server.run(up_to_training(quick_graph))
    (run,) = (base_directory / "output" / "finetune").glob("pointed-*")
    lines = [f'{{"step": {step}, "loss": {0.2 + step / 1000}}}\n' for step in range(101)]
    (run / "metrics.jsonl").write_text("".join(lines))
    page = either
    page.execute_script("const n = window.LiteGraph.createNode('LoadFinetuned'); n.pos = [-800, 0]; window.app.graph.add(n)")
    choose(page, "LoadFinetuned", "run", run.name)
    wait(page, lambda: each(page, LOADED, ".u-over"))
    for zoom in (0.5, 1, 2):
        page.execute_script(
            """
            const node = window.app.graph.nodes.find((n) => n.type === "LoadFinetuned"), { ds } = window.app.canvas
            ds.scale = arguments[0]
            ds.offset = [200 / arguments[0] - node.pos[0], 100 / arguments[0] - node.pos[1]]
            window.app.canvas.setDirty(true, true)
            """,
            zoom,
        )
        wait(page, lambda zoom=zoom: is_zoomed(page, chart(page), zoom), 30)
        wait(page, lambda: under_the_middle_of_the_chart(page) == ["50", "0.2500"], 30)


def under_the_middle_of_the_chart(page) -> list[str]:
    """The step and the loss that the chart names while the pointer is there; a chart that is drawn anew forgets the pointer."""
    ActionChains(page).move_to_element_with_offset(chart(page), -20, 5).move_to_element(chart(page)).perform()
    return each(page, LOADED, ".u-value")[:2]


def chart(page):
    return panel(page, *LOADED).find_element(By.CSS_SELECTOR, ".u-over")


def is_zoomed(page, element, zoom: float) -> bool:
    return page.execute_script(
        "const [chart, zoom] = arguments; return Math.abs(chart.getBoundingClientRect().width / chart.offsetWidth - zoom) < 0.01",
        element,
        zoom,
    )
