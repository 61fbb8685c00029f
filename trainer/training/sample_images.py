"""The pictures that a run draws of its sample prompts, while it trains or later."""

import contextlib
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..context import Context
from ..data.batches import generator
from ..data.caption_cache import EMPTY, Captions
from ..models.image_sampler import ImageSampler, save_image
from ..run.events import Sample
from ..run.messages import message
from ..run.run_dir import RunDir
from ..run.stop_request import StoppedError
from .trainer import Trainer

CELL = 256
"""Side of a picture in the grid, pixels."""
LABEL = 20
"""Height of a line of words in the grid, pixels."""


class SampleImages:
    """Draws a picture of each sample prompt, always from the same noise. The prompts are among the captions."""

    def __init__(self, context: Context, captions: Captions, unet, vae):
        self.context, self.captions = context, captions
        self.prompts = [captions.texts.index(prompt) for prompt in context.settings.samples.sample_prompts]
        self.every = context.settings.samples.sample_every
        self.sampler = ImageSampler(unet, vae)

    def is_due(self, trainer: Trainer) -> bool:
        """Return whether pictures are drawn now, also because the user wants them; one process draws them all."""
        if not self.context.is_main or not self.prompts:
            return False
        wanted = self.context.stop.take_sample_wish()
        return wanted or trainer.is_due(self.every)

    def draw(self, step: int) -> None:
        """Draw the pictures after `step` steps; a stop request ends it early, and the loop one step later.

        A picture that cannot be drawn or written is a warning.
        """
        failure = message("The sample pictures of step {step} could not be drawn", step=step)
        if step == 0:
            failure = message("The base model {base} could not draw the sample pictures", base=self.context.run.base_name)
        with contextlib.suppress(StoppedError), self.context.only_warned(failure):
            self.draw_missing(step)

    def draw_missing(self, step: int) -> None:
        """Draw those of the pictures after `step` steps that are not there yet. Raises StoppedError on a stop request."""
        run, context = self.context.run, self.context
        with torch.no_grad():
            *prompts, empty = self.captions.states([*self.prompts, EMPTY])
        for number, states in enumerate(prompts):
            path = context.run_dir.picture(step, number)
            if path.is_file():  # drawn before the run was stopped, or while it trained
                continue
            noise = generator(run.settings.training.seed, "sample", number)
            save_image(self.sampler.draw(states, empty, run.dataset.resolution, noise, context.stop), path)
            context.reporter.emit(Sample(step, number, path.name))

    def save_grid(self) -> None:
        """Write all pictures as one; nothing when none were drawn, or by another process. That it cannot be is a warning."""
        if self.prompts and self.context.is_main:
            with self.context.only_warned(message("The grid of the sample pictures could not be written")):
                save_grid(self.context.run_dir, self.context.settings.samples.sample_prompts)


def save_grid(run_dir: RunDir, prompts: Sequence[str]) -> None:
    """Write all sample pictures as one: a row below each prompt, a column a step, the first being the base."""
    pictures = run_dir.pictures()
    if not pictures:
        return
    steps = sorted({step for step, _ in pictures.values()})
    rows = 1 + max(row for _, row in pictures.values())
    grid = Image.new("RGB", (CELL * len(steps), LABEL + (LABEL + CELL) * rows), "white")
    write, font = ImageDraw.Draw(grid), ImageFont.load_default(13)
    for column, step in enumerate(steps):
        write.text((CELL * column + 6, 2), f"step {step}", fill="black", font=font)
    for row, prompt in enumerate(prompts[:rows]):
        write.text((6, LABEL + (LABEL + CELL) * row + 2), prompt, fill="black", font=font)
    for path, (step, row) in pictures.items():
        with Image.open(path) as image:
            cell = ImageOps.fit(image.convert("RGB"), (CELL, CELL), Image.Resampling.LANCZOS)
        grid.paste(cell, (CELL * steps.index(step), 2 * LABEL + (LABEL + CELL) * row))
    save_image(grid, run_dir.grid)
