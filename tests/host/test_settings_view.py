"""Which settings a training node shows, what it says of them, and that a file's values find their widgets, in both renderers."""

import contextlib
import json
from pathlib import Path

import pytest
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tools.browser import choose, load_workflow, open_workflow, queued_prompt, wait_for_page
from trainer.parts import TRAIN as TRAINED
from trainer.run.presets import presets
from trainer.run.run_dir import RunDir
from trainer.run.settings import method_settings

from .pages import NEEDS_BROWSER, panel, read, wait, words
from .test_presets import minimal, run_dir

pytestmark = NEEDS_BROWSER

SAVED = Path(__file__).parent / "saved_graph.json"
"""One node of each kind, as this version has saved them: JSON.stringify(app.graph.serialize()) of the page. What WebDriver
returns has its names in another order."""
FIRST = {
    "DreamBoothTrain": {"preset", "name", "train", "class_images", "steps", "hold_out", "sample_prompts"},
    "TextualInversionTrain": {
        *("preset", "token", "initializer", "vectors", "template_set", "steps", "hold_out", "sample_prompts"),
    },
}
LORA = {"start_lora", "lora_kind", "lora_rank", "lora_alpha", "lora_layers"}
TRAIN = "const node = window.app.graph.nodes.find((n) => n.type === arguments[0]); "


def seen(page, node_type: str = "DreamBoothTrain") -> set[str]:
    """The names of the settings that the node shows: on the canvas by what it draws, else by what is in the page."""
    script = """
        if (!window.LiteGraph.vueNodesMode)
          return node.widgets.filter((w) => node.isWidgetVisible(w) && w.serialize !== false).map((w) => w.name)
        const rows = document.querySelectorAll(`[data-node-id="${node.id}"] .lg-node-widget`)
        return [...rows].map((row) => row.innerText.split("\\n")[0]).filter((name) => node.widgets.some((w) => w.name === name))
    """
    return set(page.execute_script(TRAIN + script, node_type))


def set_value(page, name: str, value, node_type: str = "DreamBoothTrain") -> None:
    choose(page, node_type, name, value)


def label(page) -> str:
    return words(page, "DreamBoothTrain", "preset_view")


def shows(page, wanted: set[str], node_type: str = "DreamBoothTrain") -> None:
    """Wait until the node shows just these settings."""
    with contextlib.suppress(TimeoutException):
        wait(page, lambda: seen(page, node_type) == wanted, 10)
    assert seen(page, node_type) == wanted


def bring_into_sight(page, node_type: str) -> None:
    script = """
        const { ds } = window.app.canvas
        ds.scale = 0.7
        ds.offset = [200 - node.pos[0], 100 - node.pos[1]]
        window.app.canvas.setDirty(true, true)
    """
    page.execute_script(TRAIN + script, node_type)


def test_few_settings_are_in_sight_whatever_the_preset_and_the_trained_part(either):
    page = either
    bring_into_sight(page, "DreamBoothTrain")
    shows(page, FIRST["DreamBoothTrain"])
    assert len(FIRST["DreamBoothTrain"]) <= 10
    for preset in presets("dreambooth")[:-1]:
        set_value(page, "preset", preset)
        for train in (*TRAINED, "auto"):
            set_value(page, "train", train)
            shows(page, FIRST["DreamBoothTrain"])
    set_value(page, "preset", "auto")
    every = {"embedding", "start_lora", *method_settings("dreambooth"), "preset", "name"}
    for train in TRAINED:
        set_value(page, "train", train)
        set_value(page, "preset", "own settings")
        nothing = {"prior_loss_weight", "early_stopping", "sample_every"}
        nothing |= {"text_learning_rate"} if train in ("unet", "lora") else set()
        shows(page, every - nothing - (set() if train.startswith("lora") else LORA))
        set_value(page, "preset", "auto")
        shows(page, FIRST["DreamBoothTrain"])


