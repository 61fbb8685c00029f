"""What a node shows is bound to the workflow that its job was queued from, in every order of tabs, reloads and saving."""

import json

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tools.browser import choose, load_workflow, queue, wait_for_page

from .graphs import picture_graph
from .pages import CANVAS_AT_NIGHT, NEEDS_BROWSER, each, fill_in, press, read, wait, words

pytestmark = NEEDS_BROWSER

RUN, STOP = ("DreamBoothTrain", "run_view"), "Stop and use what there is"
TEMPLATE = "Train a subject (DreamBooth or LoRA)"
PATH = "return window.app.extensionManager.workflow.activeWorkflow.path"


def said(page) -> str:
    return words(page, "DreamBoothTrain", "run_view")


def report(page, node_type: str = "DreamBoothTrain") -> str:
    return words(page, node_type, "report")


def drawn(page) -> bool:
    return bool(each(page, RUN, ".u-over"))


def shows_nothing(page) -> bool:
    return (said(page), report(page), words(page, "CaptionWithToken", "caption_view"), drawn(page)) == ("", "", "", False)


def open_in_tab(page, workflow: dict) -> str:
    """Open a workflow as a template is opened, in a tab of its own; return its path."""
    load_workflow(page, workflow)
    return page.execute_script(PATH)


def command(page, name: str) -> None:
    page.execute_script("window.app.extensionManager.command.execute(arguments[0])", name)


def go_to(page, path: str) -> None:
    def there() -> bool:
        if page.execute_script(PATH) == path:
            return True
        command(page, "Workspace.NextOpenedWorkflow")
        return False

    wait(page, there, 60)


def save_as(page, name: str) -> str:
    before = page.execute_script(PATH)
    command(page, "Comfy.SaveWorkflowAs")
    box = wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "[role=dialog] input"), 30)[0]
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(name, Keys.ENTER)
    wait(page, lambda: page.execute_script(PATH) != before, 60)
    return page.execute_script(PATH)


def reload(page) -> None:
    page.refresh()
    wait_for_page(page)


def stop(page) -> None:
    press(page, RUN, ".st-buttons button", STOP)


def file_of(page) -> str:
    """What the page would save."""
    return json.dumps(page.execute_script("return window.app.graph.serialize()"))


def shows_result(page, result: str) -> bool:
    return report(page) == result and drawn(page) and "CLIP reads" in words(page, "CaptionWithToken", "caption_view")


@CANVAS_AT_NIGHT
def test_a_result_stays_with_its_workflow(either, request, server, base_directory):
    page, name = either, f"bound-{request.node.callspec.id}"
    first = open_in_tab(page, read(TEMPLATE))
    fill_in(page, steps=100_000, seed=len(name), name=name, train="lora")
    second = open_in_tab(page, read(TEMPLATE))
    fill_in(page, steps=100_000, seed=len(name), name=name, train="lora")  # the same in all but the tab
    go_to(page, first)
    queue(page)
    wait(page, lambda: "Training: step" in said(page))
    go_to(page, second)
    assert shows_nothing(page)
    reload(page)
    go_to(page, first)
    stop(page)
    go_to(page, second)
    wait(page, lambda: server.get("/queue")["queue_running"] == [])
    assert shows_nothing(page)
    (run,) = (path.name for path in (base_directory / "output" / "finetune").glob(f"{name}-*"))

    go_to(page, first)
    result = wait(page, lambda: report(page))
    assert "Finished by you after " in result
    wait(page, lambda: shows_result(page, result), 30)
    assert run not in file_of(page)
    for saved in ("first", "second"):  # under its first name, and then as a copy
        reload(page)
        wait(page, lambda: shows_result(page, result), 30)
        first = save_as(page, f"{name} {saved}")
        wait(page, lambda: shows_result(page, result), 30)
    assert run not in file_of(page)
    reload(page)
    wait(page, lambda: shows_result(page, result), 30)
    go_to(page, second)
    assert shows_nothing(page)


@pytest.mark.nightly
def test_a_report_is_marked_as_of_the_last_run_exactly_while_the_node_says_something_else(page, server):
    """What was queued counts, not what the node said when the report came or was shown again."""

    def edit(value: str) -> None:
        choose(page, "DreamBoothTrain", "optimizer", value)
        page.execute_script("window.app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()")

    first = open_in_tab(page, read(TEMPLATE))
    fill_in(page, steps=100_000, name="edited", train="lora")
    queue(page)
    wait(page, lambda: "Training: step" in said(page))
    edit("prodigy")
    stop(page)
    old = wait(page, lambda: report(page))
    assert old.startswith("The last run, before what you have changed since:\n")
    wait(page, lambda: server.get("/queue")["queue_running"] == [])
    reload(page)
    wait(page, lambda: report(page) == old, 30)
    edit("auto")
    (_, plain) = old.split("\n", 1)
    assert report(page) == plain
    open_in_tab(page, read(TEMPLATE))
    go_to(page, first)
    wait(page, lambda: report(page) == plain, 30)


