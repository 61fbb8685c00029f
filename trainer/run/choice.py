"""What a training node trains: settings out of its widgets, its preset, its photos and the device. Plain data, no torch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..dataset.captions import check_class_word
from ..dataset.photos import Dataset
from ..parts import part_types, unused_settings
from ..parts.memory import SD15_UNET_WEIGHTS
from .devices import Device, low_memory_refusal, precision_refusal
from .messages import Message, UserError, message
from .names import DREAMBOOTH, NO_LORA, WIRED_LORA
from .presets import LORA_SETTINGS, NAMED, OWN, candidates, check_text_rate, given, in_words, widget_values, with_rank
from .resources import DRIVER, GB, estimate, refusal
from .run_dir import Run, finished_runs, passed_over
from .setting import AUTO
from .setting_groups import MAX_STEPS
from .settings import Settings, method_settings, widget_default

SHARE = {"cuda": 0.9, "xpu": 0.9}
"""How much of a device's memory `auto` fills: a desktop and other programs take some of a card."""
SHARED_SHARE = 0.6
"""The same where the device has the computer's own memory, as a CPU and a Mac do."""
WHERE_UNKNOWN = {"hold_out": 1, "steps": MAX_STEPS}
"""What settings are taken for that are not known yet and whose defaults could contradict others."""
LEAST_DEMANDING = {"steps": MAX_STEPS, "vectors": 1}
"""What stands for settings that photos and embeddings decide: as many steps as contradict nothing, as little as can be held."""
KNOWN_LATER = {"token", "class_word", "class_prompt", "initializer", "vectors", "text_layer", "validate_every"}
"""What settings a graph that is being checked does not tell of, whatever its widgets say."""
OPTIMIZERS = {"adamw": "AdamW", "adamw_8bit": message("8-bit AdamW"), "adafactor": "Adafactor", "prodigy": "Prodigy"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a training node was asked for."""

    method: str
    preset: str
    widgets: Mapping[str, Any]
    """Values by the names of settings; one that is missing has its widget's default."""
    known: Mapping[str, Any]
    """Settings that the graph gives: token, class_word, initializer."""
    dataset: Dataset
    class_dataset: Dataset | None = None
    embedding: str = ""
    """Whatever names the vectors that the token starts from, if there are any."""
    start_lora: str = ""
    """The name of a LoRA to go on from, if there is one."""
    start_rank: int = 0
    """Its rank, 0 where that is not known."""
    unet_weights: int = SD15_UNET_WEIGHTS
    base_bytes: float = 4.3 * GB

    @property
    def photos(self) -> int:
        """Return how many photos are trained on."""
        return max(1, len(self.dataset.photos) - self.widgets.get("hold_out", 0))


@dataclass(frozen=True)
class Choice:
    """What is trained."""

    settings: Settings
    told: Message
    """The same in a sentence, with numbers."""


def choose(asked: Asked, device: Device) -> Choice:
    """Return what the preset, the widgets and the device make of the settings.

    `auto` takes the first of its sets that fits the device, and the smallest where none does, for the check of the resources to
    refuse. Raises UserError where the values contradict each other.
    """
    *_, last = choices(asked, device)
    return last


def choices(asked: Asked, device: Device) -> Iterator[Choice]:
    """Yield what `auto` would choose if ComfyUI's models held nothing, then what is smaller, and last what it does choose.

    That is one and the same where they hold nothing, or it is no `auto`.
    """
    room = SHARE.get(device.kind, SHARED_SHARE) * device.memory
    sets = candidates(
        asked.method,
        asked.preset,
        asked.widgets,
        asked.photos,
        class_dataset=asked.class_dataset is not None,
        device_kind=device.kind,
        start_lora=asked.start_lora,
    )
    own = given(asked.method, asked.widgets)
    for number, values in enumerate(with_rank(values, own, asked.start_rank) for values in sets):
        if values["optimizer"] == "adamw_8bit" and not device.eight_bit:  # AdamW takes the same steps, Adafactor as little memory
            values["optimizer"] = "adamw" if "optimizer" in own else "adafactor"
        if not _says_precision(asked):
            values["precision"] = device.half or "fp32"
        settings = settings_from(asked, values)
        memory = estimate(_run(asked, settings), asked.unet_weights, asked.base_bytes).memory
        if memory + DRIVER <= room or number == len(sets) - 1:
            yield Choice(settings, _sentence(asked, settings, memory, device))
        if memory + DRIVER + device.held <= room:
            return


def check_used(asked: Asked, run: Run) -> None:
    """Raise UserError for a rate that was given although nothing learns at it; whether an embedding does is known now."""
    if asked.method == DREAMBOOTH and "text_learning_rate" in unused_settings(run):
        check_text_rate(given(asked.method, asked.widgets), run.settings.dreambooth.train)


def _says_precision(asked: Asked) -> bool:
    """Return whether the precision is said, and not left to the device."""
    return "precision" in given(asked.method, asked.widgets) or "precision" in NAMED.get(asked.preset, {})


def check_widgets(
    method: str,
    inputs: Mapping[str, Any],
    photos: int | None = None,
    dataset: Dataset | None = None,
    *,
    no_embedding: bool = False,
    start_rank: int = 0,
) -> None:
    """Raise UserError for a node's inputs, as a graph has them, that contradict each other whatever the device.

    What comes by a link, a list in the graph, is not known yet, and taken for something that contradicts nothing. So are
    `photos`, how many the dataset has at most, and `dataset`, what is known of it, where they are None. `no_embedding`: whether
    neither the node nor its CLIP can have one. `start_rank`: that of the LoRA to go on from, 0 where it is not known.
    """
    linked = {name for name, value in inputs.items() if isinstance(value, list)}
    widgets = {name: value for name, value in inputs.items() if name in method_settings(method) and name not in linked}
    widgets |= {name: value for name, value in WHERE_UNKNOWN.items() if name in linked}
    preset = AUTO if "preset" in linked else inputs.get("preset", AUTO)
    start_lora = given_lora(inputs)
    if "train" in linked:
        start_lora = start_lora if preset == AUTO else ""
        unknown = ("text_learning_rate", *(LORA_SETTINGS if preset != AUTO else ()))
        widgets = {name: value for name, value in widgets.items() if name not in unknown}
    class_dataset = "class_dataset" in linked
    if dataset is None or "class_images" in linked:
        dataset = unknown_photos(512)
    hold_out = 0 if "hold_out" in linked else widgets.get("hold_out", 0)
    trained = MAX_STEPS if photos is None or "preset" in linked else max(1, photos - hold_out)
    more = {"class_dataset": class_dataset, "device_kind": "", "start_lora": start_lora}
    values = candidates(method, preset, widgets, trained, **more)[0]
    if start_lora:
        values = with_rank(values, given(method, widgets), start_rank)
    asked = Asked(
        method=method,
        preset=preset,
        widgets=widgets,
        known={"token": "token"},
        dataset=dataset,
        class_dataset=unknown_photos(512) if class_dataset else None,
    )
    settings = settings_from(asked, values)
    if no_embedding:
        check_used(asked, _run(asked, settings))


def given_lora(inputs: Mapping[str, Any]) -> str:
    """Return the name of the LoRA that a node goes on from, or WIRED_LORA; "" for none, and for a name that comes by a link.

    Raises UserError for both at once.
    """
    name = inputs.get("start_lora")
    name = name if isinstance(name, str) and name != NO_LORA else ""
    if not inputs.get("lora"):
        return name
    if name:
        raise UserError("A run goes on from one LoRA: unwire lora, or set start_lora, which is {name}, back to none.", name=name)
    return WIRED_LORA


def unknown_photos(resolution: int) -> Dataset:
    """Return what stands for photos of which only the size is known: with a class and masks, so that no prior is refused."""
    return Dataset(photos=(), resolution=resolution, class_word="class", class_prompt="class", mask_weight=0.0)


def never_fits(asked: Asked, device: Device) -> Choice | None:
    """Return what is chosen, and why the device cannot train it whatever the photos and embeddings; None where it may.

    Chosen as if 8-bit AdamW ran: so the run looks for its result before it takes another optimizer.
    """
    least = {name: value for name, value in LEAST_DEMANDING.items() if name in method_settings(asked.method)}
    asked = replace(asked, start_rank=asked.start_rank or int(_rank_is_known_later(asked)))
    found = []
    for embedding in ("", "any"):
        weights = min(asked.unet_weights, SD15_UNET_WEIGHTS)  # a file may hold more than ComfyUI loads
        some = replace(asked, widgets={**asked.widgets, **least}, embedding=embedding, unet_weights=weights)
        settings = choose(some, replace(device, eight_bit=True)).settings
        run = _run(some, settings)
        training = settings.training
        told = precision_refusal(device.kind, training.precision) or low_memory_refusal(device.kind, training.low_memory)
        told = told or refusal(estimate(run, asked.unet_weights), run, device, math.inf)
        if told is None:
            return None
        found.append(Choice(settings, told))
    return found[0]


def _rank_is_known_later(asked: Asked) -> bool:
    """Return whether a LoRA to go on from decides the rank, but cannot be read yet."""
    return bool(asked.start_lora) and not asked.start_rank and "lora_rank" not in given(asked.method, asked.widgets)


def may_be_finished(asked: Asked, wanted: Settings, root: Path) -> bool:
    """Return whether a finished run under `root` may be the one that is wanted: it is loaded on a device of any size.

    Which it is tells its key, for which the weights of the base must be read.
    """
    steps, later = asked.widgets.get("steps", 0), set(KNOWN_LATER)
    if _rank_is_known_later(asked):
        later |= {"lora_rank", "lora_alpha"}
    if steps:
        wanted = wanted.replace(steps=steps)
    else:  # the photos decide them, and whether files are kept on the way
        later |= {"steps", "save_every"}
    if wanted.optimizer.optimizer == "adamw_8bit":  # another takes its place where it cannot run
        later.add("optimizer")
    for run_dir in finished_runs(root):
        with passed_over(run_dir.path):
            run = run_dir.load_run()
            has_class = run.class_dataset is not None
            ours, theirs = (one.deciding(unused_settings(run) | later, has_class) for one in (wanted, run.settings))
            if ours == theirs and has_class == (asked.class_dataset is not None):
                return True
    return False


def settings_from(asked: Asked, values: Mapping[str, Any]) -> Settings:
    """Return the settings of the widgets, with `values` for all that presets decide, and of what else is known.

    The prompts become a tuple, and the intervals that 0 leaves open are resolved. Raises UserError where the values contradict
    each other.
    """
    defaults = {f.name: widget_default(f) for f in method_settings(asked.method).values()}
    named = {**defaults, **asked.widgets, **values}
    prompts = tuple(" ".join(line.split()) for line in named["sample_prompts"].splitlines() if line.strip())
    steps = named["steps"]
    named["sample_prompts"] = prompts
    named["sample_every"] = (named["sample_every"] or max(1, steps // 8)) if prompts else 0
    named["validate_every"] = named["validate_every"] or (max(1, steps // 20) if named["hold_out"] else 0)
    if named.get("class_images") or named.get("prior") == "teacher":
        check_class_word(asked.dataset.class_word)
        named["class_prompt"] = asked.dataset.class_prompt
    elif named.get("prior") == "teacher_outside_masks":
        if asked.dataset.mask_weight == 1 or (asked.dataset.photos and not asked.dataset.masked):
            raise UserError(
                "prior is teacher_outside_masks, and no photo has a mask that counts. Give the photos masks and a mask_weight "
                "below 1, in Load Photos of a Subject, or choose another prior."
            )
    elif asked.class_dataset is not None:
        if named.get("prior_loss_weight") == 0:
            raise UserError(
                "prior_loss_weight is 0, so that the class images of class_dataset would count nothing. Set it above 0, or "
                "unwire class_dataset."
            )
    else:  # then it has no effect, and must not decide the key
        named.pop("prior_loss_weight", None)
    return Settings.of(method=asked.method, **{**named, **asked.known})


def _run(asked: Asked, settings: Settings) -> Run:
    """Return a run of the settings as far as what it takes depends on it."""
    return Run(
        name="",
        settings=settings,
        dataset=asked.dataset,
        class_dataset=asked.class_dataset,
        embedding=asked.embedding,
        base_fingerprint="",
        export_path="",
        tokenizer_path="",
    )


def _sentence(asked: Asked, settings: Settings, memory: float, device: Device) -> Message:
    training, dreambooth = settings.training, settings.dreambooth
    titles = [part.title(settings) for part in part_types(_run(asked, settings))]
    what = [*filter(None, titles), OPTIMIZERS[settings.optimizer.optimizer]]
    if training.batch_size > 1:
        what.append(message("batch {count}", count=training.batch_size))
    if training.gradient_checkpointing:
        what.append(message("gradient checkpointing"))
    if training.low_memory:
        what.append(message("low memory"))
    if settings.has_teacher:
        what.append(message("a teacher"))
    if dreambooth.class_images:
        what.append(message("{count} class images", count=dreambooth.class_images))
    return message(
        "{choice}: {what}, {steps} steps for {photos} photos; about {memory:.1f} of your {there:.1f} GB of memory",
        choice=_preset_and_own(asked),
        what=what,
        steps=training.steps,
        photos=asked.photos,
        memory=memory / GB,
        there=device.memory / GB,
    )


def _preset_and_own(asked: Asked) -> Message | str:
    """Return the name of the preset, and what was given that it does not say itself."""
    said = given(asked.method, widget_values(asked.method, NAMED.get(asked.preset, {})))  # as the page knows it
    own = {name: value for name, value in given(asked.method, asked.widgets).items() if said.get(name) != value}
    prior = asked.widgets.get("prior", "class_images")
    if said.get("class_images") and prior != "class_images":  # then it takes the place of what the preset says
        own["prior"] = prior
    named = [f"{name} {in_words(value)}" for name, value in own.items()]
    if said.get("class_images") and asked.class_dataset is not None:
        named.append("class_dataset")
    if not named or asked.preset == OWN:
        return asked.preset
    return message("{preset}, with {own}", preset=asked.preset, own=named)