def test_an_embedding_shows_few_settings_too(either):
    page = either
    load_workflow(page, read("Train an embedding (Textual Inversion)"))
    bring_into_sight(page, "TextualInversionTrain")
    shows(page, FIRST["TextualInversionTrain"], "TextualInversionTrain")
    set_value(page, "preset", "own settings", "TextualInversionTrain")
    every = {"token", "preset", *method_settings("textual_inversion")} - {"early_stopping", "sample_every"}
    shows(page, every, "TextualInversionTrain")


def test_a_changed_value_is_in_sight_and_named_beside_the_preset(either, server):
    page = either
    bring_into_sight(page, "DreamBoothTrain")
    assert label(page) == ""
    set_value(page, "preset", "12 GB card")
    set_value(page, "lora_rank", 32)
    set_value(page, "class_images", 100)  # as the preset says itself
    set_value(page, "ema_decay", 0.99)  # which no preset decides
    shows(page, FIRST["DreamBoothTrain"] | {"lora_rank", "ema_decay"})
    assert label(page) == "12 GB card, with lora_rank 32"
    open_workflow(page, server.port, page.execute_script("return window.app.graph.serialize()"))
    bring_into_sight(page, "DreamBoothTrain")
    shows(page, FIRST["DreamBoothTrain"] | {"lora_rank", "ema_decay"})
    assert label(page) == "12 GB card, with lora_rank 32"
    set_value(page, "lora_rank", 0)
    set_value(page, "ema_decay", 0)
    shows(page, FIRST["DreamBoothTrain"])
    assert label(page) == ""
    set_value(page, "class_images", -1)
    set_value(page, "prior", "teacher")  # which takes the place of the preset's class images
    wait(page, lambda: label(page) == "12 GB card, with prior teacher", 10)


def test_a_node_has_the_height_that_it_was_saved_with(page):
    """On the canvas, where it is the pack that makes it higher and lower: after each opening, and so after each undo."""
    height = "return [node.size[1], node.computeSize()[1]]"
    frame = "const [done] = arguments; requestAnimationFrame(() => done(1))"
    again = "const [done] = arguments, { app } = window; app.loadGraphData(app.graph.serialize()).then(() => done())"
    set_value(page, "sample_prompts", "a toy")
    for preset in ("own settings", "auto", "8 GB card (LoRA)"):
        set_value(page, "preset", preset)
        wait(page, lambda preset=preset: ("optimizer" in seen(page)) == (preset == "own settings"), 20)
        before = page.execute_script(TRAIN + height, "DreamBoothTrain")
        for _ in range(2):
            page.execute_async_script(again)
            page.execute_async_script(frame)
            assert page.execute_script(TRAIN + height, "DreamBoothTrain") == before


def test_all_settings_are_shown_and_hidden_again(either, server):
    """By the node's button on the canvas, by ComfyUI's own among elements of the page; a file keeps it."""
    page = either
    bring_into_sight(page, "DreamBoothTrain")
    queued = queued_prompt(page)
    page.execute_script(TRAIN + "node.showAdvanced = true; node.onConnectionsChange()", "DreamBoothTrain")
    every = {"embedding", "start_lora", "preset", "name", *method_settings("dreambooth")}
    shows(page, every - {"early_stopping", "sample_every", "prior_loss_weight"})
    set_value(page, "class_images", 1)
    shows(page, every - {"early_stopping", "sample_every"})
    set_value(page, "optimizer", "prodigy")
    set_value(page, "class_images", 0)
    shows(page, every - {"early_stopping", "sample_every", "learning_rate", "text_learning_rate", "prior_loss_weight"})
    open_workflow(page, server.port, page.execute_script("return window.app.graph.serialize()"))
    bring_into_sight(page, "DreamBoothTrain")
    shows(page, every - {"early_stopping", "sample_every", "learning_rate", "text_learning_rate", "prior_loss_weight"})
    load_workflow(page, read("Train a subject (DreamBooth or LoRA)"))
    assert queued_prompt(page) == queued


