"""What a run will hardly learn at its rates, said before it trains. Plain data, no torch."""

from ..parts import LoRA, TokenRows, TokenVectors, part_types
from ..parts.text_side import text_rate
from .messages import Message, message
from .names import DREAMBOOTH
from .run_dir import Run

LOW_LORA_RATE = 1e-5
"""Below it a LoRA learns next to nothing."""
COMPONENT = 0.014
"""About what a number of a token's embedding in CLIP ViT-L is. Not measured here, where there is no CLIP: it is 0.39 / sqrt(768),
and 0.39 is the norm towards which cloneofsimo's trainer pulls the tokens that it trains (`target_norm` in
lora_diffusion/cli_lora_pti.py of https://github.com/cloneofsimo/lora)."""
LEAST_SHARE = 0.2
"""Of it, that a token must be able to move by. A step of Adam moves a number by about the learning rate."""


def slow_parts(run: Run) -> list[Message]:
    """Return what of the run will hardly learn, and at which rate it would."""
    parts, settings = part_types(run), run.settings
    rate, steps = settings.optimizer.learning_rate, settings.training.steps
    token_rate = text_rate(settings)
    if settings.method != DREAMBOOTH or settings.optimizer.optimizer == "prodigy":
        return []
    notes = []
    if LoRA in parts and rate < LOW_LORA_RATE:
        notes.append(message("A learning rate of {rate:g} is low for a LoRA: it usually needs about 1e-4.", rate=rate))
    has_token = TokenRows in parts or (TokenVectors in parts and TokenVectors.are_trained(settings))
    share = token_rate * steps / COMPONENT
    if has_token and share < LEAST_SHARE:
        notes.append(
            message(
                "The token will hardly learn: {steps} steps at {rate:g} move it by about {share:.0f} % of its size. Set "
                "text_learning_rate to 1e-4, or back to 0.",
                steps=steps,
                rate=token_rate,
                share=100 * share,
            )
        )
    return notes
