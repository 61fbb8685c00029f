"""What the nodes of this pack share: sockets, and the widgets that a method's settings become.

A setting is said once, in `trainer/run/setting_groups.py`; here it becomes an input of a node. `trainer/run/choice.py` makes
settings of the inputs' values.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..trainer.dataset.folder_files import photo_names
from ..trainer.dataset.photos import check_hold_out
from ..trainer.run.choice import check_widgets
from ..trainer.run.messages import UserError
from ..trainer.run.presets import for_page, presets
from ..trainer.run.setting import AUTO, Setting
from ..trainer.run.settings import method_settings, widget_default, widget_options
from .comfy.folders import photo_folder
from .inputs import as_meant
from .page.language import checked_node, text_for_checked_page

log = logging.getLogger("subject_trainer")

CATEGORY = "Subject Trainer"
SEARCHED = ["dreambooth", "lora", "finetune", "fine-tune", "train", "subject", "face", "character", "style"]
SEARCHED += ["textual inversion", "embedding"]
"""What people who look for any of these nodes type."""
Dataset = io.Custom("SUBJECT_DATASET")
LossMap = io.Custom("LOSS_MAP")  # as in ComfyUI's own training nodes, so that "Plot Loss Graph" takes it

BASE_INPUTS = [
    io.Model.Input(
        "model",
        tooltip="The base model: SD v1.5 or a model fine-tuned from it. Load LoRA before it is baked into the base. What acts "
        "only while sampling, such as FreeU or IP-Adapter, is not trained through, and stays on the MODEL.",
    ),
    io.Clip.Input(
        "clip",
        tooltip="The base model's text encoder. With CLIP Set Last Layer before it, training reads prompts from that layer, and "
        "the CLIP of the result does, too.",
    ),
    io.Vae.Input("vae", tooltip="The base model's VAE. It turns the photos into latents."),
]


def answer(check: Callable[[], object]) -> bool | str:
    """Return what `validate_inputs` answers: True, or the sentence of the UserError that `check` raises, for the page."""
    try:
        check()
    except UserError as error:
        return text_for_checked_page(error.message)
    return True


def validation(name: str, check: Callable[[str], object], value: Any) -> bool | str:
    """Return the answer of `check` about the text of an input, `name`.

    A value that comes by a link is None here; the node checks it when it runs.
    """
    return answer(lambda: value is None or check(as_meant(name, "STRING", value)))


def check_queued(method: str, node_id: str) -> None:
    """Raise UserError where the settings of a node in the graph that is being checked contradict each other.

    The graph is asked for them, because ComfyUI leaves its own checks of bounds and options out for what `validate_inputs` names,
    and would list one sentence for each of these inputs.
    """
    inputs = checked_node(node_id)
    try:
        check_widgets(method, inputs)
        count = queued_photos(inputs)
        if count and isinstance(inputs.get("hold_out"), int):
            check_hold_out(inputs["hold_out"], count)
    except TypeError:  # a value of another type, which ComfyUI's own check has refused
        log.debug("The settings of node %s are not checked together", node_id, exc_info=True)


def queued_photos(inputs: dict) -> int | None:
    """Return how many photos the dataset of a node in the graph that is being checked has, where its folder alone says so."""
    passed = set()
    while isinstance(link := inputs.get("dataset"), list) and link[0] not in passed:
        passed.add(link[0])
        inputs = checked_node(link[0])
    if "images" in inputs or not isinstance(inputs.get("folder"), str):
        return None
    try:
        return len(photo_names(photo_folder(inputs["folder"])))
    except (UserError, OSError):  # the loader says so
        return None


def preset_input(method: str, tooltip: str) -> io.Input:
    """Return the widget that decides all settings that are left to it."""
    return io.Combo.Input(
        "preset", options=list(presets(method)), default=AUTO, tooltip=tooltip, extra_dict={"presets": for_page(method)}
    )


def setting_inputs(method: str) -> list[io.Input]:
    """Return the widgets of a method's settings (one of METHODS), in their order.

    All are optional, so that a graph which does not name them gets the defaults.
    """
    return [_setting_input(f) for f in method_settings(method).values()]


def _setting_input(f: dataclasses.Field) -> io.Input:
    setting: Setting = f.metadata["setting"]
    common: dict[str, Any] = {
        "id": f.name,
        "optional": True,
        "default": widget_default(f),
        "advanced": setting.advanced,
        "tooltip": setting.tooltip,
    }
    if options := widget_options(f):
        return io.Combo.Input(options=list(options), **common)
    if f.type is bool:
        return io.Boolean.Input(**common)
    if f.type in (int, float):
        bounds: dict[str, Any] = {"min": setting.widget_low, "max": setting.high, "step": 1 if f.type is int else setting.step}
        if f.type is float:
            return io.Float.Input(**common, **bounds, round=1e-9)
        if f.name == "seed":  # the page changes such a widget after each queueing, and every queueing would train anew
            bounds["control_after_generate"] = False
        return io.Int.Input(**common, **bounds)
    return io.String.Input(**common, multiline=setting.multiline, placeholder=setting.placeholder)