KEPT = """
    const key = `${window.app.extensionManager.workflow.activeWorkflow.path}\\n${window.app.graph.id}`
    const bound = { jobs: ["job"], nodes: { [node.id]: { prompt: "job", run: arguments[1] } } }
    localStorage.setItem("SubjectTrainer.Shown", JSON.stringify({ [key]: bound }))
"""
"""What the page keeps of a run that the node has shown."""


def test_own_settings_are_those_of_the_last_run(page, server, base_directory):
    server.run(minimal("auto", "resolved", steps=3))
    run: RunDir = run_dir(base_directory, "resolved")
    run_id = run.path.name
    page.execute_script(TRAIN + KEPT, "DreamBoothTrain", run_id)
    page.refresh()
    wait_for_page(page)
    wait(page, lambda: panel(page, "DreamBoothTrain", "run_view"), 60)
    before = queued_prompt(page)["5"]["inputs"]
    set_value(page, "preset", "own settings")
    wait(page, lambda: queued_prompt(page)["5"]["inputs"]["train"] != "auto", 20)
    filled, trained = queued_prompt(page)["5"]["inputs"], run.load_run().settings.flat()
    assert trained["train"] == "lora"  # which the plain defaults are not
    names = ("train", "steps", "lora_rank", "lora_alpha", "lora_layers", "learning_rate", "batch_size", "precision", "optimizer")
    assert {name: filled[name] for name in names} == {name: trained[name] for name in names}
    set_value(page, "train", "unet")
    open_workflow(page, server.port, page.execute_script("return window.app.graph.serialize()"))
    unet = queued_prompt(page)["5"]["inputs"]
    assert (unet["learning_rate"], unet["lora_rank"], unet["steps"]) == (2e-6, 0, 3)
    set_value(page, "preset", "auto")
    assert queued_prompt(page)["5"]["inputs"] == before | {"train": "unet"}


def test_own_settings_are_what_the_preset_before_says(either):
    page = either
    before = queued_prompt(page)["5"]["inputs"]
    set_value(page, "preset", "8 GB card (LoRA)")
    set_value(page, "preset", "own settings")
    wait(page, lambda: queued_prompt(page)["5"]["inputs"]["train"] != "auto", 20)
    filled = queued_prompt(page)["5"]["inputs"]
    said = {"train": "lora", "class_images": 100, "lr_scheduler": "cosine", "optimizer": "adamw_8bit", "learning_rate": 1e-4}
    assert filled.items() >= said.items()
    set_value(page, "train", "auto")
    set_value(page, "preset", "auto")
    assert queued_prompt(page)["5"]["inputs"] == before


def test_a_preset_that_was_promoted_on_a_subgraph_is_queued_and_saved(either, server):
    page = either
    promote = """
        const { subgraph, node: host } = window.app.graph.convertToSubgraph(new Set([node]))
        const inner = subgraph.nodes.find((n) => n.type === arguments[0])
        const input = inner.inputs.find((i) => i.name === "preset")
        subgraph.addInput("preset", input.type).connect(input, inner)
        host.widgets.find((w) => w.name === "preset").value = "8 GB card (LoRA)"
    """
    page.execute_script(TRAIN + promote, "DreamBoothTrain")
    for _ in range(2):
        (train,) = (n["inputs"] for n in queued_prompt(page).values() if n["class_type"] == "DreamBoothTrain")
        assert train["preset"] == "8 GB card (LoRA)"
        inner = """
            const [host] = window.app.graph.nodes.filter((n) => n.subgraph)
            const inner = host.subgraph.nodes.find((n) => n.type === "DreamBoothTrain")
            return inner.widgets.filter((w) => inner.isWidgetVisible(w) && w.serialize !== false).map((w) => w.name)
        """
        # ComfyUI promotes the seed itself, and what comes through a link is in sight.
        assert set(page.execute_script(inner)) == FIRST["DreamBoothTrain"] | {"seed"}
        open_workflow(page, server.port, page.execute_script("return window.app.graph.serialize()"))


