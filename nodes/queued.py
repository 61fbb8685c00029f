"""Checks the inputs of a node when its graph is queued, before anything of it runs."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io
from safetensors import safe_open

from ..trainer.dataset.captions import DEFAULT_TEMPLATE, class_prompt, plain
from ..trainer.dataset.folder_files import photo_names
from ..trainer.dataset.photos import Dataset, check_hold_out
from ..trainer.run.choice import Asked, check_widgets, given_lora, may_be_finished, never_fits, unknown_photos
from ..trainer.run.messages import UserError
from ..trainer.run.setting import AUTO
from ..trainer.run.settings import method_settings
from .comfy import device
from .comfy.completeness import UNET
from .comfy.embeddings import check_is_there
from .comfy.folders import photo_folder, runs_root
from .comfy.lora_files import lora_rank
from .inputs import SOCKETS, coerce_input
from .page.checked_graph import checked_inputs_of, other_nodes, source_inputs, switched_off
from .page.language import text_for_checked_page

log = logging.getLogger("subject_trainer")

LOADER = "CheckpointLoaderSimple"
SAME_UNET = ("LoraLoader", "LoraLoaderModelOnly", "DreamBoothTrain")
"""Nodes whose MODEL is as large as the one that they get."""
SAME_CLIP = ("LoraLoader", "CLIPSetLastLayer")
"""Nodes whose CLIP knows the words of the one that they get."""


def answer(*checks: Callable[[], object]) -> bool | str:
    """Return what `validate_inputs` answers: True, or the sentence of the first UserError that a check raises, for the page."""
    try:
        for check in checks:
            check()
    except UserError as error:
        return text_for_checked_page(error.message)
    return True


def check_text(name: str, check: Callable[[str], object], value: Any) -> None:
    """Let `check` judge the text of an input, `name`; one that comes by a link is None here, and judged when the node runs."""
    if value is not None:
        check(coerce_input(name, "STRING", value))


def check_wired(node: type[io.ComfyNode]) -> None:
    """Raise UserError for a socket that needs something and gets nothing.

    ComfyUI's own words name the input alone. Most often the node before it is muted or bypassed, and the page leaves it out.
    """
    node_id = node.hidden.unique_id
    inputs = checked_inputs_of(node_id)
    for needed in (node.SCHEMA or node.define_schema()).inputs:
        if needed.optional or needed.id in inputs or isinstance(needed, io.WidgetInput) or needed.io_type not in SOCKETS:
            continue
        kind, off = SOCKETS[needed.io_type][1], switched_off(node_id, needed.id)
        if off is None:
            raise UserError("Nothing comes to {input}. Wire to it: {kind}.", input=needed.id, kind=kind)
        raise UserError(
            "Nothing comes to {input}: {node} is {state}. Switch it on again, or wire to {input}: {kind}.",
            input=needed.id,
            node=off[0],
            state=off[1],
            kind=kind,
        )


def training_checks(method: str, node: type[io.ComfyNode]) -> list[Callable[[], object]]:
    """Return what is checked of a training node in the graph that is being checked: its sockets, and its settings together.

    The graph is asked for them, because ComfyUI leaves its own checks of bounds and options out for what `validate_inputs` names,
    and would list one sentence for each of these inputs.
    """
    inputs = checked_inputs_of(node.hidden.unique_id)
    return [partial(check_wired, node), partial(_check_settings, method, inputs)]


def _check_settings(method: str, inputs: dict) -> None:
    """Raise UserError where settings contradict each other or what is known of the photos, or cannot fit the device."""
    try:
        count = queued_photos(inputs)
        known = {"no_embedding": has_no_embedding(inputs), "start_rank": lora_rank(inputs.get("start_lora"))}
        check_widgets(method, inputs, count, described(inputs), **known)
        if count and isinstance(inputs.get("hold_out"), int):
            check_hold_out(inputs["hold_out"], count)
        check_memory(method, inputs)
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, ArithmeticError):  # a value of another type, which ComfyUI's own check refuses
        log.debug("The settings %s are not checked together", inputs, exc_info=True)


def loader_of(inputs: dict, name: str = "dataset") -> dict | None:
    """Return the inputs of the photo loader that a dataset comes from; None where it comes from elsewhere."""
    return source_inputs(inputs, name, "DatasetLoader", through=("CaptionWithToken",))


def caption_inputs(inputs: dict) -> dict[str, str]:
    """Return what a node's dataset is captioned with, token, class_word and template, as far as the graph says it."""
    given = source_inputs(inputs, "dataset", "CaptionWithToken") or {}
    return {name: value for name in ("token", "class_word", "template") if isinstance(value := given.get(name), str)}


