"""The graph editor in a real browser."""

import json
from pathlib import Path

import pytest
from selenium.webdriver.support.wait import WebDriverWait

from demo.browser import INSTALLED, open_browser, open_workflow, queued_prompt

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SHIPPED = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
pytestmark = pytest.mark.skipif(not INSTALLED, reason="needs Chromium and its driver: apt-get install chromium chromium-driver")


def read(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser():
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, server):
    """ComfyUI's page with the first of the shipped workflows opened."""
    open_workflow(browser, server.port, read("train_and_compare"))
    return browser


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_workflow_queues_exactly_its_api_twin(browser, server, name):
    open_workflow(browser, server.port, read(name))
    assert queued_prompt(browser) == read(f"api/{name}")


def test_captions_and_result_are_shown_in_the_nodes(page):
    """One queueing from the page, without training long: the texts appear, and the training seed stays what it was."""
    page.execute_script(
        """
        const set = (type, values) => {
          for (const node of window.app.graph.nodes.filter((n) => n.type === type))
            for (const widget of node.widgets) if (widget.name in values) widget.value = values[widget.name]
        }
        set("CheckpointLoaderSimple", { ckpt_name: "standin.safetensors" })
        set("DatasetLoader", { folder: "plush", resolution: 64 })
        set("DreamBoothTrain", { steps: 2, name: "page" })
        set("EmptyLatentImage", { width: 64, height: 64 })
        set("KSampler", { steps: 2 })
        window.app.queuePrompt(0, 1)
        """
    )

    def report(node_type: str) -> str | None:
        return page.execute_script(
            """
            const node = window.app.graph.nodes.find((n) => n.type === arguments[0])
            return node.widgets.find((w) => w.name === "report")?.element.value
            """,
            node_type,
        )

    # ComfyUI tells of cached nodes when the whole graph is done.
    for node_type in ("DreamBoothTrain", "DatasetLoader", "CaptionWithToken"):
        WebDriverWait(page, 120).until(lambda _, node_type=node_type: report(node_type))
    assert report("DreamBoothTrain").startswith("2 steps, mean loss of the last 2: ")
    assert report("DatasetLoader") == "4 photos, 4 captions, ready"
    assert "mysks → my + sks" in report("CaptionWithToken")
    assert "plush-4.jpg: a photo of mysks plush toy in the snow" in report("CaptionWithToken")
    queued = queued_prompt(page)
    assert queued["5"]["inputs"]["seed"] == 0
    assert "report" not in queued["5"]["inputs"]


def test_a_preset_fills_in_the_widgets_and_hides_nothing(page):
    values = page.execute_script(
        """
        const node = window.app.graph.nodes.find((n) => n.type === "DreamBoothTrain")
        const preset = node.widgets.find((w) => w.name === "preset")
        preset.value = "8 GB card (LoRA)"
        preset.callback(preset.value)
        return Object.fromEntries(node.widgets.map((w) => [w.name, w.value]))
        """
    )
    wanted = json.loads((WORKFLOWS.parent / "js" / "presets.json").read_text(encoding="utf-8"))["8 GB card (LoRA)"]
    assert {name: values[name] for name in wanted} == wanted
    queued = queued_prompt(page)
    assert {name: queued["5"]["inputs"][name] for name in wanted} == wanted


def test_our_scripts_say_nothing_on_the_console(page):
    scripts = [path.name for path in (WORKFLOWS.parent / "js").glob("*.js")]
    ours = [e for e in page.get_log("browser") if "/extensions/" in e["message"] and any(s in e["message"] for s in scripts)]
    assert ours == []
