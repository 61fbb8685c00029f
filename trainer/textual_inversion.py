"""Textual Inversion (Gal et al. 2022): the model stays as it is, a new word's embedding learns the subject."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from .base_model import CONTEXT_LENGTH, BaseModel, load_tokenizer, noise_schedule
from .captions import split_at_word
from .checkpoint import save_tensors
from .events import Reporter, StopRequest
from .export import metadata
from .latents import encode_photos
from .loop import TrainingError, make_accelerator, run_steps
from .plan import plan_step
from .rundir import Run, RunDir

EMBEDDING_KEY = "emb_params"
"""The one tensor of the exported file, (vectors, 768): ComfyUI, A1111 and diffusers read it under this name."""


class PlaceholderEmbedding(nn.Module):
    """A frozen embedding table with trainable rows behind its end. The table itself cannot change: it takes no gradient."""

    def __init__(self, table: nn.Embedding, vectors: Tensor):
        super().__init__()
        self.table = table.requires_grad_(False)
        self.vectors = nn.Parameter(vectors.clone())  # (V, 768)

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., 768) of token ids (...); ids past the table's end name the trainable rows."""
        past = ids - self.table.num_embeddings
        known = self.table(ids.clamp(max=self.table.num_embeddings - 1))
        return torch.where((past >= 0)[..., None], self.vectors[past.clamp(min=0)].to(known.dtype), known)


def add_placeholder(text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, initializer: str) -> PlaceholderEmbedding:
    """Give the text encoder a trainable row, starting from the mean of the initializer's embeddings."""
    ids = tokenizer(initializer, add_special_tokens=False).input_ids
    if not ids:
        raise TrainingError(f"The initializer {initializer!r} has no words. Use the subject's class, for example 'toy'.")
    parent = getattr(text_encoder, "text_model", text_encoder).embeddings  # flat since transformers 5.6
    vectors = parent.token_embedding.weight[ids].mean(dim=0, keepdim=True)
    parent.token_embedding = PlaceholderEmbedding(parent.token_embedding, vectors)
    return parent.token_embedding


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


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> None:
    """Train one vector for the run's token and write it as an embedding file."""
    settings, photos = run.settings, run.dataset.photos
    accelerator = make_accelerator(device, settings.precision)

    reporter.phase("loading")
    base = BaseModel(run_dir.base)
    tokenizer = load_tokenizer(run.tokenizer_path)
    text_encoder = base.text_encoder()
    vocabulary = text_encoder.config.vocab_size
    placeholder = add_placeholder(text_encoder, tokenizer, settings.initializer)
    text_encoder.to(accelerator.device)
    captions = sorted({photo.caption for photo in photos})
    ids = placeholder_ids(tokenizer, captions, settings.token, vocabulary).to(accelerator.device)  # (C, 77)
    caption_of = torch.tensor([captions.index(photo.caption) for photo in photos], device=accelerator.device)  # (N,)

    reporter.phase("encoding photos", len(photos))
    latents = encode_photos(base.vae().to(accelerator.device), run.dataset, reporter, stop)

    stop.check()
    unet = base.unet()  # frozen: gradients flow through it, none are kept for it
    if settings.gradient_checkpointing:
        unet.train().enable_gradient_checkpointing()
        text_encoder.train()
        text_encoder.gradient_checkpointing_enable()
    unet = unet.to(accelerator.device)
    schedule = noise_schedule()

    def loss_of(step: int) -> Tensor:
        plan = plan_step(settings.seed, step, settings.batch_size, len(photos), latents.shape).to(accelerator.device)
        clean = latents.sample(plan.indices, plan.posterior_noise)
        noisy = schedule.add_noise(clean, plan.noise, plan.timesteps)
        states = text_encoder(ids[caption_of[plan.indices]]).last_hidden_state  # (B, 77, 768)
        predicted = unet(noisy, plan.timesteps, states).sample
        return F.mse_loss(predicted.float(), plan.noise)

    run_steps(
        params={"vectors": placeholder.vectors},
        loss_of=loss_of,
        settings=settings,
        run_dir=run_dir,
        accelerator=accelerator,
        reporter=reporter,
        stop=stop,
    )

    reporter.phase("exporting")
    vectors = {EMBEDDING_KEY: placeholder.vectors.detach().cpu()}
    save_tensors(Path(run.export_path), vectors, metadata(run))
