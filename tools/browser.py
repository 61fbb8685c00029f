"""ComfyUI's page in a headless Chromium."""

import json
import shutil

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

from .server import HOST

INSTALLED = bool(shutil.which("chromium") and shutil.which("chromedriver"))
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1900,1200 "
    "--force-prefers-reduced-motion"  # without a GPU, the dot that pulses while a job runs takes a third of a core
)


def open_browser() -> webdriver.Chrome:
    options = Options()
    options.binary_location = shutil.which("chromium")
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def open_page(driver: webdriver.Chrome, port: int) -> None:
    """Open the page anew, with the workflow that was open last, or its default."""
    driver.get(f"http://{HOST}:{port}/")
    wait_for_page(driver)


def load_workflow(driver: webdriver.Chrome, workflow: dict) -> None:
    """Open a workflow in the page, in a tab of its own; it is of the page's own format, not of the API's."""
    driver.execute_async_script(
        "const [workflow, done] = arguments; window.app.loadGraphData(workflow).then(() => done())", workflow
    )


def open_workflow(driver: webdriver.Chrome, port: int, workflow: dict) -> None:
    """Open the page anew with the workflow in it."""
    open_page(driver, port)
    load_workflow(driver, workflow)


def wait_for_page(driver: webdriver.Chrome) -> None:
    """Wait until the page has opened a workflow by itself, the last one or its default: before, that would replace ours."""
    WebDriverWait(driver, 60, poll_frequency=0.1).until(
        lambda d: d.execute_script("return !!window.app?.extensionManager?.workflow?.activeWorkflow && !!window.app.graph")
    )


def queued_prompt(driver: webdriver.Chrome) -> dict:
    """What the page would queue: the graph in API format."""
    script = "const [done] = arguments; window.app.graphToPrompt().then((p) => done(JSON.stringify(p.output)))"
    return json.loads(driver.execute_async_script(script))


def set_setting(driver: webdriver.Chrome, name: str, value) -> None:
    """One of ComfyUI's settings."""
    driver.execute_async_script(
        "const [name, value, done] = arguments; window.app.extensionManager.setting.set(name, value).then(() => done())",
        name,
        value,
    )


def set_widgets(driver: webdriver.Chrome, values: dict[str, dict]) -> None:
    """{node type: {widget: value}} in every node of the type, as a workflow file sets them: not rounded to a widget's step."""
    driver.execute_script(
        """
        for (const [type, values] of Object.entries(arguments[0]))
          for (const node of window.app.graph.nodes.filter((n) => n.type === type))
            for (const widget of node.widgets) if (widget.name in values) widget.value = values[widget.name]
        """,
        values,
    )


def choose(driver: webdriver.Chrome, node_type: str, name: str, value: str) -> None:
    """Choose an option in a combo box of the first node of the type."""
    driver.execute_script(
        """
        const [type, name, value] = arguments
        const widget = window.app.graph.nodes.find((n) => n.type === type).widgets.find((w) => w.name === name)
        widget.value = value
        widget.callback(value)
        """,
        node_type,
        name,
        value,
    )


def queue(driver: webdriver.Chrome) -> None:
    driver.execute_script("window.app.queuePrompt(0, 1)")