CHANGED = {"DreamBoothTrain": {"preset": "12 GB card", "name": "saved", "steps": 123, "seed": 7, "ema_decay": 0.9999}}
CHANGED["TextualInversionTrain"] = {"token": "saved", "vectors": 3, "steps": 45, "learning_rate": 1e-7, "sample_prompts": "a\nb"}
CHANGED["CaptionWithToken"] = {"token": "saved", "class_word": "owl"}
CHANGED["DatasetLoader"] = {"folder": "saved", "resolution": 640, "mask_weight": 0.5, "flip": True}
CHANGED["LoadFinetuned"] = {"run": "saved"}
CHANGED["EvaluateSubject"] = {"prompt": "a saved prompt", "copy_threshold": 0.875}


@pytest.mark.parametrize("node_type", CHANGED)
@pytest.mark.parametrize("missing", [0, 3, None])
def test_a_file_of_this_version_opens_with_its_values_in_place(opened, node_type, missing):
    """Also where the node has got a widget that the file does not know: then every later value is a place too early in it."""
    graph = json.loads(SAVED.read_text(encoding="utf-8"))
    (saved,) = (n for n in graph["nodes"] if n["type"] == node_type)
    by_name = saved["properties"]["subject_trainer_values"]
    assert list(by_name.values()) == saved["widgets_values"]  # both in the order of the widgets
    if missing is not None:
        unchanged = [name for name in by_name if name not in CHANGED[node_type]]
        added = unchanged[missing % len(unchanged)]
        del saved["widgets_values"][list(by_name).index(added)]
        del by_name[added]
    load_workflow(opened, graph)
    values = opened.execute_script(
        TRAIN + "return Object.fromEntries(node.widgets.filter((w) => w.serialize !== false).map((w) => [w.name, w.value]))",
        node_type,
    )
    made = opened.execute_script(
        "const node = window.LiteGraph.createNode(arguments[0])\n"
        "return Object.fromEntries(node.widgets.filter((w) => w.serialize !== false).map((w) => [w.name, w.value]))",
        node_type,
    )
    assert values == made | CHANGED[node_type]


TYPED = {"learning_rate": "2.25e-6", "text_learning_rate": "5e-8", "ema_decay": "0.999985", "lora_alpha": "0.001"}
TYPED |= {"prior_loss_weight": "0.125", "weight_decay": "1e-5", "max_grad_norm": "0.005", "min_snr_gamma": "2.25"}
TYPED |= {"noise_offset": "0.0357", "caption_dropout": "0.125", "seed": "9007199254740991", "norm_limit": "1.25"}
TYPED |= {"resolution": "500", "mask_weight": "0.333", "view_jitter": "0.025", "color_jitter": "0.033", "light_jitter": "0.0725"}
TYPED |= {"copy_threshold": "0.955"}
"""What users may mean, and more exactly than the arrows of a widget go. Of other widgets, 3."""
NUMBERS = "return node.widgets.filter((w) => w.type === 'number').map((w) => [w.name, w.value])"
ALONE = """
    const { app, LiteGraph } = window
    app.graph.clear()
    const node = LiteGraph.createNode(arguments[0])
    app.graph.add(node)
    node.showAdvanced = true
    node.onConnectionsChange?.()
"""
INVERSION = pytest.param(["TextualInversionTrain"], id="inversion", marks=pytest.mark.nightly)
OTHERS = pytest.param(["DatasetLoader", "EvaluateSubject", "DreamBoothTrain"], id="others")


@pytest.mark.parametrize("node_types", [OTHERS, INVERSION])
def test_what_is_typed_is_what_is_used(either, node_types):
    for node_type in node_types:
        check_typed(either, node_type)


