"""What a run takes of memory, disk and time, by arithmetic, before anything is loaded. Plain data, no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..dataset.photos import MIN_RESOLUTION, Dataset
from ..parts import part_types
from ..parts.memory import (
    BUFFER_WEIGHTS,
    FORWARD_FLOP,
    SD15_UNET_WEIGHTS,
    TEXT_ENCODER_WEIGHTS,
    BaseSize,
    PartMemory,
    bytes_when_frozen,
)
from .devices import SHARED, Device
from .messages import Message, message
from .run_dir import Run
from .settings import Settings

GB = 1e9
OPTIMIZER_BYTES = {"adamw": 8, "adamw_8bit": 2.03, "adafactor": 2.13, "prodigy": 16}
"""Bytes of state for each trained weight: two fp32 moments; two bytes and their scales; four fp32.

Adafactor keeps means over the last two dimensions alone. In a convolution these are the 3 x 3 of its kernel, so that its state
shrinks to two thirds, not to nothing: 2.13 bytes is the mean over SD v1.5's U-Net.
"""

# What a training step takes beside weights, gradients and optimizer state. Counted over the tensors of a step, by
# tests/training/test_memory_counts.py, then fitted to what torch reserved on an NVIDIA H100 at 512 pixels in bf16 in the seven
# runs of tests/unit/test_resources.py, which it meets within 2 %. These were runs under autocast, which computes norms in fp32:
# now that all is of one type, samples take less, and this is more than is needed. A sample is one of 512 x 512 pixels.
CHECKPOINTED = 0.33 * GB
"""Bytes that a sample has, with gradient checkpointing, when the backward pass begins: the inputs of all blocks (0.18 GB are
counted), and all that the block which is computed again keeps."""
LAST_BLOCK = 0.18 * GB
"""Bytes that it still has when the backward pass ends: what the outermost block, which is computed again last, keeps."""
HALFWAY = 0.5
"""Share of the activations that is left, without checkpointing, when nearly all gradients are there: those of the encoder's outer
levels, which have large activations and few weights."""
RESERVED = 0.15 * GB
"""Bytes that torch reserves and does not use, and the workspace of its matrix products."""
FP32 = 1.7
"""How many times the activations of bf16 fp32 has: counted, 1.4 to 1.9, because norms are fp32 in any case."""

# Of the other phases. Counted, not measured.
FORWARD = 0.07 * GB
"""Bytes of a sample in a forward pass without a backward pass."""
VAE, DECODE, ENCODE = 0.33 * GB, 0.81 * GB, 0.67 * GB
"""Bytes of the VAE's weights, and those that it works with to decode or encode a picture of 512 x 512, all fp32."""
DRAWN_TOGETHER = 2
"""Samples in a forward pass that draws a picture: the picture and what it is guided away from."""
CLASS_IMAGES_TOGETHER = 4
"""Class images that are drawn at a time: then the U-Net takes half of what the VAE does for one."""
DRAWING_STEPS = 25
"""Of the sampler of class images and sample pictures."""

BUFFERS = 4 * BUFFER_WEIGHTS
"""Gradients that are on the device at once where they are moved away: those of four buffers, incomplete or being moved."""
SPLIT_STEP = 12 * BUFFER_WEIGHTS
"""Bytes of a step of the optimizer where weights are split: a buffer of masters, its gradient, and one of either more."""

WORTH_NAMING = 0.1 * GB
"""Bytes that a remedy must save at least: what a LoRA trains is so little that its optimizer saves next to nothing."""
DRIVER = 0.8 * GB
"""Bytes that CUDA takes beside what torch reserves, about: in ComfyUI's process and in the worker's."""


@dataclass(frozen=True)
class Resources:
    """What a run takes."""

    memory: float
    """Bytes that torch reserves on each device at the peak; `DRIVER` comes on top."""
    disk: float
    """Bytes at the peak, while one saved state is replaced by the next; what stays are the exported files."""
    flop: float
    """Floating point operations of the whole run."""
    unet_weights: int = SD15_UNET_WEIGHTS
    """Of the base, as they were counted."""


@dataclass(frozen=True)
class _Needs:
    """What the parts of a run keep on a device, all together, in bytes."""

    held: float
    """Weights, their masters, optimizer state and average: there for as long as the run trains."""
    gradients: float
    """Of all trained weights: there from the backward pass to the end of the step."""
    gathered: float
    """The same in buffers of the step, when nothing else is there."""
    activations: float
    """What a sample keeps for the backward pass without gradient checkpointing."""


