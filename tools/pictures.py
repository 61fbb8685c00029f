"""Take the pictures of the README, of the help pages and of the template browser: what to do when the nodes look different.

    python -m tools.pictures

Trains the stand-in on the drawn photos in a real ComfyUI, through its page, and photographs each node in the dark and in the
light theme (js/docs/pictures/), and every workflow (workflows/*.jpg), some after training. Needs Chromium and chromedriver.
"""

import io
import json
import tempfile
from pathlib import Path

from PIL import Image
from selenium.webdriver.support.wait import WebDriverWait

from demo import photos
from demo.run import STANDIN_TRAINING

from . import standin
from .browser import choose, open_browser, open_workflow, queue, set_setting, set_widgets
from .server import Server, free_port
from .setup import ROOT

PICTURES = ROOT / "js" / "docs" / "pictures"
WORKFLOWS = ROOT / "workflows"
SIZE = 128
WINDOW = (3400, 2400)
"""Large, so that the page need not zoom out so far that it leaves out the texts."""
MAX_SIDE = 1600
SETTINGS = {
    "CheckpointLoaderSimple": {"ckpt_name": "v1-5-pruned-emaonly.safetensors"},
    "DatasetLoader": {"folder": "my-photos", "resolution": SIZE},
    "EmptyLatentImage": {"width": SIZE, "height": SIZE},
    "KSampler": {"cfg": 1.0},
}
DREAMBOOTH = STANDIN_TRAINING | {
    "hold_out": 1,
    "validate_every": 25,
    "sample_prompts": "a photo of mysks plush toy in the snow",
    "sample_every": 125,
}
INVERSION = {"steps": 150, "learning_rate": 0.1, "sample_prompts": "a photo of mysks", "sample_every": 50}
LOOK = """
const canvas = window.app.canvas
const all = [...window.app.graph.nodes, ...window.app.graph.groups]
const [x, y, width, height] = arguments[0] ?? all.map((part) => part.boundingRect).reduce((a, b) => {
  const left = Math.min(a[0], b[0]), top = Math.min(a[1], b[1])
  return [left, top, Math.max(a[0] + a[2], b[0] + b[2]) - left, Math.max(a[1] + a[3], b[1] + b[3]) - top]
})
const [room, down] = [window.innerWidth - 200, window.innerHeight - 140]
const scale = Math.min(1, room / width, down / height)
canvas.ds.scale = scale
canvas.ds.offset = [140 / scale - x, 110 / scale - y]
canvas.deselectAll?.()
canvas.setDirty(true, true)
return [140, 110, width * scale, height * scale]
"""


def photograph(browser, path: Path, box: list | None = None) -> None:
    """Of the graph in the box [x, y, width, height], or of all of it, as a JPEG."""
    left, top, width, height = browser.execute_script(LOOK, box)
    # Two frames: one to place what lies over the canvas, one to draw it.
    browser.execute_async_script("const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => done()), 1500)")
    shot = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    edge = 8
    cut = shot.crop((left - edge, top - edge, min(shot.width, left + width + edge), min(shot.height, top + height + edge)))
    cut.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    cut.save(path, "JPEG", quality=82, optimize=True)
    print(path.relative_to(ROOT), cut.size, flush=True)


def trained(browser, node_type: str) -> None:
    """Queue the open graph and wait until the node has its result."""
    queue(browser)
    done = """
    const node = window.app.graph.nodes.find((n) => n.type === arguments[0])
    return !!node.widgets.find((w) => w.name === "report")?.element.textContent
    """
    WebDriverWait(browser, 900).until(lambda _: browser.execute_script(done, node_type))
    WebDriverWait(browser, 300).until(lambda _: browser.execute_script("return window.app.ui.lastQueueSize === 0"))


def box_of(browser, node_type: str) -> list:
    return browser.execute_script(
        "return [...window.app.graph.nodes.find((n) => n.type === arguments[0]).boundingRect]", node_type
    )


def photograph_nodes(browser, nodes: tuple[str, ...]) -> None:
    for theme in ("light", "dark"):
        set_setting(browser, "Comfy.ColorPalette", theme)
        for node in nodes:
            photograph(browser, PICTURES / f"{node}-{theme}.jpg", box_of(browser, node))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        standin.build(base / "models" / "checkpoints" / "v1-5-pruned-emaonly.safetensors", taught=False)
        photos.draw(base / "input" / "my-photos")
        with Server(base, port=free_port(), cpu=True) as server:
            browser = open_browser()
            browser.set_window_size(*WINDOW)
            try:

                def open_(name: str) -> None:
                    open_workflow(browser, server.port, json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))

                def train(node_type: str, values: dict) -> None:
                    set_widgets(browser, SETTINGS | {node_type: values})
                    trained(browser, node_type)

                open_("Train a subject (DreamBooth or LoRA)")
                set_setting(browser, "Comfy.TutorialCompleted", True)
                set_setting(browser, "Comfy.Minimap.Visible", False)
                for name in sorted(path.stem for path in WORKFLOWS.glob("*.json")):
                    open_(name)
                    if name == "Train a subject (DreamBooth or LoRA)":
                        train("DreamBoothTrain", DREAMBOOTH)
                        photograph_nodes(browser, ("DatasetLoader", "CaptionWithToken", "DreamBoothTrain"))
                    elif name == "Train an embedding (Textual Inversion)":
                        train("TextualInversionTrain", INVERSION)
                        photograph_nodes(browser, ("TextualInversionTrain",))
                    photograph(browser, WORKFLOWS / f"{name}.jpg")
                # The DreamBooth run, not the inversion, which is called by its token.
                run = next(run for run in server.options("LoadFinetuned", "run") if not run.startswith("mysks"))
                open_("Make pictures of a trained subject")
                choose(browser, "LoadFinetuned", "run", run)
                photograph_nodes(browser, ("LoadFinetuned",))
                side_by_side()
            finally:
                browser.quit()


def side_by_side() -> None:
    """The four nodes of a first run in one picture, for the README."""
    names = ("DatasetLoader", "CaptionWithToken", "DreamBoothTrain", "LoadFinetuned")
    parts = [Image.open(PICTURES / f"{name}-dark.jpg") for name in names]
    height = max(part.height for part in parts)
    whole = Image.new("RGB", (sum(part.width for part in parts), height), "#141414")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width
    whole.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    whole.save(PICTURES / "nodes.jpg", "JPEG", quality=82, optimize=True)


if __name__ == "__main__":
    main()
