"""Take the pictures of the README, of the help pages and of the template browser: what to do when the nodes look different.

    python -m tools.pictures

Trains the taught stand-in on the demo's photos in a real ComfyUI, through its page, and photographs each node in the dark and in
the light theme (js/docs/pictures/), and every workflow (workflows/*.jpg), some after training. Needs Chromium and chromedriver.
"""

import io
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from demo.run import STANDIN_SIZE, TAUGHT_CFG
from demo.world import subject

from . import encoders, standin
from .browser import choose, open_browser, open_workflow, queue, set_setting, set_widgets
from .server import Server, free_port
from .setup import ROOT

PICTURES = ROOT / "js" / "docs" / "pictures"
WORKFLOWS = ROOT / "workflows"
WINDOW = (3400, 2400)
"""Large, so that the page need not zoom out so far that it leaves out the texts."""
MAX_SIDE, MAX_SIDE_OF_WIDE = 1600, 2400
LIMIT_SECONDS, REPORT_SECONDS = 900, 10
NEWS_SECONDS = 30
"""How long the page may show over the graph that a job is done."""
CHECKPOINT, IMAGE_ENCODER, FOLDER = "v1-5-pruned-emaonly.safetensors", "clip_vision_h.safetensors", "my-photos"
"""What the shipped workflows ask for: what the page does not find, it marks in red, and tells of it over the graph."""
QUIET = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    # The pack's folder is called otherwise here than where it is installed, and a badge lies over what is above its node.
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
    "Comfy.NodeBadge.NodeIdBadgeMode": "None",
    "Comfy.NodeBadge.NodeLifeCycleBadgeMode": "None",
}
SMALL = {
    "DatasetLoader": {"folder": FOLDER, "resolution": STANDIN_SIZE},
    "EmptyLatentImage": {"width": STANDIN_SIZE, "height": STANDIN_SIZE},
    "KSampler": {"steps": 10, "cfg": TAUGHT_CFG},
}
CAPTIONING = "Caption photos with a vision model"
FIRST, INVERSION, EVALUATION = (
    "Train a subject (DreamBooth or LoRA)",
    "Train an embedding (Textual Inversion)",
    "Train a LoRA and use its best step (evaluation)",
)
PROMPT = "a photo of mysks plush toy in the snow"
TRAINED = {
    FIRST: {
        "DreamBoothTrain": {
            "train": "unet_and_token",
            "steps": 60,
            "batch_size": 2,
            "learning_rate": 1e-4,
            "hold_out": 1,
            "validate_every": 10,
            "sample_prompts": PROMPT,
            "sample_every": 15,
        }
    },
    INVERSION: {
        "TextualInversionTrain": {
            "steps": 60,
            "batch_size": 2,
            "learning_rate": 0.02,
            "vectors": 4,
            "sample_prompts": PROMPT,
            "sample_every": 20,
        }
    },
    EVALUATION: {
        "DreamBoothTrain": {"steps": 45, "batch_size": 2, "learning_rate": 2e-3, "save_every": 15, "validate_every": 15},
        "EmptyLatentImage": SMALL["EmptyLatentImage"] | {"batch_size": 2},
    },
}
"""What is trained before its picture is taken, with which values, those of the node that trains first."""
NODES = {
    FIRST: ("DatasetLoader", "CaptionWithToken", "DreamBoothTrain"),
    INVERSION: ("TextualInversionTrain",),
}
"""The nodes whose help pages show them as they are then."""
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
SPOILT = """
const [left, top, width, height] = arguments[0]
const news = document.querySelectorAll("[data-testid=queue-notification-banner], .p-toast-message")
const over = new Set([...news].map((part) => part.innerText)) // Some let the mouse through, and are at no point.
for (let x = left; x < left + width; x += 20)
  for (let y = top; y < top + height; y += 20) {
    const part = document.elementFromPoint(x, y)
    if (part && !part.closest("canvas, .dom-widget")) over.add(part.innerText || part.className)
  }
const nodes = window.app.graph.nodes
const failed = nodes.filter((n) => n.has_errors || n.widgets?.some((w) => w.element?.querySelector?.(".st-error")))
return [...over, ...failed.map((node) => `an error in "${node.title}"`)]
"""
"""What would show on a picture of this place of the window besides the graph as it should be, in words."""
DOING = """
const node = window.app.graph.nodes.find((n) => n.type === arguments[0])
const text = (selector) => node.widgets.map((w) => w.element?.querySelector?.(selector)?.textContent ?? "").join("")
return [window.app.ui.lastQueueSize === 0 && text(".st-report") !== "", text(".st-progress").split("\\n")[0]]
"""


