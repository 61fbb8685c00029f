"""What a run will hardly learn at its rates, said before it trains. Plain data, no torch.

A step of Adam moves a number by about the learning rate, so that rate times steps is about how far it can go.
"""

from typing import TYPE_CHECKING

from ..parts import LoRA, TextLoRA, part_types
from ..parts.text_side import text_rate
from .messages import Message, message
from .names import DREAMBOOTH
from .run_dir import Run
from .settings import Settings

if TYPE_CHECKING:
    from ..parts.part import Part

COMPONENT = 0.014
"""About what a number of a token's embedding in CLIP ViT-L is. Not measured here, where there is no CLIP: it is 0.39 / sqrt(768),
and 0.39 is the norm towards which cloneofsimo's trainer pulls the tokens that it trains (`target_norm` in
lora_diffusion/cli_lora_pti.py of https://github.com/cloneofsimo/lora)."""
LEAST_SHARE = 0.15
"""Of the usual way, and for a token of its numbers' size, that must be gone. Ours: kohya's example of a LoRA, rank 16 with an
alpha of 1 (docs/train_network.md), goes further in 1,500 steps, a LoRA at the rate of a whole model, 2e-6, not in 3,000."""
MEAN_FACTORS = {"constant": 1.0, "linear": 1 / 2, "cosine": 1 / 2, "cosine_with_restarts": 1 / 2, "polynomial": 1 / 3}
"""What a schedule multiplies the rate by, on the average of the steps after the warm-up."""


def slow_parts(run: Run) -> list[Message]:
    """Return what of the run will hardly learn, and what helps."""
    if run.settings.optimizer.optimizer == "prodigy":
        return []
    unet, *text = part_types(run)
    found = [_note(unet, run.settings, "learning_rate", run.settings.optimizer.learning_rate)]
    name = "text_learning_rate" if run.settings.method == DREAMBOOTH else "learning_rate"
    found += [_note(part, run.settings, name, text_rate(run.settings)) for part in text]
    return [note for note in found if note]


def mean_factor(settings: Settings) -> float:
    """Return what the schedule multiplies the learning rate by, on the average of all steps; in the warm-up it is a half."""
    warmup = settings.optimizer.lr_warmup_steps / settings.training.steps
    return warmup / 2 + (1 - warmup) * MEAN_FACTORS[settings.optimizer.lr_scheduler]


def _note(part: "type[Part]", settings: Settings, setting: str, rate: float) -> Message | None:
    """Return what is said of a part that learns at a rate, which is that of a setting; None where it learns."""
    title, steps, given = part.title(settings), settings.training.steps, rate
    if title is None:  # nothing of it is trained
        return None
    rate = given * mean_factor(settings)
    usual_rate, usual_steps = part.published or (part.learning_rate, 0)
    if not part.published:
        share, unit = rate * steps / COMPONENT, message("of the size of its numbers")
    else:
        scale = settings.dreambooth.lora_alpha / settings.dreambooth.lora_rank if part in (LoRA, TextLoRA) else 1.0
        share = rate * steps / (usual_rate * usual_steps)
        setting = "lora_alpha" if scale * share < LEAST_SHARE <= share else setting
        share, rate = scale * share, scale * rate
        unit = message("of what {steps} steps at {rate:g} do, which are usual", steps=usual_steps, rate=usual_rate)
    if share >= LEAST_SHARE:
        return None
    is_low = setting == "lora_alpha" or given < (part.learning_rate or usual_rate)
    return message(
        "It will hardly learn ({part}): {steps} steps at {rate:g}, schedule and lora_alpha counted, move it by about "
        "{share:.0f} % {unit}. {remedy}.",
        part=title,
        steps=steps,
        rate=rate,
        share=100 * share,
        unit=unit,
        remedy=message("Set {setting} back to 0, or train longer", setting=setting) if is_low else message("Train longer"),
    )
