"""The graph editor in a real browser."""

import re
import sys

import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tools.browser import choose, load_workflow, open_workflow, queue, queued_prompt, set_setting, wait_for_page
from tools.server import HOST

from .pages import (
    CANVAS_AT_NIGHT,
    NEEDS_BROWSER,
    WORKFLOWS,
    covered,
    draw_frames,
    each,
    fill_in,
    open_template,
    panel,
    press,
    read,
    text_box,
    wait,
    words,
)

LANGUAGE = "SubjectTrainer.Language"
RUN, LOADED, PHOTOS = ("DreamBoothTrain", "run_view"), ("LoadFinetuned", "run_view"), ("DatasetLoader", "photo_view")
STOP = "Stop and use what there is"
SHIPPED = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
pytestmark = NEEDS_BROWSER


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_workflow_queues_exactly_its_api_twin(opened, name):
    load_workflow(opened, read(name))
    assert queued_prompt(opened) == read(f"api/{name}")


@pytest.mark.nightly
@pytest.mark.parametrize("name", SHIPPED)
def test_nothing_covers_anything_with_all_settings_open(either, name):
    load_workflow(either, read(name))
    either.execute_script("for (const n of window.app.graph.nodes) { n.showAdvanced = true; n.onConnectionsChange?.() }")
    draw_frames(either, 90)  # until the nodes have their height
    assert covered(either) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_workflow_opens_from_the_template_browser_with_all_its_nodes(opened, name):
    opened.execute_script("window.app.graph.clear(); window.app.canvas.ds.scale = 0.1")
    open_template(opened, name)
    wanted = sorted(node["type"] for node in read(name)["nodes"])
    wait(opened, lambda: sorted(opened.execute_script("return window.app.graph.nodes.map((n) => n.type)")) == wanted)
    known = "return window.app.graph.nodes.every((n) => n.type in window.LiteGraph.registered_node_types)"
    assert opened.execute_script(known)
    wait(opened, lambda: opened.execute_script("return window.app.canvas.ds.scale") >= 0.65, 10)  # below, there is no text
    assert (
        opened.execute_script("return window.app.graph.extra.subject_trainer_template") is None
    )  # what is saved of it is the user's


def test_captions_and_result_are_shown_in_the_nodes(page, server):
    """One queueing from the page, without training long: the texts appear, and the training seed stays what it was."""
    fill_in(page, steps=2, name="page", seed=6_000)
    page.execute_script("window.app.graph.add(window.LiteGraph.createNode('LoadFinetuned'))")
    queue(page)
    # ComfyUI tells of cached nodes when the whole graph is done.
    assert "\n2 steps, mean loss of the last 2: " in wait(page, lambda: words(page, "DreamBoothTrain", "report"))
    assert wait(page, lambda: words(page, "DatasetLoader", "report")) == "4 photos, 4 captions, ready"
    captions = wait(page, lambda: words(page, "CaptionWithToken", "caption_view"))
    assert "CLIP reads 'mysks' → my + sks" in captions
    assert "plush-4.jpg a photo of mysks plush toy in the snow" in captions
    assert set(each(page, ("CaptionWithToken", "caption_view"), "mark")) == {"mysks", "plush toy"}
    queued = queued_prompt(page)
    assert queued["5"]["inputs"]["seed"] == 6_000
    assert not {"report", "run_view"} & queued["5"]["inputs"].keys()
    assert " · 2 steps" in wait(page, lambda: labels_of_runs(page).get("page"), 30)  # without asking for the list anew
    page.execute_script("const { graph } = window.app; graph.remove(graph.nodes.find((n) => n.type === 'LoadFinetuned'))")
    assert covered(page) == []  # all panels are there now
    choose(page, "DatasetLoader", "crop", "top")
    assert words(page, "DatasetLoader", "report") == ""  # it was of another crop

    fill_in(page, steps=2000, name="another")
    queue(page)
    wait(page, lambda: "Training: step" in words(page, "DreamBoothTrain", "run_view"))
    assert words(page, "DreamBoothTrain", "report") == ""  # that was another run's
    server.post("/interrupt", {})
    said = "is saved. Queue the graph again to go on."
    assert "Stopped: the state after step" in wait(page, lambda: said in (w := words(page, "DreamBoothTrain", "run_view")) and w)


def labels_of_runs(page) -> dict[str, str]:
    """What the node that loads a run offers, by the name of the run."""
    script = """
    const { options } = window.app.graph.nodes.find((n) => n.type === "LoadFinetuned").widgets.find((w) => w.name === "run")
    return options.values.map((run) => [run, options.getOptionLabel(run)])
    """
    return {run.rpartition("-")[0]: label for run, label in page.execute_script(script)}


