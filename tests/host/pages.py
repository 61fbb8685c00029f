"""What the tests of the page share: the shipped workflows, and what the nodes' panels say."""

import json
import os
import zlib
from itertools import combinations
from pathlib import Path

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.support.wait import WebDriverWait

from tools.browser import INSTALLED, set_widgets

WORKFLOWS = Path(__file__).parents[2] / "workflows"
NEEDS_BROWSER = pytest.mark.skipif(
    not INSTALLED, reason="needs Chromium and its driver: apt-get install chromium chromium-driver"
)
CANVAS_AT_NIGHT = pytest.mark.parametrize(
    "elements", [pytest.param(False, id="canvas", marks=pytest.mark.nightly), pytest.param(True, id="elements")], indirect=True
)
"""For a long test of what the renderer changes little in: every day with nodes as elements of the page."""


def read(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def fill_in(page, **training) -> None:
    """The stand-in, the drawn photos at 64 pixels, and these widgets of the training node.

    The seed is the test's own: with the seed of another test on this server, that test's run would be there already.
    """
    seed = zlib.crc32(os.environ["PYTEST_CURRENT_TEST"].split(" ")[0].encode())
    values = {
        "CheckpointLoaderSimple": {"ckpt_name": "standin.safetensors"},
        "DatasetLoader": {"folder": "plush", "resolution": 64},
        "DreamBoothTrain": {"seed": seed, **training},
        "EmptyLatentImage": {"width": 64, "height": 64},
        "KSampler": {"steps": 2},
    }
    set_widgets(page, values)


PANEL = """
const [type, name, selector, wanted] = arguments
const node = window.app.graph.nodes.find((n) => n.type === type)
const panel = node?.widgets?.find((w) => w.name === name)?.element
const within = [...(panel?.querySelectorAll(selector) ?? [])]
"""


def panel(page, node_type: str, name: str):
    """A panel of the node, as an element of the page; None while there is none."""
    return page.execute_script(PANEL + "return panel", node_type, name, "*")


def each(page, view: tuple[str, str], selector: str, what: str = "textContent") -> list:
    """A property of every such element of a panel, asked for at once: between two questions it may be drawn anew."""
    return page.execute_script(PANEL + "return within.map((element) => element[wanted])", *view, selector, what)


def press(page, view: tuple[str, str], selector: str, text: str) -> None:
    """Click the element of a panel that has this text, once it is there."""
    script = PANEL + "const found = within.find((e) => e.textContent === wanted); found?.click(); return !!found"
    wait(page, lambda: page.execute_script(script, *view, selector, text))


def text_box(page, view: tuple[str, str], number: int = 0):
    """A text box of a panel, to type into, once it is there; a panel that is drawn anew keeps the one with the focus."""
    return wait(page, lambda: page.execute_script(PANEL + "return within[wanted]", *view, "textarea", number))


def wait(page, condition, seconds=300):
    waiting = WebDriverWait(page, seconds, poll_frequency=0.1, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(lambda _: condition())


def draw_frames(page, count: int) -> None:
    """Let the page draw so many frames: only then the canvas knows where a node's widgets are."""
    script = "let [left, done] = arguments; const next = () => left-- ? requestAnimationFrame(next) : done(); next()"
    page.execute_async_script(script, count)


def words(page, node_type: str, name: str) -> str:
    return page.execute_script(PANEL + "return panel?.value || panel?.textContent || ''", node_type, name, "*")


def covered(page) -> list[tuple[str, str]]:
    """The titles of nodes that lie over each other, as they are now."""
    boxes = page.execute_script("return window.app.graph.nodes.map((n) => [n.title, ...n.boundingRect])")
    return [
        (one, two)
        for (one, x, y, w, h), (two, x2, y2, w2, h2) in combinations(boxes, 2)
        if x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h
    ]


def in_dialog(page, text: str) -> list:
    """Elements of an open dialog that say just this."""
    return page.execute_script(
        """
        const elements = [...document.querySelectorAll("[role=dialog] *")]
        return elements.filter((e) => e.children.length === 0 && e.textContent.trim() === arguments[0])
        """,
        text,
    )


def open_template(page, name: str) -> None:
    """Open a shipped workflow from ComfyUI's template browser."""
    page.execute_script("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.execute_script("arguments[0].click()", wait(page, lambda: in_dialog(page, WORKFLOWS.parent.name))[-1])
    page.execute_script("arguments[0].click()", wait(page, lambda: in_dialog(page, name))[0])
