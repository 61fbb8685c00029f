"""One real ComfyUI server for the whole tier, on a base directory of its own."""

import compileall
import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from demo.run import adapt, node
from tools.browser import load_workflow, open_browser, open_page
from tools.server import Server, free_port
from tools.setup import ROOT, comfyui_path

from .pages import read

BASES = Path(__file__).parent / "bases.py"


def make_other_families(folder: Path) -> None:
    folder.mkdir()
    subprocess.run([sys.executable, BASES, comfyui_path(), folder], check=True)


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory, made_once, standin_base, photo_folder) -> Path:
    """ComfyUI's folders: the stand-in and small models of other families, one folder of photos.

    The pack is compiled as at a user's second start, where Python is told to write no bytecode by itself, too.
    """
    for folder in ("nodes", "trainer"):
        compileall.compile_dir(ROOT / folder, quiet=1)
    base = tmp_path_factory.mktemp("comfyui")
    checkpoints = base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    os.link(standin_base, checkpoints / "standin.safetensors")
    for other in made_once("other-families", make_other_families).iterdir():
        os.link(other, checkpoints / other.name)
    shutil.copytree(photo_folder, base / "input" / "plush")
    return base


@pytest.fixture(scope="module", autouse=True)
def no_weights_left(base_directory):
    """What the runs of a module weigh goes with it: each is some hundred megabytes."""
    yield
    for file in (base_directory / "output").rglob("*.safetensors"):
        file.unlink()


@pytest.fixture(scope="session")
def start_server(base_directory):
    """Start another server on the same folders, as a restart does."""
    return lambda *options: Server(base_directory, port=free_port(), cpu=True, options=options)


@pytest.fixture(scope="session")
def workers(base_directory):
    """The worker processes that any server on these folders has running."""

    def found() -> list[psutil.Process]:
        processes = psutil.process_iter(["cmdline"])
        lines = [(process, " ".join(process.info["cmdline"] or ())) for process in processes]
        return [process for process, line in lines if "__main__.py" in line and str(base_directory) in line]

    return found


@pytest.fixture(scope="session")
def server(start_server):
    with start_server() as running:
        # Else ComfyUI's templates lie over the page that a user opens first, and take its clicks.
        running.set_setting("Comfy.TutorialCompleted", True)
        yield running


@pytest.fixture
def graph(shipped_workflow) -> dict:
    """The shipped workflow on the stand-in and the drawn photos, as in the demo."""
    filled = copy.deepcopy(shipped_workflow)
    adapt(filled, "standin.safetensors", "plush", "", random_standin=True)
    return filled


@pytest.fixture
def quick_graph(graph) -> dict:
    """The same at 64 pixels, with two steps of training."""
    graph[node(graph, "DatasetLoader")]["inputs"]["resolution"] = 64
    graph[node(graph, "EmptyLatentImage")]["inputs"] |= {"width": 64, "height": 64}
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"steps": 2, "lr_warmup_steps": 0, "name": "quick"}
    for label in ("(before)", "(after)"):
        graph[node(graph, "KSampler", label)]["inputs"]["steps"] = 4
    return graph


@pytest.fixture(scope="module")
def browser():
    driver = open_browser()
    yield driver
    driver.quit()


def shared_page(browser, server, elements: bool):
    """ComfyUI's page as the test before has left it, if that has opened no other and left no dialog; else opened anew.

    To open it takes six times what loading a workflow takes. A test that leaves behind more than workflows opens it anew itself.
    """
    script = "return document.querySelector('[role=dialog]') ? null : window.sharedWithElements ?? null"
    if browser.execute_script(script) is not elements:
        open_page(browser, server.port)
        browser.execute_script("window.sharedWithElements = arguments[0]", elements)
    return browser


@pytest.fixture
def opened(browser, server):
    """ComfyUI's page with whatever workflows: for tests that load their own."""
    return shared_page(browser, server, elements=False)


@pytest.fixture
def page(opened):
    """ComfyUI's page with the first of the shipped workflows, in a tab of its own."""
    load_workflow(opened, read("Train a subject (DreamBooth or LoRA)"))
    return opened


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "elements"])
def elements(request) -> bool:
    """Which of ComfyUI's renderers draws the nodes; all tests of a module with the one, then all with the other."""
    return request.param


@pytest.fixture
def either(elements, browser, server):
    """The page with each of ComfyUI's renderers, nodes drawn on a canvas or as elements of the page, and that workflow in it."""
    server.set_setting("Comfy.VueNodes.Enabled", elements)
    load_workflow(shared_page(browser, server, elements), read("Train a subject (DreamBooth or LoRA)"))
    yield browser
    server.set_setting("Comfy.VueNodes.Enabled", False)
