"""What the nodes of this pack share: sockets, and the widgets that a method's settings become.

A setting is said once, in `trainer/run/setting_groups.py`; here it becomes an input of a node, and a node's values
become settings.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..trainer.run.messages import UserError
from ..trainer.run.names import TEXTUAL_INVERSION
from ..trainer.run.setting_groups import Setting
from ..trainer.run.settings import AUTO, Settings, method_settings, widget_default
from .inputs import as_meant
from .page.language import text_for_checked_page

CATEGORY = "Subject Trainer"
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


def validation(name: str, check: Callable[[str], object], value: Any) -> bool | str:
    """Return what `validate_inputs` answers: True, or the sentence of the UserError that `check` raises, for the page.

    A value that comes by a link is None here; the node checks it when it runs. `name` is that of the text's input.
    """
    try:
        if value is not None:
            check(as_meant(name, "STRING", value))
    except UserError as error:
        return text_for_checked_page(error.message)
    return True


def setting_inputs(method: str) -> list[io.Input]:
    """Return the widgets of a method's settings (one of METHODS), in their order.

    All are optional, so that a graph which does not name them gets the defaults.
    """
    return [_setting_input(f, method) for f in method_settings(method).values()]


def _setting_input(f: dataclasses.Field, method: str) -> io.Input:
    setting: Setting = f.metadata["setting"]
    common: dict[str, Any] = {
        "id": f.name,
        "optional": True,
        "default": widget_default(f, method),
        "advanced": setting.advanced,
        "tooltip": setting.tooltip,
    }
    if setting.options:
        return io.Combo.Input(options=[*([AUTO] if setting.offers_auto else []), *setting.options], **common)
    if f.type is bool:
        return io.Boolean.Input(**common)
    if f.type in (int, float):
        step = setting.inversion_step if method == TEXTUAL_INVERSION and setting.inversion_step else setting.step
        bounds: dict[str, Any] = {"min": setting.low, "max": setting.high, "step": step}
        if f.type is float:
            return io.Float.Input(**common, **bounds, round=1e-9)
        if f.name == "seed":  # the page changes such a widget after each queueing, and every queueing would train anew
            bounds["control_after_generate"] = False
        return io.Int.Input(**common, **bounds)
    return io.String.Input(**common, multiline=setting.multiline, placeholder=setting.placeholder)


def settings_from(method: str, widgets: dict[str, Any], **more: Any) -> Settings:
    """Return the settings of a node's widgets, by name, and of what else is known of them.

    The prompts become a tuple, and the intervals that 0 leaves open are resolved. Raises UserError where the values contradict
    each other.
    """
    defaults = {f.name: widget_default(f, method) for f in method_settings(method).values()}
    values = defaults | widgets
    prompts = tuple(" ".join(line.split()) for line in values["sample_prompts"].splitlines() if line.strip())
    steps = values["steps"]
    values["sample_prompts"] = prompts
    values["sample_every"] = (values["sample_every"] or max(1, steps // 8)) if prompts else 0
    values["validate_every"] = values["validate_every"] or (max(1, steps // 20) if values["hold_out"] else 0)
    return Settings.of(method=method, **{**values, **more})
