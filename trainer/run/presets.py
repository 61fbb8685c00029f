"""What settings are where their user leaves them to the preset. Plain data, no torch.

`given` says which settings the widgets of a training node name, `candidates` puts a value in the place of all others: one set for
a preset, several for `auto`, of which choice.py takes the first that fits the device.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..parts import TRAIN, unused_by_train
from .checks import check_option
from .devices import SHARED
from .messages import UserError
from .names import DREAMBOOTH, NO_LORA, TEXTUAL_INVERSION, WIRED_LORA
from .setting import AUTO
from .settings import SWITCH, Settings, method_settings, plain_default

if TYPE_CHECKING:
    from ..parts import PartTypes

OWN = "own settings"
RATES = ("learning_rate", "text_learning_rate")
LORA_SETTINGS = ("lora_kind", "lora_rank", "lora_alpha", "lora_layers")

NAMED: dict[str, dict[str, Any]] = {
    "study, 24 GB": {
        "train": "unet_and_token",
        "steps": 1600,
        "batch_size": 8,
        "learning_rate": 2e-6,
        "text_learning_rate": 0.0,  # the same as learning_rate
        "precision": "bf16",
        "gradient_checkpointing": True,
        "optimizer": "adamw_8bit",
    },
    "paper, 24 GB": {"train": "unet", "class_images": 200, "steps": 1000, "learning_rate": 5e-6},
    "12 GB card": {
        "train": "unet_and_token",
        "class_images": 100,
        "gradient_checkpointing": True,
        "optimizer": "adamw_8bit",
    },
    "8 GB card (LoRA)": {
        "train": "lora",
        "class_images": 100,
        "gradient_checkpointing": True,
        "lr_scheduler": "cosine",
        "optimizer": "adamw_8bit",
    },
}
"""What each preset says. The rest is by what is trained, and else the settings' own defaults."""

FULL = {"train": "unet_and_token", "batch_size": 4}
LORA = {"train": "lora"}
WHOLE_MODEL = [
    FULL,
    FULL | {"optimizer": "adamw_8bit"},
    FULL | {"optimizer": "adamw_8bit", "gradient_checkpointing": True},
    FULL | {"optimizer": "adamw_8bit", "batch_size": 1},
    FULL | {"optimizer": "adamw_8bit", "batch_size": 1, "gradient_checkpointing": True},
]
"""What `auto` tries first, from the most memory to the least. 8-bit AdamW saves 5 GB; for a LoRA it would save 0.02."""
_LOW_MEMORY = {"optimizer": "adamw_8bit", "gradient_checkpointing": True, "low_memory": True}
SMALL_CARDS = [FULL | _LOW_MEMORY, FULL | _LOW_MEMORY | {"batch_size": 1}]
"""What it tries then, where the device has not the computer's own memory: all that it saves goes there, or takes time."""
ADAPTERS = [LORA, LORA | {"gradient_checkpointing": True}]
EMBEDDING: list[dict[str, Any]] = [{}, {"gradient_checkpointing": True}]


def presets(method: str) -> tuple[str, ...]:
    """Return the choices of the widget `preset` in the node of a method, its default first."""
    return (AUTO, *NAMED, OWN) if method == DREAMBOOTH else (AUTO, OWN)


def check_preset(preset: str, method: str) -> None:
    """Raise UserError for a preset that the method's node does not have."""
    check_option("preset", preset, presets(method))