def estimate(run: Run, unet_weights: int = SD15_UNET_WEIGHTS, base_bytes: float = 4.3 * GB) -> Resources:
    """Return what a run takes with a U-Net of so many weights and a base file of so many bytes, all photos counted as squares."""
    base = BaseSize(unet_weights, base_bytes)
    settings = run.settings
    parts = [part.memory(settings, base) for part in part_types(run)]
    trained = sum(weights for part in parts for weights in part.trained_weights.values())
    best = 4 * trained if settings.validation.early_stopping != "off" else 0
    caches = cache_bytes(run.dataset, run.class_dataset) * (settings.training.devices + 1)  # and those that outlive the run
    exported = sum(part.exported_bytes for part in parts) * (1 + kept_files(settings))
    disk = base.file_bytes + 2 * trained * (4 + _state_bytes(run)) + best + exported + caches
    memory = max(phases(run, unet_weights).values())
    return Resources(memory, disk, _flop(run, parts) * _size(run, unet_weights), unet_weights)


def drawing_memory(run: Run, unet_weights: int = SD15_UNET_WEIGHTS) -> float:
    """Return the bytes that torch reserves to draw with a finished run, whose trained weights come to the device as fp32."""
    settings = run.settings.replace(prior="class_images", class_images=0)  # as it is drawn: without a teacher
    parts = [part.memory(settings, BaseSize(unet_weights, 0)) for part in part_types(run)]
    trained = sum(weights for part in parts for weights in part.trained_weights.values())
    loaded = 4 * (trained + TEXT_ENCODER_WEIGHTS)
    drawn = bytes_when_frozen(trained, settings.training.precision) + _picture_bytes(run, unet_weights)
    return RESERVED + _frozen(parts) + max(loaded, drawn)


def kept_files(settings: Settings) -> int:
    """Return how many files are kept on the way, beside that of the last step."""
    every = settings.training.save_every
    return (settings.training.steps - 1) // every if every else 0


def phases(run: Run, unet_weights: int = SD15_UNET_WEIGHTS) -> dict[str, float]:
    """Return the bytes that torch reserves on each device in each phase of the run: the run needs the largest of them.

    The loss on held-out photos is no phase of its own: four samples without a backward pass take less than one with it.
    """
    settings, training = run.settings, run.settings.training
    parts = [part.memory(settings, BaseSize(unet_weights, 0)) for part in part_types(run)]
    needs = _needs(run, parts)
    area = (run.dataset.resolution / 512) ** 2
    sample, picture = _sample(run, unet_weights), _picture_bytes(run, unet_weights)
    found = {"encoding": 4 * TEXT_ENCODER_WEIGHTS + VAE + ENCODE * area, "training": needs.held + _step_bytes(run, needs, sample)}
    if settings.dreambooth.class_images and not run.class_dataset:
        unet = bytes_when_frozen(unet_weights, training.precision)
        together = CLASS_IMAGES_TOGETHER * DRAWN_TOGETHER * FORWARD * sample
        found["class_images"] = unet + 4 * TEXT_ENCODER_WEIGHTS + max(picture, together)
    if settings.samples.sample_prompts:  # between two steps: without gradients, but with all the rest
        found["sample_pictures"] = needs.held + picture
    return {phase: RESERVED + taken for phase, taken in found.items()}


def _picture_bytes(run: Run, unet_weights: int) -> float:
    """Return the bytes that a picture takes while it is drawn: first for the U-Net's forward passes, then for the VAE."""
    return max(DRAWN_TOGETHER * FORWARD * _sample(run, unet_weights), VAE + DECODE * (run.dataset.resolution / 512) ** 2)


def _needs(run: Run, parts: Sequence[PartMemory]) -> _Needs:
    trained = sum(weights for part in parts for weights in part.trained_weights.values())
    half = run.settings.training.precision != "fp32"
    together = run.settings.training.devices > 1  # the buckets in which processes exchange gradients stay
    weight = 2 if half else 4  # of the model's, whose type gradients have; in fp32 they are the masters themselves
    copies = weight if half and not run.settings.splits_weights else 0
    gradients = min(trained, BUFFERS) if run.settings.moves_gradients else trained
    batches = run.settings.training.gradient_accumulation_steps
    added_up = {1: 0, 2: weight}.get(batches, 4)  # beside those of the newest batch: of one in their type, of several in fp32
    return _Needs(
        held=trained * (4 + copies + _state_bytes(run) + (weight if together else 0)) + _frozen(parts),
        gradients=(0 if together else weight * gradients) + added_up * gradients,
        gathered=max((weight if batches == 1 else 4) * gradients, SPLIT_STEP if run.settings.splits_weights else 0),
        activations=sum(part.activations for part in parts),
    )


def _step_bytes(run: Run, needs: _Needs, sample: float) -> float:
    """Return the bytes that a training step takes at its peak, beside what is there all the time.

    They are the most either when the backward pass begins, and all activations are there; or late in it: nearly all gradients
    are there, and the activations of the outermost layers. `sample`: how large a sample is, where one of 512 x 512 pixels in
    bf16 is 1.
    """
    count = _samples(run) * sample
    if run.settings.training.gradient_checkpointing:
        return max(count * CHECKPOINTED, needs.gradients + count * LAST_BLOCK, needs.gathered)
    activations = count * needs.activations
    return max(activations, needs.gradients + HALFWAY * activations, needs.gathered)