def is_inside(page, view) -> bool:
    """With nodes as elements of the page, whether the panel is part of one and can be seen."""
    inside = "return !window.LiteGraph.vueNodesMode || !!arguments[0].closest('[data-node-id]') && arguments[0].clientHeight > 40"
    return page.execute_script(inside, view)


@CANVAS_AT_NIGHT
def test_a_run_is_watched_reloaded_and_finished(either, request, server, base_directory):
    """Curves and samples move; after a reload, and in a second page, the run is there again; Stop gives the graph its picture."""
    page, name = either, f"watched-{request.node.callspec.id}"
    fill_in(
        page,
        steps=2000,
        seed=len(name),
        name=name,
        sample_prompts="a photo of mysks",
        sample_every=20,
        hold_out=1,
        validate_every=20,
    )
    queue(page)

    def drawn() -> list[int]:
        return [len(each(page, RUN, selector)) for selector in (".u-over", ".st-strip img")]

    wait(page, lambda: drawn()[0] and drawn()[1])
    pictures = drawn()[1]
    wait(page, lambda: drawn()[1] > pictures)
    shown = wait(page, lambda: words(page, "DreamBoothTrain", "run_view"))
    assert re.match(r"Training: step \d+ of 2000, loss [\d.]+ · .* left · \d+\.\d GB in use", shown)
    assert "held-out photos" in words(page, "DreamBoothTrain", "run_view")
    assert re.search(r"auto, with steps 2000: LoRA rank 16, AdamW, .* of your [\d.]+ GB of memory", shown)
    assert is_inside(page, panel(page, "DreamBoothTrain", "run_view"))
    fits = "const [view] = arguments; return [view.scrollHeight, view.clientHeight]"
    needed, height = page.execute_script(fits, panel(page, "DreamBoothTrain", "run_view"))
    assert needed <= height + 1  # nothing is cut, nothing to scroll

    def is_there_again() -> None:
        wait_for_page(page)
        wait(page, lambda: drawn()[0] and drawn()[1])
        wait(page, lambda: "Training: step" in words(page, "DreamBoothTrain", "run_view"))

    page.refresh()
    is_there_again()
    first = page.current_window_handle
    page.switch_to.new_window("tab")
    page.get(f"http://{HOST}:{server.port}/")  # with the workflow that was open last
    is_there_again()
    page.close()
    page.switch_to.window(first)

    press(page, RUN, "button", STOP)
    report = wait(page, lambda: words(page, "DreamBoothTrain", "report"))
    assert "Finished by you after " in report
    assert (base_directory / "output" / "loras" / report.splitlines()[-1]).is_file()  # what auto picks on a CPU
    wait(page, lambda: STOP not in each(page, RUN, "button"))
    choose(page, "DreamBoothTrain", "optimizer", "prodigy")
    old = words(page, "DreamBoothTrain", "report")
    assert old == f"The last run, before what you have changed since:\n{report}"
    choose(page, "DreamBoothTrain", "optimizer", "auto")
    assert words(page, "DreamBoothTrain", "report") == report
    wait(page, lambda: page.execute_script("return window.app.graph.nodes.some((n) => n.title.includes('after') && n.imgs)"))
    if name.endswith("canvas"):  # in Nodes 2.0 the height of a node is its content's
        assert covered(page) == []


def test_a_sample_opens_large_and_closes_by_key(page, server):
    run = watched_run(server)
    load_finetuned(page, run)
    strip = ".st-strip button"
    facts = wait(page, lambda: words(page, *LOADED) if each(page, LOADED, strip) else "")
    assert "In a promptmysks plush toy" in facts
    assert "Basestandin.safetensors" in facts
    press(page, LOADED, strip, each(page, LOADED, strip)[0])
    dialog = page.find_element(By.CSS_SELECTOR, "dialog[open]")
    assert dialog.find_element(By.TAG_NAME, "img").get_attribute("alt") == "After 0 steps: a photo of mysks"
    dialog.send_keys(Keys.ARROW_RIGHT)
    assert dialog.find_element(By.TAG_NAME, "img").get_attribute("alt").startswith("After 20 steps")
    dialog.send_keys(Keys.ESCAPE)
    wait(page, lambda: not page.find_elements(By.CSS_SELECTOR, "dialog[open]"))


def watched_run(server) -> str:
    return next(run for run in server.options("LoadFinetuned", "run") if run.startswith("watched"))


def load_finetuned(page, run: str) -> None:
    """A node of that kind, with the run chosen."""
    page.execute_script("window.app.graph.add(window.LiteGraph.createNode('LoadFinetuned'))")
    choose(page, "LoadFinetuned", "run", run)