def check_typed(page, node_type: str) -> None:
    page.execute_script(ALONE, node_type)
    numbers = [name for name, _ in page.execute_script(TRAIN + NUMBERS, node_type)]
    if node_type in FIRST:
        for name, value in {"hold_out": 1, "sample_prompts": "a toy", "preset": "auto", "class_images": 1}.items():
            if node_type == "DreamBoothTrain" or name != "class_images":
                set_value(page, name, value, node_type)
        method = {"DreamBoothTrain": "dreambooth", "TextualInversionTrain": "textual_inversion"}[node_type]
        assert set(numbers) == {name for name, f in method_settings(method).items() if f.type in (int, float)}
    bring_into_sight(page, node_type)
    wait(page, lambda: set(numbers) <= seen(page, node_type), 20)
    typed = {name: TYPED.get(name, "3") for name in numbers}
    for name, text in typed.items():
        type_number(page, node_type, name, text)
    type_number(page, node_type, numbers[-1], None)
    assert dict(page.execute_script(TRAIN + NUMBERS, node_type)) == {name: float(text) for name, text in typed.items()}
    (queued,) = (n["inputs"] for n in queued_prompt(page).values() if n["class_type"] == node_type)
    assert {name: queued[name] for name in numbers} == {name: float(text) for name, text in typed.items()}


ARROWS = [("DreamBoothTrain", "max_grad_norm", 0.29, 0.3), ("DreamBoothTrain", "steps", 7, 8)]
ARROWS += [("DatasetLoader", "resolution", 512, 520), ("EvaluateSubject", "copy_threshold", 0.955, 0.965)]


def test_the_arrows_of_a_number_go_by_its_step(either):
    """From where it is, and without what adding them in binary leaves behind: 0.29 + 0.01 is 0.3."""
    page = either
    for node_type, name, start, then in ARROWS:
        page.execute_script(ALONE, node_type)
        set_value(page, name, start, node_type)
        bring_into_sight(page, node_type)
        wait(page, lambda node_type=node_type, name=name: name in seen(page, node_type), 20)
        click(page, node_type, name, 0.93, "[data-testid=increment]")
        wait(page, lambda node_type=node_type, name=name, start=start: value_of(page, node_type, name) != start, 10)
        assert value_of(page, node_type, name) == then


def value_of(page, node_type: str, name: str):
    return dict(page.execute_script(TRAIN + NUMBERS, node_type))[name]


PLACE = """
    const widget = node.widgets.find((w) => w.name === arguments[1]), { canvas, ds } = window.app.canvas
    if (window.LiteGraph.vueNodesMode) {
      const rows = [...document.querySelectorAll(`[data-node-id="${node.id}"] .lg-node-widget`)]
      return rows.find((row) => row.innerText.split("\\n")[0] === arguments[1]).querySelector(arguments[3])
    }
    const box = canvas.getBoundingClientRect()
    const x = (node.pos[0] + node.size[0] * arguments[2] + ds.offset[0]) * ds.scale
    const y = (node.pos[1] + widget.last_y + 10 + ds.offset[1]) * ds.scale
    return [box.left + x, box.top + y]
"""
"""Where a widget is: a place on the canvas, so far to the right in the node, or its element of the page."""


def click(page, node_type: str, name: str, right: float, selector: str):
    """Click the widget there; return what was clicked, an element or a place."""
    found = page.execute_script(TRAIN + PLACE, node_type, name, right, selector)
    actions = ActionChains(page)
    if isinstance(found, list):
        actions.w3c_actions.pointer_action.move_to_location(int(found[0]), int(found[1])).click()
    else:
        page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", found)
        actions.move_to_element(found).click()
    actions.perform()
    return found


def type_number(page, node_type: str, name: str, text: str | None) -> None:
    """Click the widget, and type over what it has; None leaves it again."""
    found = click(page, node_type, name, 0.5, "input")
    if isinstance(found, list):
        found = wait(page, lambda: page.find_elements(By.CSS_SELECTOR, ".graphdialog input"), 10)[0]
    found.send_keys(*([] if text is None else [Keys.CONTROL + "a", Keys.NULL, text]), Keys.ENTER)
    wait(page, lambda: not page.find_elements(By.CSS_SELECTOR, ".graphdialog input"), 10)
