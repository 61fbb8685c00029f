"""What the page queues is what its panels say, and what it has queued stays its own, in both renderers."""

import shutil

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tools.browser import choose, queue, queued_prompt

from .pages import CANVAS_AT_NIGHT, NEEDS_BROWSER, fill_in, press, text_box, wait, words
from .test_settings_view import TRAIN
from .test_tabs import said, stop

pytestmark = NEEDS_BROWSER

PHOTOS = ("DatasetLoader", "photo_view")


@pytest.fixture
def copied(base_directory):
    """The photos in a folder of their own."""
    folder = base_directory / "input" / "edited"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base_directory / "input" / "plush", folder)
    return folder


def jobs(server) -> int:
    waiting = server.get("/queue")
    return len(server.get("/history")) + len(waiting["queue_running"]) + len(waiting["queue_pending"])


def dialog(page) -> str:
    return page.execute_script("return [...document.querySelectorAll('[role=dialog]')].map((e) => e.textContent).join(' ')")


@CANVAS_AT_NIGHT
def test_nothing_is_queued_before_an_edited_caption_is_saved(either, server, copied):
    page, file = either, copied / "plush-1.txt"
    fill_in(page, steps=1, name="unsaved", train="lora", seed=31)
    choose(page, "DatasetLoader", "folder", copied.name)
    box = text_box(page, PHOTOS)
    wait(page, lambda: words(page, *PHOTOS).count("plush-"), 60)
    before = jobs(server)
    file.write_text("somebody else's")
    page.execute_script("arguments[0].value = 'my own mysks toy'", box)  # as one who still has the keyboard's focus there
    queue(page)
    wait(page, lambda: "this caption is not saved" in words(page, *PHOTOS), 30)
    assert "somebody else's" in words(page, *PHOTOS)
    assert "plush-1.jpg" in wait(page, lambda: dialog(page), 30)
    assert jobs(server) == before
    assert file.read_text() == "somebody else's"

    page.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    press(page, PHOTOS, "button", "Write mine")
    wait(page, lambda: file.read_text() == "my own mysks toy\n", 30)
    assert "this caption is not saved" not in words(page, *PHOTOS)
    queue(page)
    wait(page, lambda: jobs(server) > before, 60)
    server.post("/queue", {"clear": True})
    server.post("/interrupt", {})


SWITCH = """
    const [mode, done] = arguments, { app, LiteGraph } = window
    const loader = app.graph.nodes.find((n) => n.type === "DatasetLoader")
    let source = app.graph.nodes.find((n) => n.type === "LoadImage")
    if (!source) {
      source = LiteGraph.createNode("LoadImage")
      app.graph.add(source)
      source.connect(0, loader, "images")
    }
    source.mode = mode
    app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
    done()
"""
"""Wire a picture to the loader, switch its node to a mode, and let the page see that, as it does after each key and click."""


def test_pictures_of_a_node_that_is_switched_off_are_not_said_to_be_used(either):
    page = either
    hidden = TRAIN + "return node.widgets.find((w) => w.name === 'folder').hidden"
    for mode in (0, 2, 0, 4):  # on, muted, on, bypassed
        page.execute_async_script(SWITCH, mode)
        wait(page, lambda mode=mode: ("wired to images" in words(page, *PHOTOS)) == (mode == 0), 10)
        (loader,) = (n["inputs"] for n in queued_prompt(page).values() if n["class_type"] == "DatasetLoader")
        assert ("images" in loader) == (mode == 0)
        assert bool(page.execute_script(hidden, "DatasetLoader")) == (mode == 0)


def test_the_first_of_many_jobs_is_shown_and_can_be_stopped(page, server):
    fill_in(page, steps=100_000, name="many", train="lora", seed=32)
    page.execute_script("window.app.queuePrompt(0, 25)")
    wait(page, lambda: len(server.get("/queue")["queue_pending"]) == 24, 120)
    wait(page, lambda: "Training: step" in said(page))
    server.post("/queue", {"clear": True})
    stop(page)
    wait(page, lambda: server.get("/queue")["queue_running"] == [])
    wait(page, lambda: "Finished by you after " in words(page, "DreamBoothTrain", "report"), 30)
