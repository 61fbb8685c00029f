"""DreamBooth (Ruiz et al. 2022): the model learns the subject under its instance prompts.

It keeps what it knows of the class by training on class images beside it (prior preservation). With a trained embedding to
start from it is "pivotal tuning" (Roich et al. 2021): first the token, then the model around it.
"""

from ..context import Context
from ..data.caption_cache import distinct_captions, encode_captions
from ..data.class_images import make_class_images
from ..data.concepts import CLASS, HELD_OUT, INSTANCE, encode_concepts
from ..models.sd15 import BaseModel, load_tokenizer, move
from ..parts import part_types
from ..run.events import EXPORTING, LOADING
from ..run.stop_request import StoppedError
from ..training.export import export_result, export_step
from ..training.loss import DiffusionLoss
from ..training.sample_images import SampleImages
from ..training.trainer import ExportInfo, Trainer
from ..training.validation import Validation, split_held_out


def train(context: Context) -> ExportInfo:
    """Train what the settings name and write it: a checkpoint with the base's names, or a LoRA, and an embedding."""
    run, settings = context.run, context.settings
    # The photos: those of the subject, those held out to measure overfitting, and those of the class.
    context.reporter.phase(LOADING)
    base, tokenizer = BaseModel(context.run_dir.base), load_tokenizer(run.tokenizer_path)
    text_encoder = move(base.text_encoder(settings.training.text_layer), context.device)
    photos, held_out = split_held_out(run.dataset, settings.validation.hold_out, settings.training.seed)
    makes_class = settings.dreambooth.class_images and not run.class_dataset
    class_photos = make_class_images(context, base, text_encoder, tokenizer) if makes_class else run.class_dataset
    datasets = {name: some for name, some in {INSTANCE: photos, CLASS: class_photos, HELD_OUT: held_out}.items() if some}

    # What is trained of the text side, and the captions, all encoded once: those that it changes are encoded again at each step.
    unet_type, *text_types = part_types(run)
    text_parts = [part(context, text_encoder, tokenizer) for part in text_types]
    captions = encode_captions(context, distinct_captions(list(datasets.values())), text_encoder, tokenizer, text_parts)
    del text_encoder  # `captions` keeps it where it is trained; otherwise its memory is wanted

    # The photos' latents, computed once. After that the VAE is only needed for sample images.
    vae = move(base.vae(), context.device)
    concepts = encode_concepts(context, vae, captions.texts, datasets)
    vae = move(vae, "cpu") if settings.samples.sample_prompts else None

    # The U-Net, whole or with adapters, and the loss: instance loss + prior_loss_weight x class loss (or that of the teacher).
    context.stop.check()
    unet_part = unet_type(context, base)
    parts = unet_part, *text_parts
    loss = DiffusionLoss(context, unet_part, captions, concepts, {INSTANCE: 1.0, CLASS: settings.dreambooth.prior_loss_weight})
    validation = Validation(context, loss, concepts)
    samples = SampleImages(context, captions, unet_part.model, vae)
    trainer = Trainer([group for part in parts for group in part.param_groups()], loss, context)
    base.let_go()  # until the export

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
