"""The widgets of DreamBoothTrain that say what is trained, and from what. `Settings` documents what each one does."""

import json
from pathlib import Path

from comfy_api.latest import io

from ..trainer.config import LORA_LAYERS, MAX_CLASS_IMAGES, TRAINED, Settings
from .sockets import Dataset
from .training_inputs import choice, common_inputs, number

PRESETS = json.loads((Path(__file__).parent.parent / "js" / "presets.json").read_text(encoding="utf-8"))
OWN = "own settings"
DEFAULTS = {"train": "unet_and_token", "prior_loss_weight": 1.0}
"""Where the node's defaults are not those of `Settings`, which know of no token and no class images."""


def method_inputs() -> list[io.Input]:
    """All optional, so that a graph which does not name them gets the defaults."""
    common = common_inputs()
    return [
        Dataset.Input(
            "class_dataset",
            optional=True,
            tooltip="Photos of other members of the class, 50 to 200, from a second photo loader, in place of class images that "
            "are made. Each step sees as many of them as of the subject's.",
        ),
        number(
            io.Float,
            "prior_loss_weight",
            DEFAULTS["prior_loss_weight"],
            0.0,
            100.0,
            0.1,
            "How much the class pictures count beside your photos. Without class pictures it means nothing.",
        ),
        choice(
            "preset",
            (OWN, *PRESETS),
            OWN,
            "Fills in the widgets of this node: the study's run, the paper's, or what fits a 12 GB or an 8 GB card. It sets "
            "nothing that you cannot see and change.",
            advanced=False,
        ),
        choice(
            "train",
            TRAINED,
            DEFAULTS["train"],
            "What learns. unet_and_token: the model and your word (the study's recipe). unet: the model alone. "
            "unet_and_text_encoder: the model and all words, closest likeness, forgets most. lora: a small file beside the "
            "model, for cards with 8 GB; give it a learning rate near 1e-4.",
            advanced=False,
        ),
        number(
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
        common["hold_out"],
        common["early_stopping"],
        common["sample_prompts"],
        common["sample_every"],
        common["validate_every"],
        number(
            io.Float,
            "text_learning_rate",
            0.0,
            0.0,
            1.0,
            1e-7,
            "How far a step goes for your word or the text encoder. 0: like learning_rate.",
        ),
        common["gradient_accumulation_steps"],
        common["optimizer"],
        number(
            io.Float,
            "weight_decay",
            Settings.weight_decay,
            0.0,
            1.0,
            0.001,
            "Pulls what is trained towards zero a little. Your word is never pulled.",
        ),
        common["max_grad_norm"],
        common["min_snr_gamma"],
        common["noise_offset"],
        number(
            io.Float,
            "caption_dropout",
            Settings.caption_dropout,
            0.0,
            1.0,
            0.05,
            "This share of the captions is left empty, which makes the sampler's cfg work better on your subject. 0.1 is usual.",
        ),
        common["ema_decay"],
        number(io.Int, "lora_rank", Settings.lora_rank, 1, 320, 1, "lora: how much it can learn, and the size of its file."),
        number(
            io.Float,
            "lora_alpha",
            Settings.lora_alpha,
            0.001,
            10_000.0,
            1.0,
            "lora: its strength is alpha / rank. Keep it equal to the rank, or half of it.",
        ),
        choice(
            "lora_layers",
            LORA_LAYERS,
            Settings.lora_layers,
            "lora: the attention layers alone, or the convolutions too, which learn textures better and make a larger file.",
        ),
        common["devices"],
        io.String.Input(
            "embedding",
            optional=True,
            default="",
            placeholder="none",
            tooltip="An embedding of your word to train on from: wire path of Train a Textual Inversion to it, or write the name "
            "of a file in models/embeddings. Your word then means it, and train says whether it learns on (all but unet). "
            "Empty: that of the CLIP, where it comes from a node of this pack.",
        ),
        common["keep_state"],
        common["export_on_cancel"],
    ]