HOSTILE = "<img src=x onerror=window.hacked=1> mysks"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file names")
def test_a_hostile_file_name_stays_text(page, base_directory):
    folder = base_directory / "input" / "hostile"
    folder.mkdir()
    name = "<img src=x onerror=window.hacked=1>.png"
    Image.new("RGB", (64, 64), "teal").save(folder / name)
    choose(page, "DatasetLoader", "folder", "hostile")
    wait(page, lambda: name in words(page, "DatasetLoader", "photo_view"))
    assert each(page, PHOTOS, "img", "alt") == [name]
    wait(page, lambda: each(page, PHOTOS, "img", "naturalWidth")[0] > 0)
    assert page.execute_script("return window.hacked === undefined")


@CANVAS_AT_NIGHT
def test_a_caption_is_edited_in_place_and_hostile_ones_stay_text(either, request, base_directory):
    page = either
    caption = base_directory / "input" / "plush" / "plush-1.txt"
    was = caption.read_text(encoding="utf-8")
    try:
        fill_in(page)
        choose(page, "DatasetLoader", "folder", "plush")
        box = text_box(page, PHOTOS)
        assert box.accessible_name == "Caption of plush-1.jpg"
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        page.execute_script(script, box, HOSTILE)
        wait(page, lambda: caption.read_text(encoding="utf-8") == HOSTILE + "\n")
        twice = script + "; arguments[0].value = arguments[2]; arguments[0].dispatchEvent(new Event('change'))"
        page.execute_script(twice, box, "one", HOSTILE + " two")  # the second names what the first has written
        wait(page, lambda: caption.read_text(encoding="utf-8") == HOSTILE + " two\n")
        assert "was changed elsewhere" not in words(page, "DatasetLoader", "photo_view")

        caption.write_text("changed elsewhere")
        page.execute_script(script, box, "mine")
        wait(page, lambda: "changed elsewhere" in words(page, "DatasetLoader", "photo_view"))
        assert caption.read_text() == "changed elsewhere"
        other = text_box(page, PHOTOS, 1)
        before = other.get_property("value")
        page.execute_script("arguments[0].focus()", other)
        other.send_keys("half a w")
        choose(page, "DatasetLoader", "crop", "pad")  # The grid is drawn anew, and what is being written stays.
        wait(page, lambda: "crop=pad" in each(page, PHOTOS, "img", "src")[0], 30)
        assert "changed elsewhere" in words(page, "DatasetLoader", "photo_view")
        assert "half a w" in other.get_property("value")
        assert page.execute_script("return document.activeElement === arguments[0]", other)
        page.execute_script("arguments[0].value = arguments[1]", other, before)
        press(page, PHOTOS, ".st-state button", "Write mine")
        wait(page, lambda: caption.read_text(encoding="utf-8") == "mine\n")

        fill_in(page, steps=1, name=f"hostile-{request.node.callspec.id}", sample_prompts=HOSTILE, sample_every=1)
        box = text_box(page, PHOTOS)
        page.execute_script("arguments[0].focus(); arguments[0].select()", box)
        box.send_keys(HOSTILE, Keys.CONTROL, Keys.ENTER)  # queued from the box, while it still has the focus
        wait(page, lambda: words(page, "DreamBoothTrain", "report"))
        assert HOSTILE in wait(page, lambda: words(page, "CaptionWithToken", "caption_view"))
        assert wait(page, lambda: each(page, RUN, ".st-strip img", "alt"))[0] == f"After 0 steps: {HOSTILE}"
        assert page.execute_script("return window.hacked === undefined")
    finally:
        caption.write_text(was, encoding="utf-8")


def test_reports_and_errors_come_in_the_language_that_is_set(page, server):
    set_setting(page, LANGUAGE, "uk")
    try:
        more = (
            "return window.app.graph.nodes.find((n) => n.type === 'DreamBoothTrain').widgets.find((w) => w.name === 'advanced')"
        )
        wait(page, lambda: page.execute_script(more + ".label").startswith("Показати ще налаштування"), 10)  # at once
        open_workflow(page, server.port, read("Train a subject (DreamBooth or LoRA)"))
        fill_in(page, steps=2, seed=1, name="page-uk")
        queue(page)
        assert "\nКроків: 2, середні втрати за останні 2: " in wait(page, lambda: words(page, "DreamBoothTrain", "report"))
        assert wait(page, lambda: words(page, "DatasetLoader", "report")) == "Фото: 4, підписів: 4, готово"
        assert "CLIP читає 'mysks' → my + sks" in wait(page, lambda: words(page, "CaptionWithToken", "caption_view"))
        assert panel(page, "DreamBoothTrain", "run_view").accessible_name == "Запуск навчання"

        def for_others() -> list[str]:
            """What the history says of the run, once the graph is done: an API client reads it too."""
            outputs = [output for job in server.get("/history").values() for output in job["outputs"].values()]
            return [text for output in outputs for text in output.get("text", ()) if "page-uk-" in text]

        (text,) = wait(page, for_others)
        assert "\n2 steps, mean loss of the last 2: " in text

        (server.base / "models" / "embeddings" / "empty.safetensors").touch()
        fill_in(page, name="page", embedding="empty")
        queue(page)  # refused when it runs
        wait(page, lambda: "Немає ембедингу 'empty', який можна прочитати." in words(page, "DreamBoothTrain", "report"))
        assert "Кроків" not in words(page, "DreamBoothTrain", "report")  # that was the job before
        fill_in(page, name="/", embedding="")
        queue(page)  # refused when it is queued
        wait(page, lambda: "Назва '/' не може бути назвою файлу" in refusals(page))
    finally:
        set_setting(page, LANGUAGE, "page")
    wait(page, lambda: queue(page) or "The name '/' cannot be a file name" in refusals(page))