def given(method: str, widgets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a preset could decide and the widgets do, by name."""
    found = {}
    for name, f in method_settings(method).items():
        auto = f.metadata["setting"].auto
        if auto is not None and name in widgets and widgets[name] != auto:
            found[name] = SWITCH.get(widgets[name], widgets[name]) if f.type is bool else widgets[name]
    return found


def steps_for(method: str, photos: int) -> int:
    """Return how many steps a run on so many photos takes where nobody says it.

    100 for each photo are about what the study (1,600 for 15), diffusers' example of DreamBooth (400 for 5) and what is usual
    with kohya's scripts (100 repeats) have in common, whatever their batch. The bounds are diffusers' 400 and a run of hours.
    Embeddings take the 3,000 steps of diffusers' example of Textual Inversion, and fewer with few photos.
    """
    if method == TEXTUAL_INVERSION:
        return min(max(200 * photos, 2000), 3000)
    return min(max(100 * photos, 400), 3000)


def candidates(
    method: str,
    preset: str,
    widgets: Mapping[str, Any],
    photos: int,
    *,
    class_dataset: bool,
    device_kind: str,
    start_lora: str = "",
) -> list[dict[str, Any]]:
    """Return the values of all settings that presets decide, the best first: several for `auto`, else one.

    What the widgets give holds in all of them. `start_lora`: the name of a LoRA to go on from, if there is one. Raises UserError
    where this cannot go together with the preset.
    """
    check_preset(preset, method)
    own = given(method, widgets)
    recipes = _auto(method, own, device_kind, start_lora) if preset == AUTO else [NAMED.get(preset, {})]
    found = [_completed(method, recipe, own, photos, class_dataset, widgets) for recipe in recipes]
    for values in found if method == DREAMBOOTH else ():
        begun = {"lora" if start_lora == WIRED_LORA else "start_lora": start_lora} if start_lora else {}
        _check_trained(own | begun, values["train"])
    return found


def with_rank(values: dict[str, Any], own: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """Return the values with the rank of the LoRA that is gone on from; 0: it is not known.

    Raises UserError where another one was given: no run can go on at another rank.
    """
    if not rank:
        return values
    if own.get("lora_rank", rank) != rank:
        raise UserError(
            "lora_rank is {rank}, but the LoRA to go on from has {theirs}. Set lora_rank to {theirs}, or to 0, which takes it "
            "from there.",
            rank=own["lora_rank"],
            theirs=rank,
        )
    return {**values, "lora_rank": rank, **({} if "lora_alpha" in own else {"lora_alpha": float(rank)})}


def widget_values(method: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the widgets have for settings which presets decide, by name, where they mean something."""
    found = {}
    for name, f in method_settings(method).items():
        if f.metadata["setting"].auto is not None and name in settings:
            found[name] = ("on" if settings[name] else "off") if f.type is bool else settings[name]
    if found.get("optimizer") == "prodigy":
        found = {name: value for name, value in found.items() if name not in RATES}
    if found.get("train") in TRAIN:
        unet, *text = _parts(found["train"])
        if unet.result_kind != "lora":
            found = {name: value for name, value in found.items() if name not in LORA_SETTINGS}
        if text and text[0].learning_rate and found.get("text_learning_rate") == 0:  # which leaves it to the preset in a widget
            found["text_learning_rate"] = found["learning_rate"]
    return found


def for_page(method: str) -> dict[str, Any]:
    """Return what the page must know of presets, in the values of widgets.

    `decided`: the settings that they decide; `named`: what each of them says; `plain`: what "own settings" takes by the widget
    `train`, but for what the photos and the device decide; `unused`: the settings that mean nothing, by `train`, and those
    beside an embedding that is given.
    """
    plain = {}
    for choice in (AUTO, *TRAIN) if method == DREAMBOOTH else (AUTO,):
        (values,) = candidates(method, OWN, {"train": choice}, 1, class_dataset=False, device_kind="")
        said = widget_values(method, values)
        plain[choice] = {name: value for name, value in said.items() if name not in ("steps", "precision")}
    return {
        "decided": [name for name, f in method_settings(method).items() if f.metadata["setting"].auto is not None],
        "named": {preset: widget_values(method, NAMED[preset]) for preset in presets(method) if preset in NAMED},
        "plain": plain,
        "unused": _unused(method, has_embedding=False),
        "unused_beside_embedding": _unused(method, has_embedding=True),
    }


def _unused(method: str, has_embedding: bool) -> dict[str, list[str]]:
    choices = TRAIN if method == DREAMBOOTH else ()
    settings = {choice: Settings.of(method=method, token="token", train=choice) for choice in choices}
    return {choice: sorted(unused_by_train(settings[choice], has_embedding)) for choice in choices}


def _auto(method: str, own: Mapping[str, Any], device_kind: str, start_lora: str) -> list[dict[str, Any]]:
    if method == TEXTUAL_INVERSION:
        return EMBEDDING
    whole_model = [*WHOLE_MODEL, *([] if device_kind in SHARED else SMALL_CARDS)]
    if "train" in own:
        return ADAPTERS if _parts(own["train"])[0].result_kind == "lora" else whole_model
    adapters = [recipe | {"train": "lora_and_token"} for recipe in ADAPTERS] if "text_learning_rate" in own else ADAPTERS
    if start_lora or any(name in own for name in LORA_SETTINGS):  # a LoRA is meant
        return adapters
    if device_kind == "cpu":  # time decides there, not memory
        return adapters
    return [*whole_model, *adapters]


def _completed(
    method: str, recipe: dict[str, Any], own: dict[str, Any], photos: int, class_dataset: bool, widgets: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the recipe with what was given in its place, and with all that neither of them says."""
    plain = {n: plain_default(f, method) for n, f in method_settings(method).items() if f.metadata["setting"].auto is not None}
    plain["steps"] = steps_for(method, photos)
    devices, prior = widgets.get("devices", 1), widgets.get("prior", "class_images")
    taught = prior != "class_images"
    prodigy = own.get("optimizer") == "prodigy"
    if prodigy or own.get("train", recipe.get("train")) != recipe.get("train"):  # then its rates are those of something else
        recipe = {name: value for name, value in recipe.items() if name not in RATES}
    if method == DREAMBOOTH:
        unet, *text = _parts((plain | recipe | own)["train"])
        plain["learning_rate"] = unet.learning_rate
        plain["text_learning_rate"] = text[0].learning_rate if text and not prodigy else 0.0
    if prodigy:
        plain["learning_rate"] = 1.0
    if taught:
        recipe = recipe | {"class_images": 0}
    if class_dataset:
        if taught:
            raise UserError(
                "prior is {prior}, which needs no class images: unwire class_dataset, or set prior to class_images.", prior=prior
            )
        recipe = recipe | {"class_images": 0}
        if own.get("class_images"):
            raise UserError("Class images come from class_dataset: set class_images to 0, or unwire class_dataset.")
    values = plain | recipe | own
    if method == DREAMBOOTH and "lora_alpha" not in own:
        values["lora_alpha"] = float(values["lora_rank"])
    if "batch_size" not in own:
        values["batch_size"] = max(values["batch_size"] // devices, 1) * devices
    return values


def _parts(train: str) -> "PartTypes":
    """Return the parts that a value of `train` names. Raises UserError for a value that is none."""
    check_option("train", train, tuple(TRAIN))
    return TRAIN[train]


def _check_trained(own: Mapping[str, Any], train: str) -> None:
    """Raise UserError for what was given that only a LoRA has, or a text side, although `train` trains none."""
    unet, *text = _parts(train)
    if unet.result_kind == "lora":
        return  # and beside it there may be an embedding that learns on
    _check_no_lora(own, train)
    if not text:
        check_text_rate(own, train)


def _check_no_lora(own: Mapping[str, Any], train: str) -> None:
    left = {name: in_words(method_settings(DREAMBOOTH)[name].metadata["setting"].auto) for name in LORA_SETTINGS}
    if "lora" in own:
        raise UserError(
            "{name} is {value}, but no LoRA is trained: train is {train}. Set train to lora, or unwire {name}.",
            name="lora",
            value=own["lora"],
            train=train,
        )
    for name, auto in {**left, "start_lora": NO_LORA}.items():
        if name in own:
            raise UserError(
                "{name} is {value}, but no LoRA is trained: train is {train}. Set train to lora, or {name} back to {auto}.",
                name=name,
                value=in_words(own[name]),
                train=train,
                auto=auto,
            )


def check_text_rate(own: Mapping[str, Any], train: str) -> None:
    """Raise UserError for a rate of the text side that was given although `train` trains nothing of it."""
    if "text_learning_rate" in own:
        raise UserError(
            "text_learning_rate is {value:g}, but no token and no text encoder is trained: train is {train}. Set train to "
            "{train}_and_token, or text_learning_rate back to 0.",
            value=own["text_learning_rate"],
            train=train,
        )


def in_words(value: Any) -> str:
    """Return the value of a setting as a sentence has it: 0 and not 0.0, on and not True."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