@dataclass(frozen=True)
class Photographer:
    """ComfyUI's page, and the server that gives it."""

    browser: Chrome
    server: Server

    def open(self, name: str) -> None:
        workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        open_workflow(self.browser, self.server.port, workflow)

    def photograph(self, path: Path, box: list | None = None) -> None:
        """Of the graph in the box [x, y, width, height], or of all of it, as a JPEG. Raises ValueError if that shows a fault."""
        place = self.browser.execute_script(LOOK, box)
        # Two frames: one to place what lies over the canvas, one to draw it.
        self.browser.execute_async_script(
            "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => done()), 1500)"
        )
        deadline = time.monotonic() + NEWS_SECONDS
        while spoilt := self.browser.execute_script(SPOILT, place):
            if time.monotonic() > deadline:
                raise ValueError(f"{path.name} would show: {'; '.join(spoilt)}")
        left, top, width, height = place
        shot = Image.open(io.BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
        edge = 8
        cut = shot.crop((left - edge, top - edge, min(shot.width, left + width + edge), min(shot.height, top + height + edge)))
        save(cut, path)

    def photograph_nodes(self, *node_types: str) -> None:
        for theme in ("light", "dark"):
            set_setting(self.browser, "Comfy.ColorPalette", theme)
            for node_type in node_types:
                box = "return [...window.app.graph.nodes.find((n) => n.type === arguments[0]).boundingRect]"
                self.photograph(PICTURES / f"{node_type}-{theme}.jpg", self.browser.execute_script(box, node_type))

    def train(self, values: dict[str, dict]) -> None:
        """Queue the open graph, small and with these values, and wait until all of it is done; say how far it is."""
        set_widgets(self.browser, SMALL | values)
        queue(self.browser)
        node_type = next(iter(values))
        began = said = time.monotonic()

        def is_done(_) -> bool:
            nonlocal said
            done, doing = self.browser.execute_script(DOING, node_type)
            if done or time.monotonic() - said > REPORT_SECONDS:
                said = time.monotonic()
                print(f"  {said - began:.0f} s: {'done' if done else doing or 'the rest of the graph'}", flush=True)
            return done

        WebDriverWait(self.browser, LIMIT_SECONDS, poll_frequency=1).until(is_done)


def save(picture: Image.Image, path: Path) -> None:
    side = MAX_SIDE_OF_WIDE if picture.width > 2 * picture.height else MAX_SIDE
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    picture.save(path, "JPEG", quality=82, optimize=True)
    print(path.relative_to(ROOT), picture.size, flush=True)


def prepare(base: Path) -> None:
    """Write the models that the workflows name."""
    print("Building the stand-ins", flush=True)
    standin.build(base / "models" / "checkpoints" / CHECKPOINT)
    encoders.build_image_encoder(base / "models" / "clip_vision" / IMAGE_ENCODER)


def lay_out_photos(folder: Path, with_captions: bool) -> None:
    subject.save_photos(folder)
    if not with_captions:
        for caption in folder.glob("*.txt"):
            caption.unlink()


def take_all(photographer: Photographer) -> None:
    """Photograph the workflows and the nodes."""
    for name in sorted(path.stem for path in WORKFLOWS.glob("*.json")):
        print(name, flush=True)
        lay_out_photos(photographer.server.base / "input" / FOLDER, with_captions=name != CAPTIONING)
        photographer.open(name)
        if name in TRAINED:
            photographer.train(TRAINED[name])
            photographer.photograph_nodes(*NODES.get(name, ()))
        photographer.photograph(WORKFLOWS / f"{name}.jpg")
    # The DreamBooth run, not the LoRA or the inversion, which are called otherwise.
    runs = photographer.server.options("LoadFinetuned", "run")
    photographer.open("Make pictures of a trained subject")
    choose(photographer.browser, "LoadFinetuned", "run", next(run for run in runs if run.startswith("my-plush-toy-")))
    photographer.photograph_nodes("LoadFinetuned")


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
    save(whole, PICTURES / "nodes.jpg")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        prepare(base)
        with Server(base, port=free_port(), cpu=True) as server:
            for name, value in QUIET.items():
                server.set_setting(name, value)
            browser = open_browser()
            browser.set_window_size(*WINDOW)
            try:
                take_all(Photographer(browser, server))
            finally:
                browser.quit()
    side_by_side()


if __name__ == "__main__":
    main()