def refusals(page) -> str:
    """What ComfyUI says of the widgets of a graph that it did not queue."""
    return page.execute_script("return JSON.stringify(window.app.lastNodeErrors ?? {})")


def test_a_hundred_thousand_steps_are_drawn_within_bounds(page, server, base_directory):
    run = watched_run(server)
    metrics = base_directory / "output" / "finetune" / run / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {step}, "loss": {0.2 + 0.1 * (step % 7)}}}\n' for step in range(1, 100_001)))
    page.execute_cdp_cmd("Performance.enable", {})

    def measured() -> dict:
        return {m["name"]: m["value"] for m in page.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}

    page.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    before = measured()
    load_finetuned(page, run)
    wait(page, lambda: each(page, LOADED, ".u-over"))
    page.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    after = measured()
    script = after["ScriptDuration"] - before["ScriptDuration"]
    heap = (after["JSHeapUsedSize"] - before["JSHeapUsedSize"]) / 1e6
    print(f"\n100,000 steps: {script:.2f} s of script, {heap:.1f} MB of heap")
    assert script < 1.0
    assert heap < 50


def test_our_scripts_say_nothing_on_the_console(page):
    folder = WORKFLOWS.parent / "js"
    scripts = [path.relative_to(folder).as_posix() for path in folder.rglob("*.js")]
    ours = [e for e in page.get_log("browser") if "/extensions/" in e["message"] and any(s in e["message"] for s in scripts)]
    assert ours == []


LOWEST_CONTRAST = """
const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true })
const solid = (colour, below) => {  // what is seen of a colour over another
  for (const fill of [`rgb(${below})`, colour]) { pen.fillStyle = fill; pen.fillRect(0, 0, 1, 1) }
  return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3)
}
const behind = (element) => {
  if (!element) return [255, 255, 255]
  return solid(getComputedStyle(element).backgroundColor, behind(element.parentElement))
}
const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0)
const found = []
for (const element of document.querySelectorAll(".st-panel, .st-panel *")) {
  const texts = [...element.childNodes].map((node) => (node.nodeType === 3 ? node.data : ""))
  const own = element.tagName === "TEXTAREA" ? element.value : texts.join("")
  if (!own.trim()) continue
  for (let at = element; at; at = at.parentElement) if (getComputedStyle(at).opacity !== "1") found.push([0, "opacity", own])
  const [a, b] = [light(solid(getComputedStyle(element).color, behind(element))), light(behind(element))]
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.className || element.tagName, own])
}
return found.sort(([a], [b]) => a - b)
"""


def test_what_the_panels_say_can_be_read_in_both_themes(page, base_directory):
    folder = base_directory / "input" / "uncaptioned"
    folder.mkdir()
    Image.new("RGB", (64, 64), "teal").save(folder / "a.png")
    choose(page, "DatasetLoader", "folder", "uncaptioned")
    wait(page, lambda: "no caption" in words(page, "DatasetLoader", "photo_view"))
    page.execute_script(
        'document.body.insertAdjacentHTML(\'beforeend\', \'<div class="st-panel"><div class="st-error">no</div>'
        '<div class="st-report st-old">of the last run</div>'
        '<ul class="st-captions"><li><mark>mysks</mark> <mark class="st-class">toy</mark></li></ul></div>\')'
    )
    try:
        for theme in ("light", "dark"):
            set_setting(page, "Comfy.ColorPalette", theme)
            found = page.execute_script(LOWEST_CONTRAST)
            assert {"st-note", "MARK", "st-class", "st-name", "st-error", "st-report st-old"} <= {name for _, name, _ in found}
            print(theme, found[0])
            assert found[0][0] >= 4.5, (theme, found[0])
    finally:
        set_setting(page, "Comfy.ColorPalette", "dark")