def test_a_node_in_a_subgraph_shows_its_run_again(page, server):
    open_in_tab(page, read(TEMPLATE))
    fill_in(page, steps=1, name="inside", train="lora", seed=7)
    page.execute_script(
        """
        const { graph } = window.app
        graph.convertToSubgraph(new Set([graph.nodes.find((n) => n.type === "DreamBoothTrain")]))
        window.app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
        """
    )
    inner = "[...window.app.graph.subgraphs.values()].flatMap((g) => g.nodes).find((n) => n.type === 'DreamBoothTrain')"

    def told() -> str:
        script = f"return {inner}?.widgets.find((w) => w.name === 'report')?.element.textContent ?? ''"
        return page.execute_script(script)

    queue(page)
    result = wait(page, told)
    assert "1 step, mean loss" in result
    wait(page, lambda: server.get("/queue")["queue_running"] == [])
    reload(page)
    assert wait(page, told, 30) == result


WIRED_LOADER = """
const { app, LiteGraph } = window
app.graph.clear()
const add = (type, values = {}) => {
  const node = LiteGraph.createNode(type)
  app.graph.add(node)
  for (const widget of node.widgets ?? []) if (widget.name in values) widget.value = values[widget.name]
  return node
}
const loader = add("DatasetLoader", { resolution: 64 })
add("EmptyImage", { width: 64, height: 64, color: 0x0080ff }).connect(0, loader, "images")
add("PrimitiveStringMultiline", { value: "a blue toy" }).connect(0, loader, "captions")
loader.connect(1, add("PreviewImage"), 0)
return { ...app.graph.serialize(), id: undefined }
"""


def captions(page) -> list[str]:
    return each(page, ("DatasetLoader", "photo_view"), "textarea", "value")


def queue_behind(page, server) -> None:
    """Queue what is open, as a job that begins when ComfyUI is told to interrupt the one before."""
    endless = picture_graph({"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin.safetensors"}}, "a toy")
    endless["sample"]["inputs"]["steps"] = 10_000
    server.post("/prompt", {"prompt": endless})
    queue(page)
    ((_, job, *_),) = wait(page, lambda: server.get("/queue")["queue_pending"], 60)
    noted = "return localStorage.getItem('SubjectTrainer.Shown')?.includes(arguments[0])"
    wait(page, lambda: page.execute_script(noted, job), 60)  # closed before it has ComfyUI's answer, it cannot know of the job


def let_it_run(page, server) -> None:
    server.post("/interrupt", {})
    wait(page, lambda: not any(server.get("/queue").values()), 60)


def test_what_a_loader_has_read_stays_with_its_workflow(page, server):
    workflow = page.execute_script(WIRED_LOADER)
    first = open_in_tab(page, workflow)
    second = open_in_tab(page, workflow)
    go_to(page, first)
    queue_behind(page, server)
    go_to(page, second)
    let_it_run(page, server)
    wait(page, lambda: "that are wired to images" in words(page, "DatasetLoader", "photo_view"), 30)
    assert report(page, "DatasetLoader") == ""
    assert captions(page) == []
    go_to(page, first)
    wait(page, lambda: captions(page) == ["a blue toy"], 30)
    choose(page, "DatasetLoader", "crop", "pad")  # The report is of another crop, the pictures are the same.
    wait(page, lambda: report(page, "DatasetLoader") == "", 30)
    reload(page)
    go_to(page, first)
    wait(page, lambda: captions(page) == ["a blue toy"], 30)
    assert report(page, "DatasetLoader") == ""


def test_a_job_that_ran_while_the_page_was_closed_is_shown(page, server):
    first = open_in_tab(page, page.execute_script(WIRED_LOADER))
    queue_behind(page, server)
    page.get("about:blank")
    let_it_run(page, server)
    page.back()
    wait_for_page(page)
    go_to(page, first)
    wait(page, lambda: captions(page) == ["a blue toy"], 30)
    assert "1 photo, 1 caption, ready" in report(page, "DatasetLoader")