def _state_bytes(run: Run) -> float:
    """Return the bytes that optimizer and average keep for each trained weight."""
    optimizer = run.settings.optimizer
    return OPTIMIZER_BYTES[optimizer.optimizer] + (4 if optimizer.ema_decay else 0)


def _samples(run: Run) -> int:
    """Return how many samples a device sees in a forward pass: its photos, and as many class images."""
    training = run.settings.training
    has_class = bool(run.class_dataset or run.settings.has_class_prompt)
    return training.batch_size // training.devices * (2 if has_class else 1)


def _size(run: Run, unet_weights: int) -> float:
    """Return how large a sample is, where one of 512 x 512 pixels in SD v1.5's U-Net is 1."""
    return (run.dataset.resolution / 512) ** 2 * unet_weights / SD15_UNET_WEIGHTS


def _sample(run: Run, unet_weights: int) -> float:
    """Return the same of its activations, where those of bf16 are 1."""
    return _size(run, unet_weights) * (FP32 if run.settings.training.precision == "fp32" else 1.0)


def _flop(run: Run, parts: Sequence[PartMemory]) -> float:
    """Return the operations of a run at 512 x 512 pixels in SD v1.5's U-Net: its steps and the pictures that it draws."""
    settings, training = run.settings, run.settings.training
    again = FORWARD_FLOP if training.gradient_checkpointing else 0.0
    if settings.has_teacher:
        again += FORWARD_FLOP / 2 if settings.has_class_prompt else FORWARD_FLOP  # of a class, it sees every other sample
    samples = training.steps * training.gradient_accumulation_steps * _samples(run) * training.devices
    pictures = 0 if run.class_dataset else settings.dreambooth.class_images
    if settings.samples.sample_every:
        pictures += len(settings.samples.sample_prompts) * (1 + training.steps // settings.samples.sample_every)
    drawing = DRAWING_STEPS * DRAWN_TOGETHER * FORWARD_FLOP
    return samples * (sum(part.flop for part in parts) + again) + pictures * drawing


def _frozen(parts: Sequence[PartMemory]) -> float:
    """Return the bytes of the models that no part trains, each counted once."""
    trained = {name for part in parts for name in part.trained_weights}
    frozen = {name: held for part in parts for name, held in part.frozen_bytes.items()}
    return sum(held for name, held in frozen.items() if name not in trained)


def cache_bytes(*datasets: Dataset | None) -> float:
    """Return the bytes of the latents of all views and of the text embeddings, fp32.

    Of a latent they are mean and standard deviation, an eighth of the photo's side.
    """
    return sum(
        len(dataset.photos) * (dataset.views * 2 * 4 * 4 * (dataset.resolution / 8) ** 2 + 77 * 768 * 4)
        for dataset in datasets
        if dataset
    )


def describe_resources(choice: Message | None, resources: Resources, seconds: float) -> Message:
    """Return what was chosen, with its memory, and what else it takes; no time below a minute, where it would be far too low."""
    disk = resources.disk / GB
    if seconds < 60:
        return message("{choice}, {disk:.1f} GB of disk", choice=choice, disk=disk)
    return message("{choice}, {disk:.1f} GB of disk, very roughly {time}", choice=choice, disk=disk, time=duration(seconds))


def duration(seconds: float) -> Message:
    """Return a time in the unit that suits it."""
    if seconds >= 5400:
        return message("{hours:.1f} h", hours=seconds / 3600)
    return message("{minutes:.0f} min", minutes=seconds / 60) if seconds >= 90 else message("{seconds:.0f} s", seconds=seconds)


def remedies(run: Run, device: Device | None = None, unet_weights: int = SD15_UNET_WEIGHTS) -> list[Message]:
    """Return what makes the run's largest phase take less memory on the device, each by itself, as the values of a message."""
    need = _need(run, device, unet_weights)
    saved = [(told, need - _need(changed, device, unet_weights)) for told, changed in _changes(run, device)]
    named = [told for told, less in saved if less > WORTH_NAMING]
    if run.dataset.resolution > MIN_RESOLUTION:  # of less, every phase takes less
        named.append(message("a lower resolution"))
    return named or [told for told, less in saved if less > 0]


def least_bytes(run: Run, device: Device, unet_weights: int) -> float:
    """Return what the run's largest phase takes at the lowest resolution with all together that makes it less, in bytes."""
    run = replace(run, dataset=replace(run.dataset, resolution=MIN_RESOLUTION))
    while True:
        need = _need(run, device, unet_weights)
        run = min((changed for _, changed in _changes(run, device)), key=lambda one: _need(one, device, unet_weights))
        if _need(run, device, unet_weights) >= need:
            return need


def _need(run: Run, device: Device | None, unet_weights: int) -> float:
    """Return the bytes of the largest phase: of all processes where they share the device's memory, as on a CPU."""
    return max(phases(run, unet_weights).values()) * _sharing(run, device)


def _sharing(run: Run, device: Device | None) -> int:
    return run.settings.training.devices if device and device.kind == "cpu" else 1


def _changes(run: Run, device: Device | None) -> Iterator[tuple[Message, Run]]:
    """Yield what may make a run take less memory, and the run with it."""

    def changed(**values: Any) -> Run:
        return replace(run, settings=run.settings.replace(**values))

    training, eight_bit = run.settings.training, device is None or device.eight_bit
    yield message("gradient_checkpointing on"), changed(gradient_checkpointing=True)
    smaller = changed(batch_size=training.devices)
    yield message("a smaller batch_size"), smaller
    if training.gradient_accumulation_steps > 1:
        yield message("gradient_accumulation_steps 1"), changed(gradient_accumulation_steps=1)
    if training.devices > 1:
        yield message("devices 1"), changed(devices=1)
    if eight_bit:
        yield message("optimizer adamw_8bit"), changed(optimizer="adamw_8bit")
    else:
        yield message("optimizer adafactor"), changed(optimizer="adafactor")
    yield message("ema_decay 0"), changed(ema_decay=0.0)
    if device is None:
        yield message("low_memory on (on a graphics card)"), changed(low_memory=True)
    elif device.kind not in SHARED:
        yield message("low_memory on"), changed(low_memory=True)
    if device and device.half and training.precision == "fp32":  # which the user has set: no preset takes it there
        yield message("precision auto"), changed(precision=device.half)
    if run.settings.has_teacher:
        yield message("no teacher (prior class_images, class_images 0)"), changed(prior="class_images", class_images=0)
    if run.settings.dreambooth.class_images and not run.class_dataset:
        yield message("class_images 0"), changed(class_images=0)
    if run.settings.samples.sample_prompts:
        yield message("no sample_prompts"), changed(sample_prompts=(), sample_every=0)
    if run.result_kind == "checkpoint":
        yield message("train 'lora'"), changed(train="lora")


def refusal(resources: Resources, run: Run, device: Device, disk_bytes: float) -> Message | None:
    """Return what cannot fit, with numbers and a remedy, where there is one; None when all fits."""
    if resources.memory + DRIVER + device.held > device.memory:
        return _refusal_of_memory(resources, run, device)
    if resources.disk > disk_bytes:
        return message(
            "This run needs about {disk:.1f} GB of disk while it trains; {free:.1f} GB are free where ComfyUI's output folder "
            "is. Free some space.",
            disk=resources.disk / GB,
            free=disk_bytes / GB,
        )
    return None


def _refusal_of_memory(resources: Resources, run: Run, device: Device) -> Message:
    """Return how much memory the run needs, and what makes it fit; where not even all of it together does, that."""
    least, there = least_bytes(run, device, resources.unet_weights), device.memory * _sharing(run, device)
    named = remedies(run, device, resources.unet_weights)
    numbers = {"memory": resources.memory / GB, "there": device.memory / GB, "driver": DRIVER / GB}
    if resources.memory + DRIVER <= device.memory:
        if least + DRIVER + device.held > there:
            return message(
                "This run needs about {memory:.1f} GB of memory on the device, which has {there:.1f} GB, {driver:.1f} GB of them "
                "for its driver; ComfyUI's models hold {held:.1f} GB more, because it was started with --highvram or --gpu-only. "
                "Start it without.",
                **numbers,
                held=device.held / GB,
            )
        return message(
            "This run needs about {memory:.1f} GB of memory on the device, which has {there:.1f} GB, {driver:.1f} GB of them for "
            "its driver; ComfyUI's models hold {held:.1f} GB more, because it was started with --highvram or --gpu-only. Start "
            "it without, or make the run need less with: {remedies}.",
            **numbers,
            held=device.held / GB,
            remedies=named,
        )
    if least + DRIVER > there:
        return message(
            "This run needs about {memory:.1f} GB of memory on the device, which has {there:.1f} GB, {driver:.1f} GB of them for "
            "its driver. Even with all that makes it less, at {pixels} pixels, it would need {least:.1f} GB.",
            **numbers,
            pixels=MIN_RESOLUTION,
            least=least / GB,
        )
    return message(
        "This run needs about {memory:.1f} GB of memory on the device, which has {there:.1f} GB, {driver:.1f} GB of them for "
        "its driver. It becomes less with: {remedies}.",
        **numbers,
        remedies=named,
    )
