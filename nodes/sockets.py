"""What the nodes of this pack share: sockets, widgets, how a widget is checked."""

from collections.abc import Callable

from comfy_api.latest import io

from ..trainer.config import LR_SCHEDULERS, PRECISIONS
from .language import in_checked

CATEGORY = "Subject Trainer"
Dataset = io.Custom("DATASET")
LossMap = io.Custom("LOSS_MAP")  # as in ComfyUI's own training nodes, so that "Plot Loss Graph" takes it

BASE_INPUTS = [
    io.Model.Input("model", tooltip="The base model: SD v1.5 or a model fine-tuned from it."),
    io.Clip.Input("clip", tooltip="The base model's text encoder."),
    io.Vae.Input("vae", tooltip="The base model's VAE. It turns the photos into latents."),
]


def validation(check: Callable[[str], object], value: str | None) -> bool | str:
    """What `validate_inputs` answers: True, or the sentence of the ValueError that `check` raises, for the page.

    A value that comes by a link is None here; the node checks it when it runs.
    """
    try:
        if value is not None:
            check(value)
    except ValueError as error:
        return in_checked(str(error))
    return True


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**64 - 1,
        control_after_generate=False,  # else the page changes it after each queueing, and every queueing trains anew
        tooltip="Decides noise, timesteps and the order of the photos. The same seed gives the same result.",
    )


def advanced_training_inputs() -> list[io.Input]:
    """The rarely used widgets of both training nodes; `Settings` documents what they do."""
    return [
        io.Combo.Input(
            "lr_scheduler",
            options=list(LR_SCHEDULERS),
            default="constant",
            advanced=True,
            tooltip="How the learning rate changes over the run.",
        ),
        io.Int.Input(
            "lr_warmup_steps",
            default=0,
            min=0,
            max=10_000,
            advanced=True,
            tooltip="Steps over which the learning rate rises from 0.",
        ),
        io.Combo.Input(
            "precision",
            options=["auto", *PRECISIONS],
            default="auto",
            advanced=True,
            tooltip="Type of the forward pass. auto: bf16 where the device has it, else fp32. The trained weights "
            "themselves are always kept as fp32.",
        ),
        io.Boolean.Input(
            "gradient_checkpointing",
            default=False,
            advanced=True,
            tooltip="Needs less memory and more time: the forward pass is computed twice. The result is the same.",
        ),
        io.Int.Input(
            "checkpoint_every",
            default=500,
            min=1,
            max=100_000,
            advanced=True,
            tooltip="Steps between two saved states, from which a run that was stopped goes on.",
        ),
    ]