def described(inputs: dict) -> Dataset:
    """Return what is known of a node's dataset in the graph that is being checked: its class, and how much masks count."""
    dataset, said, loader = unknown_photos(512), caption_inputs(inputs), loader_of(inputs) or {}
    if "class_word" in said:
        word = plain(said["class_word"])
        dataset = replace(dataset, class_word=word, class_prompt=class_prompt(DEFAULT_TEMPLATE, word))
    if isinstance(loader.get("mask_weight"), int | float):
        dataset = replace(dataset, mask_weight=loader["mask_weight"])
    return dataset


def has_no_embedding(inputs: dict) -> bool:
    """Return whether a node's token has no embedding to start from, as far as the graph says it: its CLIP may bring one."""
    given = inputs.get("embedding", "")
    return isinstance(given, str) and not given.strip() and source_inputs(inputs, "clip", LOADER, SAME_CLIP) is not None


def check_embedding(node_id: str, name: str, value: Any) -> None:
    """Raise UserError where a text that names an embedding names none. Another training node of the graph may write it yet."""
    if isinstance(value, str) and value.strip() and not other_nodes(node_id, ("TextualInversionTrain", "DreamBoothTrain")):
        check_text(name, check_is_there, value)


def queued_photos(inputs: dict) -> int | None:
    """Return how many photos the dataset of a node in the graph that is being checked has, where its folder alone says so."""
    loader = loader_of(inputs) or {}
    if "images" in loader or not isinstance(loader.get("folder"), str):
        return None
    try:
        return len(photo_names(photo_folder(loader["folder"])))
    except (UserError, OSError):  # the loader says so
        return None


def check_memory(method: str, inputs: dict) -> None:
    """Raise UserError where the device cannot train the run, or has too little memory, whatever the photos: as when it runs.

    Where a setting, the size of the photos or the base is known only then, nothing is said now.
    """
    widgets = {name: inputs[name] for name in method_settings(method) if name in inputs}
    preset, resolution = inputs.get("preset", AUTO), (loader_of(inputs) or {}).get("resolution")
    class_loader = loader_of(inputs, "class_dataset")
    wired = any(isinstance(value, list) for value in widgets.values())
    unknown_class = "class_dataset" in inputs and class_loader is None
    if isinstance(preset, list) or wired or unknown_class or not isinstance(resolution, int):
        return
    base = source_inputs(inputs, "model", LOADER, SAME_UNET) or {}
    weights = unet_weights(base.get("ckpt_name"))
    devices = widgets.get("devices", 1)
    if not weights or device.refusal(devices):  # of devices that cannot train at all, the run says so
        return
    photos = unknown_photos(resolution)
    asked = Asked(
        method=method,
        preset=preset,
        widgets=widgets,
        known={"token": "token"},
        dataset=photos,
        class_dataset=photos if class_loader else None,
        start_lora=given_lora(inputs),
        start_rank=lora_rank(inputs.get("start_lora")),
        unet_weights=weights,
    )
    refused = never_fits(asked, device.description(devices))
    if refused and not may_be_finished(asked, refused.settings, runs_root()):
        raise UserError(refused.told.template, **refused.told.values)


def unet_weights(checkpoint: Any) -> int:
    """Return how many weights the U-Net of one of ComfyUI's checkpoints has by the file's header, 0 where it does not say."""
    path = folder_paths.get_full_path("checkpoints", checkpoint) if isinstance(checkpoint, str) else None
    if path is None or Path(path).suffix != ".safetensors":
        return 0
    try:
        with safe_open(path, "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys() if name.startswith(UNET)]  # noqa: SIM118
    except Exception:  # of any kind: the loader says what is wrong with it
        return 0
    return sum(map(math.prod, shapes))
