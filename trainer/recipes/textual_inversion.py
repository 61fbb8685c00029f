"""Textual Inversion (Gal et al. 2022): the model stays as it is, the embedding vectors of a new token learn the subject."""

from ..context import Context
from ..data.caption_cache import distinct_captions, encode_captions
from ..data.concepts import HELD_OUT, INSTANCE, encode_concepts
from ..dataset.captions import has_word
from ..dataset.prompt_templates import SETS
from ..models.sd15 import BaseModel, load_tokenizer, move
from ..parts import part_types
from ..run.events import EXPORTING, LOADING
from ..run.messages import UserError
from ..run.stop_request import StoppedError
from ..training.export import export_result, export_step
from ..training.loss import DiffusionLoss
from ..training.sample_images import SampleImages
from ..training.trainer import ExportInfo, Trainer
from ..training.validation import Validation, split_held_out


def train(context: Context) -> ExportInfo:
    """Train the vectors of the run's token and write them as an embedding file."""
    run, settings = context.run, context.settings

    # The model, frozen, and the vectors of the token.
    context.reporter.phase(LOADING)
    base, tokenizer = BaseModel(context.run_dir.base), load_tokenizer(run.tokenizer_path)
    text_encoder = move(base.text_encoder(settings.training.text_layer), context.device)
    unet_type, vectors_type = part_types(run)
    vectors = vectors_type(context, text_encoder, tokenizer)

    # The photos, and the prompts they are seen under: their own captions, or a published set.
    photos, held_out = split_held_out(run.dataset, settings.validation.hold_out, settings.training.seed)
    datasets = {INSTANCE: photos} | ({HELD_OUT: held_out} if held_out else {})
    prompts = [template.format(settings.token) for template in SETS.get(settings.inversion.template_set, ())]
    texts = ["", *dict.fromkeys(prompts)] if prompts else distinct_captions(list(datasets.values()))
    captions = encode_captions(context, checked(texts, settings.token), text_encoder, tokenizer, [vectors])

    # The photos' latents, computed once. After that the VAE is only needed for sample images.
    vae = move(base.vae(), context.device)
    concepts = encode_concepts(context, vae, captions.texts, datasets, prompts)
    vae = move(vae, "cpu") if settings.samples.sample_prompts else None

    # The U-Net, through which the gradient flows to the vectors, and the loss.
    context.stop.check()
    unet_part = unet_type(context, base)
    parts = [unet_part, vectors]
    loss = DiffusionLoss(context, unet_part, captions, concepts, {INSTANCE: 1.0})
    validation = Validation(context, loss, concepts)
    samples = SampleImages(context, captions, unet_part.model, vae)
    trainer = Trainer(vectors.param_groups(), loss, context)
    base.let_go()

    # The loop: save the weights, look at them and export them where it is time for it, take one more step.
    while True:
        trainer.save_state_if_due()  # before anything that may fail
        measures, draws = validation.is_due(trainer), samples.is_due(trainer)
        if measures or draws:
            with trainer.weights_to_export():
                if measures:
                    trainer.add_measurement(validation.measure())
                if draws:
                    samples.draw(trainer.step)
        if trainer.is_due(settings.training.save_every, first=False, last=False):
            export_step(trainer, base, parts)
        if trainer.must_stop:
            if settings.training.export_on_cancel:
                export_step(trainer, base, parts)
            raise StoppedError
        if trainer.ends_here():
            break
        trainer.train_step()

    # The result.
    trainer.save_state_if_due()
    info = trainer.use_final_weights()
    context.reporter.phase(EXPORTING)
    samples.save_grid()
    export_result(trainer, base, parts, info)
    return info


def checked(captions: list[str], token: str) -> list[str]:
    """Return the captions. Raises UserError for one, but the empty one, without the token: nothing would be learned under it."""
    for caption in captions:
        if caption and not has_word(caption, token):
            raise UserError("The caption {caption!r} does not contain the token {token!r}.", caption=caption, token=token)
    return captions
