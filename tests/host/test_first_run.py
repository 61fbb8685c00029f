"""From opening the page to a running training: what a new user does, and nothing else."""

import time

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tools.browser import choose, open_workflow, set_widgets

from .pages import NEEDS_BROWSER, covered, open_template, read, wait, words
from .test_upload import drop

TEMPLATE = "Train a subject (DreamBooth or LoRA)"
PHOTOS = ("one.png", "two.png", "three.png")
pytestmark = NEEDS_BROWSER


@pytest.fixture(params=[("light", True), pytest.param(("dark", False), marks=pytest.mark.nightly)], ids=["light", "dark"])
def fresh_page(request, browser, server):
    """The page in a theme: with nodes as elements of the page, or drawn on a canvas."""
    theme, elements = request.param
    server.set_setting("Comfy.ColorPalette", theme)
    server.set_setting("Comfy.VueNodes.Enabled", elements)
    open_workflow(browser, server.port, {"nodes": [], "links": [], "version": 0.4})
    yield browser
    server.set_setting("Comfy.ColorPalette", "dark")
    server.set_setting("Comfy.VueNodes.Enabled", False)


def write_class_word(page, text: str) -> None:
    """Type into the node's text field, where it is one; a widget on the canvas opens a dialog of its own."""
    fields = page.find_elements(By.CSS_SELECTOR, "input[aria-label='class_word'], [data-widget-name='class_word'] input")
    if not fields:
        return choose(page, "CaptionWithToken", "class_word", text)
    fields[0].send_keys(Keys.CONTROL, "a", Keys.NULL, text, Keys.TAB)


def press_queue(page) -> None:
    page.execute_script("arguments[0].click()", page.find_element(By.CSS_SELECTOR, "[data-testid='queue-button']"))


def make_small(page) -> None:
    """Let what the stand-in draws and trains have 64 pixels, so that it takes on a CPU what a card takes at 512."""
    small = {"DatasetLoader": {"resolution": 64}, "EmptyLatentImage": {"width": 64, "height": 64}, "KSampler": {"steps": 2}}
    set_widgets(page, small)


def test_five_choices_lead_to_a_running_training(fresh_page, server, tmp_path):
    page = fresh_page
    choices = {
        "template": lambda: open_template(page, TEMPLATE),
        "checkpoint": lambda: choose(page, "CheckpointLoaderSimple", "ckpt_name", "standin.safetensors"),
        "photos": lambda: drop(page, "title", *PHOTOS),
        "class word": lambda: write_class_word(page, "toy robot"),
        "Queue": lambda: press_queue(page),
    }
    done = {
        "template": lambda: page.execute_script("return window.app.graph.nodes.length") == len(read(TEMPLATE)["nodes"]),
        "photos": lambda: "Uploaded to" in words(page, "DatasetLoader", "photo_view"),
        "Queue": lambda: "Training: step" in words(page, "DreamBoothTrain", "run_view"),
    }
    seconds = {}
    for number, (choice, act) in enumerate(choices.items(), 1):
        began = time.monotonic()
        act()
        wait(page, done.get(choice, lambda: True))
        if choice == "template":
            make_small(page)
        seconds[choice] = round(time.monotonic() - began, 1)
        page.save_screenshot(str(tmp_path / f"{number} {choice}.png"))
    print(f"\nseconds of each choice: {seconds}; screenshots in {tmp_path}")
    assert covered(page) == []
    server.post("/interrupt", {})
    wait(page, lambda: server.get("/queue")["queue_running"] == [])
