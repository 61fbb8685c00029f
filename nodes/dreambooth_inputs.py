"""The widgets of DreamBoothTrain that say how it is trained, measured and shown. `Settings` documents what each one does."""

import json
from pathlib import Path

from comfy_api.latest import io

from ..trainer.config import (
    EARLY_STOPPING,
    LORA_LAYERS,
    MAX_CLASS_IMAGES,
    MAX_STEPS,
    OPTIMIZERS,
    TRAINED,
    Settings,
)
from .sockets import Dataset

PRESETS = json.loads((Path(__file__).parent.parent / "js" / "presets.json").read_text(encoding="utf-8"))
OWN = "own settings"
DEFAULTS = {"train": "unet_and_token", "prior_loss_weight": 1.0}
"""Where the node's defaults are not those of `Settings`, which know of no token and no class images."""


def _number(kind, name: str, default, low, high, step, tooltip: str, *, advanced: bool = True) -> io.Input:
    options = {"round": 1e-9} if kind is io.Float else {}
    return kind.Input(
        name, optional=True, default=default, min=low, max=high, step=step, advanced=advanced, tooltip=tooltip, **options
    )


def _choice(name: str, options: tuple[str, ...], default: str, tooltip: str, *, advanced: bool = True) -> io.Input:
    return io.Combo.Input(name, optional=True, options=list(options), default=default, advanced=advanced, tooltip=tooltip)


def method_inputs() -> list[io.Input]:
    """All optional, so that a graph which does not name them gets the defaults."""
    return [
        Dataset.Input(
            "class_dataset",
            optional=True,
            tooltip="Photos of other members of the class, 50 to 200, from a second photo loader, in place of class images that "
            "are made. Each step sees as many of them as of the subject's.",
        ),
        _number(
            io.Float,
            "prior_loss_weight",
            DEFAULTS["prior_loss_weight"],
            0.0,
            100.0,
            0.1,
            "How much the class pictures count beside your photos. Without class pictures it means nothing.",
        ),
        _choice(
            "preset",
            (OWN, *PRESETS),
            OWN,
            "Fills in the widgets of this node: the study's run, the paper's, or what fits a 12 GB or an 8 GB card. It sets "
            "nothing that you cannot see and change.",
            advanced=False,
        ),
        _choice(
            "train",
            TRAINED,
            DEFAULTS["train"],
            "What learns. unet_and_token: the model and your word (the study's recipe). unet: the model alone. "
            "unet_and_text_encoder: the model and all words, closest likeness, forgets most. lora: a small file beside the "
            "model, for cards with 8 GB; give it a learning rate near 1e-4.",
            advanced=False,
        ),
        _number(
            io.Int,
            "class_images",
            0,
            0,
            MAX_CLASS_IMAGES,
            10,
            "Above 0, so many pictures of the class ('a photo of a plush toy') are made with the base before training, and "
            "trained on beside your photos, so that the model does not forget what other plush toys look like (prior "
            "preservation). 100 to 200 do well. They are kept for later runs.",
            advanced=False,
        ),
        _number(
            io.Int,
            "hold_out",
            0,
            0,
            10_000,
            1,
            "So many photos are not trained on. When the loss on them rises, training has begun to learn your photos by heart. "
            "2 of 15 is a good share.",
            advanced=False,
        ),
        _choice(
            "early_stopping",
            EARLY_STOPPING,
            Settings.early_stopping,
            "By the held-out photos: export_best exports the step that was best on them; stop_and_export_best also ends the run "
            "when it no longer gets better.",
            advanced=False,
        ),
        io.String.Input(
            "sample_prompts",
            optional=True,
            default="",
            multiline=True,
            placeholder="a photo of mysks plush toy near books",
            tooltip="One prompt a line. Pictures of them are drawn during training, always from the same noise, and laid side by "
            "side at the end.",
        ),
        _number(
            io.Int,
            "sample_every",
            0,
            0,
            MAX_STEPS,
            50,
            "Steps between two rounds of sample pictures. 0: eight rounds over the run.",
        ),
        _number(
            io.Int,
            "validate_every",
            0,
            0,
            MAX_STEPS,
            10,
            "Steps between two measurements of the loss on held-out photos, trained photos and class pictures, always with "
            "the same noise. 0: twenty over the run when photos are held out, else none.",
        ),
        _number(
            io.Float,
            "text_learning_rate",
            0.0,
            0.0,
            1.0,
            1e-7,
            "How far a step goes for your word or the text encoder. 0: like learning_rate.",
        ),
        _number(
            io.Int,
            "gradient_accumulation_steps",
            1,
            1,
            1000,
            1,
            "So many batches are averaged into one step: like a larger batch_size, with the memory of a small one.",
        ),
        _choice(
            "optimizer",
            OPTIMIZERS,
            Settings.optimizer,
            "adamw: the usual one. adamw_8bit: the same in a quarter of its memory, as in the study. adafactor: needs the "
            "least. prodigy: finds the learning rate by itself; set learning_rate to 1.",
        ),
        _number(
            io.Float,
            "weight_decay",
            Settings.weight_decay,
            0.0,
            1.0,
            0.001,
            "Pulls what is trained towards zero a little. Your word is never pulled.",
        ),
        _number(
            io.Float,
            "max_grad_norm",
            Settings.max_grad_norm,
            0.0,
            1000.0,
            0.1,
            "Larger gradients are scaled down to this, so that one odd photo cannot throw training off. 0: never.",
        ),
        _number(
            io.Float,
            "min_snr_gamma",
            Settings.min_snr_gamma,
            0.0,
            100.0,
            0.5,
            "Above 0, nearly clean pictures count less in the loss: steadier training. 5 is usual; 0: off, as in the study.",
        ),
        _number(
            io.Float,
            "noise_offset",
            Settings.noise_offset,
            0.0,
            1.0,
            0.01,
            "Above 0, very dark and very bright pictures can be learned. 0.05 to 0.1 is usual.",
        ),
        _number(
            io.Float,
            "caption_dropout",
            Settings.caption_dropout,
            0.0,
            1.0,
            0.05,
            "This share of the captions is left empty, which makes the sampler's cfg work better on your subject. 0.1 is usual.",
        ),
        _number(
            io.Float,
            "ema_decay",
            Settings.ema_decay,
            0.0,
            0.99999,
            0.001,
            "Above 0, a moving average of the weights is exported, which is smoother. 0.99 for some hundred steps, 0.9999 for "
            "many thousands. Needs 4 bytes more for each trained weight.",
        ),
        _number(io.Int, "lora_rank", Settings.lora_rank, 1, 320, 1, "lora: how much it can learn, and the size of its file."),
        _number(
            io.Float,
            "lora_alpha",
            Settings.lora_alpha,
            0.001,
            10_000.0,
            1.0,
            "lora: its strength is alpha / rank. Keep it equal to the rank, or half of it.",
        ),
        _choice(
            "lora_layers",
            LORA_LAYERS,
            Settings.lora_layers,
            "lora: the attention layers alone, or the convolutions too, which learn textures better and make a larger file.",
        ),
        _number(
            io.Int,
            "devices",
            1,
            1,
            64,
            1,
            "GPUs of this computer that share the batch. The result is the same.",
        ),
    ]


def sample_prompts(text: str) -> tuple[str, ...]:
    """One prompt a line, blank lines left out."""
    return tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())
