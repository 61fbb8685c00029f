"""More sample pictures of a finished run: drawn with the weights that it has exported, as it drew its own. Nothing is trained."""

from dataclasses import replace

from ..context import Context
from ..data.caption_cache import encode_captions
from ..models.sd15 import DTYPES, BaseModel, freeze_as, load_tokenizer, move
from ..parts import part_types
from ..run.drawing import Drawing
from ..run.events import DRAWING, LOADING
from ..training.sample_images import SampleImages


def draw(context: Context, drawing: Drawing, step: int) -> None:
    """Draw the pictures that are not there yet, of the result's weights, which are those after `step` steps.

    Raises what drawing may raise; the pictures that are there by then stay.
    """
    # The run, as one that goes on from its own result; without a teacher, whose U-Net would only take memory.
    settings = context.settings.replace(sample_prompts=drawing.prompts, prior="class_images", class_images=0)
    run = replace(context.run, settings=settings, lora=drawing.lora, embedding=drawing.embedding)
    context = replace(context, run=run, drawing=drawing)

    # The model, of the very parts that trained it.
    context.reporter.phase(LOADING)
    base, tokenizer = BaseModel(drawing.base), load_tokenizer(run.tokenizer_path)
    text_encoder = move(base.text_encoder(settings.training.text_layer), context.device)
    unet_type, *text_types = part_types(run)
    text_parts = [part(context, text_encoder, tokenizer) for part in text_types]
    captions = encode_captions(context, [""], text_encoder, tokenizer, text_parts)
    unet = unet_type(context, base).model

    # What was trained draws in the compute dtype, as it did beside its fp32 masters.
    dtype = DTYPES[settings.training.precision]
    freeze_as(text_encoder, dtype)
    freeze_as(unet, dtype)
    del text_encoder, text_parts  # `captions` keeps it where it was trained; otherwise its memory is wanted

    # The pictures, and all of the run's laid side by side.
    context.reporter.phase(DRAWING)
    samples = SampleImages(context, captions, unet, base.vae())
    samples.draw_missing(step)
    samples.save_grid()
