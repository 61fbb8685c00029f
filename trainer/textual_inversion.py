"""Textual Inversion (Gal et al. 2022): the model stays as it is, a new word's embedding learns the subject."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .base_model import CONTEXT_LENGTH, BaseModel, load_tokenizer, noise_schedule, tokenize
from .captions import split_at_word
from .checkpoint import save_tensors
from .concept import cache_captions, cache_concept, distinct_captions, holding
from .embedding import TrainableRows, table_of, train_rows
from .events import Reporter, StopRequest
from .export import metadata
from .loop import TrainingError, make_accelerator, run_steps
from .objective import concepts_loss, timestep_weights
from .optimizers import ParamGroup
from .rundir import Run, RunDir

EMBEDDING_KEY = "emb_params"
"""The one tensor of the exported file, (vectors, 768): ComfyUI, A1111 and diffusers read it under this name."""


def add_placeholder(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, initializer: str) -> TrainableRows:
    """Give the text encoder a trainable row behind its table, starting from the mean of the initializer's embeddings."""
    ids = tokenizer(initializer, add_special_tokens=False).input_ids
    if not ids:
        raise TrainingError(f"The initializer {initializer!r} has no words. Use the subject's class, for example 'toy'.")
    table = table_of(text_encoder)
    return train_rows(text_encoder, [len(table)], table[ids].mean(dim=0, keepdim=True))


def placeholder_ids(tokenizer: CLIPTokenizer, captions: list[str], token: str, placeholder: int) -> Tensor:
    """Token ids (C, 77) with the id `placeholder` where the token stands as a word, whatever CLIP would make of it.

    ValueError names a caption where the token is missing or cut off.
    """
    room = CONTEXT_LENGTH - 2
    rows = []
    for caption in captions:
        before, *after = split_at_word(caption, token)
        if not after:
            raise ValueError(f"The caption {caption!r} does not contain the token {token!r}.")
        ids = tokenizer(before, add_special_tokens=False).input_ids
        for text in after:
            ids += [placeholder, *tokenizer(text, add_special_tokens=False).input_ids]
        ids = ids[:room]
        if placeholder not in ids:
            raise ValueError(f"In the caption {caption!r} the token lies beyond the 77 pieces that CLIP reads. Shorten it.")
        padding = [tokenizer.pad_token_id] * (room - len(ids))
        rows.append([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *padding])
    return torch.tensor(rows)


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> dict:
    """Train one vector for the run's token and write it as an embedding file; what result.json says of it."""
    settings = run.settings
    accelerator = make_accelerator(device, settings.precision)

    reporter.phase("loading")
    base = BaseModel(run_dir.base)
    tokenizer = load_tokenizer(run.tokenizer_path)
    text_encoder = base.text_encoder()
    placeholder = text_encoder.config.vocab_size
    vectors = add_placeholder(text_encoder, tokenizer, settings.initializer).to(accelerator.device).vectors
    text_encoder.to(accelerator.device)
    texts = distinct_captions([run.dataset])
    ids = torch.cat([tokenize(tokenizer, texts[:1]), placeholder_ids(tokenizer, texts[1:], settings.token, placeholder)])
    captions = cache_captions(texts, ids.to(accelerator.device), text_encoder, holding(ids, [placeholder]))

    concept = cache_concept("instance", run.dataset, texts, base.vae().to(accelerator.device), reporter, stop)

    stop.check()
    unet = base.unet()  # frozen: gradients flow through it, none are kept for it
    if settings.gradient_checkpointing:
        unet.train().enable_gradient_checkpointing()
        text_encoder.train()
        text_encoder.gradient_checkpointing_enable()
    unet = unet.to(accelerator.device)
    schedule = noise_schedule()
    weights = timestep_weights(schedule, settings.min_snr_gamma, accelerator.device)

    def predict(noisy: Tensor, timesteps: Tensor, batch_captions: list[int]) -> Tensor:
        return unet(noisy, timesteps, captions.states(batch_captions)).sample

    def loss_of(step: int) -> Tensor:
        batch = concept.step_batch(settings.seed, step, settings.batch_size, schedule)
        return concepts_loss([batch], [1.0], weights, predict)

    outcome = run_steps(
        groups=[ParamGroup({"vectors": vectors}, settings.learning_rate, 0.0)],
        loss_of=loss_of,
        settings=settings,
        run_dir=run_dir,
        accelerator=accelerator,
        reporter=reporter,
        stop=stop,
    )

    reporter.phase("exporting")
    exported = {"step": outcome.step, "weights": "last"}
    save_tensors(Path(run.export_path), {EMBEDDING_KEY: vectors.detach().cpu()}, metadata(run, exported))
    return exported
