"""What the nodes of this pack share: sockets, and the widgets that a method's settings become.

A setting is said once, in `trainer/run/setting_groups.py`; here it becomes an input of a node. `trainer/run/choice.py` makes
settings of the inputs' values.
"""

import dataclasses
from typing import Any

from comfy_api.latest import io

from ..trainer.run.presets import for_page, presets
from ..trainer.run.setting import AUTO, Setting
from ..trainer.run.settings import method_settings, widget_default, widget_options

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
